//! Loading a library, and what is known about it then.

use std::ffi::{CStr, c_void};
use std::fmt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use shapeyard_dylib::{Failure, Refusal, Search, SearchStep};

use crate::bindings::Api;
use crate::data_types::{DataTypes, UnknownNumbering};
use crate::error::LoadError;
use crate::search::SearchOptions;
use crate::version::{self, Version, VersionError};

const OLDEST: &str = "MIGraphX 2.8 (ROCm 6.0) or newer is needed";

/// Every MIGraphX has this function, and no other library does.
const TELLING_FUNCTION: &CStr = c"migraphx_program_create";

/// A loaded MIGraphX.
///
/// It stays loaded until the process ends, since the library has threads and tables of its own that
/// cannot be taken down; dropping this value frees nothing that a handle may still use.
#[derive(Debug)]
pub struct Library {
    /// The library's functions.
    pub api: Api,
    library: shapeyard_dylib::Library,
    data_types: DataTypes,
    version: OnceLock<Version>,
    steps: Vec<SearchStep>,
}

impl Library {
    /// Looks for MIGraphX where `options` say, and loads the first that works.
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

    /// How this library numbers its data types.
    #[must_use]
    pub fn data_types(&self) -> DataTypes {
        self.data_types
    }

    /// Every place that was looked at, the last one being that of this library.
    #[must_use]
    pub fn steps(&self) -> &[SearchStep] {
        &self.steps
    }

    /// The library's version, asked of the library: an empty program is saved to a temporary folder
    /// and read. An answer is remembered.
    ///
    /// # Errors
    ///
    /// See [`VersionError`]; everything else works without a version.
    pub fn version(&self) -> Result<Version, VersionError> {
        if let Some(version) = self.version.get() {
            return Ok(*version);
        }
        let version = version::ask(&self.api)?;
        Ok(*self.version.get_or_init(|| version))
    }

    /// The address of a function that [`Api`] does not list, such as one of a release to come.
    #[must_use]
    pub fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        self.library.symbol(name)
    }
}

/// Hold this while a target is created or a program is loaded from a file.
///
/// The library keeps the targets that it knows in a table without a lock. Two threads that use a
/// target for the first time at once can end the process, in about one of three hundred tries with
/// eight threads. There is one such table a process, hence one lock.
pub fn target_lock() -> MutexGuard<'static, ()> {
    static TARGETS: Mutex<()> = Mutex::new(());
    // The lock guards no data of ours that a panic could have left half-changed.
    TARGETS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a library that was loaded is not one for this crate.
#[derive(Debug)]
enum Objection {
    NotMigraphx,
    TooOld(Vec<&'static CStr>),
    TooNew(UnknownNumbering),
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMigraphx => f.write_str("another library"),
            Self::TooOld(missing) => {
                write!(f, "too old: {} functions are missing", missing.len())
            }
            Self::TooNew(unknown) => unknown.fmt(f),
        }
    }
}

fn error(failure: Failure<Objection>, steps: Vec<SearchStep>) -> LoadError {
    let (path, objection) = match failure {
        Failure::NotFound => return LoadError::NotFound { steps },
        Failure::Unloadable { path, reason } => {
            return LoadError::Unloadable { path, reason, steps };
        }
        Failure::Unfit { path, objection } => (path, objection),
    };
    match objection {
        Objection::NotMigraphx => LoadError::NotMigraphx { path, missing: TELLING_FUNCTION, steps },
        Objection::TooOld(missing) => LoadError::TooOld { path, missing, hint: OLDEST, steps },
        Objection::TooNew(source) => LoadError::TooNew { path, source, steps },
    }
}

fn load(path: &Path) -> Result<Library, Refusal<Objection>> {
    let library = shapeyard_dylib::Library::open(path)?;
    let api = functions_of(&library).map_err(Refusal::Unfit)?;
    let data_types =
        DataTypes::ask(&api).map_err(|unknown| Refusal::Unfit(Objection::TooNew(unknown)))?;
    Ok(Library { api, library, data_types, version: OnceLock::new(), steps: Vec::new() })
}

fn functions_of(library: &shapeyard_dylib::Library) -> Result<Api, Objection> {
    if library.symbol(TELLING_FUNCTION).is_none() {
        return Err(Objection::NotMigraphx);
    }
    // SAFETY: the names are MIGraphX's, whose functions keep their signatures as long as the soname
    // stays (checked from ROCm 6.0 to 7.2), and libraries are never unloaded.
    unsafe { Api::resolve(|name| library.symbol(name)) }.map_err(Objection::TooOld)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_outlives_a_panic() {
        let held = std::panic::catch_unwind(|| {
            let _guard = target_lock();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(held.is_err());
        drop(target_lock());
    }
}
