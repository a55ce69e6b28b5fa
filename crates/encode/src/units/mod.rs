//! Files, folders and records cut into pieces of text.

mod collect;
mod error;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use collect::collect;
pub use error::UnitError;

/// A piece of text that gets a row of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where it came from.
    pub source: Source,
    /// The text.
    pub text: String,
}

/// Where a unit came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Source {
    /// The file, below the path that was named.
    pub path: PathBuf,
    /// Which part of it.
    #[serde(flatten)]
    pub span: Span,
}

/// Which part of a file a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// Lines, counted from 1, the last one included.
    Lines {
        /// The first line.
        first: usize,
        /// The last line.
        last: usize,
    },
    /// The record on a line of a JSONL file, counted from 1.
    Record {
        /// The line.
        line: usize,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.span {
            Span::Lines { first, last } => write!(f, "{path}:{first}-{last}"),
            Span::Record { line } => write!(f, "{path}:{line}"),
        }
    }
}

/// How files are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitOptions {
    /// Lines of a unit; 0 for whole files.
    pub chunk_lines: usize,
    /// Files in folders that are longer than this are passed over: they are data, not text to read.
    pub max_file_bytes: u64,
}

impl Default for UnitOptions {
    fn default() -> Self {
        Self { chunk_lines: 40, max_file_bytes: 8 << 20 }
    }
}

/// A file in a folder that gave no unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
    /// Whether it should have been read: the system refused.
    pub unreadable: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The pieces of text, in the order of paths and then of lines.
    pub units: Vec<Unit>,
    /// Files in folders that gave none.
    pub skipped: Vec<Skipped>,
}
