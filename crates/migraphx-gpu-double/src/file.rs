//! Programs on disk: a line of JSON, and the bytes of literals and code behind it.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::dtype::Numbering;
use crate::error::Error;
use crate::graph::Graph;
use crate::program::{Compiled, Program};
use crate::settings;

/// As which MIGraphX the double presents itself: the one that brought a numbering, or the last without it.
fn version(numbering: Numbering) -> &'static str {
    match numbering {
        Numbering::WithFp4x2 => "2.14.0",
        Numbering::WithoutFp4x2 => "2.13.0",
    }
}

/// MIGraphX's number of the file's layout.
const FILE_VERSION: u32 = 7;
const WRITER: &str = "the GPU double of Shapeyard's tests";

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    migraphx_version: String,
    writer: String,
    graph: Graph,
    compiled: Option<Compiled>,
    n_literals: usize,
    n_code: usize,
}

/// Writes a program; as JSON, without the bytes.
pub(crate) fn save(program: &Program, path: &Path, is_json: bool) -> Result<(), Error> {
    let numbering = settings::settings().map_err(Error::Failed)?.numbering;
    let code = program.compiled.as_ref().map(|compiled| &compiled.code[..]).unwrap_or_default();
    let literals = &program.graph.literals;
    let header = Header {
        version: FILE_VERSION,
        migraphx_version: version(numbering).to_owned(),
        writer: WRITER.to_owned(),
        graph: program.graph.clone(),
        compiled: program.compiled.clone(),
        n_literals: literals.len(),
        n_code: code.len(),
    };
    let mut bytes =
        serde_json::to_vec(&header).map_err(|error| Error::failed(error.to_string()))?;
    if !is_json {
        bytes.push(b'\n');
        bytes.extend_from_slice(literals);
        bytes.extend_from_slice(code);
    }
    fs::write(path, bytes).map_err(|error| {
        Error::failed(format!("Failure opening file: {}: {error}", path.display()))
    })
}

/// Reads what [`save`] wrote.
pub(crate) fn read(path: &Path) -> Result<Program, Error> {
    let bytes = fs::read(path).map_err(|error| {
        Error::failed(format!("Failure opening file: {}: {error}", path.display()))
    })?;
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or_else(|| Error::failed("Invalid size"))?;
    let header: Header = serde_json::from_slice(&bytes[..end])
        .map_err(|error| Error::failed(format!("parse error: {error}")))?;
    if header.version != FILE_VERSION || header.writer != WRITER {
        return Err(Error::failed("Program version mismatch"));
    }
    let rest = &bytes[end + 1..];
    let (Some(literals), Some(code)) = (
        rest.get(..header.n_literals),
        rest.get(header.n_literals..header.n_literals + header.n_code),
    ) else {
        return Err(Error::failed("insufficient bytes"));
    };
    let mut program = Program::of(Graph { literals: literals.to_vec(), ..header.graph });
    program.compiled = header.compiled.map(|compiled| Compiled { code: code.to_vec(), ..compiled });
    Ok(program)
}
