//! The backend over the double of MIGraphX: what it asks of the library needs no device to be tried.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

use std::path::Path;
use std::time::Duration;

use shapeyard_core::backend::{
    Artifact, Backend, BackendError, CompileJob, Executable, LoadJob, SessionOptions,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Outputs, Request, Tensor, TensorView};
use shapeyard_cpu::Rten;
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};
use shapeyard_tests::tiny_model;

const WORKER: &str = env!("CARGO_BIN_EXE_shapeyard-tests-worker");

/// The backend over the double's target `ref`, whose workers find these settings of the double.
fn backend(settings: &str, time_limit: Duration) -> MigraphxBackend {
    let variable = migraphx_c_gpu_double::SETTINGS_VARIABLE;
    let worker = WorkerProgram::new("/usr/bin/env", [&format!("{variable}={settings}"), WORKER]);
    let place = CompilePlace::worker(worker);
    MigraphxBackend::new(MigraphxOptions {
        library: Some(migraphx_c_gpu_double::library_path().unwrap()),
        compile: CompileOptions { target: Target::Ref, ..CompileOptions::default() },
        compiler: Compiler { place, time_limit, ..Compiler::default() },
        ..MigraphxOptions::default()
    })
    .unwrap()
}

fn compile(backend: &dyn Backend, model: &Model, folder: &Path) -> Result<Artifact, BackendError> {
    let bucket = Bucket::from_iter([("batch", 4)]);
    backend.compile(&CompileJob::new(model, bucket, folder.join("program.mxr")))
}

fn answer(executable: &dyn Executable, input: &Tensor) -> Vec<f32> {
    let mut session = executable.session(&SessionOptions::threads(1)).unwrap();
    let views = [input.view()];
    let views: &[TensorView<'_>] = &views;
    let request = Request::bind(executable.signature(), views).unwrap();
    let mut outputs = Outputs::new();
    session.run(&request, &mut outputs).unwrap();
    outputs.tensors()[0].as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn a_worker_probes_compiles_and_saves_and_rows_are_padded() {
    let backend = backend("", Duration::from_secs(600));
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open(tiny_model("dense.onnx")).unwrap();
    let artifact = compile(&backend, &model, folder.path()).unwrap();
    let artifacts = [artifact];
    let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(&model) };
    let executable = backend.load(&job).unwrap();
    let expected = Rten::new().load(&LoadJob::of(&model)).unwrap();
    for rows in [4, 3, 4, 3, 1, 7] {
        let values: Vec<f32> = (0..rows * 16).map(|at| (at % 13) as f32 / 6.0 - 1.0).collect();
        let input = Tensor::from_slice(&[rows, 16], &values).unwrap();
        let found = answer(executable.as_ref(), &input);
        let wanted = answer(expected.as_ref(), &input);
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!((found - wanted).abs() < 1e-4, "{rows} rows: {found} and {wanted}");
        }
    }
}

#[test]
fn a_model_whose_rows_depend_on_each_other_is_refused() {
    let backend = backend("", Duration::from_secs(600));
    let folder = tempfile::tempdir().unwrap();
    let model = Model::open(tiny_model("batch_mean.onnx")).unwrap();
    let error = compile(&backend, &model, folder.path()).unwrap_err();
    assert!(matches!(error, BackendError::Model { .. }), "{error}");
}

#[test]
fn what_goes_wrong_in_a_worker_stays_there() {
    let model = Model::open(tiny_model("add_one.onnx")).unwrap();
    for settings in
        ["parse-fails", "compile-fails", "compile-crashes", "compile-hangs", "load-fails"]
    {
        let backend = backend(settings, Duration::from_secs(5));
        let folder = tempfile::tempdir().unwrap();
        let error = compile(&backend, &model, folder.path()).unwrap_err();
        assert!(!error.to_string().is_empty(), "{settings}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{settings} left something");
    }
}
