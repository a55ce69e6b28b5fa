//! Compiling ahead, planning, and loading what was compiled.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;

use common::{assert_close, inputs, lane, load, model, onnxruntime, rten, run};
use shapeyard_core::backend::{
    Artifact, BackendError, CompileJob, Fingerprint, LoadJob, Optimisation, Status,
};
use shapeyard_core::plan::{Bucket, PlanOptions, Workload};
use shapeyard_core::{Backend, Executable, Model, Outputs};

fn compile(backend: &dyn Backend, model: &Model, output: &Path) -> Result<Artifact, BackendError> {
    backend.compile(&CompileJob::new(model, Bucket::default(), output))
}

fn result(executable: &dyn Executable, batch: usize) -> Outputs {
    let mut outputs = Outputs::new();
    let tensors = inputs(executable.signature(), batch);
    run(executable, lane(executable, 1).as_mut(), &tensors, &mut outputs).unwrap();
    outputs
}

/// Whether it is a version that does not read external data of a model in memory.
fn is_old(backend: &dyn Backend) -> bool {
    let Status::Usable { version, .. } = backend.probe().status else { return false };
    version.split('.').nth(1).unwrap().parse::<u32>().unwrap() < 24
}

#[test]
fn what_was_compiled_answers_as_the_model_does() {
    let Some(backend) = onnxruntime("what_was_compiled_answers_as_the_model_does") else { return };
    for name in [
        "encoder.onnx",
        "conv.onnx",
        "external.onnx",
        "initializer_inputs.onnx",
        "mixed_types.onnx",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let model = model(name);
        let artifact = match compile(backend.as_ref(), &model, &folder.path().join("model.ort")) {
            Err(error @ BackendError::Model { .. })
                if name == "external.onnx" && is_old(backend.as_ref()) =>
            {
                eprintln!("not on this version: {error}");
                continue;
            }
            artifact => artifact.unwrap(),
        };
        assert_eq!(artifact.n_bytes, fs::metadata(&artifact.payload).unwrap().len());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "{name} left something behind");
        let job = LoadJob { artifacts: &[artifact], ..LoadJob::of(&model) };
        let compiled = backend.load(&job).unwrap_or_else(|error| panic!("{name}: {error}"));
        let direct = load(backend.as_ref(), &model).unwrap();
        for batch in [1, 3] {
            let (ours, theirs) = (result(compiled.as_ref(), batch), result(direct.as_ref(), batch));
            assert_close(&ours, &theirs, 1e-6, name);
        }
    }
}

#[test]
fn an_artifact_that_does_not_fit_is_refused() {
    let Some(backend) = onnxruntime("an_artifact_that_does_not_fit_is_refused") else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = model("dense.onnx");
    let artifact = compile(backend.as_ref(), &model, &folder.path().join("dense.ort")).unwrap();
    let refused = |model: &Model, artifact: Artifact| {
        let error =
            backend.load(&LoadJob { artifacts: &[artifact], ..LoadJob::of(model) }).err().unwrap();
        assert!(matches!(error, BackendError::Artifact { .. }), "{error}");
        error.to_string()
    };
    let error = refused(&common::model("encoder.onnx"), artifact.clone());
    assert!(error.contains("its model is"), "{error}");
    let other =
        Artifact { fingerprint: Fingerprint("onnxruntime 1.0.0".to_owned()), ..artifact.clone() };
    assert!(refused(&model, other).contains("its fingerprint is"));
    let whole = fs::read(&artifact.payload).unwrap();
    fs::write(&artifact.payload, &whole[..whole.len() - 1]).unwrap();
    assert!(refused(&model, artifact.clone()).contains("bytes"));
    fs::write(&artifact.payload, vec![0xff; whole.len()]).unwrap();
    refused(&model, artifact.clone());
    fs::remove_file(&artifact.payload).unwrap();
    refused(&model, artifact);
}

#[test]
fn a_compile_that_fails_leaves_nothing() {
    let Some(backend) = onnxruntime("a_compile_that_fails_leaves_nothing") else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.ort");
    let error = compile(backend.as_ref(), &model("unknown_operator.onnx"), &output).unwrap_err();
    assert!(matches!(error, BackendError::Model { .. }), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let missing = folder.path().join("missing").join("model.ort");
    let error = compile(backend.as_ref(), &model("dense.onnx"), &missing).unwrap_err();
    assert!(matches!(error, BackendError::Write { .. }), "{error}");
}

#[test]
fn rten_compiles_nothing() {
    let error = compile(rten().as_ref(), &model("dense.onnx"), Path::new("unused")).unwrap_err();
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
}

#[test]
fn a_plan_is_made_for_symbols_that_the_model_has() {
    let workload = Workload::items("batch", "sequence", [3, 9, 4]);
    let options = PlanOptions::tokens(16);
    for backend in shapeyard_cpu::backends(&shapeyard_cpu::CpuOptions::default()) {
        let model = model("encoder.onnx");
        let plan = backend.plan(&model, &workload, &options).unwrap();
        assert_eq!(plan.backend, backend.id());
        assert!(plan.buckets.is_empty());
        assert_eq!(plan.totals.n_items, 3);
        let error = backend.plan(&common::model("dense.onnx"), &workload, &options).unwrap_err();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
        assert!(error.to_string().contains("no symbol `sequence`"), "{error}");
    }
}

#[test]
fn every_optimisation_gives_the_same_answer() {
    for backend in
        std::iter::once(rten()).chain(onnxruntime("every_optimisation_gives_the_same_answer"))
    {
        assert!(matches!(backend.probe().status, Status::Usable { .. }));
        let model = model("encoder.onnx");
        let with = |optimisation| {
            let executable =
                backend.load(&LoadJob { optimisation, ..LoadJob::of(&model) }).unwrap();
            result(executable.as_ref(), 3)
        };
        let full = with(Optimisation::Full);
        assert_close(&with(Optimisation::Off), &full, 1e-5, "off");
        assert_close(&with(Optimisation::Basic), &full, 1e-5, "basic");
    }
}
