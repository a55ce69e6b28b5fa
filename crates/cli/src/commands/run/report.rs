//! What `shapeyard run` says when it is done.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use shapeyard_core::backend::SessionOptions;
use shapeyard_core::registry::PassedOver;
use shapeyard_core::{
    BackendId, BindingMode, DataType, Fallback, Model, Route, RunReport, Sent, TensorView, Tier,
};

use crate::background::Compiled;
use crate::human;
use crate::loading::{Loaded, Program};
use crate::output::Report;

/// How long the runs took, inputs and outputs included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Repeats {
    n: usize,
    min_seconds: f64,
    median_seconds: f64,
}

impl Repeats {
    /// Of at least one time.
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |index: usize| times.get(index).copied().unwrap_or_default();
        let median = (at(times.len() / 2) + at(times.len().saturating_sub(1) / 2)) / 2;
        Self {
            n: times.len(),
            min_seconds: at(0).as_secs_f64(),
            median_seconds: median.as_secs_f64(),
        }
    }
}

#[derive(Serialize)]
struct Port {
    name: String,
    dtype: DataType,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

impl Port {
    fn of((name, tensor): &(&str, TensorView<'_>), file: Option<PathBuf>) -> Self {
        Self {
            name: (*name).to_owned(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            file: file.map(|file| file.display().to_string()),
        }
    }
}

/// Where the last run's time went.
#[derive(Serialize)]
struct Times {
    prepare_seconds: f64,
    run_seconds: f64,
    finish_seconds: f64,
}

/// What was run, by whom, and how long it took.
#[derive(Serialize)]
pub(super) struct Finished<'a> {
    model: String,
    backend: &'a BackendId,
    passed_over: &'a [PassedOver],
    /// The part of another backend than the preferred one in the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a Fallback>,
    /// What was compiled meanwhile, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    compiled: Option<Compiled>,
    route: Route,
    tier: Tier,
    binding: BindingMode,
    replayed: bool,
    n_pieces: usize,
    n_padded_rows: usize,
    sent: Sent,
    session: SessionOptions,
    /// What was compiled before and is loaded.
    programs: &'a [Program],
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    times: Times,
    repeats: Repeats,
}

impl<'a> Finished<'a> {
    pub(super) fn new(
        model: &Model,
        loaded: &'a Loaded,
        report: &'a RunReport,
        inputs: &[(&str, TensorView<'_>)],
        outputs: &[(&str, TensorView<'_>)],
        files: Vec<PathBuf>,
        repeats: Repeats,
    ) -> Self {
        let times = &report.times;
        Self {
            model: model.path().display().to_string(),
            backend: &report.backend,
            fallback: report.fallback.as_ref(),
            compiled: None,
            passed_over: &loaded.passed_over,
            programs: &loaded.programs,
            session: loaded.sessions,
            route: report.route,
            tier: report.tier,
            binding: report.binding,
            replayed: report.replayed,
            n_pieces: report.n_pieces,
            n_padded_rows: report.n_padded_rows,
            sent: report.sent,
            inputs: inputs.iter().map(|input| Port::of(input, None)).collect(),
            outputs: outputs.iter().zip(files).map(|(it, file)| Port::of(it, Some(file))).collect(),
            times: Times {
                prepare_seconds: times.prepare.as_secs_f64(),
                run_seconds: times.run.as_secs_f64(),
                finish_seconds: times.finish.as_secs_f64(),
            },
            repeats,
        }
    }
}

impl Finished<'_> {
    /// What was compiled meanwhile.
    pub(super) fn with_compiled(self, compiled: Option<Compiled>) -> Self {
        Self { compiled, ..self }
    }
}

impl Report for Finished<'_> {
    const COMMAND: &'static str = "run";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let time = |seconds| human::time(Duration::from_secs_f64(seconds));
        writeln!(out, "backend  {}", self.backend)?;
        writeln!(out, "route    {}", self.route_text())?;
        if let Some(compiled) = &self.compiled {
            writeln!(out, "compiled {}", compiled.text())?;
        }
        if !self.programs.is_empty() {
            let programs = human::count(self.programs.len(), "program");
            writeln!(out, "loaded   {programs} from the cache")?;
        }
        for Port { name, dtype, shape, .. } in &self.inputs {
            writeln!(out, "input    {name}: {dtype} {shape:?}")?;
        }
        for Port { name, dtype, shape, file } in &self.outputs {
            let file = file.as_deref().unwrap_or_default();
            writeln!(out, "output   {name}: {dtype} {shape:?} in {file}")?;
        }
        if self.sent.n_copies > 0 {
            let Sent { n_copies, n_bytes } = self.sent;
            let copies = if n_copies == 1 { "copy" } else { "copies" };
            let bytes = human::bytes(n_bytes as u64);
            writeln!(out, "sent     {bytes} to the device in {n_copies} {copies}")?;
        }
        let Times { prepare_seconds, run_seconds, finish_seconds } = self.times;
        let (prepare, run, finish) =
            (time(prepare_seconds), time(run_seconds), time(finish_seconds));
        writeln!(out, "time     {run} in the model, {prepare} before, {finish} after")?;
        if self.repeats.n > 1 {
            let Repeats { n, min_seconds, median_seconds } = self.repeats;
            let (min, median) = (time(min_seconds), time(median_seconds));
            writeln!(out, "repeats  {n}: min {min}, median {median}")?;
        }
        Ok(())
    }
}

impl Finished<'_> {
    /// What happened to the request, and what that cost.
    fn route_text(&self) -> String {
        let mut text = format!("{}, {}", human::name(&self.route), human::name(&self.tier));
        if self.n_pieces > 1 {
            text.push_str(&format!(", in {} pieces", self.n_pieces));
        }
        if self.n_padded_rows > 0 {
            text.push_str(&format!(", {} of padding", human::count(self.n_padded_rows, "row")));
        }
        if let Some(Fallback { backend, reason, n_rows, error }) = self.fallback {
            let rows = human::count(*n_rows, "row");
            text.push_str(&format!("; {rows} on {backend}: {reason}"));
            text.extend(error.iter().map(|error| format!(" ({error})")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_summed_up() {
        let of = |seconds: &[u64]| {
            Repeats::of(seconds.iter().copied().map(Duration::from_secs).collect())
        };
        assert_eq!(of(&[3]), Repeats { n: 1, min_seconds: 3.0, median_seconds: 3.0 });
        assert_eq!(of(&[9, 1, 2]), Repeats { n: 3, min_seconds: 1.0, median_seconds: 2.0 });
        assert_eq!(of(&[4, 1, 2, 9]), Repeats { n: 4, min_seconds: 1.0, median_seconds: 3.0 });
    }
}
