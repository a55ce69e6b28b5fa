//! What a GGUF file says about itself, read without any runtime library.
//!
//! The format: `docs/gguf.md` of the ggml project. Files of versions 2 and 3 in little-endian order are
//! read.

mod encoder;
mod modern_bert;
mod reader;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

pub use encoder::{EncoderKind, EncoderSizes, layer_tensors};
pub use modern_bert::LocalAttention;

/// The first bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

const DEFAULT_ALIGNMENT: u64 = 32;

/// Why bytes are no GGUF model that can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file could not be read.
    #[error("the file could not be read")]
    Read(#[from] io::Error),
    /// A length in the file points beyond its end.
    #[error(
        "at byte {at} the file promises {wanted} more bytes and has {found}: it is truncated; convert or \
         download it again"
    )]
    Truncated {
        /// Where the promise stands.
        at: u64,
        /// Bytes promised.
        wanted: u64,
        /// Bytes there.
        found: u64,
    },
    /// The bytes are not what a GGUF file may hold at that place.
    #[error("the file is damaged or no GGUF file: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// The file is of a version that is not read.
    #[error("the file is GGUF of version {found}; versions 2 and 3 are read")]
    Version {
        /// The version.
        found: u32,
    },
    /// A tensor is of a type that is not known.
    #[error("tensor `{tensor}` is of type number {found}, which is not known")]
    UnknownType {
        /// The tensor.
        tensor: String,
        /// The type's number.
        found: u32,
    },
    /// The file holds another kind of model than an encoder that can be served.
    #[error("the file's architecture is `{found}`; `bert` and `modern-bert` are served")]
    Architecture {
        /// The architecture; empty if the file names none.
        found: String,
    },
    /// Something that the architecture needs is missing or does not fit.
    #[error("the file is no encoder that can be served: {reason}")]
    NotAnEncoder {
        /// What is missing or wrong.
        reason: String,
    },
}

/// A value of the metadata. Of lists only the length is kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum GgufValue {
    /// A signed integer of any width.
    Int(i64),
    /// An unsigned integer of any width.
    Uint(u64),
    /// A float of either width.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of so many elements.
    List(u64),
}

/// The type of a tensor's elements, by the format's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GgufType(u32);

impl GgufType {
    /// IEEE 754 binary32.
    pub const F32: Self = Self(0);
    /// IEEE 754 binary16.
    pub const F16: Self = Self(1);
    /// Blocks of 8-bit integers with a scale each.
    pub const Q8_0: Self = Self(8);
    /// Blocks of 32 integers of 5 bits with a scale each.
    pub const Q5_0: Self = Self(6);
    /// Blocks of 256 integers of 4 bits with scales and minima.
    pub const Q4_K: Self = Self(12);
    /// The upper half of an IEEE 754 binary32.
    pub const BF16: Self = Self(30);

    /// Number, elements of a block and bytes of a block, for each type that is known.
    const KNOWN: [(u32, u64, u64); 19] = [
        (0, 1, 4),
        (1, 1, 2),
        (2, 32, 18),
        (3, 32, 20),
        (6, 32, 22),
        (7, 32, 24),
        (8, 32, 34),
        (9, 32, 36),
        (10, 256, 84),
        (11, 256, 110),
        (12, 256, 144),
        (13, 256, 176),
        (14, 256, 210),
        (24, 1, 1),
        (25, 1, 2),
        (26, 1, 4),
        (27, 1, 8),
        (28, 1, 8),
        (30, 1, 2),
    ];

    /// The type with this number, if it is known.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        Self::KNOWN.iter().any(|known| known.0 == number).then_some(Self(number))
    }

    /// The format's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether weights may be of this type: floats up to 32 bits, and quantised ones that are stored.
    #[must_use]
    pub const fn is_weight(self) -> bool {
        matches!(self.0, 0..=8 | 10..=14 | 30)
    }

    /// Bytes of a row of so many elements, if they fill whole blocks.
    #[must_use]
    pub fn row_bytes(self, n_elements: u64) -> Option<u64> {
        let &(_, elements, bytes) = Self::KNOWN.iter().find(|known| known.0 == self.0)?;
        if !n_elements.is_multiple_of(elements) {
            return None;
        }
        (n_elements / elements).checked_mul(bytes)
    }
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GgufTensor {
    /// Extents, outermost first; the file has them the other way round.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: GgufType,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes; the file has them all.
    pub n_bytes: u64,
}

/// What a GGUF file says about itself.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GgufFile {
    /// The version of the format.
    pub version: u32,
    /// The metadata by key.
    pub metadata: BTreeMap<String, GgufValue>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, GgufTensor>,
    /// Where the metadata ends: what lies before needs no change when tensors change.
    pub metadata_end: u64,
}

/// Reads what the file says about itself; weights are passed over, not read.
///
/// Takes memory in proportion to names and texts. No content makes it panic.
///
/// # Errors
///
/// [`GgufError`].
pub fn read(file: impl Read + Seek) -> Result<GgufFile, GgufError> {
    reader::read(file)
}

impl GgufFile {
    /// A text of the metadata.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key) {
            Some(GgufValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A number of the metadata that may be a size.
    #[must_use]
    pub fn size(&self, key: &str) -> Option<usize> {
        match *self.metadata.get(key)? {
            GgufValue::Uint(value) => usize::try_from(value).ok(),
            GgufValue::Int(value) => usize::try_from(value).ok(),
            _ => None,
        }
    }

    /// What the start of every tensor is a multiple of.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        match self.metadata.get("general.alignment") {
            Some(&GgufValue::Uint(value)) if value > 0 => value,
            _ => DEFAULT_ALIGNMENT,
        }
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn n_tensor_bytes(&self) -> u64 {
        self.tensors.values().fold(0, |sum, tensor| sum.saturating_add(tensor.n_bytes))
    }
}
