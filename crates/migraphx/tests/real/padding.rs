//! Padding never reaches an answer, and models that look at it are refused.

use shapeyard_core::backend::{Backend as _, BackendError, LoadJob};
use shapeyard_core::{AxisSymbol, RunError, Tensor};
use shapeyard_migraphx::{MigraphxOptions, Padding, PaddingPolicy};

use super::common::{
    backend, backend_with, bucket, compile, inputs, load, model, options, run, session, values,
};

#[test]
fn pitfall_41_a_model_that_mixes_its_rows_is_refused_by_output_and_axis() {
    let Some(backend) = backend("mixing rows") else { return };
    let (model, folder) = (model("batch_mean.onnx"), tempfile::tempdir().unwrap());
    let error =
        compile(backend.as_ref(), &model, bucket([("batch", 4)]), folder.path()).unwrap_err();
    let BackendError::Model { reason, .. } = &error else { panic!("{error}") };
    let output = &model.signature().outputs[0].name;
    assert!(reason.contains(&format!("output `{output}` changes with")), "{reason}");
    assert!(reason.contains("along `batch`"), "{reason}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "something was left");
}

#[test]
fn what_holds_for_every_bucket_is_asked_once() {
    let Some(backend) = backend("one probe") else { return };
    let folder = tempfile::tempdir().unwrap();
    let notes = |name: &str, batch| {
        let shape = bucket([("batch", batch), ("sequence", 4)]);
        compile(backend.as_ref(), &model(name), shape, folder.path()).unwrap().notes
    };
    let (first, second) = (notes("encoder.onnx", 2), notes("encoder.onnx", 4));
    assert!(first.contains_key("probe_ms") && !second.contains_key("probe_ms"), "{second:?}");
    assert_eq!(first["traits"], second["traits"]);
    // What is known of one model says nothing about another.
    let other =
        compile(backend.as_ref(), &model("batch_mean.onnx"), bucket([("batch", 4)]), folder.path());
    assert!(matches!(other, Err(BackendError::Model { .. })), "{other:?}");
}

#[test]
fn without_padding_such_a_model_runs_in_exactly_its_shapes() {
    let padding = Padding { policy: PaddingPolicy::Never, ..Padding::default() };
    let options = MigraphxOptions { padding, ..options() };
    let Some(backend) = backend_with("no padding", options) else { return };
    let (model, folder) = (model("batch_mean.onnx"), tempfile::tempdir().unwrap());
    let four = bucket([("batch", 4)]);
    let executable = load(backend.as_ref(), &model, [four.clone()], folder.path());
    let mut lane = session(executable.as_ref());
    run(executable.as_ref(), lane.as_mut(), &inputs(executable.as_ref(), &four, 1)).unwrap();
    for other in [3, 8] {
        let other = inputs(executable.as_ref(), &bucket([("batch", other)]), 1);
        let error = run(executable.as_ref(), lane.as_mut(), &other).unwrap_err();
        assert!(matches!(error, RunError::NotReady { .. }), "{error}");
    }
}

#[test]
fn pitfall_43_a_nan_in_the_last_row_stays_there() {
    let Some(backend) = backend("NaN rows") else { return };
    let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 8)])], folder.path());
    let mut lane = session(executable.as_ref());
    let three = bucket([("batch", 3)]);
    let clean = inputs(executable.as_ref(), &three, 5);
    let wanted = run(executable.as_ref(), lane.as_mut(), &clean).unwrap().1;
    let mut dirty = clean;
    let row = dirty[0].shape()[1];
    for value in &mut dirty[0].as_mut_slice::<f32>().unwrap()[2 * row..] {
        *value = f32::NAN;
    }
    let found = run(executable.as_ref(), lane.as_mut(), &dirty).unwrap().1;
    let width = found[0].shape()[1];
    assert_eq!(values::<f32>(&found[0])[..2 * width], values::<f32>(&wanted[0])[..2 * width]);
}

#[test]
fn pitfall_42_what_stood_in_a_buffer_before_is_gone() {
    let Some(backend) = backend("stale rows") else { return };
    let (model, folder) = (model("encoder.onnx"), tempfile::tempdir().unwrap());
    let big = bucket([("batch", 4), ("sequence", 8)]);
    let executable = load(backend.as_ref(), &model, [big.clone()], folder.path());
    let small = inputs(executable.as_ref(), &bucket([("batch", 2), ("sequence", 3)]), 3);
    let fresh = run(executable.as_ref(), session(executable.as_ref()).as_mut(), &small).unwrap().1;
    let mut used = session(executable.as_ref());
    run(executable.as_ref(), used.as_mut(), &inputs(executable.as_ref(), &big, 9)).unwrap();
    let after = run(executable.as_ref(), used.as_mut(), &small).unwrap().1;
    assert_eq!(after, fresh, "another request's rows show through");
}

#[test]
fn axes_without_a_name_take_declared_ones() {
    let Some(backend) = backend("declared axes") else { return };
    let folder = tempfile::tempdir().unwrap();
    let unnamed = model("unnamed_dims.onnx");
    let input = unnamed.signature().inputs[0].clone();
    let error = compile(backend.as_ref(), &unnamed, bucket([]), folder.path()).unwrap_err();
    assert!(error.to_string().contains("declare a symbol"), "{error}");
    let axes: Vec<AxisSymbol> = input
        .shape
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, dim)| **dim == shapeyard_core::Dim::Unnamed)
        .map(|(axis, _)| AxisSymbol {
            tensor: input.name.clone(),
            axis,
            symbol: if axis == 0 { "batch".to_owned() } else { format!("axis{axis}") },
        })
        .collect();
    let declared = model("unnamed_dims.onnx").declare(&axes).unwrap();
    let whole: Vec<(&str, usize)> = axes.iter().map(|axis| (axis.symbol.as_str(), 4)).collect();
    let whole = shapeyard_core::plan::Bucket::from_iter(whole);
    let executable = load(backend.as_ref(), &declared, [whole.clone()], folder.path());
    let exact = inputs(executable.as_ref(), &whole, 2);
    let mut lane = session(executable.as_ref());
    let all = run(executable.as_ref(), lane.as_mut(), &exact).unwrap().1;
    let three = inputs(executable.as_ref(), &whole.with("batch", 3), 2);
    let some = run(executable.as_ref(), lane.as_mut(), &three).unwrap().1;
    assert_eq!(some[0].shape()[0], 3);
    let n = some[0].bytes().len();
    assert_eq!(some[0].bytes(), &all[0].bytes()[..n], "an output's axis was not found");
}

#[test]
fn every_request_fills_every_output() {
    let Some(backend) = backend("all outputs") else { return };
    for name in ["many_outputs.onnx", "mixed_types.onnx", "fixed_leading.onnx", "scalars.onnx"] {
        let (model, folder) = (model(name), tempfile::tempdir().unwrap());
        let symbols = model.signature().symbols.clone();
        let whole: shapeyard_core::plan::Bucket =
            symbols.iter().map(|symbol| (symbol.clone(), 4)).collect();
        let artifact = match compile(backend.as_ref(), &model, whole.clone(), folder.path()) {
            Ok(artifact) => artifact,
            Err(error) => panic!("{name}: {error}"),
        };
        let job = LoadJob { artifacts: &[artifact], ..LoadJob::of(&model) };
        let executable = backend.load(&job).unwrap();
        let mut lane = session(executable.as_ref());
        let requests = inputs(executable.as_ref(), &whole, 4);
        let outputs: Vec<Tensor> = run(executable.as_ref(), lane.as_mut(), &requests).unwrap().1;
        assert_eq!(outputs.len(), model.signature().outputs.len(), "{name}");
    }
}
