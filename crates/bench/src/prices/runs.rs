//! The same texts by one backend, by the other, and by both as planned: from nothing loaded to the last vector.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, Executable, LoadJob, SessionOptions};
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::plan::prices::{Choice, Price};
use shapeyard_core::plan::{Batch, RoutingPlan, Workload, token_budget};
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{EncodeOptions, Encoder, Unobserved};

use super::Clock;
use super::fixed::{FixedShapes, Planned};
use shapeyard_core::measure::Watch as _;

/// A backend, and how it was found to run the work best.
pub(super) struct Engine {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) choice: Choice,
}

/// What all ways run.
pub(super) struct Job<'a> {
    pub(super) model: &'a Arc<Model>,
    pub(super) texts: &'a [Tokens],
    pub(super) lengths: &'a [usize],
    pub(super) token_budget: usize,
    pub(super) clock: Clock,
}

/// What a way took.
pub(super) struct Ran {
    pub(super) took: Duration,
    /// A row a text, in the texts' order.
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) n_padded_tokens: usize,
}

impl Engine {
    pub(super) const fn price(&self) -> &Price {
        &self.choice.fit.price
    }

    /// Seconds that it takes alone, by its prices.
    pub(super) fn predicted(&self, job: &Job<'_>) -> f64 {
        let batches = token_budget::pack(job.lengths, job.token_budget);
        let seconds = |it: &Batch| self.price().batch(it.items.len(), it.length);
        self.price().load + batches.iter().map(seconds).sum::<f64>()
    }

    /// Runs everything, in batches of any shape.
    pub(super) fn alone(&self, job: &Job<'_>) -> Result<Ran> {
        let elapsed = job.clock.stopwatch();
        let all: Vec<usize> = (0..job.texts.len()).collect();
        let mut ran = Ran::nothing(job);
        self.any_shape(job, &all, &mut ran)?;
        ran.finished(elapsed())
    }

    fn any_shape(&self, job: &Job<'_>, items: &[usize], ran: &mut Ran) -> Result<()> {
        let executable = self.backend.load(&self.load_job(job))?;
        self.encode(Arc::clone(&self.backend), executable, job, items, ran)
    }

    fn load_job<'a>(&self, job: &Job<'a>) -> LoadJob<'a> {
        LoadJob::of(job.model).for_sessions(SessionOptions::threads(self.choice.split.n_threads))
    }

    fn encode(
        &self,
        backend: Arc<dyn Backend>,
        executable: Arc<dyn Executable>,
        job: &Job<'_>,
        items: &[usize],
        ran: &mut Ran,
    ) -> Result<()> {
        let texts: Vec<Tokens> = items.iter().map(|&item| job.texts[item].clone()).collect();
        let encoder = Encoder::new(backend, Arc::clone(job.model), executable)?;
        let options = options(self.choice.split, job.token_budget);
        let mut embeddings = encoder.embeddings(&texts, &options)?;
        let report = encoder.encode(&texts, &options, &mut embeddings, &Unobserved)?;
        ran.n_padded_tokens += report.totals.n_padded_tokens;
        for (nth, &item) in items.iter().enumerate() {
            ran.vectors[item] = embeddings.vectors(nth).to_vec();
        }
        Ok(())
    }
}

fn options(split: Split, token_budget: usize) -> EncodeOptions {
    EncodeOptions {
        pooling: Pooling::Mean,
        normalise: true,
        pad_id: 0,
        n_threads: split.n_sessions * split.n_threads,
        split: Some(split),
        token_budget: Some(token_budget),
    }
}

/// What is planned for the device, and what is left to the other.
struct Shares {
    batches: Vec<Batch>,
    /// Texts in the order of the batches.
    device: Vec<usize>,
    /// Lengths and rows of programs.
    shapes: Vec<(usize, usize)>,
    fallback: Vec<usize>,
}

impl Shares {
    fn of(plan: &RoutingPlan, workload: &Workload) -> Self {
        let extents = |nth: usize| {
            let extent = |symbol: &str| plan.buckets[nth].bucket.get(symbol).unwrap_or(1);
            (extent(&workload.length), extent(&workload.rows))
        };
        let shapes = (0..plan.buckets.len()).map(extents).collect();
        let (mut device, mut fallback, mut batches) = (Vec::new(), Vec::new(), Vec::new());
        for (kind, rows) in plan.rows(workload) {
            let mut rest = rows.as_slice();
            for piece in &plan.batches[kind].pieces {
                let (rows, later) = rest.split_at(piece.n_rows.min(rest.len()));
                match piece.bucket {
                    Some(nth) => {
                        let items = (device.len()..device.len() + rows.len()).collect();
                        batches.push(Batch { items, length: extents(nth).0 });
                        device.extend_from_slice(rows);
                    }
                    None => fallback.extend_from_slice(rows),
                }
                rest = later;
            }
        }
        Self { batches, device, shapes, fallback }
    }
}

/// Runs everything as planned: the device's share first, then the other's, each with all threads.
///
/// Both run on the same cores, so that side by side neither would be faster than its share of them.
pub(super) fn routed(
    device: &Engine,
    fallback: &Engine,
    job: &Job<'_>,
    (plan, workload): (&RoutingPlan, &Workload),
) -> Result<Ran> {
    let shares = Shares::of(plan, workload);
    let n_items = shares.device.len() + shares.fallback.len();
    ensure!(n_items == job.texts.len(), "a plan leaves out {n_items} of {}", job.texts.len());
    let elapsed = job.clock.stopwatch();
    let mut ran = Ran::nothing(job);
    if !shares.device.is_empty() {
        let programs = FixedShapes::load(
            device.backend.as_ref(),
            &device.load_job(job),
            shares.shapes.iter().copied(),
        )?;
        let backend = Planned { backend: Arc::clone(&device.backend), batches: shares.batches };
        device.encode(Arc::new(backend), Arc::new(programs), job, &shares.device, &mut ran)?;
    }
    if !shares.fallback.is_empty() {
        fallback.any_shape(job, &shares.fallback, &mut ran)?;
    }
    ran.finished(elapsed())
}

impl Ran {
    fn nothing(job: &Job<'_>) -> Self {
        let vectors = vec![Vec::new(); job.texts.len()];
        Self { took: Duration::ZERO, vectors, n_padded_tokens: 0 }
    }

    fn finished(self, took: Duration) -> Result<Self> {
        ensure!(self.vectors.iter().all(|it| !it.is_empty()), "a text has no vector");
        Ok(Self { took, ..self })
    }

    /// The least cosine between its vectors and another way's.
    pub(super) fn least_cosine(&self, other: &Self) -> f64 {
        let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>()
        };
        self.vectors.iter().zip(&other.vectors).map(cosine).fold(f64::INFINITY, f64::min)
    }
}
