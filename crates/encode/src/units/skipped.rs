//! Files that gave no unit.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// A file or folder that was found and gave no unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Where it is. In JSON what is not UTF-8 in it is replaced, since it may be skipped for just that.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// Why it gave none.
    pub reason: SkipReason,
}

fn as_text<S: Serializer>(path: &Path, into: S) -> Result<S::Ok, S::Error> {
    into.collect_str(&path.display())
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// Why a file gave no unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum SkipReason {
    /// It holds what no text file holds.
    NotText {
        /// What that is.
        found: &'static str,
        /// The byte at which it begins, counted from 0.
        at: usize,
    },
    /// It is longer than the limit.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// It is a symbolic link; links are not followed.
    Link,
    /// It is neither a file nor a folder.
    NotAFile,
    /// It is a list of units that an encoding has written.
    UnitList,
    /// It holds lines of JSON, of which the first is no record.
    NotRecords {
        /// What is wrong with that line.
        reason: String,
    },
    /// Its name is no text, so that no list could name it.
    NameNotText,
    /// It could not be read.
    Unreadable {
        /// The system's reason.
        message: String,
    },
}

impl SkipReason {
    /// Whether text may be missing, as opposed to the file not being text to encode.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::NameNotText | Self::TooLarge { .. })
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText { found, at } => write!(f, "not text: {found} at byte {at}"),
            Self::TooLarge { limit } => write!(f, "longer than {limit} bytes"),
            Self::Link => f.pad("a symbolic link"),
            Self::NotAFile => f.pad("neither a file nor a folder"),
            Self::UnitList => f.pad("a list of units"),
            Self::NotRecords { reason } => write!(f, "holds no records: {reason}"),
            Self::NameNotText => f.pad("its name is not UTF-8"),
            Self::Unreadable { message } => write!(f, "cannot be read: {message}"),
        }
    }
}
