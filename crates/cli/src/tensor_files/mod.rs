//! Tensors in files: `.npy`, `.npz` and `.safetensors`.

mod bytes;
mod error;
mod npy;
mod npz;
mod safetensors;

use std::fs;
use std::io::Write;
use std::path::Path;

use shapeyard_core::{Tensor, TensorView};

pub(crate) use error::TensorFileError;
pub(crate) use safetensors::{parse as of_safetensors, serialise as to_safetensors};

/// A kind of file that holds tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// One tensor without a name.
    Npy,
    /// Named tensors, each a `.npy` in a ZIP archive.
    Npz,
    /// Named tensors.
    Safetensors,
}

impl FileKind {
    /// The kind that the name of a file says.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "npy" => Some(Self::Npy),
            "npz" => Some(Self::Npz),
            "safetensors" => Some(Self::Safetensors),
            _ => None,
        }
    }
}

/// Reads the tensor of a `.npy` file.
pub(crate) fn read_one(path: &Path) -> Result<Tensor, TensorFileError> {
    match FileKind::of(path) {
        Some(FileKind::Npy) => npy::parse(&read(path)?)
            .map_err(|reason| TensorFileError::unusable(path.display().to_string(), reason)),
        _ => Err(TensorFileError::NotOne { path: path.to_owned() }),
    }
}

/// Reads all tensors of a `.npz` or `.safetensors` file, in the file's order.
pub(crate) fn read_named(path: &Path) -> Result<Vec<(String, Tensor)>, TensorFileError> {
    match FileKind::of(path) {
        Some(FileKind::Npz) => npz::read(path),
        Some(FileKind::Safetensors) => Ok(safetensors::parse(path, &read(path)?)?.0),
        _ => Err(TensorFileError::NotNamed { path: path.to_owned() }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TensorFileError> {
    fs::read(path).map_err(|source| TensorFileError::Read { path: path.to_owned(), source })
}

/// Writes a tensor as `.npy`.
pub(crate) fn write_npy(
    out: &mut dyn Write,
    name: &str,
    tensor: TensorView<'_>,
) -> Result<(), TensorFileError> {
    npy::write(out, name, tensor)
}

/// Writes named tensors as one file; a `.npy` takes the first.
pub(crate) fn write_named<W: Write + std::io::Seek>(
    mut out: W,
    kind: FileKind,
    tensors: &[(&str, TensorView<'_>)],
) -> Result<(), TensorFileError> {
    match kind {
        FileKind::Npy => {
            let mut out = out;
            tensors
                .iter()
                .take(1)
                .try_for_each(|(name, tensor)| npy::write(&mut out, name, *tensor))
        }
        FileKind::Npz => npz::write(out, tensors),
        FileKind::Safetensors => Ok(out.write_all(&safetensors::serialise(tensors, None)?)?),
    }
}
