//! Files that are no MIGraphX, or only the rest of one: each a typed error, none a crash.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![cfg(target_os = "linux")]

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use migraphx_sys::{DYLIB_PATH_VARIABLE, Library, LoadError, Outcome, SearchOptions};

fn open(path: impl Into<PathBuf>) -> LoadError {
    Library::open(&SearchOptions::at(path)).unwrap_err()
}

fn reason(path: &Path) -> String {
    match open(path) {
        LoadError::Unloadable { path: named, reason, steps, .. } => {
            assert_eq!((named.as_path(), steps.len()), (path, 1));
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// A real shared library: the C library of this process.
fn c_library() -> Vec<u8> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains("/libc.so.6")).unwrap();
    fs::read(&line[line.find('/').unwrap()..]).unwrap()
}

#[test]
fn a_file_that_is_no_library_says_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libmigraphx_c.so.3");
    fs::write(&file, "").unwrap();
    assert_eq!(reason(&file), "the file is empty");
    fs::write(&file, "a note\n").unwrap();
    assert_eq!(reason(&file), "it is not a shared library");
    assert!(reason(folder.path()).starts_with("it is a folder"));
}

#[test]
fn a_library_of_another_architecture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libmigraphx_c.so.3");
    let mut bytes = c_library();
    let machine_of_arm64: u16 = 183;
    let machine: u16 = if env::consts::ARCH == "aarch64" { 62 } else { machine_of_arm64 };
    bytes[18..20].copy_from_slice(&machine.to_ne_bytes());
    fs::write(&file, bytes).unwrap();
    let said = reason(&file);
    assert!(said.starts_with("it is built for ") && said.contains(env::consts::ARCH), "{said}");
}

/// The loader maps what the header promises, and a page beyond the file's end would end the process.
#[test]
fn a_library_that_is_cut_off_is_not_given_to_the_loader() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libmigraphx_c.so.3");
    let bytes = c_library();
    for length in [16, 60, 4096, bytes.len() / 2] {
        fs::write(&file, &bytes[..length]).unwrap();
        assert!(reason(&file).starts_with("the file is cut off"), "{length} bytes");
    }
}

#[test]
fn a_link_into_nowhere_is_the_rest_of_an_installation() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("libmigraphx_c.so.3");
    symlink("libmigraphx_c.so.3.0", &file).unwrap();
    assert!(reason(&file).contains("libmigraphx_c.so.3.0"));
}

#[test]
fn another_library_is_told_apart() {
    let LoadError::NotMigraphx { missing, steps, .. } = open("libm.so.6") else {
        panic!("the mathematics library is not MIGraphX");
    };
    assert_eq!((missing, steps.len()), (c"migraphx_program_create", 1));
}

#[test]
fn a_path_where_nothing_is_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libmigraphx_c.so.3");
    let error = open(&path);
    assert!(matches!(error, LoadError::NotFound { .. }), "{error:?}");
    assert_eq!(error.steps()[0].outcome, Outcome::Absent);
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(matches!(open("libmigraphx-of-nobody.so"), LoadError::NotFound { .. }));
}

/// A library of a release before those that this crate knows, made with the system's C compiler.
#[test]
fn a_library_that_lacks_functions_is_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let (source, file) = (folder.path().join("a.c"), folder.path().join("libmigraphx_c.so.3"));
    fs::write(&source, "int migraphx_program_create(void **p) { return 4; }\n").unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).args([&file, &source]);
    if !compiler.status().is_ok_and(|status| status.success()) {
        skip("a_library_that_lacks_functions_is_too_old: no C compiler is in reach");
        return;
    }
    let LoadError::TooOld { missing, hint, .. } = open(&file) else {
        panic!("one function is not all of them");
    };
    assert!(missing.contains(&c"migraphx_program_run"));
    assert!(hint.contains("ROCm 6.0"));
}

#[test]
fn the_search_goes_on_past_a_damaged_installation_and_tells_of_it() {
    let parent = tempfile::tempdir().unwrap();
    for (version, content) in [("rocm-7.1.0", "damaged"), ("rocm-6.4.0", "")] {
        let folder = parent.path().join(version).join("lib");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libmigraphx_c.so.3"), content).unwrap();
    }
    let options = SearchOptions::nowhere().with_installations(parent.path());
    let error = Library::open(&options).unwrap_err();
    assert_eq!(error.steps().len(), 8, "{error:?}");
    let LoadError::Unloadable { path, .. } = error else { panic!("{error:?}") };
    assert!(path.ends_with("rocm-7.1.0/lib/libmigraphx_c.so.3"), "the newest comes first");
}

/// In a process of its own, since the environment belongs to the whole process.
#[test]
fn the_variable_is_strict() {
    let mut command = this_program();
    command.args(["--exact", "child_that_opens_by_default", "--ignored"]);
    let output = command.env(DYLIB_PATH_VARIABLE, "nowhere/libmigraphx_c.so.3").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[test]
#[ignore = "a part of `the_variable_is_strict`"]
fn child_that_opens_by_default() {
    let error = Library::open(&SearchOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::NotFound { .. }), "{error:?}");
    let [step] = error.steps() else { panic!("{:?}", error.steps()) };
    assert_eq!(step.place, Path::new("nowhere/libmigraphx_c.so.3"));
    assert_eq!(step.why, DYLIB_PATH_VARIABLE);
}

/// Where the tests run inside a private root by the root's dynamic linker, a child has to be started
/// by the script that is named here.
fn this_program() -> Command {
    let program = env::args_os().next().unwrap();
    match env::var_os("SHAPEYARD_MIGRAPHX_RUN") {
        Some(script) => {
            let mut command = Command::new(script);
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn skip(line: &str) {
    eprintln!("{line}");
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}
