//! Finding ONNX Runtime and loading it, once per process.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use shapeyard_core::backend::{Fingerprint, SearchStep};
use shapeyard_dylib::{
    Candidate, OpenError, Refusal, existing_file, is_bare_name, list, program_folder,
};

use crate::dynamic;
use crate::found::{self, Found, Versioned};

/// What to do where the library is missing.
const REMEDY: &str = "run `cargo xtask setup`, or install ONNX Runtime 1.17 or newer and set ORT_DYLIB_PATH to the file";

const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library keeps state of its own that cannot be taken down, so a process has one.
static LOADED: OnceLock<Library> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// The loaded library.
pub(super) struct Library {
    place: PathBuf,
    pub(super) environment: Environment,
    version: String,
    pub(super) fingerprint: Fingerprint,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Library")
            .field("place", &self.place)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Library {
    /// What it is called in a trace.
    fn title(&self) -> String {
        format!("ONNX Runtime {}", self.version)
    }
}

impl Versioned for &'static Library {
    fn version(&self) -> &str {
        &self.version
    }

    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

/// Looks for the library and loads the first that works.
///
/// A place that a person named is strict: when it does not work, no other is tried, because a library
/// that nobody asked for would be worse than an error.
pub(super) fn find(named: Option<&Path>) -> Found<&'static Library> {
    let named = named.map(Candidate::given).or_else(|| Candidate::from_variable(VARIABLE));
    match (named, LOADED.get()) {
        (Some(named), _) => try_all(vec![named]),
        (None, Some(library)) => {
            let place = format!("{} (loaded earlier by this process)", library.place.display());
            let steps = vec![SearchStep { place, outcome: library.title() }];
            Found { library: Ok(library), steps, remedy: REMEDY }
        }
        (None, None) => try_all(usual_places()),
    }
}

fn usual_places() -> Vec<Candidate> {
    let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let name = format!("{prefix}onnxruntime{suffix}");
    let near = program_folder().into_iter().flat_map(|folder| Candidate::around(&folder, &name));
    near.chain([Candidate::by_loader(&name)]).collect()
}

fn try_all(candidates: Vec<Candidate>) -> Found<&'static Library> {
    let shapeyard_dylib::Search { result, steps } = shapeyard_dylib::search(candidates, load);
    let library = result.map_err(|_| format!("none of these places serves: {}", list(&steps)));
    let title = library.as_ref().ok().map(|library| library.title());
    Found { library, steps: found::steps(steps, title.as_deref()), remedy: REMEDY }
}

fn load(path: &Path) -> Result<&'static Library, Refusal<String>> {
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(library) = LOADED.get() {
        let loaded = library.place.display();
        let objection = || format!("this process has loaded `{loaded}`, and can load only one");
        let is_the_same = file_of(path)? == library.place;
        return is_the_same.then_some(library).ok_or_else(|| Refusal::Unfit(objection()));
    }
    let file = shapeyard_dylib::Library::open(path)?;
    if file.symbol("OrtGetApiBase").is_none() {
        return Err(Refusal::Unfit("it is another library".to_owned()));
    }
    // The binding panics where a library answers in a way that none should.
    let library = dynamic::caught(|| open(file.path().to_owned()));
    let library = library.and_then(|opened| opened).map_err(Refusal::Unfit)?;
    Ok(LOADED.get_or_init(|| library))
}

/// The file behind a path or a name; a file is not given to the loader for that.
fn file_of(path: &Path) -> Result<PathBuf, OpenError> {
    if is_bare_name(path) {
        return Ok(shapeyard_dylib::Library::open(path)?.path().to_owned());
    }
    existing_file(path)
}

fn open(place: PathBuf) -> Result<Library, String> {
    let environment = ort::init_from(&place)
        .map_err(|error| error.to_string())?
        .with_name("shapeyard")
        .with_telemetry(false)
        // The library prints to standard error by default; what matters of it is in its errors too.
        .with_logger(Arc::new(|_, _, _, _, _| ()))
        .build()
        .map_err(|error| error.to_string())?;
    // A custom logger gets every message unless told otherwise, and making them takes time.
    environment.set_log_level(LogLevel::Fatal);
    let build = ort::info();
    let version = version(build, &place);
    let fingerprint = fingerprint(&version, build);
    Ok(Library { place, environment, version, fingerprint })
}

/// The binding tells only the minor version; the build's branch or the file's name tell the rest.
fn version(build: &str, place: &Path) -> String {
    let minor = ort::util::probe(place).unwrap_or(ort::MINOR_VERSION);
    let start = format!("1.{minor}.");
    let file = place.file_name().unwrap_or_default().to_string_lossy();
    [build, &file].iter().find_map(|text| version_in(text, &start)).unwrap_or(format!("1.{minor}"))
}

fn version_in(text: &str, start: &str) -> Option<String> {
    let (_, rest) = text.split_once(start)?;
    let patch: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!patch.is_empty()).then(|| format!("{start}{patch}"))
}

fn fingerprint(version: &str, build: &str) -> Fingerprint {
    let commit = build
        .split_once("git-commit-id=")
        .and_then(|(_, rest)| rest.split([',', ' ']).next())
        .unwrap_or("unknown");
    Fingerprint(format!("onnxruntime {version} {commit} cpu {}", dynamic::processor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_build_or_the_file() {
        let build =
            "ORT Build Info: git-branch=rel-1.31.1, git-commit-id=26250ae, build type=Release";
        assert_eq!(version_in(build, "1.31."), Some("1.31.1".to_owned()));
        assert_eq!(version_in("libonnxruntime.so.1.20.10", "1.20."), Some("1.20.10".to_owned()));
        assert_eq!(version_in("libonnxruntime.so", "1.20."), None);
        assert!(fingerprint("1.31.1", build).0.starts_with("onnxruntime 1.31.1 26250ae cpu "));
    }
}
