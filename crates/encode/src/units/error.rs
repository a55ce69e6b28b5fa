//! Why no units could be made.

use std::io;
use std::path::PathBuf;

/// Why no units could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// A path that was named cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Unreadable {
        /// The path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file that was named is not text.
    #[error("`{}` is no UTF-8 text; name text files, folders or JSONL files", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A line of a JSONL file is no record with a text.
    #[error("`{}` line {line} is no record with a string field `text`: {reason}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing that was named holds any text.
    #[error("there is no text in {}", list(paths))]
    NoText {
        /// What was named.
        paths: Vec<PathBuf>,
    },
}

fn list(paths: &[PathBuf]) -> String {
    match paths {
        [] => "nothing, and no path was named".to_owned(),
        paths => {
            paths.iter().map(|it| format!("`{}`", it.display())).collect::<Vec<_>>().join(", ")
        }
    }
}
