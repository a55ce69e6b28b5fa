//! NumPy's `.npz`: a ZIP archive of `.npy` files.

use std::fs::File;
use std::io::{BufReader, Read, Seek, Write};
use std::path::Path;

use shapeyard_core::{Tensor, TensorView};
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::error::Unusable;
use super::{TensorFileError, npy};

/// From here on a member needs the archive's larger numbers.
const LARGE: usize = u32::MAX as usize / 2;

/// What one byte of DEFLATE, the densest method that is read, can stand for at most (RFC 1951: two bits for a
/// run of 258).
const MOST_INFLATED: u64 = 258 * 4;

/// All tensors of an archive; what is no `.npy` in it is passed over, as NumPy does.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Tensor)>, TensorFileError> {
    let unreadable = |source| TensorFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let n_file_bytes = file.metadata().map_err(unreadable)?.len();
    let place = path.display().to_string();
    let mut archive =
        ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&place, error))?;
    let mut left = n_file_bytes;
    let mut tensors = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let member = archive.by_index(index).map_err(|error| damaged(&place, error))?;
        let name = member.name().map_err(|error| damaged(&place, error))?.into_owned();
        let Some(tensor_name) = name.strip_suffix(".npy") else { continue };
        let place = format!("{place}/{name}");
        let bytes = inflate(member, &mut left)
            .map_err(|reason| TensorFileError::Damaged { place: place.clone(), reason })?;
        let tensor =
            npy::parse(&bytes).map_err(|what: Unusable| TensorFileError::unusable(place, what))?;
        tensors.push((tensor_name.to_owned(), tensor));
    }
    Ok(tensors)
}

/// A member's bytes, never more than it can hold: an archive whose numbers are made up takes no memory for
/// them. `left` is what of the file no member has claimed yet.
fn inflate<R: Read>(member: ZipFile<'_, R>, left: &mut u64) -> Result<Vec<u8>, String> {
    let (n_bytes, n_packed) = (member.size(), member.compressed_size());
    *left = left.checked_sub(n_packed).ok_or("members overlap")?;
    if n_bytes > n_packed.saturating_mul(MOST_INFLATED) {
        return Err(format!("{n_packed} bytes cannot inflate to {n_bytes}"));
    }
    let mut bytes = Vec::new();
    // One more, so that what is longer is seen, and the end reached, where the checksum is compared.
    member.take(n_bytes + 1).read_to_end(&mut bytes).map_err(|error| lower(&error))?;
    match bytes.len() as u64 == n_bytes {
        true => Ok(bytes),
        false => Err(format!("it says that it has {n_bytes} bytes, which is not so")),
    }
}

fn lower(error: &dyn std::fmt::Display) -> String {
    error.to_string().to_lowercase()
}

fn damaged(place: &str, error: ZipError) -> TensorFileError {
    let reason = match error {
        ZipError::Io(error) => lower(&error),
        error => lower(&error),
    };
    TensorFileError::Damaged { place: place.to_owned(), reason }
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

#[cfg(test)]
mod tests {
    use shapeyard_core::DataType;

    use super::*;

    /// An archive of one deflated megabyte of zeros, whose directory and header say that it has `claimed`
    /// bytes.
    fn archive(claimed: Option<u32>) -> Vec<u8> {
        let mut out = std::io::Cursor::new(Vec::new());
        let mut archive = ZipWriter::new(&mut out);
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
        archive.start_file("x.npy", options).unwrap();
        let zeros = Tensor::zeroed(DataType::U8, &[1 << 20]).unwrap();
        npy::write(&mut archive, "x", zeros.view()).unwrap();
        archive.finish().unwrap();
        let mut bytes = out.into_inner();
        if let Some(claimed) = claimed {
            let directory = bytes.windows(4).rposition(|it| it == b"PK\x01\x02").unwrap();
            for at in [22, directory + 24] {
                bytes[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
            }
        }
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, TensorFileError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npz");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn a_deflated_member_is_read() {
        let tensors = read_bytes(&archive(None)).unwrap();
        assert_eq!((tensors[0].0.as_str(), tensors[0].1.bytes().len()), ("x", 1 << 20));
    }

    #[test]
    fn made_up_sizes_are_refused() {
        for claimed in [100, (1 << 20) + 200, 1 << 30] {
            let error = read_bytes(&archive(Some(claimed))).unwrap_err();
            assert!(matches!(error, TensorFileError::Damaged { .. }), "{error}");
            // What could not be true is seen before anything is inflated.
            assert_eq!(error.to_string().contains("cannot inflate to"), claimed == 1 << 30);
        }
    }
}
