//! Inputs from files, bound by name.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use shapeyard_core::{BindError, DataType, Signature, Tensor, TensorView};

use crate::exit::BadInput;
use crate::tensor_files::{self, TensorFileError};

/// `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedFile {
    name: String,
    file: PathBuf,
}

/// A value that is no `NAME=FILE`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME=FILE.npy, such as x=x.npy")]
pub(super) struct NotANamedFile;

impl NamedFile {
    /// Reads `NAME=FILE`; the name is text, the file any path.
    pub(super) fn parse(value: OsString) -> Result<Self, NotANamedFile> {
        let (name, file) = split_at_equals(value).ok_or(NotANamedFile)?;
        if name.is_empty() || file.as_os_str().is_empty() {
            return Err(NotANamedFile);
        }
        Ok(Self { name, file })
    }
}

#[cfg(unix)]
fn split_at_equals(value: OsString) -> Option<(String, PathBuf)> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut name = value.into_vec();
    let at = name.iter().position(|byte| *byte == b'=')?;
    let file = OsString::from_vec(name.split_off(at + 1));
    name.pop();
    Some((String::from_utf8(name).ok()?, file.into()))
}

#[cfg(not(unix))]
fn split_at_equals(value: OsString) -> Option<(String, PathBuf)> {
    let value = value.into_string().ok()?;
    let (name, file) = value.split_once('=')?;
    Some((name.to_owned(), file.into()))
}

/// A tensor and where it came from.
#[derive(Debug)]
struct Input {
    name: String,
    file: PathBuf,
    tensor: Tensor,
}

/// The inputs of a request, in the signature's order.
#[derive(Debug)]
pub(super) struct Inputs(Vec<Input>);

impl Inputs {
    /// Reads every file and puts the tensors into the signature's order.
    pub(super) fn read(
        signature: &Signature,
        single: &[NamedFile],
        many: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let mut given = Vec::new();
        for NamedFile { name, file } in single {
            let tensor = tensor_files::read_one(file)?;
            given.push(Input { name: name.clone(), file: file.clone(), tensor });
        }
        for file in many {
            given.extend(read_many(file)?);
        }
        let files: Vec<(String, PathBuf)> =
            given.iter().map(|input| (input.name.clone(), input.file.clone())).collect();
        let named = given.into_iter().map(|input| (input.name.clone(), input));
        let ordered = signature.order(named).map_err(|error| explain(&error, &files))?;
        Ok(Self(ordered))
    }

    pub(super) fn views(&self) -> Vec<TensorView<'_>> {
        self.0.iter().map(|input| input.tensor.view()).collect()
    }

    /// Names and tensors.
    pub(super) fn listed(&self) -> Vec<(&str, TensorView<'_>)> {
        self.0.iter().map(|input| (input.name.as_str(), input.tensor.view())).collect()
    }

    /// The same error with the file that is at fault and what to do.
    pub(super) fn explain(&self, error: &BindError) -> BadInput {
        let files: Vec<(String, PathBuf)> =
            self.0.iter().map(|input| (input.name.clone(), input.file.clone())).collect();
        explain(error, &files)
    }
}

fn read_many(file: &Path) -> Result<Vec<Input>, TensorFileError> {
    let tensors = tensor_files::read_named(file)?;
    let input = |(name, tensor)| Input { name, file: file.to_owned(), tensor };
    Ok(tensors.into_iter().map(input).collect())
}

fn explain(error: &BindError, files: &[(String, PathBuf)]) -> BadInput {
    let (name, remedy) = at_fault(error);
    let file = name.and_then(|name| files.iter().rfind(|(known, _)| known == name));
    let place = file.map(|(_, file)| format!("{}: ", file.display())).unwrap_or_default();
    BadInput::new(format!("{place}{error}{remedy}"))
}

/// The input that an error is about, and what to do.
fn at_fault(error: &BindError) -> (Option<&str>, String) {
    match error {
        BindError::UnknownInput { name, .. } => {
            (Some(name), "; rename it or leave it out".to_owned())
        }
        BindError::DuplicateInput { name } => (Some(name), "; give it once".to_owned()),
        BindError::MissingInput { name, .. } => {
            (None, format!("; give it as --input {name}=FILE.npy or in an --inputs file"))
        }
        BindError::WrongType { input, wanted, .. } => (Some(input), convert(*wanted)),
        BindError::WrongRank { input, .. } => (Some(input), "; reshape it".to_owned()),
        BindError::FixedDimension { found, .. } => (Some(&found.input), String::new()),
        BindError::SymbolConflict { second, .. } => {
            (Some(&second.input), "; inputs that share a symbol share its extent".to_owned())
        }
        BindError::IndexOutOfRange { input, .. } => (Some(input), String::new()),
        _ => (None, String::new()),
    }
}

/// How NumPy converts, where it has the type.
fn convert(wanted: DataType) -> String {
    let name = match wanted {
        DataType::Bool => "bool_",
        DataType::U8 => "uint8",
        DataType::U16 => "uint16",
        DataType::U32 => "uint32",
        DataType::U64 => "uint64",
        DataType::I8 => "int8",
        DataType::I16 => "int16",
        DataType::I32 => "int32",
        DataType::I64 => "int64",
        DataType::F16 => "float16",
        DataType::F32 => "float32",
        DataType::F64 => "float64",
        _ => return format!("; convert it to {wanted} in a .safetensors file"),
    };
    format!("; convert it with .astype(numpy.{name})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_split_at_the_first_sign() {
        let named = NamedFile::parse("x=a=b.npy".into()).unwrap();
        assert_eq!(named, NamedFile { name: "x".to_owned(), file: "a=b.npy".into() });
        for value in ["x", "=a.npy", "x=", ""] {
            assert_eq!(NamedFile::parse(value.into()), Err(NotANamedFile));
        }
    }
}
