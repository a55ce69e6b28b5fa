//! Loading a library, and what is known about it then.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::path::Path;
use std::ptr::NonNull;

use shapeyard_dylib::{Failure, Refusal, Search, SearchStep};

use crate::bindings::Api;
use crate::error::LoadError;
use crate::search::SearchOptions;

/// Every ggml since 2024 has this function, and no other library does.
const TELLING_FUNCTION: &str = "ggml_backend_dev_count";

/// The versions whose headers the declarations follow. Names alone do not tell: numbers of types, fields of
/// structures and parameters change under names that stay.
const VERSION: &str = "0.26";

/// A loaded ggml.
///
/// It stays loaded until the process ends, since it may have threads of its own; dropping this value
/// frees nothing that a pointer may still use.
#[derive(Debug)]
pub struct Library {
    /// The library's functions.
    pub api: Api,
    library: shapeyard_dylib::Library,
    steps: Vec<SearchStep>,
}

impl Library {
    /// Looks for ggml where `options` say, and loads the first that works.
    ///
    /// Loading runs the library's own start-up code. As with every program that a `PATH` or an
    /// `LD_LIBRARY_PATH` leads to, whoever names a file vouches for it.
    ///
    /// # Errors
    ///
    /// See [`LoadError`]; it lists every place that was tried.
    pub fn open(options: &SearchOptions) -> Result<Self, LoadError> {
        let Search { result, steps } = shapeyard_dylib::search(options.candidates(), load);
        match result {
            Ok(library) => Ok(Self { steps, ..library }),
            Err(failure) => Err(error(failure, steps)),
        }
    }

    /// The file that was loaded, links followed; for a library that the loader found by name on a
    /// system that does not say where, that name.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.library.path()
    }

    /// Every place that was looked at, the last one being that of this library.
    #[must_use]
    pub fn steps(&self) -> &[SearchStep] {
        &self.steps
    }

    /// The library's version, such as `0.26.0`.
    #[must_use]
    pub fn version(&self) -> String {
        version(&self.api)
    }

    /// The address of a function that [`Api`] does not list.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<NonNull<c_void>> {
        self.library.symbol(name)
    }
}

/// Why a library that was loaded is not one for this crate.
#[derive(Debug)]
enum Objection {
    NotGgml,
    Incomplete(Vec<&'static str>),
    Version(String),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotGgml => f.write_str("another library"),
            Self::Incomplete(missing) => {
                write!(f, "another version: {} functions are missing", missing.len())
            }
            Self::Version(found) => write!(f, "another version: {found}, not {VERSION}"),
        }
    }
}

fn error(failure: Failure<Objection>, steps: Vec<SearchStep>) -> LoadError {
    match failure {
        Failure::NotFound => LoadError::NotFound { steps },
        Failure::Unloadable { path, reason } => LoadError::Unloadable { path, reason, steps },
        Failure::Unfit { path, objection: Objection::NotGgml } => {
            LoadError::NotGgml { path, missing: TELLING_FUNCTION, steps }
        }
        Failure::Unfit { path, objection: Objection::Incomplete(missing) } => {
            LoadError::Incomplete { path, missing, steps }
        }
        Failure::Unfit { path, objection: Objection::Version(found) } => {
            LoadError::Version { path, found, wanted: VERSION, steps }
        }
    }
}

fn load(path: &Path) -> Result<Library, Refusal<Objection>> {
    let library = shapeyard_dylib::Library::open(path)?;
    let api = functions_of(&library).map_err(Refusal::Unfit)?;
    Ok(Library { api, library, steps: Vec::new() })
}

fn functions_of(library: &shapeyard_dylib::Library) -> Result<Api, Objection> {
    if library.symbol(TELLING_FUNCTION).is_none() {
        return Err(Objection::NotGgml);
    }
    // SAFETY: the names are ggml's, and libraries are never unloaded. The signatures are those of the headers
    // of one version; until it is known to be this one, only that is asked, in a way that never changed.
    let api = unsafe { Api::resolve(|name| library.symbol(name)) };
    let api = api.map_err(Objection::Incomplete)?;
    let found = version(&api);
    if is_known(&found) { Ok(api) } else { Err(Objection::Version(found)) }
}

fn version(api: &Api) -> String {
    // SAFETY: the function takes nothing and answers a constant of the library.
    let text = unsafe { (api.version)() };
    // SAFETY: it ends in a zero, and the library is never unloaded.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Whether a library of this version has the declared functions and structures.
fn is_known(version: &str) -> bool {
    let rest = version.strip_prefix(VERSION);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_of_the_known_version_are_taken() {
        for version in ["0.26", "0.26.0", "0.26.17", "0.26.1-dev"] {
            assert!(is_known(version), "{version}");
        }
        for version in ["", "0.2", "0.25.9", "0.27.0", "0.260.0", "1.26.0", "10.26.0", "unknown"] {
            assert!(!is_known(version), "{version}");
        }
    }
}
