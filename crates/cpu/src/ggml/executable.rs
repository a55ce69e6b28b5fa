//! A model that ggml serves.

use std::sync::Arc;

use shapeyard_core::Signature;
use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, InUse, Session, SessionOptions,
};

use super::ID;
use super::encoder::{Encoder, EncoderLane};
use super::library::Engine;
use super::onnx::{OnnxLane, Prepared};
use super::session::{GgmlSession, Lane};
use super::stream::Stream;

/// What all lanes share.
#[derive(Debug)]
pub(super) enum Loaded {
    Onnx(Arc<Prepared>),
    Encoder(Arc<Encoder>),
}

impl Loaded {
    fn engine(&self) -> &Arc<Engine> {
        match self {
            Self::Onnx(prepared) => &prepared.engine,
            Self::Encoder(encoder) => &encoder.engine,
        }
    }
}

/// A loaded model.
#[derive(Debug)]
pub(super) struct GgmlExecutable {
    loaded: Loaded,
    signature: Arc<Signature>,
    /// Keeps the file that the weights may lie in.
    _in_use: InUse,
}

impl GgmlExecutable {
    pub(super) fn new(loaded: Loaded, signature: &Signature, in_use: InUse) -> Self {
        Self { loaded, signature: Arc::new(signature.clone()), _in_use: in_use }
    }

    fn lane(&self, options: &SessionOptions) -> Result<Box<dyn Lane>, String> {
        let stream = Stream::new(self.loaded.engine(), options.n_threads)?;
        Ok(match &self.loaded {
            Loaded::Onnx(prepared) => {
                let signature = Arc::clone(&self.signature);
                Box::new(OnnxLane::new(Arc::clone(prepared), signature, stream)?)
            }
            Loaded::Encoder(encoder) => Box::new(EncoderLane::new(Arc::clone(encoder), stream)?),
        })
    }
}

impl Executable for GgmlExecutable {
    fn backend(&self) -> BackendId {
        ID
    }

    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn domain(&self) -> Domain {
        Domain::Any
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        let lane = self.lane(options).map_err(|message| BackendError::Library {
            backend: ID,
            what: "open another session",
            message,
        })?;
        Ok(Box::new(GgmlSession::new(lane, Arc::clone(&self.signature))))
    }

    fn admit(&self, _artifact: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: ID, what: "need buckets: it takes every shape" })
    }
}
