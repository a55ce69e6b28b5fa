//! One session for requests that own their buffers, on the thread that calls.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::{Failed, InferError, InferRequest, InferResponse, Rejection};
use crate::backend::{BackendError, Executable, Request, Session, SessionOptions};
use crate::{Outputs, RunError, RunReport, Tensor, TensorView};

/// A session that answers what an [`Engine`](super::Engine) answers, on the thread that calls.
///
/// For whoever has one request at a time: with an engine each request and each answer wakes another thread.
pub struct Lane {
    executable: Arc<dyn Executable>,
    options: SessionOptions,
    /// None where it could not be replaced.
    session: Option<Box<dyn Session>>,
    /// Whether it panicked, and has to be replaced.
    is_broken: bool,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Lane {
    /// Makes the session.
    ///
    /// # Errors
    ///
    /// [`BackendError`] when it cannot be made, or its making panicked.
    pub fn open(
        executable: &Arc<dyn Executable>,
        options: SessionOptions,
    ) -> Result<Self, BackendError> {
        let mut lane =
            Self { executable: Arc::clone(executable), options, session: None, is_broken: false };
        lane.replace()?;
        Ok(lane)
    }

    /// Answers a request. A session that panicked before is replaced first.
    ///
    /// # Errors
    ///
    /// [`Failed`], with the request; [`Rejection::Stopped`] where the session cannot be replaced.
    pub fn run(&mut self, request: InferRequest) -> Result<InferResponse, Box<Failed>> {
        if !self.is_usable() && self.replace().is_err() {
            return Err(Failed::boxed(Rejection::Stopped, Some(request)));
        }
        let InferRequest { inputs, mut outputs } = request;
        match self.answer(&inputs, &mut outputs) {
            Ok(report) => Ok(InferResponse { inputs, outputs, report, queued: Duration::ZERO }),
            Err(error) => Err(Failed::boxed(error, Some(InferRequest { inputs, outputs }))),
        }
    }

    fn answer(
        &mut self,
        inputs: &[Tensor],
        outputs: &mut Outputs,
    ) -> Result<RunReport, InferError> {
        let Some(session) = self.session.as_deref_mut() else {
            return Err(Rejection::Stopped.into());
        };
        let signature = self.executable.signature();
        let run = || -> Result<RunReport, InferError> {
            let views: SmallVec<[TensorView<'_>; 8]> = inputs.iter().map(Tensor::view).collect();
            let request = Request::bind(signature, &views).map_err(RunError::from)?;
            Ok(session.run(&request, outputs)?)
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            self.is_broken = true;
            Err(InferError::Panicked { message: panic_message(&*panic) })
        })
    }

    /// Whether there is a session that did not panic.
    pub(super) const fn is_usable(&self) -> bool {
        self.session.is_some() && !self.is_broken
    }

    /// Drops the session, which may panic once more where it did before.
    fn discard(&mut self) {
        let session = self.session.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(session)));
    }

    /// Makes a session in place of one that panicked. What that one holds is free before.
    pub(super) fn replace(&mut self) -> Result<(), BackendError> {
        self.discard();
        let session = || self.executable.session(&self.options);
        let made = catch_unwind(AssertUnwindSafe(session)).unwrap_or_else(|panic| {
            Err(BackendError::Library {
                backend: self.executable.backend(),
                what: "make a session",
                message: panic_message(&*panic),
            })
        });
        self.session = Some(made?);
        self.is_broken = false;
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.is_broken {
            self.discard();
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
