//! What an ONNX file says about itself, read without any runtime library.
//!
//! Field numbers and their meaning: `onnx/onnx.proto` of the ONNX project.

mod reader;
mod wire;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use serde::Serialize;

use crate::DataType;

/// Why bytes are no ONNX model that can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file could not be read.
    #[error("the file could not be read")]
    Read(#[from] io::Error),
    /// The file has no bytes.
    #[error("the file is empty; export or download the model again")]
    Empty,
    /// A length in the file points beyond its end.
    #[error(
        "at byte {at} the file promises {wanted} more bytes and has {found}: it is truncated or no ONNX \
         file; export or download it again"
    )]
    Truncated {
        /// Where the promise stands.
        at: u64,
        /// Bytes promised.
        wanted: u64,
        /// Bytes there.
        found: u64,
    },
    /// The bytes are not what an ONNX file may hold at that place.
    #[error("the file is damaged or no ONNX file: {what} is malformed")]
    Malformed {
        /// The part that could not be read.
        what: &'static str,
    },
    /// The bytes are a protobuf message, but not a model.
    #[error("the file is no ONNX model: it has no {missing}")]
    NotAModel {
        /// What every model has and this file lacks.
        missing: &'static str,
    },
    /// An input or output is not a tensor of a type that can be served.
    #[error("`{name}` is {kind}; only tensors of numbers and booleans can be served")]
    UnsupportedValue {
        /// The input or output.
        name: String,
        /// What it is.
        kind: String,
    },
    /// Subgraphs stand in one another too deep.
    #[error("subgraphs are nested more than {limit} deep")]
    TooDeep {
        /// The deepest nesting that is read.
        limit: usize,
    },
    /// Two inputs or two outputs have one name.
    #[error("the model declares `{name}` twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
}

/// An axis as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnnxDim {
    /// `dim_value`.
    Fixed(usize),
    /// `dim_param`.
    Named(String),
    /// Neither.
    Unnamed,
}

/// An input or output as the file declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxValue {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DataType,
    /// Its axes, or `None` where not even their number is declared.
    pub shape: Option<Vec<OnnxDim>>,
    /// For an input that is only an index into tables of constants: the least of their lengths. An
    /// index outside `-limit..limit` is an error that some backends answer by ending the process.
    pub index_limit: Option<usize>,
}

/// An input or output that is no tensor of numbers or booleans, and so cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForeignValue {
    /// Its name.
    pub name: String,
    /// What it is, such as `a tensor of strings` or `a sequence`.
    pub kind: String,
    /// Whether it is an input, and no output.
    pub is_input: bool,
}

/// What an ONNX file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnnxFile {
    /// The version of the file format.
    pub ir_version: i64,
    /// Operator sets by domain; the standard domain is `""`.
    pub opsets: BTreeMap<String, i64>,
    /// The program that wrote the file, and its version.
    pub producer: String,
    /// Inputs that a request must give: initializers are left out.
    pub inputs: Vec<OnnxValue>,
    /// Outputs.
    pub outputs: Vec<OnnxValue>,
    /// Inputs and outputs that cannot be served; a model that has one is only described.
    pub foreign: Vec<ForeignValue>,
    /// Nodes by operator, subgraphs and functions included; `domain.Operator` outside the standard one.
    pub operators: BTreeMap<String, usize>,
    /// Bytes of constants, external ones included.
    pub n_parameter_bytes: u64,
    /// External data: the location as written, and the bytes that the model needs it to have at least.
    pub external_data: BTreeMap<String, u64>,
}

/// Reads what the file says about itself; weights are passed over, not read.
///
/// Takes memory in proportion to names and nodes, never to weights.
///
/// # Errors
///
/// [`OnnxError`]: no content makes it panic.
pub fn read(file: impl Read + Seek) -> Result<OnnxFile, OnnxError> {
    reader::read(file)
}
