//! One shared library that stays loaded.

use std::error::Error as _;
use std::ffi::{CString, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::mapped;
use crate::search::is_bare_name;

/// A library that stays loaded until the process ends: a runtime has threads and tables of its own
/// that cannot be taken down.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    handle: &'static libloading::Library,
    /// The file, links followed, where the system says.
    pub(crate) path: PathBuf,
}

/// Why a library was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Absent,
    Unloadable(String),
}

impl Library {
    /// Loads a file, or what the loader finds under a bare name.
    pub(crate) fn open(path: &Path) -> Result<Self, Refusal> {
        let file = if is_bare_name(path) { None } else { Some(existing_file(path)?) };
        // SAFETY: the library's start-up code runs here. Whoever named the file vouches for it, as
        // the documentation of `Hip::open` says; the runtimes' own only fills their tables.
        let handle = unsafe { libloading::Library::new(path) }.map_err(|error| {
            let reason = reason_of(&error);
            let is_absent = file.is_none() && is_not_found(&reason, path);
            if is_absent { Refusal::Absent } else { Refusal::Unloadable(reason) }
        })?;
        let found = file.or_else(|| mapped::file_called(&path.to_string_lossy()));
        let path = found.unwrap_or_else(|| path.to_owned());
        Ok(Self { handle: Box::leak(Box::new(handle)), path })
    }

    /// The address of a function.
    pub(crate) fn find(&self, name: &str) -> Option<NonNull<c_void>> {
        let name = CString::new(name).ok()?;
        // SAFETY: only the address is taken; nothing is called or read through it here.
        let symbol = unsafe { self.handle.get::<*mut c_void>(name.as_bytes_with_nul()) }.ok()?;
        // SAFETY: the library stays loaded, so the address stays one.
        NonNull::new(unsafe { symbol.try_as_raw_ptr() }?)
    }
}

/// The file itself, links followed. A link that leads nowhere is the rest of an installation, not a
/// place without one.
fn existing_file(path: &Path) -> Result<PathBuf, Refusal> {
    let file = path.canonicalize().map_err(|error| match path.read_link() {
        _ if error.kind() != io::ErrorKind::NotFound => Refusal::Unloadable(error.to_string()),
        Ok(target) => {
            let target = target.display();
            Refusal::Unloadable(format!("it links to `{target}`, which is not there"))
        }
        Err(_) => Refusal::Absent,
    })?;
    if file.is_dir() {
        return Err(Refusal::Unloadable("it is a folder; name the library's file".to_owned()));
    }
    Ok(file)
}

/// The loader's own words, which libloading keeps as the source of its error.
fn reason_of(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

/// Whether the loader misses the file that it was asked for, and not one that this file needs.
fn is_not_found(reason: &str, name: &Path) -> bool {
    let is_missed =
        reason.contains("cannot open") || reason.contains("Error loading shared library");
    cfg!(windows) || (is_missed && reason.contains(&format!("{}:", name.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_the_loader_misses_is_absent() {
        let error = Library::open(Path::new("libhip-of-nobody.so")).unwrap_err();
        assert_eq!(error, Refusal::Absent);
    }

    #[test]
    fn a_file_that_is_no_library_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libamdhip64.so.7");
        assert_eq!(Library::open(&file).unwrap_err(), Refusal::Absent);
        std::fs::write(&file, "a note").unwrap();
        assert!(matches!(Library::open(&file).unwrap_err(), Refusal::Unloadable(_)));
        let error = Library::open(folder.path()).unwrap_err();
        assert!(matches!(error, Refusal::Unloadable(reason) if reason.contains("folder")));
    }
}
