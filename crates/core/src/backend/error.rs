//! What can go wrong below the trait: one variant for each reaction that a caller can have.

use std::io;
use std::path::PathBuf;

use super::BackendId;
use crate::model::ModelError;
use crate::plan::Bucket;
use crate::{BindError, DataType};

/// Why a backend cannot plan, compile or load.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The backend is not usable on this machine: install or set what the remedy says, or choose another.
    #[error("{backend} is not usable here: {reason}; {remedy}")]
    Unavailable {
        /// The backend.
        backend: BackendId,
        /// What is missing or wrong.
        reason: String,
        /// What to install or set.
        remedy: String,
    },
    /// The backend cannot serve this model: choose another, or convert the model.
    #[error("{backend} cannot serve `{}`: {reason}; choose another backend, or export the model anew", model.display())]
    Model {
        /// The backend.
        backend: BackendId,
        /// The model file.
        model: PathBuf,
        /// What it cannot serve, in the library's own words where it has any.
        reason: String,
    },
    /// The model file could not be read again.
    #[error(transparent)]
    ModelFile(#[from] ModelError),
    /// An artifact is damaged or was made for something else: compile it again.
    #[error("the artifact `{}` is not loaded: {reason}; compile it again", path.display())]
    Artifact {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An artifact could not be written.
    #[error("`{}` cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The backend has no such function.
    #[error("{backend} does not {what}")]
    Unsupported {
        /// The backend.
        backend: BackendId,
        /// What was asked of it.
        what: &'static str,
    },
    /// The library failed for a reason of its own.
    #[error("{backend} failed to {what}: {message}")]
    Library {
        /// The backend.
        backend: BackendId,
        /// What it was doing.
        what: &'static str,
        /// The library's own words.
        message: String,
    },
}

/// Why a run gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The request does not fit the model.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The request was bound to another model's signature.
    #[error("the request was bound to another model; bind it to this executable's signature")]
    ForeignRequest,
    /// No program for this shape is ready: compile it, or route the request elsewhere.
    #[error("no program for {wanted} is ready")]
    NotReady {
        /// The shape asked for.
        wanted: Bucket,
        /// Shapes that are ready and hold it, or come near, best first.
        nearest: Vec<Bucket>,
    },
    /// The backend computes in a type that cannot hold a value of the request.
    #[error(
        "{backend} cannot hold element {at} of input `{input}`, {value}: it computes in {computes_in}"
    )]
    Unrepresentable {
        /// The backend.
        backend: BackendId,
        /// The input.
        input: String,
        /// The first element that does not fit.
        at: usize,
        /// Its value.
        value: i64,
        /// The type that the backend computes in.
        computes_in: DataType,
    },
    /// The library failed for a reason of its own.
    #[error("{backend} failed to run: {message}")]
    Library {
        /// The backend.
        backend: BackendId,
        /// The library's own words.
        message: String,
    },
}
