//! Libraries that are absent, damaged or other ones, and the real one where it is.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use ggml_sys::{Api, Library, LoadError, Outcome, SearchOptions};

/// The real library, or `None` where there is none, which is written down.
fn real(test: &str) -> Option<Library> {
    match Library::open(&SearchOptions::default()) {
        Ok(library) => Some(library),
        Err(error) => {
            eprintln!("{test} is skipped: {error}");
            skip(&format!("{test}: ggml is not installed\n"));
            None
        }
    }
}

fn skip(line: &str) {
    if let Some(log) = std::env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        // One write of one line: tests run side by side.
        log.write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn what_is_no_library_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    for path in [file("text.so", b"no library\n"), file("empty.so", b""), folder.path().to_owned()]
    {
        let error = Library::open(&SearchOptions::at(&path)).unwrap_err();
        assert!(matches!(error, LoadError::Unloadable { .. }), "{error}");
        assert!(matches!(error.steps(), [step] if step.place == path), "a named path is strict");
    }
    let error = Library::open(&SearchOptions::at(folder.path().join("missing.so"))).unwrap_err();
    assert!(matches!(error, LoadError::NotFound { .. }), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn another_library_is_told_apart() {
    let error = Library::open(&SearchOptions::at(PathBuf::from("libm.so.6"))).unwrap_err();
    assert!(matches!(error, LoadError::NotGgml { .. }), "{error}");
}

/// A library with every function, made with the system's C compiler: only what it tells of itself differs.
#[test]
fn another_version_is_told_though_it_has_every_function() {
    let folder = tempfile::tempdir().unwrap();
    let (source, file) = (folder.path().join("a.c"), folder.path().join("libggml.so"));
    let others = Api::FUNCTIONS.iter().filter(|name| **name != "ggml_version");
    let functions: String = others.map(|name| format!("void {name}(void) {{}}\n")).collect();
    let version = "const char *ggml_version(void) { return \"0.25.3\"; }\n";
    fs::write(&source, functions + version).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w", "-o"]).args([&file, &source]);
    if !compiler.status().is_ok_and(|status| status.success()) {
        skip("another_version_is_told_though_it_has_every_function: no C compiler is in reach\n");
        return;
    }
    let error = Library::open(&SearchOptions::at(&file)).unwrap_err();
    let LoadError::Version { found, wanted, .. } = &error else { panic!("{error}") };
    assert_eq!((found.as_str(), *wanted), ("0.25.3", "0.26"));
    assert!(error.steps()[0].to_string().contains("0.25.3"), "{error}");
}

#[test]
fn a_search_that_finds_nothing_lists_every_place() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    let error = Library::open(&SearchOptions::around(&deep, false)).unwrap_err();
    let LoadError::NotFound { steps, .. } = &error else { panic!("{error}") };
    assert_eq!(steps.len(), 4);
    assert!(error.to_string().contains("(beside the program): not there"), "{error}");
}

#[test]
fn half_of_the_library_is_refused() {
    let Some(library) = real("half_of_the_library_is_refused") else { return };
    let whole = fs::read(library.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("libggml.so");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let error = Library::open(&SearchOptions::at(&half)).unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
}

#[test]
fn an_installation_finds_its_own_library() {
    let Some(library) = real("an_installation_finds_its_own_library") else { return };
    let root = tempfile::tempdir().unwrap();
    let libraries = root.path().join("lib/shapeyard");
    fs::create_dir_all(&libraries).unwrap();
    fs::copy(library.path(), libraries.join("libggml.so")).unwrap();
    let found = Library::open(&SearchOptions::around(root.path().join("bin"), false)).unwrap();
    assert_eq!(found.steps().last().unwrap().outcome, Outcome::Loaded);
    assert!(found.path().starts_with(root.path().canonicalize().unwrap()));
    assert_eq!(found.version(), library.version());
}

#[test]
fn the_real_library_tells_its_version() {
    let Some(library) = real("the_real_library_tells_its_version") else { return };
    assert!(library.version().starts_with("0.26"), "{}", library.version());
    assert!(library.symbol("ggml_backend_cpu_init").is_some());
    assert!(library.symbol("ggml_no_such_function").is_none());
}
