//! The async face that servers and consumers hold.

use async_trait::async_trait;

use super::{Engine, Failed, InferRequest, InferResponse};
use crate::Signature;

/// Something that answers requests without blocking its callers; object-safe.
#[async_trait]
pub trait InferenceService: Send + Sync {
    /// Inputs and outputs, in the order that requests and answers have.
    fn signature(&self) -> &Signature;

    /// Answers a request. Dropping the future gives the request up.
    ///
    /// # Errors
    ///
    /// [`Failed`], with the request; a full queue is an error at once, not a wait.
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Box<Failed>>;

    /// Accepts no more, answers all that was accepted, and frees what runs requests. Does nothing the second
    /// time.
    ///
    /// Blocks meanwhile: an async caller does this on a thread that may block.
    fn close(&self);
}

#[async_trait]
impl InferenceService for Engine {
    fn signature(&self) -> &Signature {
        Self::signature(self)
    }

    async fn infer(&self, request: InferRequest) -> Result<InferResponse, Box<Failed>> {
        match self.submit(request) {
            Ok(ticket) => ticket.answer().await,
            Err(rejected) => Err(Failed::boxed(rejected.rejection, Some(rejected.request))),
        }
    }

    fn close(&self) {
        Self::close(self);
    }
}
