//! Why there are no units.

use std::io;
use std::path::{Path, PathBuf};

use super::{SkipReason, Skipped};

/// Why there are no units.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// A path leads nowhere.
    #[error("there is no file or folder `{}`", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// A file or folder cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that was named is not text.
    #[error("`{}` is not UTF-8 text: {found} at byte {at}; name text files or folders", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What no text file holds.
        found: &'static str,
        /// The byte at which it begins, counted from 0.
        at: usize,
    },
    /// A file that was named is longer than the limit.
    #[error("`{}` is longer than the limit of {limit} bytes; split it or raise the limit", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// The name of a path is not UTF-8, so that no list of units could name it.
    #[error("the name `{}` is not UTF-8; rename the file", path.display())]
    NameNotText {
        /// The path.
        path: PathBuf,
    },
    /// A line of a file of records is no record.
    #[error(
        "{}:{line}: {reason}; a record is an object with a string `text`, and a file named in \
         `.ignore` is left out of its folder",
        path.display()
    )]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing that was looked at holds text.
    #[error("no text in {}{}", list(looked_at), skipped_note(*n_skipped))]
    Nothing {
        /// The paths.
        looked_at: Vec<PathBuf>,
        /// Files that were found there and are not text.
        n_skipped: usize,
    },
}

impl UnitError {
    pub(super) fn of_io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Unreadable { path, source },
        }
    }
}

impl Skipped {
    /// The same of a path that was named.
    pub(super) fn into_error(self) -> UnitError {
        let path = self.path;
        match self.reason {
            SkipReason::NotText { found, at } => UnitError::NotText { path, found, at },
            SkipReason::TooLarge { limit } => UnitError::TooLarge { path, limit },
            SkipReason::NameNotText => UnitError::NameNotText { path },
            reason => UnitError::Unreadable { path, source: io::Error::other(reason.to_string()) },
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    if paths.is_empty() { "an empty list of paths".to_owned() } else { paths.join(", ") }
}

fn skipped_note(n_skipped: usize) -> String {
    match n_skipped {
        0 => "; hidden files and what git ignores are not looked at".to_owned(),
        n => format!("; {n} files there are not readable text"),
    }
}
