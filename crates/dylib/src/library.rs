//! One shared library that stays loaded.

use std::error::Error as _;
use std::ffi::c_void;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::mapped::mapped_file;
use crate::places::is_bare_name;

/// A library that stays loaded until the process ends, since it may have threads and tables of its own
/// that cannot be taken down.
#[derive(Debug, Clone)]
pub struct Library {
    handle: &'static libloading::Library,
    path: PathBuf,
}

/// Why a library was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Nothing is there.
    Absent,
    /// Something is there that cannot be loaded, with the system's reason or ours.
    Unloadable(String),
}

impl Library {
    /// Loads a file, or what the system's loader finds by a bare name.
    ///
    /// Loading runs the library's own start-up code. As with every program that a `PATH` or an
    /// `LD_LIBRARY_PATH` leads to, whoever names a file vouches for it.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = if is_bare_name(path) { None } else { Some(existing_file(path)?) };
        // By the path as it was given, since a library looks for its parts beside that.
        // SAFETY: the library's start-up code runs here, for which whoever named the file vouches.
        let handle = unsafe { libloading::Library::new(path) }.map_err(|error| {
            let reason = reason_of(&error);
            let is_absent = file.is_none() && is_not_found(&reason, path);
            if is_absent { OpenError::Absent } else { OpenError::Unloadable(reason) }
        })?;
        let found = file.or_else(|| mapped_file(&path.to_string_lossy()));
        let path = found.unwrap_or_else(|| path.to_owned());
        Ok(Self { handle: Box::leak(Box::new(handle)), path })
    }

    /// The file that was loaded, links followed; for a library that the loader found by name on a
    /// system that does not say where, that name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address of a function, in the library or in one that it needs.
    #[must_use]
    pub fn symbol(&self, name: impl libloading::AsSymbolName) -> Option<NonNull<c_void>> {
        // SAFETY: only the address is taken; nothing is called or read through it here.
        let symbol = unsafe { self.handle.get::<*mut c_void>(name) }.ok()?;
        // SAFETY: the library stays loaded, so the address stays one.
        NonNull::new(unsafe { symbol.try_as_raw_ptr() }?)
    }
}

/// The file itself, links followed, where it may be a library for this program.
///
/// # Errors
///
/// [`OpenError::Absent`] where nothing is; [`OpenError::Unloadable`] for a folder, a link that leads
/// nowhere (the rest of an installation), and on Linux for what is no library, was cut off, or is
/// built for another machine.
pub fn existing_file(path: &Path) -> Result<PathBuf, OpenError> {
    let file = path.canonicalize().map_err(|error| match path.read_link() {
        _ if error.kind() != io::ErrorKind::NotFound => OpenError::Unloadable(error.to_string()),
        Ok(target) => {
            let target = target.display();
            OpenError::Unloadable(format!("it links to `{target}`, which is not there"))
        }
        Err(_) => OpenError::Absent,
    })?;
    if file.is_dir() {
        return Err(OpenError::Unloadable("it is a folder; name the library's file".to_owned()));
    }
    #[cfg(target_os = "linux")]
    if let Some(objection) = crate::elf::objection(&file) {
        return Err(OpenError::Unloadable(objection));
    }
    Ok(file)
}

/// Takes the address of a function for the function.
///
/// # Safety
///
/// `F` has to be a function pointer type with the signature of the function at `address`.
pub unsafe fn as_function<F: Copy>(address: NonNull<c_void>) -> F {
    const { assert!(size_of::<F>() == size_of::<NonNull<c_void>>()) };
    // SAFETY: both are one address wide, as asserted above, and the caller vouches for the signature.
    unsafe { std::mem::transmute_copy(&address) }
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
    use std::fs;

    use super::*;

    #[test]
    fn the_loaders_words_tell_a_missing_library_from_a_missing_part() {
        let name = Path::new("libmigraphx_c.so.3");
        let not_there = "cannot open shared object file: No such file or directory";
        assert!(is_not_found(&format!("libmigraphx_c.so.3: {not_there}"), name));
        assert!(!is_not_found(&format!("libmigraphx_tf.so.2014000: {not_there}"), name));
        let musl = "Error loading shared library libmigraphx_c.so.3: No such file or directory";
        assert!(is_not_found(musl, name));
        let part = "Error loading shared library libamdhip64.so.6: No such file or directory \
                    (needed by libmigraphx_c.so.3)";
        assert!(!is_not_found(part, name));
    }

    #[test]
    fn a_name_that_the_loader_misses_is_absent() {
        let error = Library::open(Path::new("libof-nobody.so")).unwrap_err();
        assert_eq!(error, OpenError::Absent);
    }

    #[test]
    fn what_is_no_library_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libof-nobody.so");
        assert_eq!(Library::open(&file).unwrap_err(), OpenError::Absent);
        fs::write(&file, "a note").unwrap();
        assert!(matches!(Library::open(&file).unwrap_err(), OpenError::Unloadable(_)));
        let error = Library::open(folder.path()).unwrap_err();
        assert!(matches!(error, OpenError::Unloadable(reason) if reason.contains("folder")));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_into_nowhere_is_the_rest_of_an_installation() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("liba.so.3");
        std::os::unix::fs::symlink("liba.so.3.0", &file).unwrap();
        let error = Library::open(&file).unwrap_err();
        assert!(matches!(error, OpenError::Unloadable(reason) if reason.contains("liba.so.3.0")));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_the_loader_finds_tells_its_file_and_functions() {
        let library = Library::open(Path::new("libc.so.6")).unwrap();
        assert!(library.path().is_absolute(), "{}", library.path().display());
        assert!(library.symbol("strlen").is_some());
        assert!(library.symbol(c"strlen").is_some());
        assert!(library.symbol("no_such_function").is_none());
        let file = library.path().to_owned();
        assert_eq!(Library::open(&file).unwrap().path(), file.canonicalize().unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn half_of_a_library_is_not_given_to_the_loader() {
        let whole = Library::open(Path::new("libc.so.6")).unwrap();
        let bytes = fs::read(whole.path()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let half = folder.path().join("libhalf.so");
        fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
        let error = Library::open(&half).unwrap_err();
        assert!(matches!(error, OpenError::Unloadable(reason) if reason.contains("cut off")));
    }
}
