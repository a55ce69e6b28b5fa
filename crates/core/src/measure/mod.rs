//! Measuring what loads and runs of a model cost, here and now.
//!
//! Sessions run side by side, as they will in production, because they share caches, memory and cores: what is
//! measured is the time in which all of them together get a batch done. Rounds over all shapes are interleaved
//! and the median of a shape's rounds counts, so that a moment in which the machine had other work is not taken
//! for a shape's price.

mod backend;
mod inputs;
mod shapes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use backend::{any_shape, programs};
pub use inputs::inputs;
pub use shapes::{Extent, shapes};

use crate::TensorError;
use crate::backend::{BackendError, Executable, SessionOptions};
use crate::engine::{Engine, EngineOptions, Failed, InferError, InferRequest, Ticket};
use crate::plan::Bucket;
use crate::plan::calibrate::Split;
use crate::plan::prices::Samples;

/// A round runs a shape for at least so long, so that the clock and the queue do not count.
const SHORTEST: Duration = Duration::from_millis(20);

/// Batches of one shape in a round at most, for each session.
const MOST_BATCHES: usize = 16;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// No session could be made.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A run failed: the model may not take that shape.
    #[error("{} cannot be run", if bucket.is_empty() { "the model".to_owned() } else { bucket.to_string() })]
    Run {
        /// The shape.
        bucket: Bucket,
        /// Why.
        source: InferError,
    },
    /// There is no memory for inputs of that shape.
    #[error(transparent)]
    Inputs(#[from] TensorError),
    /// The caller no longer wants it.
    #[error("it was stopped")]
    Stopped,
}

/// A caller that watches.
pub trait Watch {
    /// Called when a shape was run in one more round.
    fn advance(&self) {}

    /// Whether to stop.
    fn stop(&self) -> bool {
        false
    }

    /// A stopwatch that starts now; it reads the clock on the wall, unless the caller has another.
    fn stopwatch(&self) -> Box<dyn Fn() -> Duration> {
        let started = Instant::now();
        Box::new(move || started.elapsed())
    }
}

/// A caller that neither looks nor stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}

/// A shape to run, and what it counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Its extents.
    pub bucket: Bucket,
    /// Its rows.
    pub rows: usize,
    /// Their length, in tokens.
    pub length: usize,
}

/// Sessions of one split that can be measured.
#[derive(Debug)]
pub struct Lanes {
    engine: Engine,
    split: Split,
}

impl Lanes {
    /// Makes the sessions.
    ///
    /// # Errors
    ///
    /// As [`Engine::start`].
    pub fn start(executable: &Arc<dyn Executable>, split: Split) -> Result<Self, BackendError> {
        let options = EngineOptions {
            n_sessions: split.n_sessions,
            session: SessionOptions::threads(split.n_threads),
            queue_capacity: split.n_sessions,
        };
        Ok(Self { engine: Engine::start(executable, &options)?, split })
    }

    /// What a batch of each shape takes: the median of `n_rounds` rounds, in seconds in which all sessions
    /// together get one done. One round before does not count.
    ///
    /// # Errors
    ///
    /// [`MeasureError`].
    pub fn runs(
        &self,
        shapes: &[Shape],
        n_rounds: usize,
        watch: &dyn Watch,
    ) -> Result<Samples, MeasureError> {
        let n_sessions = self.split.n_sessions.max(1);
        let mut n_batches = vec![n_sessions; shapes.len()];
        let mut seconds = vec![Vec::with_capacity(n_rounds); shapes.len()];
        for round in 0..=n_rounds {
            for (at, shape) in shapes.iter().enumerate() {
                if watch.stop() {
                    return Err(MeasureError::Stopped);
                }
                let took = self.batches(&shape.bucket, n_batches[at], watch)?;
                match round {
                    0 => n_batches[at] = n_sessions * enough(took),
                    _ => seconds[at].push(took.as_secs_f64() / n_batches[at] as f64),
                }
                watch.advance();
            }
        }
        let mut samples = Samples::default();
        for (shape, seconds) in shapes.iter().zip(&mut seconds) {
            if let Some(typical) = median(seconds) {
                samples.record_times(shape.rows, shape.length, typical, n_rounds);
            }
        }
        Ok(samples)
    }

    /// How long so many batches take, with no session idle but at the end.
    fn batches(
        &self,
        bucket: &Bucket,
        n: usize,
        watch: &dyn Watch,
    ) -> Result<Duration, MeasureError> {
        let n_in_flight = 2 * self.split.n_sessions.max(1);
        let mut spare = Vec::with_capacity(n_in_flight);
        while spare.len() < n_in_flight.min(n) {
            let inputs = inputs(self.engine.signature(), bucket)?;
            spare.push(InferRequest { inputs, ..InferRequest::default() });
        }
        let failed = |source| MeasureError::Run { bucket: bucket.clone(), source };
        let mut in_flight: VecDeque<Ticket> = VecDeque::with_capacity(n_in_flight);
        let elapsed = watch.stopwatch();
        for _ in 0..n {
            if spare.is_empty() {
                take(&mut in_flight, &mut spare).map_err(|it| failed(it.error))?;
            }
            let request = spare.pop().unwrap_or_default();
            let ticket = self.engine.submit_wait(request);
            in_flight.push_back(ticket.map_err(|it| failed(it.rejection.into()))?);
        }
        while !in_flight.is_empty() {
            take(&mut in_flight, &mut spare).map_err(|it| failed(it.error))?;
        }
        Ok(elapsed())
    }
}

fn take(
    in_flight: &mut VecDeque<Ticket>,
    spare: &mut Vec<InferRequest>,
) -> Result<(), Box<Failed>> {
    if let Some(ticket) = in_flight.pop_front() {
        let answer = ticket.wait()?;
        spare.push(InferRequest { inputs: answer.inputs, outputs: answer.outputs });
    }
    Ok(())
}

/// Batches for each session that take long enough together, when one takes so long.
fn enough(one: Duration) -> usize {
    let again = SHORTEST.as_secs_f64() / one.as_secs_f64().max(1e-6);
    (again.ceil() as usize).clamp(1, MOST_BATCHES)
}

/// Of an even number of values the lower one of the middle two.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
