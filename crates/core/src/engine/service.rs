//! The async face that servers and consumers hold.

use async_trait::async_trait;

use super::{Engine, InferError, InferRequest, InferResponse};
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
    /// [`InferError`]; a full queue is an error at once, not a wait.
    async fn infer(&self, request: InferRequest) -> Result<InferResponse, InferError>;

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

    async fn infer(&self, request: InferRequest) -> Result<InferResponse, InferError> {
        match self.submit(request) {
            Ok(ticket) => ticket.answer().await,
            Err(rejected) => Err(rejected.rejection.into()),
        }
    }

    fn close(&self) {
        Self::close(self);
    }
}
