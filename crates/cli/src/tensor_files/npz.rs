//! NumPy's `.npz`: a ZIP archive of `.npy` files.

use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::path::Path;

use shapeyard_core::{Tensor, TensorView};
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::error::Unusable;
use super::{TensorFileError, npy, read_all};

/// From here on a member needs the archive's larger numbers.
const LARGE: usize = u32::MAX as usize / 2;

/// All tensors of an archive; what is no `.npy` in it is passed over, as NumPy does.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Tensor)>, TensorFileError> {
    let unreadable = |source| TensorFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let place = path.display().to_string();
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&place, error))?;
    let mut tensors = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|error| damaged(&place, error))?;
        let name = member.name().map_err(|error| damaged(&place, error))?.into_owned();
        let Some(tensor_name) = name.strip_suffix(".npy") else { continue };
        let place = format!("{place}/{name}");
        let bytes = read_all(member).map_err(|error| damaged(&place, error.into()))?;
        let tensor =
            npy::parse(&bytes).map_err(|what: Unusable| TensorFileError::unusable(place, what))?;
        tensors.push((tensor_name.to_owned(), tensor));
    }
    Ok(tensors)
}

fn damaged(place: &str, error: ZipError) -> TensorFileError {
    let reason = match error {
        ZipError::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    TensorFileError::Damaged { place: place.to_owned(), reason: reason.to_lowercase() }
}

/// Writes an archive without compression, as `numpy.savez` does. Equal tensors give equal files.
pub(super) fn write<W: Write + Seek>(
    out: W,
    tensors: &[(&str, TensorView<'_>)],
) -> Result<(), TensorFileError> {
    let mut archive = ZipWriter::new(out);
    for (name, tensor) in tensors {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(tensor.bytes().len() > LARGE);
        archive.start_file(format!("{name}.npy"), options).map_err(std::io::Error::from)?;
        npy::write(&mut archive, name, *tensor)?;
    }
    archive.finish().map_err(std::io::Error::from)?.flush()?;
    Ok(())
}
