//! Sessions of one split at work on batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shapeyard_core::backend::{Executable, SessionOptions, Waiting};
use shapeyard_core::engine::{Engine, EngineOptions, InferRequest, InferResponse, Ticket};
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::Split;

use crate::EncodeError;

/// A batch that is on its way, and how many tokens it is padded to.
struct InFlight<'a> {
    batch: &'a Batch,
    ticket: Ticket,
}

/// What running batches took, apart from wall-clock time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) model: Duration,
    pub(crate) transfer: Duration,
    pub(crate) queued: Duration,
    pub(crate) pool: Duration,
}

/// An engine with the sessions of one split.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) split: Split,
    pub(crate) waiting: Waiting,
    engine: Engine,
    /// Buffers of answered requests, to be used again.
    spare: Vec<InferRequest>,
    pub(crate) spent: Spent,
}

impl Lanes {
    pub(crate) fn start(
        executable: &Arc<dyn Executable>,
        split: Split,
        waiting: Waiting,
    ) -> Result<Self, EncodeError> {
        let options = EngineOptions {
            n_sessions: split.n_sessions,
            session: SessionOptions::threads(split.n_threads).waiting(waiting),
            // One request a session waits while one runs: no session idles, and little is in memory.
            queue_capacity: split.n_sessions,
        };
        let engine = Engine::start(executable, &options)?;
        Ok(Self { split, waiting, engine, spare: Vec::new(), spent: Spent::default() })
    }

    /// Runs batches in order: `fill` writes a batch's inputs, `take` reads its answer, and both run while
    /// sessions work. Stops early when `stop` says so or at an error; what runs by then is taken.
    pub(crate) fn run<'a>(
        &mut self,
        batches: &'a [Batch],
        stop: &dyn Fn() -> bool,
        fill: impl FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
        mut take: impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let n_in_flight = 2 * self.split.n_sessions;
        let mut in_flight = VecDeque::with_capacity(n_in_flight);
        let submitted =
            self.submit_all(batches, n_in_flight, &mut in_flight, stop, fill, &mut take);
        // What is on its way is taken also after an error: it is work done.
        let mut result = submitted;
        while !in_flight.is_empty() {
            let taken = self.take_first(&mut in_flight, &mut take);
            result = result.and(taken);
        }
        result
    }

    fn submit_all<'a>(
        &mut self,
        batches: &'a [Batch],
        n_in_flight: usize,
        in_flight: &mut VecDeque<InFlight<'a>>,
        stop: &dyn Fn() -> bool,
        mut fill: impl FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
        take: &mut impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        for batch in batches {
            if stop() {
                break;
            }
            if in_flight.len() == n_in_flight {
                self.take_first(in_flight, take)?;
            }
            let mut request = self.spare.pop().unwrap_or_default();
            let started = Instant::now();
            fill(batch, &mut request)?;
            self.spent.pool += started.elapsed();
            let submitted = self.engine.submit_wait(request);
            let ticket = submitted.map_err(|rejected| failed(batch, rejected.rejection.into()))?;
            in_flight.push_back(InFlight { batch, ticket });
        }
        Ok(())
    }

    fn take_first<'a>(
        &mut self,
        in_flight: &mut VecDeque<InFlight<'a>>,
        take: &mut impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Some(InFlight { batch, ticket }) = in_flight.pop_front() else { return Ok(()) };
        let response = ticket.wait().map_err(|lost| failed(batch, lost.error))?;
        self.spent.model += response.report.times.run;
        self.spent.transfer += response.report.times.prepare + response.report.times.finish;
        self.spent.queued += response.queued;
        let started = Instant::now();
        take(batch, &response)?;
        self.spent.pool += started.elapsed();
        let InferResponse { inputs, outputs, .. } = response;
        self.spare.push(InferRequest { inputs, outputs });
        Ok(())
    }
}

fn failed(batch: &Batch, source: shapeyard_core::engine::InferError) -> EncodeError {
    EncodeError::Batch { n_rows: batch.items.len(), length: batch.length, source }
}
