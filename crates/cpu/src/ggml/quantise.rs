//! Making a smaller file of a GGUF file: the same model with narrower matrices.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use ggml_sys::ggml_type;
use shapeyard_core::backend::{BackendError, CompileJob};
use shapeyard_core::model::gguf::{GgufFile, GgufTensor, GgufType};

use super::ID;
use super::compute;
use super::library::Engine;
use crate::GgmlWeights;

/// How a tensor lies in the new file.
struct Planned<'a> {
    name: &'a str,
    tensor: &'a GgufTensor,
    dtype: GgufType,
    n_bytes: u64,
    /// From where the data begins.
    offset: u64,
}

/// Writes the job's file, whole or not at all; answers its length in bytes.
pub(super) fn write(
    engine: &Engine,
    job: &CompileJob<'_>,
    file: &GgufFile,
    weights: GgmlWeights,
) -> Result<u64, BackendError> {
    let cannot_write = |source| BackendError::Write { path: job.output.clone(), source };
    let folder = match job.output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let temporary =
        tempfile::Builder::new().prefix(".ggml-").tempfile_in(folder).map_err(cannot_write)?;
    let mut out = BufWriter::new(temporary);
    let mut from = File::open(job.model.path()).map_err(cannot_write)?;
    let planned = plan(file, weights);
    let start = write_head(&mut from, &mut out, file, &planned).map_err(cannot_write)?;
    let mut at = start;
    for planned in &planned {
        if job.cancellation.is_cancelled() {
            let what = format!("narrowing `{}`", job.model.path().display());
            return Err(BackendError::Cancelled { what });
        }
        let bytes = read(&mut from, planned.tensor).map_err(cannot_write)?;
        let bytes = converted(engine, planned, bytes).map_err(|message| BackendError::Library {
            backend: ID,
            what: "narrow a matrix",
            message,
        })?;
        at = pad(&mut out, at, start + planned.offset).map_err(cannot_write)?;
        out.write_all(&bytes).map_err(cannot_write)?;
        at += bytes.len() as u64;
    }
    let temporary = out.into_inner().map_err(|error| cannot_write(error.into_error()))?;
    temporary.as_file().sync_all().map_err(cannot_write)?;
    temporary.persist(&job.output).map_err(|error| cannot_write(error.error))?;
    Ok(fs::metadata(&job.output).map_err(cannot_write)?.len())
}

/// Matrices become narrow where their rows fill whole blocks; vectors stay.
fn plan(file: &GgufFile, weights: GgmlWeights) -> Vec<Planned<'_>> {
    let mut offset = 0u64;
    let mut planned = Vec::with_capacity(file.tensors.len());
    for (name, tensor) in &file.tensors {
        let row = tensor.shape.last().map_or(1, |extent| *extent as u64);
        let n_rows: u64 = tensor.shape.iter().rev().skip(1).map(|extent| *extent as u64).product();
        let narrow =
            weights.dtypes().iter().find_map(|dtype| Some((*dtype, dtype.row_bytes(row)?)));
        let (dtype, n_bytes) = match narrow {
            Some((dtype, bytes)) if tensor.dtype == GgufType::F32 && tensor.shape.len() == 2 => {
                (dtype, bytes * n_rows)
            }
            _ => (tensor.dtype, tensor.n_bytes),
        };
        planned.push(Planned { name, tensor, dtype, n_bytes, offset });
        offset = (offset + n_bytes).next_multiple_of(file.alignment());
    }
    planned
}

/// Everything before the data; answers where that begins.
fn write_head(
    from: &mut File,
    out: &mut impl std::io::Write,
    file: &GgufFile,
    planned: &[Planned<'_>],
) -> std::io::Result<u64> {
    from.seek(SeekFrom::Start(0))?;
    // Counts and metadata are those of the original, which was read before.
    let mut at = std::io::copy(&mut from.take(file.metadata_end), out)?;
    for planned in planned {
        let mut info = Vec::new();
        info.extend((planned.name.len() as u64).to_le_bytes());
        info.extend(planned.name.as_bytes());
        info.extend((planned.tensor.shape.len() as u32).to_le_bytes());
        let extents = planned.tensor.shape.iter().rev();
        extents.for_each(|extent| info.extend((*extent as u64).to_le_bytes()));
        info.extend(planned.dtype.number().to_le_bytes());
        info.extend(planned.offset.to_le_bytes());
        out.write_all(&info)?;
        at += info.len() as u64;
    }
    pad(out, at, at.next_multiple_of(file.alignment()))
}

fn pad(out: &mut impl std::io::Write, at: u64, to: u64) -> std::io::Result<u64> {
    std::io::copy(&mut std::io::repeat(0).take(to.saturating_sub(at)), out)?;
    Ok(to)
}

fn read(from: &mut File, tensor: &GgufTensor) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.seek(SeekFrom::Start(tensor.offset))?;
    from.take(tensor.n_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn converted(engine: &Engine, planned: &Planned<'_>, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if planned.dtype == planned.tensor.dtype {
        return Ok(bytes);
    }
    let (values, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = values.iter().copied().map(f32::from_le_bytes).collect();
    let row = planned.tensor.shape.last().copied().unwrap_or(1);
    let number = i32::try_from(planned.dtype.number()).map_err(|error| error.to_string())?;
    let narrow = compute::quantise(engine, ggml_type(number), &values, row)?;
    if narrow.len() as u64 == planned.n_bytes {
        Ok(narrow)
    } else {
        Err(format!("`{}` has {} bytes, not {}", planned.name, narrow.len(), planned.n_bytes))
    }
}
