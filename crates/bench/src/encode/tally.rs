//! What the contenders' rounds say together.

use anyhow::{Result, ensure};

use shapeyard_core::plan::calibrate::{Setting, Split};

use super::contender::{Kind, Measured};
use super::openvino::Precision;
use super::{Calibrated, TEXT_BY_TEXT};
use crate::contest::{self, Contest, Counts, Facts, Goal, Ratio, Role};
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
    counts: Counts,
    /// The least cosine between its vectors and those of the first contender's first run.
    least_cosine: f64,
    /// Why it takes no part any more.
    left_out: Option<String>,
}

/// What ours on a backend is called.
pub(super) fn ours(backend: &str) -> String {
    format!("ours, {backend}")
}

impl Tally {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            wall_seconds: Vec::new(),
            cpu_seconds: Vec::new(),
            peak_memory_bytes: 0,
            n_padded_tokens: 0,
            counts: Counts::default(),
            least_cosine: 1.0,
            left_out: None,
        }
    }

    pub(super) const fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) const fn is_arrival(&self) -> bool {
        matches!(self.kind, Kind::DirectArrival { .. })
    }

    pub(super) const fn is_left_out(&self) -> bool {
        self.left_out.is_some()
    }

    /// Takes it out of the contest, with what it measured.
    pub(super) fn leave_out(&mut self, reason: &str) {
        self.left_out = Some(format!("left out: {}: {reason}", self.name()));
    }

    pub(super) const fn role(&self) -> Role {
        match self.kind {
            Kind::Calibrate { .. } | Kind::Ours { .. } | Kind::OursArrival { .. } => Role::Ours,
            Kind::DirectArrival { .. }
            | Kind::DirectSorted { .. }
            | Kind::Llama { .. }
            | Kind::Openvino { .. }
            | Kind::SentenceTransformers { .. } => Role::Rival,
        }
    }

    /// Whether it reads the model's numbers at their own width.
    const fn is_of_same_precision(&self) -> bool {
        !matches!(self.kind, Kind::Openvino { precision: Precision::Bf16, .. })
    }

    /// The same in every run, whatever the calibration found, so that runs can be compared.
    pub(super) fn name(&self) -> String {
        match &self.kind {
            Kind::Calibrate { backend } => format!("{}, calibrating", ours(backend)),
            Kind::Ours { backend, .. } => ours(backend),
            Kind::OursArrival { split, n_rows, backend } => {
                format!("{}, {ARRIVAL}, batch {n_rows}: {split}", ours(backend))
            }
            Kind::DirectArrival { split, n_rows } => {
                format!("ONNX Runtime directly, {ARRIVAL}, batch {n_rows}: {split}")
            }
            Kind::DirectSorted { setting: Setting { split, token_budget: TEXT_BY_TEXT } } => {
                format!("ONNX Runtime directly, text by text: {split}")
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
        self.counts.clone_from(&measured.counts);
        if !reference.is_empty() {
            let cosine = least_cosine(&measured.vectors, reference, measured.n_dims);
            ensure!(cosine.is_finite(), "`{}` gives vectors that nobody can compare", self.name());
            self.least_cosine = self.least_cosine.min(cosine);
        }
        Ok(())
    }

    fn measured(self, workload: &Workload) -> contest::Measured {
        let role = self.role();
        let padding = 1.0 - workload.n_tokens as f64 / self.n_padded_tokens as f64;
        let facts = Facts {
            cpu_seconds: Some(median(&self.cpu_seconds)),
            work: Some((workload.n_units as f64, "texts".to_owned())),
            padding_share: Some(padding),
            peak_memory_bytes: Some(self.peak_memory_bytes),
            least_cosine: Some(self.least_cosine),
            counts: self.counts.clone(),
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
    calibrated: &[Calibrated],
    tallies: Vec<Tally>,
) -> Contest {
    let mut notes: Vec<String> = calibrated.iter().flat_map(found).collect();
    notes.extend(tallies.iter().filter_map(|it| it.left_out.clone()));
    let tallies: Vec<Tally> = tallies.into_iter().filter(|it| !it.is_left_out()).collect();
    let kinds = tallies.clone();
    let mut contest = Contest {
        name: model.to_owned(),
        title: format!("{} texts, {} tokens", workload.n_units, workload.n_tokens),
        n_rounds: tallies.first().map_or(0, |tally| tally.wall_seconds.len()),
        contenders: tallies.into_iter().map(|it| it.measured(workload)).collect(),
        notes,
        ..Contest::default()
    };
    let faster = faster(&contest);
    contest.notes.extend(faster);
    contest.goals = goals(&contest, &kinds);
    contest
}

/// Which setting a calibration found, and what it tried.
fn found(calibrated: &Calibrated) -> [String; 2] {
    let Calibrated { backend, setting, found } = calibrated;
    let name = ours(backend);
    let mut tried = found.tried.clone();
    tried.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let tried: Vec<String> =
        tried.iter().map(|(setting, rate)| format!("{rate:.0} {setting}")).collect();
    let tried = match tried[..] {
        [] => format!("{name}: the texts were too few to try settings; that is the usual one"),
        _ => format!("{name} tried, in real tokens a second: {}", tried.join("; ")),
    };
    let seconds = found.wall.as_secs_f64();
    [
        format!(
            "{name} runs {setting}, found on more such texts, which took {seconds:.1} s to encode"
        ),
        tried,
    ]
}

/// Ours may take as long as the best rival that computes with the same numbers,
const BEST_RIVAL: f64 = 1.0;
/// a quarter of the time of ONNX Runtime in arrival order,
const IN_ARRIVAL_ORDER: f64 = 0.25;
/// and llama.cpp at its best 1.2 times as long as ours.
const LLAMA: f64 = 1.0 / 1.2;

fn goals(contest: &Contest, tallies: &[Tally]) -> Vec<Goal> {
    let Some(ours) = contest.best(Role::Ours) else { return Vec::new() };
    let among = |is_one: &dyn Fn(&Tally) -> bool| {
        let all = contest.contenders.iter().zip(tallies);
        let all = all.filter(|(_, tally)| tally.role() == Role::Rival && is_one(tally));
        all.map(|(it, _)| Ratio::of(ours, it).median).max_by(f64::total_cmp)
    };
    let is_llama = |it: &Tally| matches!(it.kind, Kind::Llama { .. });
    // Ours on ggml beside ONNX Runtime on the ONNX file compares the engines, which is no promise.
    let is_onnx = tallies.iter().any(Tally::is_arrival);
    let best_rival = among(&Tally::is_of_same_precision).filter(|_| is_onnx);
    let wanted: [(&str, f64, Option<f64>); 3] = [
        ("the best rival of the same precision", BEST_RIVAL, best_rival),
        ("ONNX Runtime in arrival order", IN_ARRIVAL_ORDER, among(&Tally::is_arrival)),
        ("the best of llama.cpp", LLAMA, among(&is_llama)),
    ];
    let goal = |(whom, at_most, found): (&str, f64, Option<f64>)| {
        Some(Goal::at_most(format!("the best of ours, times {whom}"), at_most, found?))
    };
    wanted.into_iter().filter_map(goal).collect()
}

/// Which rival is ahead of ours, where one is.
fn faster(contest: &Contest) -> Option<String> {
    let Ratio { over, median, .. } = contest.best_ratio()?;
    (median > 1.0).then(|| format!("`{}` is the fastest, by {median:.2} times", over.name))
}
