//! Sessions of one split at work on batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shapeyard_core::backend::{Executable, SessionOptions, Waiting};
use shapeyard_core::engine::{
    Engine, EngineOptions, Failed, InferError, InferRequest, InferResponse, Lane, Ticket,
};
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

/// Where the sessions of a split run.
#[derive(Debug)]
enum Sessions {
    /// The only one: on the thread that encodes, which would have nothing to do but to wait for it.
    One(Lane),
    /// Several, each on a thread of its own; the thread that encodes keeps them busy.
    Several(Engine),
}

/// Sessions of one split.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) split: Split,
    pub(crate) waiting: Waiting,
    sessions: Sessions,
    buffers: Buffers,
}

/// Requests to be used again, and what running them took.
#[derive(Debug, Default)]
struct Buffers {
    spare: Vec<InferRequest>,
    spent: Spent,
}

impl Lanes {
    pub(crate) fn start(
        executable: &Arc<dyn Executable>,
        split: Split,
        waiting: Waiting,
    ) -> Result<Self, EncodeError> {
        let session = SessionOptions::threads(split.n_threads).waiting(waiting);
        let sessions = if split.n_sessions <= 1 {
            Sessions::One(Lane::open(executable, session)?)
        } else {
            // One request a session waits while one runs: no session idles, and little is in memory.
            let queue_capacity = split.n_sessions;
            let options = EngineOptions { n_sessions: split.n_sessions, session, queue_capacity };
            Sessions::Several(Engine::start(executable, &options)?)
        };
        Ok(Self { split, waiting, sessions, buffers: Buffers::default() })
    }

    /// What running took since the last call.
    pub(crate) fn take_spent(&mut self) -> Spent {
        std::mem::take(&mut self.buffers.spent)
    }

    /// Runs batches in order: `fill` writes a batch's inputs, `take` reads its answer, and both run while
    /// several sessions work. Stops early when `stop` says so or at an error; what runs by then is taken.
    pub(crate) fn run<'a>(
        &mut self,
        batches: &'a [Batch],
        stop: &dyn Fn() -> bool,
        mut fill: impl FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
        mut take: impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let buffers = &mut self.buffers;
        match &mut self.sessions {
            Sessions::One(lane) => {
                for batch in batches.iter().take_while(|_| !stop()) {
                    let request = buffers.fill(batch, &mut fill)?;
                    buffers.take(batch, lane.run(request), &mut take)?;
                }
                Ok(())
            }
            Sessions::Several(engine) => {
                let n_in_flight = 2 * self.split.n_sessions;
                let in_flight = VecDeque::with_capacity(n_in_flight);
                let mut queue = Queue { engine, buffers, in_flight };
                // What is on its way is taken also after an error: it is work done.
                let mut result = queue.submit_all(batches, n_in_flight, stop, fill, &mut take);
                while !queue.in_flight.is_empty() {
                    let taken = queue.take_first(&mut take);
                    result = result.and(taken);
                }
                result
            }
        }
    }
}

impl Buffers {
    fn fill(
        &mut self,
        batch: &Batch,
        fill: &mut impl FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
    ) -> Result<InferRequest, EncodeError> {
        let mut request = self.spare.pop().unwrap_or_default();
        let started = Instant::now();
        fill(batch, &mut request)?;
        self.spent.pool += started.elapsed();
        Ok(request)
    }

    fn take<'a>(
        &mut self,
        batch: &'a Batch,
        answer: Result<InferResponse, Box<Failed>>,
        take: &mut impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let response = answer.map_err(|lost| failed(batch, lost.error))?;
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

/// An engine and what is on its way through it.
struct Queue<'q, 'a> {
    engine: &'q Engine,
    buffers: &'q mut Buffers,
    in_flight: VecDeque<InFlight<'a>>,
}

impl<'a> Queue<'_, 'a> {
    fn submit_all(
        &mut self,
        batches: &'a [Batch],
        n_in_flight: usize,
        stop: &dyn Fn() -> bool,
        mut fill: impl FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
        take: &mut impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        for batch in batches {
            if stop() {
                break;
            }
            if self.in_flight.len() == n_in_flight {
                self.take_first(take)?;
            }
            let request = self.buffers.fill(batch, &mut fill)?;
            let submitted = self.engine.submit_wait(request);
            let ticket = submitted.map_err(|rejected| failed(batch, rejected.rejection.into()))?;
            self.in_flight.push_back(InFlight { batch, ticket });
        }
        Ok(())
    }

    fn take_first(
        &mut self,
        take: &mut impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Some(InFlight { batch, ticket }) = self.in_flight.pop_front() else { return Ok(()) };
        self.buffers.take(batch, ticket.wait(), take)
    }
}

fn failed(batch: &Batch, source: InferError) -> EncodeError {
    EncodeError::Batch { n_rows: batch.items.len(), length: batch.length, source }
}
