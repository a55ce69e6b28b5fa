//! Making a smaller file of a GGUF file: the same model with narrower matrices.
//!
//! The file is one of ours. Where the processor computes, f16 matrices lie in it as our product reads them, so
//! that it can be mapped.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

pub(crate) mod widen;

use std::ffi::c_void;
use std::fs::File;
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;
use std::ptr;

use ggml_sys::ggml_type;
use half::f16;
use shapeyard_core::backend::{BackendError, CompileJob};
use shapeyard_core::model::ModelError;
use shapeyard_core::model::gguf::{GgufFile, GgufTensor, GgufType};

use super::ID;
use super::encoder::weights::{PANELS, ROWS, is_table};
use super::kernels::product::{PANEL, panels};
use super::library::Engine;
use crate::GgmlWeights;

/// How a tensor lies in the new file.
struct Planned<'a> {
    name: String,
    from: &'a GgufTensor,
    shape: Vec<usize>,
    dtype: GgufType,
    n_bytes: u64,
    /// From where the data begins.
    offset: u64,
}

/// Writes the job's file to `path`.
pub(crate) fn write(
    engine: &Engine,
    job: &CompileJob<'_>,
    file: &GgufFile,
    weights: GgmlWeights,
    path: &Path,
) -> Result<(), BackendError> {
    let cannot_write = |source| BackendError::Write { path: job.output.clone(), source };
    let mut out = BufWriter::new(File::create(path).map_err(cannot_write)?);
    let cannot_read = |source| ModelError::Unreadable { path: job.model.path().to_owned(), source };
    let mut from = File::open(job.model.path()).map_err(cannot_read)?;
    let planned = plan(file, weights, engine.is_processor());
    // Counts and metadata are those of the original, which was read before.
    let head = read(&mut from, 0, file.metadata_end).map_err(cannot_read)?;
    let start = write_head(&head, &mut out, file, &planned).map_err(cannot_write)?;
    let mut at = start;
    for planned in &planned {
        if job.cancellation.is_cancelled() {
            let what = format!("narrowing `{}`", job.model.path().display());
            return Err(BackendError::Cancelled { what });
        }
        let GgufTensor { offset, n_bytes, .. } = *planned.from;
        let bytes = read(&mut from, offset, n_bytes).map_err(cannot_read)?;
        let bytes = converted(engine, planned, bytes).map_err(|message| BackendError::Library {
            backend: ID,
            what: "narrow a matrix",
            message,
        })?;
        at = pad(&mut out, at, start + planned.offset).map_err(cannot_write)?;
        out.write_all(&bytes).map_err(cannot_write)?;
        at += bytes.len() as u64;
    }
    out.flush().map_err(cannot_write)
}

/// Matrices become narrow where their rows fill whole blocks; vectors stay.
fn plan(file: &GgufFile, weights: GgmlWeights, has_panels: bool) -> Vec<Planned<'_>> {
    let mut offset = 0u64;
    let mut planned = Vec::with_capacity(file.tensors.len());
    for (name, from) in &file.tensors {
        let mut one = one_planned(name, from, weights, has_panels);
        one.offset = offset;
        offset = (offset + one.n_bytes).next_multiple_of(file.alignment());
        planned.push(one);
    }
    planned
}

fn one_planned<'a>(
    name: &str,
    from: &'a GgufTensor,
    weights: GgmlWeights,
    has_panels: bool,
) -> Planned<'a> {
    let planned = |dtype, n_bytes| Planned {
        name: name.to_owned(),
        from,
        shape: from.shape.clone(),
        dtype,
        n_bytes,
        offset: 0,
    };
    let as_it_is = || planned(from.dtype, from.n_bytes);
    let &[n_rows, row] = from.shape.as_slice() else { return as_it_is() };
    let is_wide = from.dtype == GgufType::F32;
    let layer = name.strip_suffix(ROWS).filter(|_| has_panels && !is_table(name));
    match (weights, layer) {
        (GgmlWeights::F16, Some(layer)) if is_wide || from.dtype == GgufType::F16 => {
            let shape = vec![n_rows.div_ceil(PANEL), row, PANEL];
            let n_bytes = (shape.iter().product::<usize>() * size_of::<f16>()) as u64;
            let name = format!("{layer}{PANELS}");
            Planned { name, from, shape, dtype: GgufType::F16, n_bytes, offset: 0 }
        }
        _ if is_wide => {
            let mut narrow = weights.dtypes().iter();
            let narrow = narrow.find_map(|dtype| Some((*dtype, dtype.row_bytes(row as u64)?)));
            narrow.map_or_else(as_it_is, |(dtype, bytes)| planned(dtype, bytes * n_rows as u64))
        }
        _ => as_it_is(),
    }
}

/// Everything before the data; answers where that begins.
fn write_head(
    head: &[u8],
    out: &mut impl Write,
    file: &GgufFile,
    planned: &[Planned<'_>],
) -> io::Result<u64> {
    out.write_all(head)?;
    let mut at = head.len() as u64;
    for planned in planned {
        let mut info = Vec::new();
        info.extend((planned.name.len() as u64).to_le_bytes());
        info.extend(planned.name.as_bytes());
        info.extend((planned.shape.len() as u32).to_le_bytes());
        let extents = planned.shape.iter().rev();
        extents.for_each(|extent| info.extend((*extent as u64).to_le_bytes()));
        info.extend(planned.dtype.number().to_le_bytes());
        info.extend(planned.offset.to_le_bytes());
        out.write_all(&info)?;
        at += info.len() as u64;
    }
    pad(out, at, at.next_multiple_of(file.alignment()))
}

fn pad(out: &mut impl Write, at: u64, to: u64) -> io::Result<u64> {
    io::copy(&mut io::repeat(0).take(to.saturating_sub(at)), out)?;
    Ok(to)
}

/// So many bytes of a file, which may have changed since its length was known.
fn read(from: &mut File, offset: u64, n_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.seek(SeekFrom::Start(offset))?;
    from.take(n_bytes).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == n_bytes { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn converted(engine: &Engine, planned: &Planned<'_>, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let row = planned.from.shape.last().copied().unwrap_or(1);
    let in_panels = planned.shape != planned.from.shape;
    let narrow = match (planned.from.dtype == planned.dtype, in_panels) {
        (true, false) => bytes,
        (true, true) => in_panels_of(&bytes, row),
        (false, _) => {
            let (values, _) = bytes.as_chunks::<4>();
            let values: Vec<f32> = values.iter().copied().map(f32::from_le_bytes).collect();
            let number =
                i32::try_from(planned.dtype.number()).map_err(|error| error.to_string())?;
            let narrow = quantise(engine, ggml_type(number), &values, row)?;
            if in_panels { in_panels_of(&narrow, row) } else { narrow }
        }
    };
    if narrow.len() as u64 == planned.n_bytes {
        Ok(narrow)
    } else {
        Err(format!("`{}` has {} bytes, not {}", planned.name, narrow.len(), planned.n_bytes))
    }
}

/// Rows of f16 as panels.
fn in_panels_of(rows: &[u8], row: usize) -> Vec<u8> {
    let (elements, _) = rows.as_chunks::<2>();
    panels(elements, row).concat()
}

/// Floats as another type; every row by itself.
fn quantise(
    engine: &Engine,
    dtype: ggml_type,
    values: &[f32],
    row: usize,
) -> Result<Vec<u8>, String> {
    let api = &engine.api;
    // SAFETY: the type is one of the library's: the reader of GGUF knows no others.
    let block = unsafe { (api.blck_size)(dtype) };
    let block = usize::try_from(block).unwrap_or(0);
    if row == 0 || block == 0 || !row.is_multiple_of(block) || !values.len().is_multiple_of(row) {
        return Err(format!("rows of {row} do not fill blocks of {block}"));
    }
    // SAFETY: as above, and the row fills whole blocks.
    let row_bytes = unsafe { (api.row_size)(dtype, row as i64) };
    let n_rows = values.len() / row;
    let mut bytes = vec![0u8; row_bytes * n_rows];
    let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast::<c_void>());
    let (rows, width) = (n_rows as i64, row as i64);
    // SAFETY: source and target hold that many rows of that width; null asks for no weighting.
    let written = unsafe { (api.quantize_chunk)(dtype, from, to, 0, rows, width, ptr::null()) };
    if written == bytes.len() {
        Ok(bytes)
    } else {
        Err("the library wrote another length".to_owned())
    }
}
