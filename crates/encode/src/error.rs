//! Why text could not be encoded.

use shapeyard_core::BindError;
use shapeyard_core::backend::BackendError;
use shapeyard_core::engine::InferError;

use crate::tokens::TokenizeError;

/// Why text could not be encoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The model does not take tokens and give one vector a token: choose another model.
    #[error("the model is no text encoder: {reason}")]
    NotAnEncoder {
        /// What it lacks.
        reason: String,
    },
    /// Text could not be turned into tokens.
    #[error(transparent)]
    Tokenize(#[from] TokenizeError),
    /// A session could not be made.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A batch has no answer.
    #[error("a batch of {n_rows} texts of up to {length} tokens has no answer")]
    Batch {
        /// Texts in the batch.
        n_rows: usize,
        /// Tokens of the longest.
        length: usize,
        /// Why.
        source: InferError,
    },
    /// An answer has not the shape that the model promised.
    #[error("output `{output}` has shape {found:?}, expected is {wanted:?}")]
    Output {
        /// The output.
        output: String,
        /// The shape or type found.
        found: Vec<usize>,
        /// The shape expected.
        wanted: Vec<usize>,
    },
    /// The texts are too many for this machine's memory.
    #[error(
        "{n_rows} rows of {n_cells} numbers do not fit into memory; encode fewer texts at once"
    )]
    TooLarge {
        /// Rows asked for: texts of a batch, or vectors of all texts.
        n_rows: usize,
        /// Numbers in each.
        n_cells: usize,
    },
}

impl From<BindError> for EncodeError {
    fn from(error: BindError) -> Self {
        Self::NotAnEncoder { reason: error.to_string() }
    }
}
