//! What can go wrong: one variant for each reaction that a caller can have.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use shapeyard_core::model::Digest;

use crate::failure::FailureRecord;
use crate::lock::Holder;

/// A file or folder that could not be read, written or moved.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} `{}`", path.display())]
pub struct StorageError {
    /// What was to be done, such as `create`.
    pub what: &'static str,
    /// To what.
    pub path: PathBuf,
    /// The system's reason.
    pub source: io::Error,
}

impl StorageError {
    pub(crate) fn new(what: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Self { what, path: path.as_ref().to_owned(), source }
    }

    /// Whether nothing stands there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether there is no room: a full disk, a quota or a limit on the length of files.
    #[must_use]
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded | FileTooLarge)
    }

    /// Whether something of another kind, such as a link, stands where a folder or file should.
    pub(crate) fn is_wrong_kind(&self) -> bool {
        let is_loop = self.source.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        is_loop || matches!(self.source.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::Other)
    }

    /// The error with its reason, in one line.
    pub(crate) fn line(&self) -> String {
        format!("{self}: {}", self.source)
    }
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Others could put programs there that this process would then run: make it your own, or allow
    /// it with [`SharedRoots::Warn`](crate::SharedRoots::Warn).
    #[error(
        "`{}` can be written by others than its owner ({why}); run `chmod go-w` on it or choose \
         another folder",
        path.display()
    )]
    Shared {
        /// The root.
        path: PathBuf,
        /// Who can write there.
        why: String,
    },
    /// Something that is no folder stands there: choose another.
    #[error("`{}` is no folder; choose another", path.display())]
    NotAFolder {
        /// The root.
        path: PathBuf,
    },
    /// A read-only base cannot be read.
    #[error("a base cannot be used")]
    Base(#[source] StorageError),
}

/// Why there is no artifact.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// Somebody else makes the artifact and was not done in time: ask again, or wait longer.
    #[error("waited {} s for {digest}, which {} makes", waited.as_secs_f32(), held_by(holder))]
    WaitedTooLong {
        /// The artifact.
        digest: Digest,
        /// How long was waited.
        waited: Duration,
        /// Who makes it, where that is known.
        holder: Option<Holder>,
    },
    /// The caller no longer wanted it.
    #[error("{digest} was no longer wanted")]
    Cancelled {
        /// The artifact.
        digest: Digest,
    },
    /// The compiler failed: change the model or the options, or ask to retry.
    #[error("{} could not be made ({origin}): {}", record.digest, record.text)]
    Failed {
        /// What failed and when.
        record: Arc<FailureRecord>,
        /// Who tried.
        origin: FailureOrigin,
    },
    /// Neither the cache nor any temporary folder could hold the artifact: make room.
    #[error("the artifact could be stored nowhere")]
    Storage(#[source] Arc<StorageError>),
}

/// Who made the attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureOrigin {
    /// This call.
    Here,
    /// Another thread of this process, for which this call waited.
    Shared,
    /// An earlier attempt, of any process, that is remembered for a while.
    Remembered,
}

impl std::fmt::Display for FailureOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Here => "now",
            Self::Shared => "by another thread",
            Self::Remembered => "remembered; retry to try again",
        })
    }
}

fn held_by(holder: &Option<Holder>) -> String {
    holder.as_ref().map_or_else(|| "another".to_owned(), ToString::to_string)
}
