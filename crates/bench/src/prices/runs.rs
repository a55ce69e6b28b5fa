//! The same texts by one backend, by the other, and by both as planned: from nothing loaded to the last vector.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, Executable, LoadJob, SessionOptions, Waiting};
use shapeyard_core::measure::Watch as _;
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::plan::prices::{Choice, Price};
use shapeyard_core::plan::{Batch, RoutingPlan, Workload};
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{EncodeOptions, Encoder, Unobserved};

use super::clock::Clock;
use super::fixed::{FixedShapes, Planned};

/// A backend, and how it was found to run the work best.
pub(super) struct Engine {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) choice: Choice,
}

/// What all ways run.
pub(super) struct Job<'a> {
    pub(super) model: &'a Arc<Model>,
    pub(super) texts: &'a [Tokens],
    pub(super) workload: &'a Workload,
    pub(super) clock: Clock,
}

/// What a way took.
pub(super) struct Ran {
    /// By the job's clock.
    pub(super) took: Duration,
    pub(super) cpu_time: Duration,
    /// A row a text, in the texts' order.
    pub(super) vectors: Vec<Vec<f32>>,
    pub(super) n_padded_tokens: usize,
}

/// What a plan leaves to one of the two.
#[derive(Default)]
struct Share {
    /// Texts in the order of the batches.
    items: Vec<usize>,
    /// Batches of positions in `items`.
    batches: Vec<Batch>,
}

impl Share {
    fn add(&mut self, texts: &[usize], length: usize) {
        let items = (self.items.len()..self.items.len() + texts.len()).collect();
        self.batches.push(Batch { items, length });
        self.items.extend_from_slice(texts);
    }
}

/// What is planned for the device, and what is left to the other.
fn shares(plan: &RoutingPlan, job: &Job<'_>) -> (Share, Share) {
    let (mut device, mut fallback) = (Share::default(), Share::default());
    for (kind, rows) in plan.rows(job.workload) {
        let mut rest = rows.as_slice();
        for piece in &plan.batches[kind].pieces {
            let (rows, later) = rest.split_at(piece.n_rows.min(rest.len()));
            rest = later;
            match piece.bucket {
                Some(nth) => device.add(rows, extents(plan, job.workload, nth).0),
                None => {
                    let longest = rows.iter().map(|&text| job.texts[text].ids.len()).max();
                    fallback.add(rows, longest.unwrap_or(0));
                }
            }
        }
    }
    (device, fallback)
}

/// Length and rows of a program.
fn extents(plan: &RoutingPlan, workload: &Workload, nth: usize) -> (usize, usize) {
    let extent = |symbol: &str| plan.buckets[nth].bucket.get(symbol).unwrap_or(1);
    (extent(&workload.length), extent(&workload.rows))
}

/// Runs everything as planned: the device's share first, then the other's, each with all threads.
///
/// Both run on the same cores, so that side by side neither would be faster than its share of them.
pub(super) fn run(
    device: &Engine,
    fallback: &Engine,
    job: &Job<'_>,
    plan: &RoutingPlan,
) -> Result<Ran> {
    let (on_device, on_fallback) = shares(plan, job);
    let n_items = on_device.items.len() + on_fallback.items.len();
    ensure!(n_items == job.texts.len(), "a plan leaves out {n_items} of {}", job.texts.len());
    let shapes = (0..plan.buckets.len()).map(|nth| extents(plan, job.workload, nth));
    let mut ran = Ran {
        took: Duration::ZERO,
        cpu_time: Duration::ZERO,
        vectors: vec![Vec::new(); job.texts.len()],
        n_padded_tokens: 0,
    };
    // What sessions take to end is no part of the work.
    let mut kept: Vec<Encoder> = Vec::new();
    let (elapsed, cpu_elapsed) = (job.clock.stopwatch(), Clock::Cpu.stopwatch());
    if !on_device.items.is_empty() {
        let programs = FixedShapes::load(device.backend.as_ref(), &device.load_job(job), shapes)?;
        kept.push(device.encode(Arc::new(programs), job, on_device, &mut ran)?);
    }
    if !on_fallback.items.is_empty() {
        let executable = fallback.backend.load(&fallback.load_job(job))?;
        kept.push(fallback.encode(executable, job, on_fallback, &mut ran)?);
    }
    (ran.took, ran.cpu_time) = (elapsed(), cpu_elapsed());
    drop(kept);
    ensure!(ran.vectors.iter().all(|it| !it.is_empty()), "a text has no vector");
    Ok(ran)
}

impl Engine {
    pub(super) const fn price(&self) -> &Price {
        &self.choice.fit.price
    }

    fn load_job<'a>(&self, job: &Job<'a>) -> LoadJob<'a> {
        LoadJob::of(job.model).for_sessions(SessionOptions::threads(self.choice.split.n_threads))
    }

    fn encode(
        &self,
        executable: Arc<dyn Executable>,
        job: &Job<'_>,
        share: Share,
        ran: &mut Ran,
    ) -> Result<Encoder> {
        let texts: Vec<Tokens> = share.items.iter().map(|&it| job.texts[it].clone()).collect();
        let planned = Planned { backend: Arc::clone(&self.backend), batches: share.batches };
        let encoder = Encoder::new(Arc::new(planned), Arc::clone(job.model), executable)?;
        let options = options(self.choice.split);
        let mut embeddings = encoder.embeddings(&texts, &options)?;
        let report = encoder.encode(&texts, &options, &mut embeddings, &Unobserved)?;
        ran.n_padded_tokens += report.totals.n_padded_tokens;
        for (nth, &item) in share.items.iter().enumerate() {
            ran.vectors[item] = embeddings.vectors(nth).to_vec();
        }
        Ok(encoder)
    }
}

fn options(split: Split) -> EncodeOptions {
    EncodeOptions {
        pooling: Pooling::Mean,
        normalise: true,
        pad_id: 0,
        n_threads: split.n_sessions * split.n_threads,
        split: Some(split),
        // The batches are planned already.
        token_budget: Some(1),
        share_equal: false,
        waiting: Waiting::Sleep,
    }
}

impl Ran {
    /// The least cosine between its vectors and another way's.
    pub(super) fn least_cosine(&self, other: &Self) -> f64 {
        let cosine = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>()
        };
        self.vectors.iter().zip(&other.vectors).map(cosine).fold(f64::INFINITY, f64::min)
    }
}
