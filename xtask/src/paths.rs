//! Where things lie: one place, so that commands agree.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::metadata::{self, Metadata};
use crate::terminal;

/// The folders of this clone.
#[derive(Debug)]
pub(crate) struct Layout {
    root: PathBuf,
    metadata: Metadata,
}

impl Layout {
    /// Finds the clone that xtask was started in.
    pub(crate) fn find() -> Result<Self> {
        // What cargo says at run time comes first: a shared target folder may hold an xtask that was
        // built in another clone.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask has to lie in a folder of the workspace")?;
        Ok(Self { root: root.to_owned(), metadata: metadata::read(root)? })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Cargo's target folder, wherever the caller's settings put it.
    pub(crate) fn target(&self) -> &Path {
        &self.metadata.target_folder
    }

    /// Tools, packages and notes of xtask itself.
    pub(crate) fn setup(&self) -> PathBuf {
        self.target().join("setup")
    }

    /// Where the program looks for ONNX Runtime: `../lib/shapeyard` beside the folder of its binary.
    pub(crate) fn onnxruntime(&self) -> PathBuf {
        self.target().join("lib").join("shapeyard").join("libonnxruntime.so")
    }

    /// Where the program looks for ggml.
    pub(crate) fn ggml(&self) -> PathBuf {
        self.onnxruntime().with_file_name(format!("libggml{}", std::env::consts::DLL_SUFFIX))
    }

    /// The program that encodes with llama.cpp.
    pub(crate) fn llama(&self) -> PathBuf {
        self.setup().join("peers").join("llama-encode")
    }

    /// Models that are made on this machine, one folder each.
    pub(crate) fn models(&self) -> PathBuf {
        self.target().join("models")
    }

    /// The scripts that make models.
    pub(crate) fn scripts(&self) -> PathBuf {
        self.root.join("xtask").join("python")
    }

    /// A path as a reader would type it from the root.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// Keeps two xtasks from preparing the same things at once; given back when dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        create_folder(&self.setup())?;
        let path = self.setup().join("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => terminal::say("waiting for another xtask's set-up"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

/// Creates a folder with its parents; one that is there is fine.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create the folder {}", path.display()))
}

/// Removes a folder with all that is in it; one that is absent is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the folder {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a file, with its permissions.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies a folder with all that is in it, less the folders at any depth whose names are left out.
pub(crate) fn copy_folder(
    from: &Path,
    to: &Path,
    is_left_out: &dyn Fn(&str) -> bool,
) -> Result<()> {
    create_folder(to)?;
    let cannot_list = || format!("cannot list {}", from.display());
    for entry in fs::read_dir(from).with_context(cannot_list)? {
        let entry = entry.with_context(cannot_list)?;
        let (path, name) = (entry.path(), entry.file_name());
        if !path.is_dir() {
            copy_file(&path, &to.join(name))?;
        } else if !is_left_out(&name.to_string_lossy()) {
            copy_folder(&path, &to.join(name), is_left_out)?;
        }
    }
    Ok(())
}

/// Moves a finished file or folder to the name under which others find it, at once and whole.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_without_what_is_left_out() {
        let folder = std::env::temp_dir().join(format!("shapeyard-copy-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        for inner in ["kept/deep", "left/deep", "kept/left"] {
            create_folder(&from.join(inner)).unwrap();
            fs::write(from.join(inner).join("file"), inner).unwrap();
        }
        copy_folder(&from, &to, &|name| name == "left").unwrap();
        assert_eq!(fs::read_to_string(to.join("kept/deep/file")).unwrap(), "kept/deep");
        assert!(!to.join("left").exists() && !to.join("kept/left").exists());
        remove_folder(&folder).unwrap();
    }
}
