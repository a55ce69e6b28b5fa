//! Why a file gives no tensor, or takes none.

use std::io;
use std::path::PathBuf;

use shapeyard_core::DataType;

/// What is wrong with the content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// It is damaged or something else.
    Damaged(String),
    /// It holds elements of a type that no tensor has.
    Type(String),
}

/// Why a file gives no tensor, or takes none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TensorFileError {
    /// The file cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file is no `.npy`.
    #[error("`{}` is no .npy file by its name; a single input is given as NAME=FILE.npy", path.display())]
    NotOne { path: PathBuf },
    /// The file holds no named tensors.
    #[error("`{}` is neither .npz nor .safetensors by its name; a .npy is given as --input NAME=FILE.npy", path.display())]
    NotNamed { path: PathBuf },
    /// The content is damaged or something else.
    #[error("`{place}` is damaged or something else: {reason}; write it again")]
    Damaged { place: String, reason: String },
    /// The elements have a type that no tensor has.
    #[error(
        "`{place}` holds {found}, which no model takes; convert it to bool, an integer or a float type"
    )]
    Type { place: String, found: String },
    /// The format has no name for the type.
    #[error("output `{name}` is {dtype}, which {format} files cannot hold; {remedy}")]
    NoSuchType { name: String, dtype: DataType, format: &'static str, remedy: &'static str },
    /// The file cannot be written.
    #[error("the output cannot be written")]
    Write {
        #[from]
        source: io::Error,
    },
}

impl TensorFileError {
    pub(super) fn unusable(place: String, what: Unusable) -> Self {
        match what {
            Unusable::Damaged(reason) => Self::Damaged { place, reason },
            Unusable::Type(found) => Self::Type { place, found },
        }
    }
}
