//! Loading a library, and what is known about it then.

use std::ffi::{CStr, c_void};
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use crate::bindings::Api;
use crate::error::LoadError;
use crate::search::{Candidate, Outcome, SearchOptions, SearchStep};

/// Every ggml since 2024 has this function, and no other library does.
const TELLING_FUNCTION: &str = "ggml_backend_dev_count";

/// A loaded ggml.
///
/// It stays loaded until the process ends, since it may have threads of its own; dropping this value
/// frees nothing that a pointer may still use.
#[derive(Debug)]
pub struct Library {
    /// The library's functions.
    pub api: Api,
    handle: &'static libloading::Library,
    path: PathBuf,
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

    /// The file that was loaded, links followed; for a library that the loader found by name, that
    /// name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every place that was looked at, the last one being that of this library.
    #[must_use]
    pub fn steps(&self) -> &[SearchStep] {
        &self.steps
    }

    /// The library's version, such as `0.26.0`.
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: the function takes nothing and answers a constant of the library.
        let text = unsafe { (self.api.version)() };
        // SAFETY: it ends in a zero, and the library is never unloaded.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    /// The address of a function that [`Api`] does not list.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<NonNull<c_void>> {
        find(self.handle, name)
    }
}

/// Why one place did not serve.
#[derive(Debug)]
enum Refusal {
    Absent,
    Unloadable(String),
    NotGgml,
    Incomplete(Vec<&'static str>),
}

impl Refusal {
    fn outcome(&self) -> Outcome {
        Outcome::Refused(match self {
            Self::Absent => return Outcome::Absent,
            Self::Unloadable(reason) => reason.clone(),
            Self::NotGgml => "another library".to_owned(),
            Self::Incomplete(missing) => {
                format!("another version: {} functions are missing", missing.len())
            }
        })
    }
}

fn error(first: Option<(PathBuf, Refusal)>, steps: Vec<SearchStep>) -> LoadError {
    let Some((path, refusal)) = first else { return LoadError::NotFound { steps } };
    match refusal {
        Refusal::Absent => LoadError::NotFound { steps },
        Refusal::Unloadable(reason) => LoadError::Unloadable { path, reason, steps },
        Refusal::NotGgml => LoadError::NotGgml { path, missing: TELLING_FUNCTION, steps },
        Refusal::Incomplete(missing) => LoadError::Incomplete { path, missing, steps },
    }
}

fn load(candidate: &Candidate) -> Result<Library, Refusal> {
    let file = if candidate.is_bare_name() { None } else { Some(existing_file(&candidate.path)?) };
    let handle = open_file(candidate)?;
    let api = functions_of(&handle)?;
    // See `Library` for why it is never unloaded; a library that is refused was unloaded above.
    let handle = Box::leak(Box::new(handle));
    let path = file.unwrap_or_else(|| candidate.path.clone());
    Ok(Library { api, handle, path, steps: Vec::new() })
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
    // documentation of `Library::open` says; ggml's own only fills its tables.
    unsafe { libloading::Library::new(&candidate.path) }.map_err(|error| {
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let reason = source.unwrap_or_else(|| error.to_string());
        let is_absent = candidate.is_bare_name() && is_not_found(&reason, &candidate.path);
        if is_absent { Refusal::Absent } else { Refusal::Unloadable(reason) }
    })
}

/// Whether the loader misses the file that it was asked for, and not one that this file needs.
fn is_not_found(reason: &str, name: &Path) -> bool {
    let is_missed =
        reason.contains("cannot open") || reason.contains("Error loading shared library");
    cfg!(windows) || (is_missed && reason.contains(&format!("{}:", name.display())))
}

fn functions_of(handle: &libloading::Library) -> Result<Api, Refusal> {
    if find(handle, TELLING_FUNCTION).is_none() {
        return Err(Refusal::NotGgml);
    }
    // SAFETY: the names are ggml's, and the signatures those of its headers. The library is not
    // unloaded once this succeeds, and the table of a library that is refused goes with it.
    unsafe { Api::resolve(|name| find(handle, name)) }.map_err(Refusal::Incomplete)
}

fn find(handle: &libloading::Library, name: &str) -> Option<NonNull<c_void>> {
    // SAFETY: only the address is taken; nothing is called or read through it here.
    let symbol = unsafe { handle.get::<*mut c_void>(name) }.ok()?;
    // SAFETY: the address is used while the library is loaded, as said where it is called.
    NonNull::new(unsafe { symbol.try_as_raw_ptr() }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_words_tell_a_missing_library_from_a_missing_part() {
        let name = Path::new("libggml.so");
        let not_there = "cannot open shared object file: No such file or directory";
        assert!(is_not_found(&format!("libggml.so: {not_there}"), name));
        assert!(!is_not_found(&format!("libggml-cpu.so: {not_there}"), name));
    }
}
