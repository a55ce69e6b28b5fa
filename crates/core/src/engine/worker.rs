//! The thread that owns a session.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};
use smallvec::SmallVec;

use super::{Answer, Failed, InferError, InferRequest, InferResponse, Job, Rejection, Shared};
use crate::backend::{BackendError, BackendId, Executable, Request, Session, SessionOptions};
use crate::{Outputs, RunReport, Tensor, TensorView};

/// A session's place in the engine. Nothing of it leaves its thread once that runs.
pub(super) struct Lane {
    executable: Arc<dyn Executable>,
    options: SessionOptions,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
}

impl Lane {
    pub(super) fn new(
        executable: &Arc<dyn Executable>,
        options: SessionOptions,
        jobs: &Receiver<Job>,
        shared: &Arc<Shared>,
    ) -> Self {
        shared.n_lanes.fetch_add(1, Ordering::AcqRel);
        let (executable, shared) = (Arc::clone(executable), Arc::clone(shared));
        Self { executable, options, jobs: jobs.clone(), shared }
    }

    pub(super) fn backend(&self) -> BackendId {
        self.executable.backend()
    }

    /// Makes the session, says in `made` how that went, and serves until the queue is closed and empty, or a
    /// session that panicked cannot be replaced.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "the thread's own; its end is part of the answer"
    )]
    pub(super) fn serve(self, made: Sender<Result<(), BackendError>>) {
        let mut session = match self.session() {
            Ok(session) => session,
            Err(error) => {
                // Nobody listens any more when another lane failed first.
                let _ = made.send(Err(error));
                return;
            }
        };
        let _ = made.send(Ok(()));
        drop(made);
        while let Ok(job) = self.jobs.recv() {
            if self.handle(&mut *session, job) {
                continue;
            }
            // What the broken session holds is free before the next one asks for it.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(session)));
            let Ok(replacement) = self.session() else { return };
            session = replacement;
        }
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let session = || self.executable.session(&self.options);
        catch_unwind(AssertUnwindSafe(session)).unwrap_or_else(|panic| {
            Err(BackendError::Library {
                backend: self.backend(),
                what: "make a session",
                message: panic_message(&*panic),
            })
        })
    }

    /// Answers one job; says whether the session can go on.
    fn handle(&self, session: &mut dyn Session, job: Job) -> bool {
        let counters = &self.shared.counters;
        if job.reply.is_closed() {
            count(&counters.cancelled);
            return true;
        }
        if self.shared.refusing.load(Ordering::Relaxed) {
            self.refuse(job);
            return true;
        }
        let queued = job.submitted.elapsed();
        let (inputs, mut outputs) = (job.request.inputs, job.request.outputs);
        let run = AssertUnwindSafe(|| run(&self.executable, session, &inputs, &mut outputs));
        let outcome = catch_unwind(run)
            .unwrap_or_else(|panic| Err(InferError::Panicked { message: panic_message(&*panic) }));
        let usable = !matches!(outcome, Err(InferError::Panicked { .. }));
        let answer: Answer = match outcome {
            Ok(report) => Ok(InferResponse { inputs, outputs, report, queued }),
            Err(error) => Err(Failed::boxed(error, Some(InferRequest { inputs, outputs }))),
        };
        count(if answer.is_ok() { &counters.answered } else { &counters.failed });
        let _ = job.reply.send(answer);
        usable
    }

    fn refuse(&self, job: Job) {
        count(&self.shared.counters.refused);
        // The caller may have left meanwhile; then nobody wants the answer.
        let _ = job.reply.send(Err(Failed::boxed(Rejection::Stopped, Some(job.request))));
    }
}

impl Drop for Lane {
    /// The last lane to go, for whatever reason, leaves no request without an answer.
    fn drop(&mut self) {
        if self.shared.n_lanes.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.shared.stop_accepting();
        for job in &self.jobs {
            if job.reply.is_closed() {
                count(&self.shared.counters.cancelled);
            } else {
                self.refuse(job);
            }
        }
    }
}

fn run(
    executable: &Arc<dyn Executable>,
    session: &mut dyn Session,
    inputs: &[Tensor],
    outputs: &mut Outputs,
) -> Result<RunReport, InferError> {
    let views: SmallVec<[TensorView<'_>; 8]> = inputs.iter().map(Tensor::view).collect();
    let request = Request::bind(executable.signature(), &views).map_err(crate::RunError::from)?;
    Ok(session.run(&request, outputs)?)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
