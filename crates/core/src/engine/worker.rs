//! The thread that owns a session.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Receiver;
use smallvec::SmallVec;

use super::{Answer, InferError, InferResponse, Job, Rejection, Shared};
use crate::backend::{Executable, Request, Session, SessionOptions};
use crate::{Outputs, RunReport, Tensor, TensorView};

pub(super) struct Worker {
    pub(super) session: Box<dyn Session>,
    pub(super) executable: Arc<dyn Executable>,
    pub(super) options: SessionOptions,
    pub(super) jobs: Receiver<Job>,
    pub(super) shared: Arc<Shared>,
}

impl Worker {
    /// Serves until the queue is closed and empty, or a session that panicked cannot be replaced.
    pub(super) fn serve(mut self) {
        while let Ok(job) = self.jobs.recv() {
            if !self.handle(job) {
                break;
            }
        }
    }

    /// Answers one job; says whether the worker can go on.
    fn handle(&mut self, job: Job) -> bool {
        let counters = &self.shared.counters;
        if job.reply.is_closed() {
            count(&counters.cancelled);
            return true;
        }
        if self.shared.refusing.load(Ordering::Relaxed) {
            count(&counters.refused);
            // The caller may have left meanwhile; then nobody wants the answer.
            let _ = job.reply.send(Err(InferError::Rejected(Rejection::Stopped)));
            return true;
        }
        let queued = job.submitted.elapsed();
        let (inputs, mut outputs) = (job.request.inputs, job.request.outputs);
        let run =
            AssertUnwindSafe(|| run(&self.executable, &mut *self.session, &inputs, &mut outputs));
        let (answer, usable): (Answer, bool) = match catch_unwind(run) {
            Ok(Ok(report)) => (Ok(InferResponse { inputs, outputs, report, queued }), true),
            Ok(Err(error)) => (Err(error), true),
            Err(panic) => (Err(InferError::Panicked { message: panic_message(&*panic) }), false),
        };
        count(if answer.is_ok() { &counters.answered } else { &counters.failed });
        let _ = job.reply.send(answer);
        usable || self.replace_session()
    }

    fn replace_session(&mut self) -> bool {
        match self.executable.session(&self.options) {
            Ok(session) => {
                self.session = session;
                true
            }
            Err(_) => false,
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
