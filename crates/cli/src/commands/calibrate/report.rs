//! What `shapeyard calibrate` says when it is done.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use shapeyard_cache::MeasuredOf;
use shapeyard_core::plan::prices::{Choice, Measurements, OfSplit, PerProgram, Price};
use shapeyard_core::registry::PassedOver;

use crate::human;
use crate::output::Report;
use crate::table::Table;

/// What was measured.
#[derive(Serialize)]
pub(super) struct Calibrated {
    pub(super) model: String,
    pub(super) machine: String,
    pub(super) cache: PathBuf,
    pub(super) backends: Vec<OfBackend>,
    /// Backends with nothing to measure.
    pub(super) passed_over: Vec<PassedOver>,
    /// Backends that are usable and could not be measured.
    pub(super) failed: Vec<PassedOver>,
}

/// What was measured of one backend.
#[derive(Serialize)]
pub(super) struct OfBackend {
    #[serde(flatten)]
    of: MeasuredOf,
    kept_in: PathBuf,
    measured_at_ms: u64,
    /// One for each way to share out threads.
    choices: Vec<Choice>,
    /// Seconds to compile a program.
    compile: Option<PerProgram>,
    /// Bytes of a program.
    memory: Option<PerProgram>,
    n_programs: usize,
}

impl OfBackend {
    pub(super) fn new(of: MeasuredOf, kept_in: PathBuf, measured: &Measurements) -> Self {
        Self {
            of,
            kept_in,
            measured_at_ms: measured.measured_at_ms,
            choices: measured.splits.iter().filter_map(OfSplit::choice).collect(),
            compile: measured.compile(),
            memory: measured.memory(),
            n_programs: measured.sizes.n_runs().round() as usize,
        }
    }
}

impl Report for Calibrated {
    const COMMAND: &'static str = "calibrate";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let heading = ["BACKEND", "SPLIT", "LOAD", "BATCH", "TOKEN", "TOKEN x LENGTH", "ERROR"];
        let mut table = Table::new(heading);
        for it in &self.backends {
            for Choice { split, fit } in &it.choices {
                let Price { load, launch, token, token_length } = fit.price;
                let percent = |share: f64| format!("{:.0}%", 100.0 * share);
                table.row([
                    it.of.backend.to_string(),
                    split.to_string(),
                    human::seconds(load),
                    human::seconds(launch),
                    human::seconds(token),
                    human::seconds(token_length),
                    format!(
                        "{}, at most {}",
                        percent(fit.median_error),
                        percent(fit.largest_error)
                    ),
                ]);
            }
        }
        table.write(out)?;
        for it in &self.backends {
            if let (Some(compile), Some(memory)) = (it.compile, it.memory) {
                writeln!(
                    out,
                    "{}: {} to compile and {} a program, by {}",
                    it.of.backend,
                    human::seconds(compile.fixed),
                    human::bytes(memory.fixed.round() as u64),
                    human::count(it.n_programs, "program")
                )?;
            }
        }
        writeln!(out)?;
        for PassedOver { backend, reason } in self.failed.iter().chain(&self.passed_over) {
            writeln!(out, "not measured: {backend}: {}", human::line(reason))?;
        }
        if self.backends.is_empty() {
            return writeln!(out, "no backend was measured");
        }
        writeln!(out, "measured on {}", self.machine)?;
        writeln!(out, "kept in {}", self.cache.display())
    }
}
