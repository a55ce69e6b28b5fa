//! What the contenders' rounds say together.

use anyhow::{Result, ensure};

use shapeyard_core::plan::calibrate::{Setting, Split};

use super::contender::{Kind, Measured};
use crate::contest::{self, Contest, Facts, Ratio, Role};
use crate::measure::median;
use crate::report::ARRIVAL;

/// The texts.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) n_units: usize,
    pub(super) n_tokens: usize,
    pub(super) median_length: usize,
    /// Each length and how many texts have it.
    pub(super) lengths: Vec<(usize, u64)>,
}

/// One contender's rounds.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    kind: Kind,
    wall_seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    peak_memory_bytes: u64,
    n_padded_tokens: usize,
    /// The least cosine between its vectors and those of the first contender's first run.
    least_cosine: f64,
}

impl Tally {
    pub(super) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            wall_seconds: Vec::new(),
            cpu_seconds: Vec::new(),
            peak_memory_bytes: 0,
            n_padded_tokens: 0,
            least_cosine: 1.0,
        }
    }

    pub(super) const fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) const fn is_arrival(&self) -> bool {
        matches!(self.kind, Kind::DirectArrival { .. })
    }

    /// The same in every run, whatever the calibration found, so that runs can be compared.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            Kind::Calibrate => "ours, calibrating".to_owned(),
            Kind::Ours { .. } => "ours".to_owned(),
            Kind::OursArrival { split, n_rows } => {
                format!("ours, arrival order, batch {n_rows}: {split}")
            }
            Kind::DirectArrival { split, n_rows } => {
                format!("ONNX Runtime directly, {ARRIVAL}, batch {n_rows}: {split}")
            }
            Kind::DirectSorted { setting } => {
                format!("ONNX Runtime directly, our batches: {}", setting.split)
            }
            Kind::Llama { setting, flash } => {
                let attention = if *flash { "flash attention" } else { "plain attention" };
                let batches = match setting.token_budget {
                    1 => "text by text".to_owned(),
                    budget => format!("{budget} tokens a batch"),
                };
                format!("llama.cpp, {attention}, {batches}: {}", setting.split)
            }
            Kind::Openvino { setting: Setting { split, token_budget }, precision } => {
                let precision = precision.name();
                format!("OpenVINO, {precision}, {token_budget} tokens a batch: {split}")
            }
            Kind::SentenceTransformers { n_threads, n_rows, .. } => {
                let split = Split { n_sessions: 1, n_threads: *n_threads };
                format!("sentence-transformers, f32, batch {n_rows}: {split}")
            }
        }
    }

    /// Takes one round's measurement. `reference` is empty for the first, which is then the reference.
    pub(super) fn add(&mut self, measured: &Measured, reference: &[f32]) -> Result<()> {
        self.wall_seconds.push(measured.wall.as_secs_f64());
        self.cpu_seconds.push(measured.cpu.as_secs_f64());
        self.peak_memory_bytes = self.peak_memory_bytes.max(measured.peak_memory);
        self.n_padded_tokens = measured.n_padded_tokens;
        if !reference.is_empty() {
            let cosine = least_cosine(&measured.vectors, reference, measured.n_dims);
            ensure!(cosine.is_finite(), "`{}` gives vectors that nobody can compare", self.name());
            self.least_cosine = self.least_cosine.min(cosine);
        }
        Ok(())
    }

    fn measured(self, workload: &Workload) -> contest::Measured {
        let role = match self.kind {
            Kind::Calibrate | Kind::Ours { .. } | Kind::OursArrival { .. } => Role::Ours,
            Kind::DirectArrival { .. }
            | Kind::DirectSorted { .. }
            | Kind::Llama { .. }
            | Kind::Openvino { .. }
            | Kind::SentenceTransformers { .. } => Role::Rival,
        };
        let padding = 1.0 - workload.n_tokens as f64 / self.n_padded_tokens as f64;
        let facts = Facts {
            cpu_seconds: Some(median(&self.cpu_seconds)),
            work: Some((workload.n_units as f64, "texts".to_owned())),
            padding_share: Some(padding),
            peak_memory_bytes: Some(self.peak_memory_bytes),
            least_cosine: Some(self.least_cosine),
            ..Facts::default()
        };
        let name = self.name();
        contest::Measured { facts, ..contest::Measured::new(name, role, self.wall_seconds) }
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

/// One model's contest.
pub(super) fn contest(
    model: &str,
    workload: &Workload,
    calibrated: &Measured,
    tallies: Vec<Tally>,
) -> Contest {
    let n_rounds = tallies.first().map_or(0, |tally| tally.wall_seconds.len());
    let mut notes = Vec::new();
    if let Some(setting) = calibrated.setting {
        let seconds = calibrated.wall.as_secs_f64();
        notes.push(format!("ours runs {setting}, found in {seconds:.1} s of work that counts"));
    }
    let mut tried = calibrated.tried.clone();
    tried.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let tried: Vec<String> =
        tried.iter().map(|(setting, rate)| format!("{rate:.0} {setting}")).collect();
    notes.push(match tried[..] {
        [] => "the texts were too few to try settings; that is the usual one".to_owned(),
        _ => format!("what it tried, in real tokens a second: {}", tried.join("; ")),
    });
    let mut contest = Contest {
        name: model.to_owned(),
        title: format!("{} texts, {} tokens", workload.n_units, workload.n_tokens),
        n_rounds,
        contenders: tallies.into_iter().map(|it| it.measured(workload)).collect(),
        notes,
        ..Contest::default()
    };
    let faster = faster(&contest);
    contest.notes.extend(faster);
    contest
}

/// Which rival is ahead of ours, where one is.
fn faster(contest: &Contest) -> Option<String> {
    let Ratio { over, median, .. } = contest.best_ratio()?;
    (median > 1.0).then(|| format!("`{}` is the fastest, by {median:.2} times", over.name))
}
