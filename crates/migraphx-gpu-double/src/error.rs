//! Why a call of the C API fails.

/// A failure, with the status that MIGraphX has for it. The words go to standard error, as MIGraphX's do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A null where an object or a place is wanted.
    #[error("bad parameter {0}: Null pointer")]
    BadParameter(&'static str),
    /// Whatever else.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub(crate) fn failed(words: impl Into<String>) -> Self {
        Self::Failed(words.into())
    }

    /// The number of MIGraphX's status.
    pub(crate) fn status(&self) -> u32 {
        match self {
            Self::BadParameter(_) => 1,
            Self::Failed(_) => 4,
        }
    }
}

impl From<hip_sys::HipError> for Error {
    fn from(error: hip_sys::HipError) -> Self {
        Self::Failed(error.to_string())
    }
}
