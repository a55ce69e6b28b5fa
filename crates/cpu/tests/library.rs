//! Finding and loading ONNX Runtime. The library's state is that of a process, so each way of looking for
//! it is tried in a child of its own.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{library, load, model, onnxruntime};
use shapeyard_core::Backend;
use shapeyard_core::backend::{BackendId, LoadJob, Status};
use shapeyard_core::registry::{Choice, OpenError, Registry};
use shapeyard_cpu::{CpuOptions, OnnxRuntime};

/// What a child does: probes, opens a model, prints what it found.
#[test]
#[ignore = "run as a child by the other tests"]
fn child() {
    let registry = Registry::new(shapeyard_cpu::backends(&CpuOptions::default()));
    let probe = registry.probe().swap_remove(0);
    for step in &probe.searched {
        println!("step {} -> {}", step.place, step.outcome);
    }
    match &probe.status {
        Status::Usable { version, fingerprint } => println!("usable {version} {fingerprint}"),
        Status::Unusable { reason, remedy } => println!("unusable {reason} ({remedy})"),
    }
    let model = model("dense.onnx");
    let opened = registry.open(&Choice::Auto, &LoadJob::of(&model)).unwrap();
    println!("answered {}", opened.backend.id());
    for passed in &opened.passed_over {
        println!("passed over {}: {}", passed.backend, passed.reason);
    }
    let forced = Choice::Forced(BackendId::new("onnxruntime"));
    if let Err(error) = registry.open(&forced, &LoadJob::of(&model)) {
        assert!(matches!(error, OpenError::Forced { .. }), "{error}");
        println!("forced fails");
    }
}

fn run_child(program: &Path, named: Option<&Path>) -> String {
    let mut command = Command::new(program);
    command.args(["--exact", "child", "--ignored", "--nocapture"]).env_remove("ORT_DYLIB_PATH");
    if let Some(path) = named {
        command.env("ORT_DYLIB_PATH", path);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

#[test]
fn what_is_no_library_is_passed_over_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let mut other_machine = fs::read(this_program()).unwrap();
    other_machine.truncate(4096);
    other_machine[18] = 0xf3;
    let cases = [
        file("text.so", b"no library\n"),
        file("empty.so", b""),
        file("other_machine.so", &other_machine),
        folder.path().join("missing.so"),
        folder.path().to_owned(),
        PathBuf::from("libm.so.6"),
    ];
    for path in cases {
        let text = run_child(&this_program(), Some(&path));
        assert!(text.contains("unusable none of these places serves: "), "{text}");
        assert!(text.contains("(ORT_DYLIB_PATH): "), "{text}");
        assert!(text.contains("cargo xtask setup"), "{text}");
        assert!(text.contains("answered rten"), "{text}");
        assert!(text.contains("passed over onnxruntime: "), "{text}");
        assert!(text.contains("forced fails"), "{text}");
        assert_eq!(text.matches("step ").count(), 1, "a named path is strict: {text}");
    }
}

#[test]
fn half_of_the_library_is_passed_over_with_a_reason() {
    let Some(backend) = onnxruntime("half_of_the_library_is_passed_over_with_a_reason") else {
        return;
    };
    let whole = fs::read(library(backend.as_ref())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("libonnxruntime.so");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let text = run_child(&this_program(), Some(&half));
    assert!(text.contains("unusable none of these places serves: "), "{text}");
    assert!(text.contains("(ORT_DYLIB_PATH): "), "{text}");
}

#[test]
fn an_installation_finds_its_own_library() {
    let Some(backend) = onnxruntime("an_installation_finds_its_own_library") else { return };
    let library = library(backend.as_ref());
    let name =
        format!("{}onnxruntime{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    for (program, place) in [
        ("bin/program", "bin"),
        ("bin/program", "lib/shapeyard"),
        ("target/debug/deps/program", "target/lib/shapeyard"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let (program, place) = (root.path().join(program), root.path().join(place));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::create_dir_all(&place).unwrap();
        fs::copy(this_program(), &program).unwrap();
        fs::hard_link(&library, place.join(&name))
            .or_else(|_| fs::copy(&library, place.join(&name)).map(drop))
            .unwrap();
        let text = run_child(&program, None);
        assert!(text.contains("usable 1."), "{text}");
        assert!(text.contains("answered onnxruntime"), "{text}");
        assert!(text.contains(&place.canonicalize().unwrap().display().to_string()), "{text}");
    }
}

#[test]
fn a_search_that_finds_nothing_says_where_it_looked() {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join("program");
    fs::copy(this_program(), &program).unwrap();
    let text = run_child(&program, None);
    if text.contains("usable 1.") {
        return common::write_down(
            "a_search_that_finds_nothing_says_where_it_looked: the system has ONNX Runtime",
        );
    }
    assert!(text.contains("(beside the program) -> "), "{text}");
    assert!(text.contains("(the system's loader) -> "), "{text}");
    assert!(text.contains("answered rten"), "{text}");
}

#[test]
fn the_probe_tells_version_and_fingerprint() {
    let Some(backend) = onnxruntime("the_probe_tells_version_and_fingerprint") else { return };
    let Status::Usable { version, fingerprint } = backend.probe().status else {
        panic!("probed before")
    };
    // The library tells its minor version; the patch only where its file's name or its build has it.
    assert!(version.starts_with("1."), "{version}");
    assert!(fingerprint.0.starts_with(&format!("onnxruntime {version} ")), "{fingerprint}");
    assert!(fingerprint.0.contains(std::env::consts::ARCH), "{fingerprint}");
}

#[test]
fn a_process_has_one_library() {
    let Some(backend) = onnxruntime("a_process_has_one_library") else { return };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libonnxruntime.so");
    fs::copy(library(backend.as_ref()), &copy).unwrap();
    let second = OnnxRuntime::new(&CpuOptions { onnxruntime: Some(copy), ..CpuOptions::default() });
    let Status::Unusable { reason, .. } = second.probe().status else {
        panic!("it loaded a second one")
    };
    assert!(reason.contains("can load only one"), "{reason}");
    let same = OnnxRuntime::new(&CpuOptions {
        onnxruntime: Some(library(backend.as_ref())),
        ..CpuOptions::default()
    });
    assert!(same.probe().is_usable());
    assert!(load(&same, &model("dense.onnx")).is_ok());
}

#[test]
fn a_forced_backend_answers_itself() {
    let registry = Registry::new(shapeyard_cpu::backends(&CpuOptions::default()));
    let model = model("dense.onnx");
    let opened = registry.open(&"rten".parse().unwrap(), &LoadJob::of(&model)).unwrap();
    assert_eq!(opened.backend.id().as_str(), "rten");
    assert!(opened.passed_over.is_empty());
}
