//! The thread that owns a session.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::{Failed, Job, Lane, Rejection, Shared};
use crate::backend::{BackendError, BackendId, Executable, SessionOptions};

/// A session's place in the engine. Nothing of it leaves its thread once that runs.
pub(super) struct Worker {
    executable: Arc<dyn Executable>,
    options: SessionOptions,
    jobs: Receiver<Job>,
    shared: Arc<Shared>,
}

impl Worker {
    pub(super) fn new(
        executable: &Arc<dyn Executable>,
        options: SessionOptions,
        jobs: &Receiver<Job>,
        shared: &Arc<Shared>,
    ) -> Self {
        shared.n_workers.fetch_add(1, Ordering::AcqRel);
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
        let mut lane = match Lane::open(&self.executable, self.options) {
            Ok(lane) => lane,
            Err(error) => {
                // Nobody listens any more when another worker failed first.
                let _ = made.send(Err(error));
                return;
            }
        };
        let _ = made.send(Ok(()));
        drop(made);
        while let Ok(job) = self.jobs.recv() {
            self.handle(&mut lane, job);
            if !lane.is_usable() && lane.replace().is_err() {
                return;
            }
        }
    }

    fn handle(&self, lane: &mut Lane, job: Job) {
        let counters = &self.shared.counters;
        if job.reply.is_closed() {
            return count(&counters.cancelled);
        }
        if self.shared.refusing.load(Ordering::Relaxed) {
            return self.refuse(job);
        }
        let queued = job.submitted.elapsed();
        let mut answer = lane.run(job.request);
        if let Ok(response) = &mut answer {
            response.queued = queued;
        }
        count(if answer.is_ok() { &counters.answered } else { &counters.failed });
        let _ = job.reply.send(answer);
    }

    fn refuse(&self, job: Job) {
        count(&self.shared.counters.refused);
        // The caller may have left meanwhile; then nobody wants the answer.
        let _ = job.reply.send(Err(Failed::boxed(Rejection::Stopped, Some(job.request))));
    }
}

impl Drop for Worker {
    /// The last worker to go, for whatever reason, leaves no request without an answer.
    fn drop(&mut self) {
        if self.shared.n_workers.fetch_sub(1, Ordering::AcqRel) > 1 {
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

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
