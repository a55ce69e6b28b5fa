//! What can go wrong below the trait: one variant for each reaction that a caller can have.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
    /// An option contradicts another, or what it names cannot be used: change it.
    #[error("{backend} cannot work with {option}: {reason}")]
    Option {
        /// The backend.
        backend: BackendId,
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The backend runs only what was compiled, and nothing was: compile it first.
    #[error("{backend} has no program of this model; compile some first, as `shapeyard warm` does")]
    NothingCompiled {
        /// The backend.
        backend: BackendId,
    },
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
    /// The compiler ended without an artifact, for a reason that may pass: try again, with more time or
    /// memory, or choose another backend.
    #[error("{backend} did not compile `{}` for {bucket}: {end}{}", model.display(), words(log))]
    Compile {
        /// The backend.
        backend: BackendId,
        /// The model file.
        model: PathBuf,
        /// The shape.
        bucket: Bucket,
        /// How it ended.
        end: CompileEnd,
        /// The compiler's own words; may be empty.
        log: String,
    },
    /// The caller no longer wanted it.
    #[error("{what} was cancelled")]
    Cancelled {
        /// What was cancelled.
        what: String,
    },
    /// The backend has no such function.
    #[error("{backend} does not {what}")]
    Unsupported {
        /// The backend.
        backend: BackendId,
        /// What was asked of it.
        what: &'static str,
    },
    /// The device has not enough memory beside what is in use: allow more, use fewer or smaller programs,
    /// or choose another backend.
    #[error("{backend} has no room on the device: {reason}")]
    DeviceMemory {
        /// The backend.
        backend: BackendId,
        /// How much was wanted, and how much there is.
        reason: String,
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

/// Whether a library's words tell of a machine that had not enough to give, and not of a model that cannot
/// be served: libraries have one status for both, and only the second is worth remembering.
#[must_use]
pub fn tells_of_shortage(words: &str) -> bool {
    const SIGNS: [&str; 10] = [
        "bad_alloc",
        "out of memory",
        "OutOfMemory",
        "Cannot allocate memory",
        "Memory not available",
        "No device",
        "hipError",
        "Resource temporarily unavailable",
        "Too many open files",
        "No space left",
    ];
    SIGNS.iter().any(|sign| words.contains(sign))
}

/// How a compile ended that gave neither an artifact nor a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompileEnd {
    /// It took longer than it was given.
    TimedOut {
        /// What it was given.
        limit: Duration,
    },
    /// It took more memory than it was given.
    OutOfMemory {
        /// What it was given, in bytes.
        limit: u64,
    },
    /// The compiler crashed or was killed.
    Died {
        /// How, such as `signal 6 (SIGABRT)`.
        how: String,
    },
}

impl fmt::Display for CompileEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { limit } => {
                write!(f, "it was not done after {} s; give it more time", limit.as_secs_f64())
            }
            Self::OutOfMemory { limit } => {
                write!(f, "it took more than {} MiB; give it more memory", limit >> 20)
            }
            Self::Died { how } => write!(f, "the compiler died of {how}"),
        }
    }
}

/// The end of a log: a compiler's last words say why it failed.
fn words(log: &str) -> String {
    const LAST: usize = 2000;
    let log = log.trim();
    let from = log.ceil_char_boundary(log.len().saturating_sub(LAST));
    match log.get(from..) {
        None | Some("") => String::new(),
        Some(last) => format!("; it said: {last}"),
    }
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
    /// The program for this shape could not be made ready: as the source says.
    #[error("the program for {wanted} could not be made ready")]
    Prepare {
        /// The program's shape; where one was to be made for the request, that of the request.
        wanted: Bucket,
        /// Why.
        source: Arc<BackendError>,
    },
    /// A symbol is 0, and an output has elements all the same, which nobody can compute: leave the request
    /// out.
    #[error(
        "`{symbol}` is 0, and output `{output}` does not depend on it; there is nothing to compute it from"
    )]
    Empty {
        /// The symbol.
        symbol: String,
        /// The output.
        output: String,
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
    /// The device has not enough memory beside what is in use: allow more, use fewer or smaller programs,
    /// or choose another backend.
    #[error("{backend} has no room on the device: {reason}")]
    DeviceMemory {
        /// The backend.
        backend: BackendId,
        /// How much was wanted, and how much there is.
        reason: String,
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
