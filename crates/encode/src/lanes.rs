//! Sessions of one split at work on batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use shapeyard_core::backend::{Executable, SessionOptions, Waiting};
use shapeyard_core::engine::{
    Engine, EngineOptions, Failed, InferError, InferRequest, InferResponse, Lane, Rejection, Ticket,
};
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::Split;

use crate::EncodeError;

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
    /// The only one. A lone batch runs on the thread that encodes: to wake another and to be woken takes some 0.1 ms.
    One(Lane),
    /// Several, each on a thread of its own.
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

type Answer = Result<InferResponse, Box<Failed>>;

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
    /// sessions work. Stops early when `stop` says so or at an error; what runs by then is taken.
    pub(crate) fn run<'a>(
        &mut self,
        batches: &'a [Batch],
        stop: &dyn Fn() -> bool,
        fill: impl FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
        take: impl FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut work = Work { batches, stop, fill, take };
        match &mut self.sessions {
            Sessions::One(lane) if batches.len() <= 1 => {
                work.run(&mut self.buffers, 1, |request| Ok(lane.run(request)), |answer| answer)
            }
            Sessions::One(lane) => beside(lane, &mut work, &mut self.buffers),
            Sessions::Several(engine) => {
                let submit =
                    |request| engine.submit_wait(request).map_err(|it| it.rejection.into());
                work.run(&mut self.buffers, 2 * self.split.n_sessions, submit, Ticket::wait)
            }
        }
    }
}

/// Lets a lane run on a thread of its own while this one fills and takes.
fn beside<'a, F, T>(
    lane: &mut Lane,
    work: &mut Work<'_, 'a, F, T>,
    buffers: &mut Buffers,
) -> Result<(), EncodeError>
where
    F: FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
    T: FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
{
    thread::scope(|scope| {
        let (to_lane, requests) = sync_channel::<InferRequest>(1);
        let (to_us, answers) = channel();
        scope.spawn(move || {
            for request in requests {
                if to_us.send(lane.run(request)).is_err() {
                    return;
                }
            }
        });
        let submit =
            |request| to_lane.send(request).map_err(|_| InferError::from(Rejection::Stopped));
        let lost = || Box::new(Failed { error: Rejection::Stopped.into(), request: None });
        work.run(buffers, 2, submit, |()| answers.recv().unwrap_or_else(|_| Err(lost())))
    })
}

/// Batches, and what is done with each before and after it runs.
struct Work<'w, 'a, F, T> {
    batches: &'a [Batch],
    stop: &'w dyn Fn() -> bool,
    fill: F,
    take: T,
}

impl<'a, F, T> Work<'_, 'a, F, T>
where
    F: FnMut(&Batch, &mut InferRequest) -> Result<(), EncodeError>,
    T: FnMut(&'a Batch, &InferResponse) -> Result<(), EncodeError>,
{
    /// Keeps up to `n_in_flight` batches between `submit` and `wait`.
    fn run<P>(
        &mut self,
        buffers: &mut Buffers,
        n_in_flight: usize,
        mut submit: impl FnMut(InferRequest) -> Result<P, InferError>,
        mut wait: impl FnMut(P) -> Answer,
    ) -> Result<(), EncodeError> {
        let mut in_flight = VecDeque::with_capacity(n_in_flight);
        let mut submit_all = || {
            for batch in self.batches {
                if (self.stop)() {
                    break;
                }
                if in_flight.len() == n_in_flight
                    && let Some((first, pending)) = in_flight.pop_front()
                {
                    buffers.take(first, wait(pending), &mut self.take)?;
                }
                let request = buffers.fill(batch, &mut self.fill)?;
                in_flight.push_back((batch, submit(request).map_err(|it| failed(batch, it))?));
            }
            Ok(())
        };
        // What is on its way is taken also after an error: it is work done.
        let mut result = submit_all();
        while let Some((batch, pending)) = in_flight.pop_front() {
            let taken = buffers.take(batch, wait(pending), &mut self.take);
            result = result.and(taken);
        }
        result
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
        answer: Answer,
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

fn failed(batch: &Batch, source: InferError) -> EncodeError {
    EncodeError::Batch { n_rows: batch.items.len(), length: batch.length, source }
}
