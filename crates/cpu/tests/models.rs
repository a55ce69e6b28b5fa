//! Every tiny model on every backend that takes it.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::Path;

use common::{assert_close, inputs, lane, load, model, onnxruntime, rten, run, shape};
use shapeyard_core::backend::BackendError;
use shapeyard_core::{Backend, DataType, Model, Outputs, Request, RunError, Tensor, TensorView};

/// Models of types that both engines take.
const FOR_BOTH: [&str; 12] = [
    "identity.onnx",
    "add_one.onnx",
    "dense.onnx",
    "encoder.onnx",
    "conv.onnx",
    "many_inputs.onnx",
    "many_outputs.onnx",
    "scalars.onnx",
    "fixed_leading.onnx",
    "batch_mean.onnx",
    "unnamed_dims.onnx",
    "initializer_inputs.onnx",
];

/// The model with external data, whose file `name` holds.
fn external(folder: &Path, name: &str) -> Model {
    let mut model = fs::read(common::path("external.onnx")).unwrap();
    // The new name has as many bytes, so that no length in the file changes.
    for at in 0..model.len() - 12 {
        if model[at..].starts_with(b"external.bin") {
            model[at..at + 12].copy_from_slice(name.as_bytes());
        }
    }
    fs::write(folder.join("external.onnx"), model).unwrap();
    fs::copy(common::path("external.bin"), folder.join(name)).unwrap();
    Model::open(folder.join("external.onnx")).unwrap()
}

#[test]
fn external_data_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let model = external(folder.path(), "extern.data1");
    let result = |backend: &dyn Backend| {
        let executable = load(backend, &model).unwrap();
        let mut outputs = Outputs::new();
        let tensors = inputs(executable.signature(), 3);
        run(executable.as_ref(), lane(executable.as_ref(), 1).as_mut(), &tensors, &mut outputs)
            .unwrap();
        outputs
    };
    let ours = result(rten().as_ref());
    if let Some(backend) = onnxruntime("external_data_is_found") {
        assert_close(&ours, &result(backend.as_ref()), 1e-4, "external data");
    }
    let error = load(rten().as_ref(), &common::model("external.onnx")).err().unwrap();
    assert!(error.to_string().contains("`external.bin`; rten opens"), "{error}");
}

fn run_batches(backend: &dyn Backend, name: &str) -> Vec<Outputs> {
    let model = model(name);
    let executable = load(backend, &model).unwrap();
    let signature = executable.signature();
    let mut session = lane(executable.as_ref(), 1);
    let mut results = Vec::new();
    for batch in [1, 3, 8, 0, 2] {
        let mut outputs = Outputs::new();
        let report =
            run(executable.as_ref(), session.as_mut(), &inputs(signature, batch), &mut outputs)
                .unwrap_or_else(|error| panic!("{name}, batch {batch}: {error}"));
        assert_eq!(report.backend, backend.id());
        assert_eq!(outputs.tensors().len(), signature.outputs.len());
        for (spec, tensor) in signature.outputs.iter().zip(outputs.tensors()) {
            assert_eq!(tensor.dtype(), spec.dtype, "{name}, {}", spec.name);
            assert_eq!(tensor.shape(), shape(signature, spec, batch), "{name}, {}", spec.name);
        }
        results.push(outputs);
    }
    results
}

fn models() -> impl Iterator<Item = &'static str> {
    FOR_BOTH.into_iter().filter(|name| common::path(name).exists())
}

#[test]
fn rten_runs_every_model_that_it_takes() {
    for name in models() {
        run_batches(rten().as_ref(), name);
    }
}

#[test]
fn both_engines_agree() {
    let Some(backend) = onnxruntime("both_engines_agree") else { return };
    for name in models() {
        let reference = run_batches(backend.as_ref(), name);
        for (ours, theirs) in run_batches(rten().as_ref(), name).iter().zip(&reference) {
            assert_close(ours, theirs, 1e-4, name);
        }
    }
}

#[test]
fn onnxruntime_takes_the_types_that_rten_refuses() {
    let Some(backend) = onnxruntime("onnxruntime_takes_the_types_that_rten_refuses") else {
        return;
    };
    let last = |name| run_batches(backend.as_ref(), name).pop().unwrap().into_tensors();
    let half = &last("half.onnx")[0];
    assert_eq!(half.as_slice::<half::f16>().unwrap()[0].to_f32(), -0.5);
    let bfloat = &last("bfloat.onnx")[0];
    assert_eq!(bfloat.as_slice::<f32>().unwrap()[0], -1.0);
    let mixed = last("mixed_types.onnx");
    assert_eq!(mixed[1].dtype(), DataType::Bool);
    assert!(mixed[1].bytes().iter().all(|&byte| byte < 2));
}

#[test]
fn rten_names_the_input_that_it_does_not_take() {
    for (name, input, dtype) in [
        ("half.onnx", "x", "f16"),
        ("bfloat.onnx", "x", "bf16"),
        ("mixed_types.onnx", "weight", "f64"),
    ] {
        let error = load(rten().as_ref(), &model(name)).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
        assert!(error.to_string().contains(&format!("input `{input}` is {dtype}")), "{error}");
    }
}

#[test]
fn models_that_cannot_run_are_typed_errors() {
    let mut backends = vec![rten()];
    backends.extend(onnxruntime("models_that_cannot_run_are_typed_errors"));
    for backend in backends {
        for (name, word) in [("unknown_operator.onnx", "Frobnicate"), ("future_opset.onnx", "999")]
        {
            let error = load(backend.as_ref(), &model(name)).err().unwrap();
            assert!(matches!(error, BackendError::Model { .. }), "{error}");
            assert!(error.to_string().contains(word), "{}: {error}", backend.id());
        }
    }
}

#[test]
fn weights_that_are_cut_short_are_a_typed_error() {
    let mut backends = vec![rten()];
    backends.extend(onnxruntime("weights_that_are_cut_short_are_a_typed_error"));
    let folder = tempfile::tempdir().unwrap();
    // Opened while whole, cut before it is loaded.
    let model = external(folder.path(), "extern.data1");
    fs::write(folder.path().join("extern.data1"), [0; 16]).unwrap();
    for backend in backends {
        let error = load(backend.as_ref(), &model).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
    }
}

#[test]
fn inputs_that_are_not_aligned_are_copied() {
    let mut backends = vec![rten()];
    backends.extend(onnxruntime("inputs_that_are_not_aligned_are_copied"));
    let elements = [1.0f32, 2.0, 3.0, 4.0];
    let mut bytes = [0; 17];
    let start = usize::from(bytes.as_ptr().addr().is_multiple_of(4));
    bytes[start..start + 16].copy_from_slice(bytemuck::cast_slice(&elements));
    for backend in backends {
        let executable = load(backend.as_ref(), &model("add_one.onnx")).unwrap();
        let view = TensorView::new(DataType::F32, &[1, 4], &bytes[start..start + 16]).unwrap();
        let inputs = [view];
        let request = Request::bind(executable.signature(), &inputs).unwrap();
        let mut outputs = Outputs::new();
        lane(executable.as_ref(), 1).run(&request, &mut outputs).unwrap();
        assert_eq!(outputs.tensors()[0].as_slice::<f32>().unwrap(), [2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn every_byte_but_0_is_true() {
    let Some(backend) = onnxruntime("every_byte_but_0_is_true") else { return };
    let executable = load(backend.as_ref(), &model("mixed_types.onnx")).unwrap();
    let mut tensors = inputs(executable.signature(), 1);
    let flag = executable.signature().input_index("flag").unwrap();
    tensors[flag] = Tensor::from_bytes(DataType::Bool, &[1, 3], &[0, 1, 200]).unwrap();
    let mut outputs = Outputs::new();
    run(executable.as_ref(), lane(executable.as_ref(), 1).as_mut(), &tensors, &mut outputs)
        .unwrap();
    let inverse = executable.signature().output_index("inverse").unwrap();
    assert_eq!(outputs.tensors()[inverse].bytes(), [1, 0, 0]);
}

#[test]
fn rten_refuses_integers_beyond_its_own() {
    let executable = load(rten().as_ref(), &model("encoder.onnx")).unwrap();
    let at = executable.signature().input_index("attention_mask").unwrap();
    let mut tensors = inputs(executable.signature(), 1);
    tensors[at].as_mut_slice::<i64>().unwrap()[2] = 1 << 40;
    let mut session = lane(executable.as_ref(), 1);
    let error =
        run(executable.as_ref(), session.as_mut(), &tensors, &mut Outputs::new()).unwrap_err();
    let RunError::Unrepresentable { input, at: element, value, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((input.as_str(), *element, *value), ("attention_mask", 2, 1 << 40));
    tensors[at].as_mut_slice::<i64>().unwrap()[2] = 1;
    run(executable.as_ref(), session.as_mut(), &tensors, &mut Outputs::new()).unwrap();
}

#[test]
fn a_request_of_another_model_is_refused() {
    for backend in
        std::iter::once(rten()).chain(onnxruntime("a_request_of_another_model_is_refused"))
    {
        let executable = load(backend.as_ref(), &model("add_one.onnx")).unwrap();
        let bound_to = |name: &str| {
            let other = model(name);
            let tensors = inputs(other.signature(), 1);
            let views = [tensors[0].view()];
            let request = Request::bind(other.signature(), &views).unwrap();
            lane(executable.as_ref(), 1).run(&request, &mut Outputs::new()).map(drop)
        };
        let error = bound_to("dense.onnx").unwrap_err();
        assert!(matches!(error, RunError::ForeignRequest), "{error}");
        // An equal signature asks for the same, so the request may go to either.
        bound_to("identity.onnx").unwrap();
    }
}
