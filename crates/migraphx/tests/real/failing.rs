//! Programs whose runs fail.

#![allow(unsafe_code, reason = "a program that fails is made with the C API")]

use std::env;
use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::ptr;

use migraphx_sys::{Library, SearchOptions};
use shapeyard_core::backend::{Artifact, Backend as _, LoadJob, Outputs};
use shapeyard_core::model::Digest;
use shapeyard_core::{Request, RunError, Tensor, TensorView};
use shapeyard_migraphx::{MigraphxOptions, Padding, PaddingPolicy};

use super::common::{
    backend, backend_with, bucket, compile, inputs, load, model, model_path, options, run, session,
};

/// Saves a program that was read and not compiled: it loads, and its run fails.
fn save_uncompiled(shape: &[usize], path: &Path) {
    let library = Library::open(&SearchOptions::default()).unwrap();
    let api = &library.api;
    let text = |path: &Path| CString::new(path.to_str().unwrap()).unwrap();
    let (model, path) = (text(&model_path("encoder.onnx")), text(path));
    let (mut options, mut program, mut file) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: the places for handles are valid.
    let made = unsafe { (api.onnx_options_create)(&mut options) };
    assert!(made.is_success());
    for input in &super::common::model("encoder.onnx").signature().inputs {
        let (name, mut shape) = (CString::new(input.name.as_str()).unwrap(), shape.to_vec());
        let (lengths, n) = (shape.as_mut_ptr(), shape.len());
        // SAFETY: the handle is alive, and name and lengths are copied.
        let set = unsafe {
            (api.onnx_options_set_input_parameter_shape)(options, name.as_ptr(), lengths, n)
        };
        assert!(set.is_success());
    }
    // SAFETY: the options are alive, and the path ends in a zero.
    let parsed = unsafe { (api.parse_onnx)(&mut program, model.as_ptr(), options) };
    assert!(parsed.is_success());
    // SAFETY: the place for the handle is valid.
    let made = unsafe { (api.file_options_create)(&mut file) };
    assert!(made.is_success());
    // SAFETY: both handles are alive, and the path ends in a zero.
    let saved = unsafe { (api.save)(program, path.as_ptr(), file) };
    assert!(saved.is_success());
}

#[test]
fn a_program_that_always_fails_is_loaded_anew_each_time() {
    let Some(backend) = backend("failing program") else { return };
    let (model, folder) = (model("encoder.onnx"), tempfile::tempdir().unwrap());
    let shape = bucket([("batch", 2), ("sequence", 4)]);
    let good = compile(backend.as_ref(), &model, shape.clone(), folder.path()).unwrap();
    let payload = folder.path().join("uncompiled.mxr");
    save_uncompiled(&[2, 4], &payload);
    let bytes = fs::read(&payload).unwrap();
    let bad = Artifact {
        n_bytes: bytes.len() as u64,
        checksum: Digest::of(&bytes),
        payload: payload.clone(),
        ..good
    };
    let job = LoadJob { artifacts: &[bad], ..LoadJob::of(&model) };
    let executable = backend.load(&job).unwrap();
    let mut lane = session(executable.as_ref());
    let requests = inputs(executable.as_ref(), &shape, 0);
    for _ in 0..2 {
        let error = run(executable.as_ref(), lane.as_mut(), &requests).unwrap_err();
        assert!(matches!(error, RunError::Library { .. }), "{error}");
    }
    // Only a program that is loaded anew asks for its file again.
    fs::remove_file(&payload).unwrap();
    let error = run(executable.as_ref(), lane.as_mut(), &requests).unwrap_err();
    assert!(matches!(error, RunError::Prepare { .. }), "{error}");
}

/// In a process of its own: the limit is that of a process.
#[cfg(target_os = "linux")]
#[test]
fn a_program_that_ran_out_of_memory_serves_again_when_there_is_some() {
    if backend("failed and recovered").is_none() {
        return;
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "failing::child_that_runs_out_of_memory", "--ignored"]);
    // Memory that a run gave back goes back to the system, and no thread has some in reserve: the next run
    // has to ask for it.
    child.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_ARENA_MAX", "1");
    let output = child.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "a part of `a_program_that_ran_out_of_memory_serves_again_when_there_is_some`"]
fn child_that_runs_out_of_memory() {
    let padding = Padding { policy: PaddingPolicy::Never, ..Padding::default() };
    let backend = backend_with("out of memory", MigraphxOptions { padding, ..options() }).unwrap();
    let (model, folder) = (model("conv.onnx"), tempfile::tempdir().unwrap());
    let shape = bucket([("batch", 1), ("height", 128), ("width", 512)]);
    let executable = load(backend.as_ref(), &model, [shape.clone()], folder.path());
    let mut lane = session(executable.as_ref());
    let image = inputs(executable.as_ref(), &shape, 0);
    let views: Vec<TensorView<'_>> = image.iter().map(Tensor::view).collect();
    let request = Request::bind(executable.signature(), &views).unwrap();
    // Kept from run to run, so that only the library asks for memory.
    let mut outputs = Outputs::new();
    lane.run(&request, &mut outputs).unwrap();
    let wanted = outputs.tensors().to_vec();

    // The features alone have 1 MiB, and the interpreter makes them anew in each run.
    let unlimited = limit_memory(address_space_bytes() + (1 << 18));
    let failed = lane.run(&request, &mut outputs);
    limit_memory(unlimited);
    assert!(matches!(failed, Err(RunError::Library { .. })), "{failed:?}");

    let payload = folder.path().join(format!("{shape}.mxr"));
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&payload, &elsewhere).unwrap();
    let error = lane.run(&request, &mut outputs).unwrap_err();
    assert!(matches!(error, RunError::Prepare { .. }), "it is loaded anew: {error}");
    fs::rename(&elsewhere, &payload).unwrap();
    lane.run(&request, &mut outputs).unwrap();
    assert_eq!(outputs.tensors(), wanted);
}

/// Sets how large the address space may be; gives what the limit was.
#[cfg(target_os = "linux")]
fn limit_memory(bytes: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place is valid.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    let before = limit.rlim_cur;
    limit.rlim_cur = bytes;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    before
}

/// The size of this process's address space.
#[cfg(target_os = "linux")]
fn address_space_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
