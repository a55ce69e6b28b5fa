//! What `shapeyard encode` says when it is done.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use shapeyard_core::registry::PassedOver;
use shapeyard_encode::EncodeReport;
use shapeyard_encode::units::Skipped;

use crate::background::Compiled;
use crate::human;
use crate::loading::Program;
use crate::output::Report;

/// Time spent outside the encoder.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct OutsideTimes {
    #[serde(rename = "read_seconds")]
    pub(super) read: f64,
    #[serde(rename = "tokenize_seconds")]
    pub(super) tokenize: f64,
    #[serde(rename = "load_seconds")]
    pub(super) load: f64,
    #[serde(rename = "write_seconds")]
    pub(super) write: f64,
}

/// What was encoded, by whom, and how long it took.
#[derive(Serialize)]
pub(super) struct Finished<'a> {
    pub(super) out: String,
    pub(super) units_file: String,
    pub(super) n_units: usize,
    pub(super) n_rows: usize,
    pub(super) n_dims: usize,
    pub(super) n_tokens: usize,
    pub(super) n_truncated: usize,
    /// Units whose vectors an interrupted run had kept.
    pub(super) n_resumed: usize,
    pub(super) max_length: usize,
    pub(super) passed_over: &'a [PassedOver],
    /// What was compiled before and is loaded.
    pub(super) programs: &'a [Program],
    /// What was compiled meanwhile, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compiled: Option<Compiled>,
    pub(super) skipped: &'a [Skipped],
    pub(super) outside_times: OutsideTimes,
    pub(super) tokens_per_second: f64,
    pub(super) items_per_second: f64,
    #[serde(flatten)]
    pub(super) report: &'a EncodeReport,
}

impl Report for Finished<'_> {
    const COMMAND: &'static str = "encode";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (report, totals) = (self.report, &self.report.totals);
        writeln!(out, "backend  {}", report.backend)?;
        if !self.programs.is_empty() {
            let programs = human::count(self.programs.len(), "program");
            writeln!(out, "loaded   {programs} from the cache")?;
        }
        if report.routes.iter().any(|it| it.fallback.is_some()) {
            self.write_routes(out)?;
        }
        if let Some(compiled) = &self.compiled {
            writeln!(out, "compiled {}", compiled.text())?;
        }
        let tried = match report.tried.len() {
            0 => String::new(),
            n => format!(", the fastest in {}", human::count(n, "trial")),
        };
        writeln!(out, "setting  {}{tried}", report.setting)?;
        let units = human::count(self.n_units, "unit");
        writeln!(out, "input    {units} of {} in all", human::count(self.n_tokens, "token"))?;
        if self.n_truncated > 0 {
            let cut = human::count(self.n_truncated, "unit");
            writeln!(out, "         {cut} cut at {} tokens", self.max_length)?;
        }
        if self.n_resumed > 0 {
            writeln!(
                out,
                "         {} taken up from before",
                human::count(self.n_resumed, "unit")
            )?;
        }
        if report.repeated.n_items > 0 {
            let repeated = human::count(report.repeated.n_items, "unit");
            writeln!(out, "         {repeated} equal to others, which ran for them")?;
        }
        let padding = 100.0 * totals.padding_share();
        let batches = totals.n_batches;
        writeln!(out, "batches  {batches}, {padding:.1} % of their tokens padding")?;
        self.write_times(out)?;
        let (tokens, items) = (self.tokens_per_second, self.items_per_second);
        writeln!(out, "speed    {tokens:.0} tokens/s, {items:.1} units/s")?;
        writeln!(out, "output   {} x {} in {}", self.n_rows, self.n_dims, self.out)?;
        writeln!(out, "         rows are listed in {}", self.units_file)
    }
}

impl Finished<'_> {
    /// Who answered what, and why.
    fn write_routes(&self, out: &mut dyn Write) -> io::Result<()> {
        for (n, it) in self.report.routes.iter().enumerate() {
            let name = if n == 0 { "routes  " } else { "        " };
            let batches = match it.n_batches {
                1 => "1 batch".to_owned(),
                n => format!("{n} batches"),
            };
            let tokens = human::count(it.n_real_tokens, "token");
            let (route, backend) = (human::name(&it.route), &it.backend);
            write!(out, "{name} {batches} of {tokens} on {backend}, {route}")?;
            match &it.fallback {
                Some((other, reason)) if other == backend => write!(out, ": {reason}")?,
                Some((other, reason)) => write!(out, " with {other}: {reason}")?,
                None => {}
            }
            it.error.iter().try_for_each(|error| write!(out, " ({error})"))?;
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_times(&self, out: &mut dyn Write) -> io::Result<()> {
        let inside = &self.report.times;
        let seconds = |seconds| human::time(Duration::from_secs_f64(seconds));
        let OutsideTimes { read, tokenize, load, write } = self.outside_times;
        writeln!(
            out,
            "time     {} to read, {} to tokenize, {} to load the model, {} to try settings,",
            seconds(read),
            seconds(tokenize),
            seconds(load),
            human::time(inside.calibrate)
        )?;
        writeln!(
            out,
            "         {} for the rest, {} to write",
            human::time(inside.run),
            seconds(write)
        )?;
        writeln!(
            out,
            "         in all sessions: {} in the model, {} moving tensors, {} to make sessions; {} for batches and pooling",
            human::time(inside.model),
            human::time(inside.transfer),
            human::time(inside.sessions),
            human::time(inside.pool)
        )
    }
}
