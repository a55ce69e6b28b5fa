//! The two files of an encoding: vectors, and what each row is.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;
use shapeyard_core::TensorView;
use shapeyard_encode::Embeddings;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::units::{LIST_END, Source, Unit};

use crate::atomic_file::AtomicFile;
use crate::exit::BadInput;
use crate::tensor_files::{self, FileKind};

/// The name of the tensor in a `.safetensors` file.
const TENSOR: &str = "embeddings";

/// A line of the list of units.
#[derive(Serialize)]
struct Line<'a> {
    /// The first row of the unit.
    row: usize,
    /// 1, or one a token where nothing is pooled.
    n_rows: usize,
    #[serde(flatten)]
    source: &'a Source,
    n_tokens: usize,
    truncated: bool,
}

/// Where an encoding goes. Made before the work, so that a place that takes no files is found early.
#[derive(Debug)]
pub(super) struct Destination {
    path: PathBuf,
    kind: FileKind,
    vectors: AtomicFile,
    units: AtomicFile,
}

impl Destination {
    pub(super) fn new(path: &Path) -> Result<Self> {
        let kind = FileKind::of(path).filter(|kind| *kind != FileKind::Npz).ok_or_else(|| {
            BadInput::new(format!(
                "`{}` is neither .npy nor .safetensors by its name",
                path.display()
            ))
        })?;
        let create = |path: &Path| AtomicFile::create(path).with_context(|| refused(path));
        let (vectors, units) = (create(path)?, create(&units_path(path))?);
        Ok(Self { path: path.to_owned(), kind, vectors, units })
    }

    /// Writes both files; vectors get their name last, so that they never lack their list.
    pub(super) fn write(
        mut self,
        embeddings: &Embeddings,
        units: &[Unit],
        tokens: &[Tokens],
    ) -> Result<()> {
        let n_dims = embeddings.n_dims();
        let n_rows = embeddings.values().len().checked_div(n_dims).unwrap_or(0);
        let shape = [n_rows, n_dims];
        let vectors = TensorView::from_slice(&shape, embeddings.values())?;
        tensor_files::write_named(&mut self.vectors, self.kind, &[(TENSOR, vectors)])
            .with_context(|| refused(&self.path))?;
        for (item, (unit, tokens)) in units.iter().zip(tokens).enumerate() {
            let rows = embeddings.rows(item);
            let line = Line {
                row: rows.start,
                n_rows: rows.len(),
                source: &unit.source,
                n_tokens: tokens.ids.len(),
                truncated: tokens.truncated,
            };
            write_line(&mut self.units, &line).with_context(|| refused(&units_path(&self.path)))?;
        }
        self.units.commit().with_context(|| refused(&units_path(&self.path)))?;
        self.vectors.commit().with_context(|| refused(&self.path))
    }
}

fn write_line(units: &mut AtomicFile, line: &Line<'_>) -> io::Result<()> {
    serde_json::to_writer(&mut *units, line)?;
    units.write_all(b"\n")
}

/// Where the list of units stands.
pub(super) fn units_path(path: &Path) -> PathBuf {
    beside(path, LIST_END)
}

/// A path beside `path`: its name with `end` added.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn refused(path: &Path) -> BadInput {
    BadInput::new(format!("`{}` cannot be written", path.display()))
}
