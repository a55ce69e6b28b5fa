//! Where a unit came from.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a unit came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// The file, as it was named; below a folder that was named, the parts are joined by `/`.
    pub path: PathBuf,
    /// Which part of the file.
    pub span: Span,
}

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Some lines.
    Lines {
        /// The first, counted from 1.
        first: usize,
        /// The last, which belongs to it.
        last: usize,
    },
    /// One of many records.
    Record {
        /// Which record, counted from 0.
        index: usize,
        /// The line that it is on, counted from 1.
        line: usize,
    },
    /// All of it.
    Whole,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.span {
            Span::Lines { first, last } => write!(f, "{path}:{first}-{last}"),
            Span::Record { line, .. } => write!(f, "{path}:{line}"),
            Span::Whole => path.fmt(f),
        }
    }
}
