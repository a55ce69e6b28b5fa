//! Loading a library, and what is known about it then.

use std::ffi::{CStr, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::bindings::Api;
use crate::data_types::{DataTypes, UnknownNumbering};
use crate::error::LoadError;
use crate::mapped;
use crate::search::{Candidate, Outcome, SearchOptions, SearchStep};
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
    handle: &'static libloading::Library,
    path: PathBuf,
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
        let mut steps = Vec::new();
        let mut first = None;
        for candidate in options.candidates() {
            let (outcome, result) = match load(&candidate) {
                Ok(library) => (Outcome::Loaded, Ok(library)),
                Err(refusal) => (refusal.outcome(), Err(refusal)),
            };
            steps.push(SearchStep { place: candidate.path.clone(), why: candidate.why, outcome });
            match result {
                Ok(library) => return Ok(Self { steps, ..library }),
                Err(Refusal::Absent) => (),
                Err(refusal) => first = first.or(Some((candidate.path, refusal))),
            }
        }
        Err(error(first, steps))
    }

    /// The file that was loaded, links followed; for a library that the loader found by name on a
    /// system that does not say where, that name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
        find(self.handle, name)
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

/// Why one place did not serve.
#[derive(Debug)]
enum Refusal {
    Absent,
    Unloadable(String),
    NotMigraphx,
    TooOld(Vec<&'static CStr>),
    TooNew(UnknownNumbering),
}

impl Refusal {
    fn outcome(&self) -> Outcome {
        Outcome::Refused(match self {
            Self::Absent => return Outcome::Absent,
            Self::Unloadable(reason) => reason.clone(),
            Self::NotMigraphx => "another library".to_owned(),
            Self::TooOld(missing) => format!("too old: {} functions are missing", missing.len()),
            Self::TooNew(unknown) => unknown.to_string(),
        })
    }
}

fn error(first: Option<(PathBuf, Refusal)>, steps: Vec<SearchStep>) -> LoadError {
    let Some((path, refusal)) = first else { return LoadError::NotFound { steps } };
    match refusal {
        Refusal::Absent => LoadError::NotFound { steps },
        Refusal::Unloadable(reason) => LoadError::Unloadable { path, reason, steps },
        Refusal::NotMigraphx => LoadError::NotMigraphx { path, missing: TELLING_FUNCTION, steps },
        Refusal::TooOld(missing) => LoadError::TooOld { path, missing, hint: OLDEST, steps },
        Refusal::TooNew(source) => LoadError::TooNew { path, source, steps },
    }
}

fn load(candidate: &Candidate) -> Result<Library, Refusal> {
    let file = if candidate.is_bare_name() { None } else { Some(existing_file(&candidate.path)?) };
    // By the path as it was given, since a library looks for its parts beside that.
    let handle = open_file(candidate)?;
    let api = functions_of(&handle)?;
    let data_types = DataTypes::ask(&api).map_err(Refusal::TooNew)?;
    // See `Library` for why it is never unloaded; a library that is refused was unloaded above.
    let handle = Box::leak(Box::new(handle));
    let path = file
        .or_else(|| mapped::file_called(&candidate.path.to_string_lossy()))
        .unwrap_or_else(|| candidate.path.clone());
    Ok(Library { api, handle, path, data_types, version: OnceLock::new(), steps: Vec::new() })
}

/// The file itself, links followed.
fn existing_file(path: &Path) -> Result<PathBuf, Refusal> {
    let file = match path.canonicalize() {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent(path)),
        Err(error) => return Err(Refusal::Unloadable(error.to_string())),
    };
    if file.is_dir() {
        return Err(Refusal::Unloadable("it is a folder; name the library's file".to_owned()));
    }
    #[cfg(target_os = "linux")]
    if let Some(objection) = crate::elf::objection(&file) {
        return Err(Refusal::Unloadable(objection));
    }
    Ok(file)
}

/// A link that leads nowhere is the rest of an installation, not a place without one.
fn absent(path: &Path) -> Refusal {
    match path.read_link() {
        Ok(target) => {
            Refusal::Unloadable(format!("it links to `{}`, which is not there", target.display()))
        }
        Err(_) => Refusal::Absent,
    }
}

fn open_file(candidate: &Candidate) -> Result<libloading::Library, Refusal> {
    // SAFETY: the library's start-up code runs here. Whoever named the file vouches for it, as the
    // documentation of `Library::open` says; MIGraphX's own only fills its tables.
    unsafe { libloading::Library::new(&candidate.path) }.map_err(|error| {
        let reason = reason_of(&error);
        let is_absent = candidate.is_bare_name() && is_not_found(&reason, &candidate.path);
        if is_absent { Refusal::Absent } else { Refusal::Unloadable(reason) }
    })
}

/// The loader's own words, which libloading keeps as the source of its error.
fn reason_of(error: &libloading::Error) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    source.unwrap_or_else(|| error.to_string())
}

/// Whether the loader misses the file that it was asked for, and not one that this file needs.
fn is_not_found(reason: &str, name: &Path) -> bool {
    let is_missed =
        reason.contains("cannot open") || reason.contains("Error loading shared library");
    cfg!(windows) || (is_missed && reason.contains(&format!("{}:", name.display())))
}

fn functions_of(handle: &libloading::Library) -> Result<Api, Refusal> {
    if find(handle, TELLING_FUNCTION).is_none() {
        return Err(Refusal::NotMigraphx);
    }
    // SAFETY: the names are MIGraphX's, whose functions keep their signatures as long as the soname
    // stays (checked from ROCm 6.0 to 7.2). The library is not unloaded once this succeeds, and the
    // table of a library that is refused later goes with it.
    unsafe { Api::resolve(|name| find(handle, name)) }.map_err(Refusal::TooOld)
}

fn find(handle: &libloading::Library, name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: only the address is taken; nothing is called or read through it here.
    let symbol = unsafe { handle.get::<*mut c_void>(name.to_bytes_with_nul()) }.ok()?;
    // SAFETY: the address is used while the library is loaded, as said where it is called.
    NonNull::new(unsafe { symbol.try_as_raw_ptr() }?)
}

#[cfg(test)]
mod tests {
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
    fn the_lock_outlives_a_panic() {
        let held = std::panic::catch_unwind(|| {
            let _guard = target_lock();
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(held.is_err());
        drop(target_lock());
    }
}
