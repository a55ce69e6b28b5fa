//! Why text cannot become tokens that a model takes.

use std::io;
use std::path::PathBuf;

/// Why text cannot become tokens that a model takes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizeError {
    /// The file cannot be read.
    #[error("the tokenizer `{}` cannot be read; name a `tokenizer.json`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("`{}` is no tokenizer: {reason}; name the `tokenizer.json` of the model", path.display())]
    NotATokenizer {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        reason: String,
    },
    /// Special tokens alone fill a text.
    #[error(
        "a length of {max_length} tokens leaves no room beside {n_special} special tokens; \
         the least is {}",
        n_special + 1
    )]
    MaxLengthTooSmall {
        /// The length asked for.
        max_length: usize,
        /// Special tokens of every text.
        n_special: usize,
    },
    /// The model's embedding table has no row for some tokens.
    #[error(
        "the tokenizer `{}` gives ids up to {largest_id}, the model's table has {n_rows} rows; \
         name the tokenizer that the model was trained with",
        path.display()
    )]
    DoesNotFit {
        /// The tokenizer's file.
        path: PathBuf,
        /// The largest id that it gives.
        largest_id: u32,
        /// Rows of the model's table.
        n_rows: usize,
    },
    /// The tokenizer failed on a text.
    #[error("a text has no tokens: {reason}")]
    Text {
        /// The library's reason.
        reason: String,
    },
}
