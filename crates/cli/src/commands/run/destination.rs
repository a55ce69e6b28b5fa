//! Where outputs go.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use shapeyard_core::{Signature, TensorView};

use crate::atomic_file::AtomicFile;
use crate::exit::BadInput;
use crate::tensor_files::{self, FileKind};

/// Where outputs go. Made before the work, so that a place that takes no files is found early.
#[derive(Debug)]
pub(super) enum Destination {
    File { path: PathBuf, kind: FileKind, file: AtomicFile },
    Folder(PathBuf),
}

impl Destination {
    pub(super) fn new(path: &Path, signature: &Signature) -> Result<Self> {
        let n_outputs = signature.outputs.len();
        let kind = if path.is_dir() { None } else { FileKind::of(path) };
        match kind {
            Some(FileKind::Npy) if n_outputs != 1 => Err(BadInput::new(format!(
                "`{}` holds one output, the model gives {n_outputs}; name a .npz, a .safetensors or a folder",
                path.display()
            ))
            .into()),
            Some(kind) => {
                let file = AtomicFile::create(path).with_context(|| refused(path))?;
                Ok(Self::File { path: path.to_owned(), kind, file })
            }
            None => Self::folder(path),
        }
    }

    fn folder(path: &Path) -> Result<Self> {
        if let Some(extension) = path.extension().filter(|_| !path.is_dir()) {
            return Err(BadInput::new(format!(
                "`{}` would be a file of an unknown kind ({}); name a .npy, .npz or .safetensors file, or a folder",
                path.display(),
                extension.display()
            ))
            .into());
        }
        fs::create_dir_all(path).with_context(|| refused(path))?;
        Ok(Self::Folder(path.to_owned()))
    }

    /// Writes every output; gives the file of each.
    pub(super) fn write(self, outputs: &[(&str, TensorView<'_>)]) -> Result<Vec<PathBuf>> {
        match self {
            Self::File { path, kind, mut file } => {
                tensor_files::write_named(&mut file, kind, outputs)?;
                file.commit().with_context(|| refused(&path))?;
                Ok(vec![path; outputs.len()])
            }
            Self::Folder(folder) => {
                let names = file_names(outputs.iter().map(|(name, _)| *name));
                let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
                for (path, (name, tensor)) in paths.iter().zip(outputs) {
                    write_npy(path, name, *tensor)?;
                }
                Ok(paths)
            }
        }
    }
}

fn write_npy(path: &Path, name: &str, tensor: TensorView<'_>) -> Result<()> {
    let mut file = AtomicFile::create(path).with_context(|| refused(path))?;
    tensor_files::write_npy(&mut file, name, tensor)?;
    let committed: io::Result<()> = file.commit();
    committed.with_context(|| refused(path))
}

fn refused(path: &Path) -> BadInput {
    BadInput::new(format!("`{}` cannot be written", path.display()))
}

/// A file name for each output: what may mean something to a file system becomes `_`, and names that
/// become alike are numbered.
fn file_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken = HashSet::new();
    let mut unique = |name: &str| {
        let safe = safe(name);
        let numbered = (2usize..).map(|n| format!("{safe}-{n}"));
        let mut candidates = std::iter::once(safe.clone()).chain(numbered);
        // Some file systems do not tell large letters from small ones.
        let free = candidates.find(|name| taken.insert(name.to_lowercase()));
        format!("{}.npy", free.unwrap_or(safe))
    };
    names.map(&mut unique).collect()
}

fn safe(name: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let safe: String = name.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    match safe.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if safe.is_empty() => "_".to_owned(),
        None => safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_unique() {
        let names = ["y", "/model/y:0", "_model_y_0", "Y", "..", ""];
        let files = file_names(names.into_iter());
        let wanted = ["y", "_model_y_0", "_model_y_0-2", "Y-2", "_.", "_"];
        assert_eq!(files, wanted.map(|name| format!("{name}.npy")));
    }
}
