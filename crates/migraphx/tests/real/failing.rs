//! A program whose run fails.

#![allow(unsafe_code, reason = "a program that fails is made with the C API")]

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::ptr;

use migraphx_sys::{Library, SearchOptions};
use shapeyard_core::RunError;
use shapeyard_core::backend::{Artifact, Backend as _, LoadJob};
use shapeyard_core::model::Digest;

use super::common::{backend, bucket, compile, inputs, model, model_path, run, session};

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
fn a_program_that_failed_is_loaded_anew_before_it_runs_again() {
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
