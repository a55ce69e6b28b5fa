//! Sessions of one split at work on batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use shapeyard_core::RunReport;
use shapeyard_core::backend::{Executable, SessionOptions, Waiting};
use shapeyard_core::engine::{Failed, InferRequest, InferResponse, Lane, Rejection};
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::Split;

use crate::EncodeError;

/// How often it is asked whether to stop while nothing else happens.
const POLL: Duration = Duration::from_millis(50);

/// What running batches took, apart from wall-clock time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) model: Duration,
    pub(crate) transfer: Duration,
    pub(crate) pool: Duration,
}

/// What is done with a batch before and after it runs, on whatever thread that is.
pub(crate) trait Job: Sync {
    /// Writes a batch's inputs.
    fn fill(&self, batch: &Batch, request: &mut InferRequest) -> Result<(), EncodeError>;

    /// The vectors of a batch's texts, one text after the other.
    fn pool(&self, batch: &Batch, response: &InferResponse) -> Result<Vec<f32>, EncodeError>;
}

/// A batch that ran.
pub(crate) struct Done<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) report: RunReport,
    pub(crate) vectors: Vec<f32>,
    spent: Spent,
}

/// Sessions of one split.
#[derive(Debug)]
pub(crate) struct Lanes {
    pub(crate) split: Split,
    pub(crate) waiting: Waiting,
    sessions: Vec<Session>,
    spent: Spent,
}

#[derive(Debug)]
struct Session {
    lane: Lane,
    spare: Spare,
}

/// Buffers to be used again.
#[derive(Debug, Default)]
struct Spare(Vec<InferRequest>);

impl Lanes {
    /// Makes the sessions, all at the same time.
    pub(crate) fn start(
        executable: &Arc<dyn Executable>,
        split: Split,
        waiting: Waiting,
    ) -> Result<Self, EncodeError> {
        let options = SessionOptions::threads(split.n_threads).waiting(waiting);
        let open = || Lane::open(executable, options);
        let lanes: Result<Vec<Lane>, _> = thread::scope(|scope| {
            let others: Vec<_> = (1..split.n_sessions).map(|_| scope.spawn(open)).collect();
            let first = open();
            let join = |it: thread::ScopedJoinHandle<'_, _>| {
                it.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            std::iter::once(first).chain(others.into_iter().map(join)).collect()
        });
        let session = |lane| Session { lane, spare: Spare::default() };
        let sessions = lanes?.into_iter().map(session).collect();
        Ok(Self { split, waiting, sessions, spent: Spent::default() })
    }

    /// What running took since the last call.
    pub(crate) fn take_spent(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    /// Runs batches; `take` gets each that ran, on this thread. Stops early when `stop` says so or at an error; what
    /// runs by then is taken: it is work done.
    pub(crate) fn run<'a>(
        &mut self,
        batches: &'a [Batch],
        job: &impl Job,
        stop: &dyn Fn() -> bool,
        mut take: impl FnMut(Done<'a>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let spent = &mut self.spent;
        let mut take = |done: Done<'a>| {
            spent.model += done.spent.model;
            spent.transfer += done.spent.transfer;
            spent.pool += done.spent.pool;
            take(done)
        };
        match (&mut self.sessions[..], batches) {
            (_, []) => Ok(()),
            _ if stop() => Ok(()),
            // To wake another thread and to be woken takes some 0.1 ms.
            ([one, ..], [batch]) => take(one.run(batch, job)?),
            ([one], _) => beside(one, batches, job, stop, &mut take),
            (several, _) => side_by_side(several, batches, job, stop, &mut take),
        }
    }
}

/// Lets a lone session run on a thread of its own while this one fills and pools, so that it never waits for that.
fn beside<'a>(
    session: &mut Session,
    batches: &'a [Batch],
    job: &impl Job,
    stop: &dyn Fn() -> bool,
    take: &mut impl FnMut(Done<'a>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let Session { lane, spare } = session;
    thread::scope(|scope| {
        let (to_lane, requests) = sync_channel(1);
        let (to_us, answers) = channel();
        scope.spawn(move || {
            for request in requests {
                if to_us.send(lane.run(request)).is_err() {
                    return;
                }
            }
        });
        let mut running = None;
        let mut next = |batch| {
            let (request, filling) = spare.fill(batch, job)?;
            // The answer, which then does not come, is the error.
            let _ = to_lane.send(request);
            let Some((batch, filling)) = running.replace((batch, filling)) else { return Ok(()) };
            take(spare.pool(batch, job, answers.recv().unwrap_or_else(|_| Err(lost())), filling)?)
        };
        let result = batches.iter().take_while(|_| !stop()).try_for_each(&mut next);
        let Some((batch, filling)) = running else { return result };
        let answer = answers.recv().unwrap_or_else(|_| Err(lost()));
        let last = spare.pool(batch, job, answer, filling).and_then(take);
        result.and(last)
    })
}

fn lost() -> Box<Failed> {
    Box::new(Failed { error: Rejection::Stopped.into(), request: None })
}

/// Lets each session fill, run and pool on a thread of its own.
fn side_by_side<'a>(
    sessions: &mut [Session],
    batches: &'a [Batch],
    job: &impl Job,
    stop: &dyn Fn() -> bool,
    take: &mut impl FnMut(Done<'a>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let (next, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let (to_us, answers) = sync_channel(sessions.len());
        for session in sessions.iter_mut().take(batches.len()) {
            let (to_us, next, is_over) = (to_us.clone(), &next, &is_over);
            scope.spawn(move || {
                let over = Over(is_over);
                while !is_over.load(Ordering::Relaxed) {
                    let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let done = session.run(batch, job);
                    if done.is_err() {
                        over.say();
                    }
                    if to_us.send(done).is_err() {
                        return;
                    }
                }
            });
        }
        drop(to_us);
        let mut result = Ok(());
        loop {
            match answers.recv_timeout(POLL) {
                Ok(answer) => result = result.and(answer.and_then(&mut *take)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return result,
            }
            if result.is_err() || stop() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    })
}

/// Tells all sessions that nothing is to be begun any more, also where its thread panics.
struct Over<'a>(&'a AtomicBool);

impl Over<'_> {
    fn say(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.say();
        }
    }
}

impl Session {
    /// Fills a batch, runs it and pools its vectors, all on this thread.
    fn run<'a>(&mut self, batch: &'a Batch, job: &impl Job) -> Result<Done<'a>, EncodeError> {
        let (request, filling) = self.spare.fill(batch, job)?;
        let answer = self.lane.run(request);
        self.spare.pool(batch, job, answer, filling)
    }
}

impl Spare {
    /// A request that is filled, and how long that took.
    fn fill(
        &mut self,
        batch: &Batch,
        job: &impl Job,
    ) -> Result<(InferRequest, Duration), EncodeError> {
        let started = Instant::now();
        let mut request = self.0.pop().unwrap_or_default();
        job.fill(batch, &mut request)?;
        Ok((request, started.elapsed()))
    }

    fn pool<'a>(
        &mut self,
        batch: &'a Batch,
        job: &impl Job,
        answer: Result<InferResponse, Box<Failed>>,
        filling: Duration,
    ) -> Result<Done<'a>, EncodeError> {
        let failed = |lost: Box<Failed>| EncodeError::Batch {
            n_rows: batch.items.len(),
            length: batch.length,
            source: lost.error,
        };
        let response = answer.map_err(failed)?;
        let started = Instant::now();
        let vectors = job.pool(batch, &response)?;
        let InferResponse { inputs, outputs, report, .. } = response;
        self.0.push(InferRequest { inputs, outputs });
        let (model, transfer) = (report.times.run, report.times.prepare + report.times.finish);
        let spent = Spent { model, transfer, pool: filling + started.elapsed() };
        Ok(Done { batch, report, vectors, spent })
    }
}
