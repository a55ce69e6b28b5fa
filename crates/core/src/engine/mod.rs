//! The engine: owner threads, one a session, behind a bounded queue.
//!
//! Sessions block, so each belongs to a thread of its own; this is where callers that must not block
//! begin. A request's buffers come back with its answer or its error, so that a caller can use them again.
//!
//! * A full queue is a typed error that hands the request back.
//! * A request whose [`Ticket`] was dropped before its turn is not run.
//! * A session is made, used and dropped on its own thread: the device that a runtime calls current belongs
//!   to a thread.
//! * A session that panics answers with an error and is replaced. Where that fails its thread ends; the last
//!   one refuses what waits.
//! * [`Lane`] is a session without thread and queue, for whoever has one request at a time; it may go from thread to
//!   thread.
//! * [`Engine::close`] answers all that was accepted, also while others hold the engine; dropping the engine
//!   answers what runs and refuses what waits. Both join every thread.

mod lane;
mod service;
mod worker;

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};

pub use lane::Lane;
pub use service::InferenceService;

use crate::backend::{BackendError, Executable, SessionOptions};
use crate::{Outputs, RunError, RunReport, Signature, Tensor};
use worker::Worker;

/// How an engine is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Sessions, each with a thread that owns it; 0 counts as 1.
    pub n_sessions: usize,
    /// What each session may use.
    pub session: SessionOptions,
    /// Requests that may wait for a session; 0 counts as 1.
    pub queue_capacity: usize,
}

/// A request that owns its buffers.
#[derive(Debug, Default)]
pub struct InferRequest {
    /// The inputs, in the signature's order.
    pub inputs: Vec<Tensor>,
    /// Where the results go. Memory of an earlier answer may be handed in to be used again.
    pub outputs: Outputs,
}

/// An answer, with the request's buffers.
#[derive(Debug)]
pub struct InferResponse {
    /// The inputs that were handed in.
    pub inputs: Vec<Tensor>,
    /// The results, in the signature's order.
    pub outputs: Outputs,
    /// What the run says about itself.
    pub report: RunReport,
    /// How long the request waited for a session.
    pub queued: Duration,
}

/// Why a request was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// As many requests wait as may wait. Try again later, or wait with [`Engine::submit_wait`].
    #[error("the queue is full: {capacity} requests are waiting")]
    QueueFull {
        /// How many may wait.
        capacity: usize,
    },
    /// No session is left to answer: the engine was closed, or none could be replaced.
    #[error("the engine has stopped")]
    Stopped,
}

/// A request that was not accepted, handed back.
#[derive(Debug, thiserror::Error)]
#[error("{rejection}")]
pub struct Rejected {
    /// Why.
    pub rejection: Rejection,
    /// The request as it was.
    pub request: InferRequest,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// It was not accepted.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// It ran and failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The backend panicked while it ran; its session is replaced.
    #[error("the backend panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

/// A request that has no answer, with its buffers.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: InferError,
    /// The request, unless it was lost with the thread that had it. Its inputs are as they were; what its
    /// outputs hold is unspecified.
    pub request: Option<InferRequest>,
}

impl Failed {
    /// Boxed, so that answers stay small.
    fn boxed(error: impl Into<InferError>, request: Option<InferRequest>) -> Box<Self> {
        Box::new(Self { error: error.into(), request })
    }

    fn lost() -> Box<Self> {
        Self::boxed(Rejection::Stopped, None)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for Failed {
    /// The error's own source: this type only adds the request, nothing to be said.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// The answer to come. Dropping it gives the request up: if its turn has not come, it never runs.
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Answer>);

type Answer = Result<InferResponse, Box<Failed>>;

impl Ticket {
    /// Blocks until the answer is there.
    ///
    /// # Errors
    ///
    /// [`Failed`], with the request.
    pub fn wait(self) -> Answer {
        self.0.recv().unwrap_or_else(|_| Err(Failed::lost()))
    }

    /// The answer, for callers that must not block. Works under any async runtime.
    ///
    /// # Errors
    ///
    /// [`Failed`], with the request.
    pub async fn answer(self) -> Answer {
        self.0.await.unwrap_or_else(|_| Err(Failed::lost()))
    }
}

/// What an engine has done so far. Every accepted request is in exactly one of the last four, or still
/// waits or runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests accepted.
    pub n_accepted: u64,
    /// Requests turned away at a full queue.
    pub n_queue_full: u64,
    /// Requests answered.
    pub n_answered: u64,
    /// Requests that ran and failed.
    pub n_failed: u64,
    /// Requests given up by their callers before they ran.
    pub n_cancelled: u64,
    /// Requests refused because the engine was dropped, or its last session lost, before their turn.
    pub n_refused: u64,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    queue_full: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    refused: AtomicU64,
}

/// What the engine and its threads share.
#[derive(Debug, Default)]
struct Shared {
    /// Where requests go in; none once the engine accepts no more.
    queue: RwLock<Option<Sender<Job>>>,
    /// Set when waiting requests are to be refused instead of run.
    refusing: AtomicBool,
    /// Threads that can still answer.
    n_workers: AtomicUsize,
    counters: Counters,
}

impl Shared {
    /// The queue, if the engine still accepts. Threads live on while anybody holds it, so what is counted
    /// before it is dropped is seen by whoever joined them.
    fn queue(&self) -> Option<Sender<Job>> {
        self.queue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets nobody else hand a request in. What waits stays, and whoever holds the queue may still use it.
    fn stop_accepting(&self) {
        *self.queue.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

struct Job {
    request: InferRequest,
    submitted: Instant,
    reply: oneshot::Sender<Answer>,
}

/// Sessions of one executable behind a bounded queue.
#[derive(Debug)]
pub struct Engine {
    workers: Mutex<Vec<JoinHandle<()>>>,
    signature: Arc<Signature>,
    queue_capacity: usize,
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the threads, each of which makes its session, and waits for the sessions.
    ///
    /// # Errors
    ///
    /// The first [`BackendError`] when a session cannot be made; every thread has ended then.
    pub fn start(
        executable: &Arc<dyn Executable>,
        options: &EngineOptions,
    ) -> Result<Self, BackendError> {
        let queue_capacity = options.queue_capacity.max(1);
        let n_sessions = options.n_sessions.max(1);
        let (queue, jobs) = bounded(queue_capacity);
        let signature = Arc::clone(executable.signature());
        let shared = Arc::new(Shared { queue: RwLock::new(Some(queue)), ..Shared::default() });
        let engine = Self { workers: Mutex::default(), signature, queue_capacity, shared };
        let (made, outcomes) = bounded(n_sessions);
        for number in 0..n_sessions {
            let worker = Worker::new(executable, options.session, &jobs, &engine.shared);
            engine.spawn(number, worker, made.clone())?;
        }
        drop(made);
        // On an error the engine is dropped, which joins its threads.
        outcomes.into_iter().collect::<Result<(), _>>()?;
        Ok(engine)
    }

    fn spawn(
        &self,
        number: usize,
        worker: Worker,
        made: Sender<Result<(), BackendError>>,
    ) -> Result<(), BackendError> {
        let backend = worker.backend();
        let thread = std::thread::Builder::new().name(format!("shapeyard-{number}"));
        let handle =
            thread.spawn(move || worker.serve(made)).map_err(|error| BackendError::Library {
                backend,
                what: "start a session's thread",
                message: error.to_string(),
            })?;
        self.workers().push(handle);
        Ok(())
    }

    /// Inputs and outputs, in the order that requests and answers have.
    #[must_use]
    pub const fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    /// Hands a request in without waiting.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the request, when the queue is full or the engine has stopped.
    pub fn submit(&self, request: InferRequest) -> Result<Ticket, Rejected> {
        let (job, ticket) = job(request);
        let Some(queue) = self.shared.queue() else { return Err(stopped(job)) };
        match queue.try_send(job) {
            Ok(()) => Ok(self.accepted(ticket)),
            Err(TrySendError::Full(job)) => {
                self.shared.counters.queue_full.fetch_add(1, Ordering::Relaxed);
                let rejection = Rejection::QueueFull { capacity: self.queue_capacity };
                Err(Rejected { rejection, request: job.request })
            }
            Err(TrySendError::Disconnected(job)) => Err(stopped(job)),
        }
    }

    /// Hands a request in, blocking while the queue is full.
    ///
    /// # Errors
    ///
    /// [`Rejected`] with the request, when the engine has stopped.
    pub fn submit_wait(&self, request: InferRequest) -> Result<Ticket, Rejected> {
        let (job, ticket) = job(request);
        let Some(queue) = self.shared.queue() else { return Err(stopped(job)) };
        match queue.send(job) {
            Ok(()) => Ok(self.accepted(ticket)),
            Err(refused) => Err(stopped(refused.into_inner())),
        }
    }

    fn accepted(&self, ticket: Ticket) -> Ticket {
        self.shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        ticket
    }

    /// What the engine has done so far.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EngineStats {
            n_accepted: read(&counters.accepted),
            n_queue_full: read(&counters.queue_full),
            n_answered: read(&counters.answered),
            n_failed: read(&counters.failed),
            n_cancelled: read(&counters.cancelled),
            n_refused: read(&counters.refused),
        }
    }

    /// Accepts no more, answers all that was accepted, and ends every thread. Blocks meanwhile; does nothing
    /// the second time.
    ///
    /// A [`Self::submit_wait`] that blocks already counts as accepted.
    pub fn close(&self) {
        self.shared.stop_accepting();
        // Held to the end, so that a second caller returns no sooner than the first.
        for worker in self.workers().drain(..) {
            // A worker catches its backend's panics; one of its own leaves nothing to be done here.
            let _ = worker.join();
        }
    }

    /// [`Self::close`], for who owns the engine and wants to know what it has done.
    #[must_use]
    pub fn shutdown(self) -> EngineStats {
        self.close();
        self.stats()
    }

    fn workers(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    /// Lets what runs finish, refuses what waits, and ends every thread. Blocks meanwhile.
    fn drop(&mut self) {
        self.shared.refusing.store(true, Ordering::Relaxed);
        self.close();
    }
}

fn job(request: InferRequest) -> (Job, Ticket) {
    let (reply, answer) = oneshot::channel();
    (Job { request, submitted: Instant::now(), reply }, Ticket(answer))
}

fn stopped(job: Job) -> Rejected {
    Rejected { rejection: Rejection::Stopped, request: job.request }
}

#[cfg(test)]
mod tests;
