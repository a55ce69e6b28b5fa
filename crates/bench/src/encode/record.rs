//! What a run of the suite found, for a person and for a file.

use std::path::Path;

use serde::Serialize;
use shapeyard_core::plan::calibrate::Setting;

use super::contender::{Kind, Measured};
use crate::measure::{median, spread};
use crate::record::{processor, revision};

/// The texts, and how they were run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Workload {
    pub(crate) n_units: usize,
    pub(crate) n_tokens: usize,
    pub(crate) median_length: usize,
    pub(crate) max_length: usize,
    pub(crate) n_threads: usize,
    pub(crate) n_rounds: usize,
}

/// One contender's rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Contender {
    kind: Kind,
    wall_seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    peak_memory_bytes: u64,
    n_padded_tokens: usize,
    /// The least cosine between its vectors and those of the first contender's first run.
    least_cosine: f64,
}

impl Contender {
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            wall_seconds: Vec::new(),
            cpu_seconds: Vec::new(),
            peak_memory_bytes: 0,
            n_padded_tokens: 0,
            least_cosine: 1.0,
        }
    }

    pub(crate) const fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(crate) fn name(&self) -> String {
        match &self.kind {
            Kind::Calibrate => "ours, calibrating".to_owned(),
            Kind::Ours { setting } => format!("ours: {setting}"),
            Kind::DirectArrival { split, n_rows } => {
                format!("direct, arrival order, batch {n_rows}: {split}")
            }
            Kind::DirectSorted { setting } => format!("direct, sorted: {setting}"),
        }
    }

    /// Takes one round's measurement. `reference` is empty for the first, which is then the reference.
    pub(crate) fn add(&mut self, measured: &Measured, reference: &[f32]) {
        self.wall_seconds.push(measured.wall.as_secs_f64());
        self.cpu_seconds.push(measured.cpu.as_secs_f64());
        self.peak_memory_bytes = self.peak_memory_bytes.max(measured.peak_memory);
        self.n_padded_tokens = measured.n_padded_tokens;
        if !reference.is_empty() {
            let n_dims = measured.n_dims;
            let cosine = least_cosine(&measured.vectors, reference, n_dims);
            self.least_cosine = self.least_cosine.min(cosine);
        }
    }

    fn wall(&self) -> f64 {
        median(&self.wall_seconds)
    }
}

/// The least of the cosines of rows of length 1; NaN where the rows do not match.
fn least_cosine(a: &[f32], b: &[f32], n_dims: usize) -> f64 {
    if a.len() != b.len() || a.is_empty() || !a.iter().chain(b).all(|x| x.is_finite()) {
        return f64::NAN;
    }
    let dot = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum();
    a.chunks(n_dims).zip(b.chunks(n_dims)).map(dot).fold(f64::INFINITY, f64::min)
}

/// One model's results.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    schema: u32,
    suite: &'static str,
    revision: Option<String>,
    model: String,
    processor: String,
    workload: Workload,
    calibration: Calibration,
    contenders: Vec<Contender>,
}

#[derive(Debug, Serialize)]
struct Calibration {
    backend: String,
    setting: Setting,
    tried: Vec<(Setting, f64)>,
    wall_seconds: f64,
}

impl Record {
    pub(crate) fn new(
        model: &Path,
        workload: Workload,
        calibrated: &Measured,
        setting: Setting,
        contenders: Vec<Contender>,
    ) -> Self {
        let calibration = Calibration {
            backend: calibrated.backend.clone(),
            setting,
            tried: calibrated.tried.clone(),
            wall_seconds: calibrated.wall.as_secs_f64(),
        };
        Self {
            schema: 1,
            suite: "encode",
            revision: revision(),
            model: model.file_name().unwrap_or(model.as_os_str()).to_string_lossy().into_owned(),
            processor: processor(),
            workload,
            calibration,
            contenders,
        }
    }

    /// Prints the table that a person reads.
    pub(crate) fn print(&self) {
        println!("\n{} on {}", self.model, self.processor);
        println!("calibration ({:.1} s of real work):", self.calibration.wall_seconds);
        for (setting, tokens_per_second) in &self.calibration.tried {
            println!("  {tokens_per_second:8.0} tokens/s  {setting}");
        }
        println!(
            "{:>8} {:>7} {:>8} {:>8} {:>7} {:>9} {:>7} {:>7}  contender",
            "wall s", "spread", "CPU s", "texts/s", "padding", "peak MiB", "cosine", "ours is"
        );
        let ours = self.contenders.first().map_or(f64::NAN, Contender::wall);
        for contender in &self.contenders {
            println!(
                "{:8.2} {:6.0}% {:8.2} {:8.1} {:6.1}% {:9} {:7.4} {:6.2}x  {}",
                contender.wall(),
                100.0 * spread(&contender.wall_seconds),
                median(&contender.cpu_seconds),
                self.workload.n_units as f64 / contender.wall(),
                100.0 * (1.0 - self.workload.n_tokens as f64 / contender.n_padded_tokens as f64),
                contender.peak_memory_bytes >> 20,
                contender.least_cosine,
                contender.wall() / ours,
                contender.name(),
            );
        }
    }
}
