//! Finding ONNX Runtime and loading it, once per process.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use shapeyard_core::backend::{Fingerprint, SearchStep};

use super::elf;
use crate::dynamic;

/// What to do where the library is missing.
pub(super) const REMEDY: &str = "run `cargo xtask setup`, or install ONNX Runtime 1.17 or newer and set ORT_DYLIB_PATH to the file";

const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library keeps state of its own that cannot be taken down, so a process has one.
static LOADED: OnceLock<Library> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// The loaded library.
pub(super) struct Library {
    place: PathBuf,
    pub(super) environment: Environment,
    pub(super) version: String,
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

/// What a search came to.
#[derive(Debug)]
pub(super) struct Search {
    /// The library, or why there is none.
    pub(super) library: Result<&'static Library, String>,
    /// Where it was looked for.
    pub(super) steps: Vec<SearchStep>,
}

/// Looks for the library and loads the first that works.
///
/// A place that a person named is strict: when it does not work, no other is tried, because a library
/// that nobody asked for would be worse than an error.
pub(super) fn find(named: Option<&Path>) -> Search {
    let from_variable = env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
    match (named, &from_variable) {
        (Some(path), _) => find_named("the path that was given", path),
        (None, Some(path)) => find_named(VARIABLE, path),
        (None, None) => find_anywhere(),
    }
}

fn find_named(why: &str, path: &Path) -> Search {
    let place = format!("{} ({why})", path.display());
    let library = load(path);
    let outcome = outcome(&library);
    let library = library.map_err(|reason| format!("{why} names `{}`: {reason}", path.display()));
    Search { library, steps: vec![SearchStep { place, outcome }] }
}

fn find_anywhere() -> Search {
    let mut steps = Vec::new();
    if let Some(library) = LOADED.get() {
        let place = format!("{} (loaded earlier by this process)", library.place.display());
        steps.push(SearchStep { place, outcome: outcome(&Ok(library)) });
        return Search { library: Ok(library), steps };
    }
    let name = file_name();
    let mut candidates = beside_executable(&name);
    candidates.push((PathBuf::from(&name), "the system's loader"));
    for (path, why) in candidates {
        let found = load(&path);
        let place = format!("{} ({why})", path.display());
        steps.push(SearchStep { place, outcome: outcome(&found) });
        if found.is_ok() {
            return Search { library: found, steps };
        }
    }
    let n_places = steps.len();
    Search { library: Err(format!("`{name}` is at none of {n_places} places")), steps }
}

fn outcome(found: &Result<&'static Library, String>) -> String {
    match found {
        Ok(library) => format!("ONNX Runtime {}", library.version),
        Err(reason) => reason.clone(),
    }
}

fn file_name() -> String {
    let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    format!("{prefix}onnxruntime{suffix}")
}

/// Beside the program, in an installation's `lib` folder, and in that of a build tree, where programs
/// lie up to two folders deeper (`target/debug/deps`).
fn beside_executable(name: &str) -> Vec<(PathBuf, &'static str)> {
    let Some(folder) = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()))
    else {
        return Vec::new();
    };
    let mut places = vec![(folder.join(name), "beside the program")];
    for above in folder.ancestors().skip(1).take(3) {
        places
            .push((above.join("lib").join("shapeyard").join(name), "the installation's libraries"));
    }
    places
}

fn load(path: &Path) -> Result<&'static Library, String> {
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let place = resolve(path)?;
    if let Some(library) = LOADED.get() {
        return if library.place == place {
            Ok(library)
        } else {
            let loaded = library.place.display();
            Err(format!("this process has loaded `{loaded}`, and can load only one"))
        };
    }
    // The binding panics where a library answers in a way that none should.
    let library = dynamic::caught(|| open(place))??;
    Ok(LOADED.get_or_init(|| library))
}

/// The file itself, links followed; a bare name that is no file here is left to the system's loader.
fn resolve(path: &Path) -> Result<PathBuf, String> {
    match path.canonicalize() {
        Ok(file) if file.is_dir() => Err("it is a folder".to_owned()),
        Ok(file) => elf::check_whole(&file).map(|()| file),
        Err(_) if is_bare_name(path) => Ok(path.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn is_bare_name(path: &Path) -> bool {
    path.file_name() == Some(path.as_os_str())
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

    #[test]
    fn a_bare_name_is_left_to_the_loader() {
        assert!(is_bare_name(Path::new("libonnxruntime.so")));
        assert!(!is_bare_name(Path::new("./libonnxruntime.so")));
        assert!(!is_bare_name(Path::new("/lib/libonnxruntime.so")));
        assert!(!is_bare_name(Path::new("..")));
    }
}
