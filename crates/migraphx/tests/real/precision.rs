//! Fewer bits: close to the full precision, and never without calibration.

use std::path::{Path, PathBuf};

use shapeyard_core::backend::{Backend as _, BackendError, Optimisation};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Tensor};
use shapeyard_migraphx::{CompileOptions, MigraphxBackend, MigraphxOptions, Target};

use super::common::{
    backend, backend_with, bucket, compile, inputs, load, model, options, run, session, values,
};

fn with(precision: &str, calibration: Vec<PathBuf>) -> MigraphxOptions {
    let precision = precision.parse().unwrap();
    let compile =
        CompileOptions { target: Target::Ref, precision, calibration, ..CompileOptions::default() };
    MigraphxOptions { compile, ..options() }
}

fn shape() -> Bucket {
    bucket([("batch", 4)])
}

/// Inputs in a file, as calibration wants them.
fn write(path: &Path, model: &Model, tensors: &[Tensor]) {
    let views = model.signature().inputs.iter().zip(tensors).map(|(spec, tensor)| {
        let shape = tensor.shape().to_vec();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, tensor.bytes());
        (spec.name.clone(), view.unwrap())
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, path).unwrap();
}

#[test]
fn every_precision_answers_close_to_the_full_one() {
    let Some(full) = backend("precisions") else { return };
    let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
    let executable = load(full.as_ref(), &model, [shape()], folder.path());
    let requests = inputs(executable.as_ref(), &shape().with("batch", 3), 1);
    let answer = |executable: &dyn shapeyard_core::Executable| {
        run(executable, session(executable).as_mut(), &requests).unwrap().1.remove(0)
    };
    let wanted = answer(executable.as_ref());
    let scale = values::<f32>(&wanted).iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let file = folder.path().join("calibration.safetensors");
    write(&file, &model, &requests);
    // As MIGraphX's own quantisation gives on this model; a wrong calibration is off by the whole scale.
    for (precision, tolerance, changes) in [
        ("fp32", 1e-6, false),
        ("fp16", 0.01, true),
        ("bf16", 0.05, true),
        ("int8", 0.1, true),
        ("fp8", 0.3, true),
        ("int8+fp16", 0.1, true),
    ] {
        let calibration = if precision.contains('8') { vec![file.clone()] } else { Vec::new() };
        let lower = backend_with("precisions", with(precision, calibration)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let executable = load(lower.as_ref(), &model, [shape()], folder.path());
        let found = answer(executable.as_ref());
        let pairs = values::<f32>(&found).iter().zip(values::<f32>(&wanted));
        let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
        assert!(most <= tolerance * scale, "{precision}: {most} of {scale}");
        assert_eq!(most > 1e-6 * scale, changes, "{precision}: nothing was quantised");
    }
}

#[test]
fn pitfall_35_a_calibration_that_cannot_be_used_is_an_error() {
    let error = MigraphxBackend::new(with("int8", Vec::new())).unwrap_err();
    assert!(matches!(error, BackendError::Option { option: "precision", .. }), "{error}");
    let error = MigraphxBackend::new(with("fp16", vec!["x".into()])).unwrap_err();
    assert!(matches!(error, BackendError::Option { option: "calibration", .. }), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = (folder.path().join("calibration.safetensors"), model("dense.onnx"));
    let refused = |content: &dyn Fn(&Path)| {
        content(&file);
        let Some(int8) = backend_with("bad calibration", with("int8", vec![file.clone()])) else {
            return;
        };
        let error = compile(int8.as_ref(), &model, shape(), folder.path()).unwrap_err();
        assert!(matches!(error, BackendError::Option { option: "calibration", .. }), "{error}");
    };
    refused(&|file| std::fs::write(file, "no tensors").unwrap());
    refused(&|file| write(file, &model, &[]));
    refused(&|file| write(file, &model, &[Tensor::from_slice(&[1, 1], &[0.0_f32]).unwrap()]));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let compile =
        CompileOptions { target: Target::Ref, exhaustive_tune: true, ..CompileOptions::default() };
    let error = MigraphxBackend::new(MigraphxOptions { compile, ..options() }).unwrap_err();
    assert!(matches!(error, BackendError::Option { option: "exhaustive_tune", .. }), "{error}");
}

#[test]
fn calibration_that_changed_after_it_was_looked_at_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, model) = (folder.path().join("calibration.safetensors"), model("dense.onnx"));
    let Some(full) = backend("changing calibration") else { return };
    let executable = load(full.as_ref(), &model, [shape()], folder.path());
    write(&file, &model, &inputs(executable.as_ref(), &shape(), 1));
    let int8 = backend_with("changing calibration", with("int8", vec![file.clone()])).unwrap();
    int8.recipe(Optimisation::Full).unwrap();
    write(&file, &model, &inputs(executable.as_ref(), &shape(), 2));
    let error = compile(int8.as_ref(), &model, shape(), folder.path()).unwrap_err();
    assert!(error.to_string().contains("changed meanwhile"), "{error}");
}
