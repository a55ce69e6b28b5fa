//! Models whose rows or columns depend on one another in ways that are easily missed.

use shapeyard_core::backend::{Backend, BackendError};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{AxisSymbol, Executable, Model, Route, RunError, Tensor};
use shapeyard_migraphx::{MigraphxOptions, Padding};

use super::common::{
    backend, backend_with, bucket, compile, load, model, options, run, session, values,
};

fn refused(backend: &dyn Backend, name: &str, shape: Bucket) -> String {
    let folder = tempfile::tempdir().unwrap();
    match compile(backend, &model(name), shape, folder.path()) {
        Err(BackendError::Model { reason, .. }) => reason,
        Err(error) => panic!("{name}: {error}"),
        Ok(_) => panic!("{name} was compiled"),
    }
}

#[test]
fn rows_that_depend_on_each_other_are_found_whatever_hides_it() {
    let Some(backend) = backend("hidden dependence") else { return };
    let names = [
        "batch_mean.onnx",
        "sentinel_mean.onnx",
        "integer_sum.onnx",
        "root_mean.onnx",
        "normalised.onnx",
        "half_root.onnx",
        "any.onnx",
    ];
    for name in names {
        let reason = refused(backend.as_ref(), name, bucket([("batch", 4)]));
        assert!(reason.contains("output `y` changes with"), "{name}: {reason}");
        assert!(reason.contains("along `batch`"), "{name}: {reason}");
    }
    let shape = bucket([("batch", 4), ("sequence", 8)]);
    let reason = refused(backend.as_ref(), "longest.onnx", shape);
    assert!(reason.contains("changes with other rows along `batch`"), "{reason}");
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::from_slice(shape, &vec![1.0_f32; shape.iter().product()]).unwrap()
}

fn answer(executable: &dyn Executable, inputs: &[Tensor]) -> Result<(Route, Tensor), RunError> {
    let (report, mut outputs) = run(executable, session(executable).as_mut(), inputs)?;
    Ok((report.route, outputs.remove(0)))
}

#[test]
fn rows_that_depend_on_those_before_are_padded_and_not_split() {
    let Some(backend) = backend("running sums") else { return };
    let (model, folder) = (model("running_sum.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 4)])], folder.path());
    let (route, sums) = answer(executable.as_ref(), &[ones(&[3, 4])]).unwrap();
    assert_eq!(route, Route::Padded);
    assert_eq!(values::<f32>(&sums), [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0]);
    let error = answer(executable.as_ref(), &[ones(&[8, 4])]).unwrap_err();
    assert!(matches!(error, RunError::NotReady { .. }), "{error}");
}

#[test]
fn rows_that_depend_on_their_place_are_not_split() {
    let Some(backend) = backend("parity") else { return };
    let (model, folder) = (model("parity.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 3)])], folder.path());
    answer(executable.as_ref(), &[ones(&[2, 4])]).unwrap();
    let error = answer(executable.as_ref(), &[ones(&[9, 4])]).unwrap_err();
    assert!(matches!(error, RunError::NotReady { .. }), "{error}");
}

#[test]
fn rows_on_two_axes_are_not_split() {
    let Some(backend) = backend("similarities") else { return };
    let (model, folder) = (model("similarity.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 4)])], folder.path());
    let (_, similar) = answer(executable.as_ref(), &[ones(&[3, 3])]).unwrap();
    assert_eq!((similar.shape(), values::<f32>(&similar)), (&[3, 3][..], &[3.0_f32; 9][..]));
    let error = answer(executable.as_ref(), &[ones(&[5, 3])]).unwrap_err();
    assert!(matches!(error, RunError::NotReady { .. }), "{error}");
}

#[test]
fn an_axis_that_is_rounded_is_not_cut() {
    let Some(backend) = backend("rounded axes") else { return };
    let (model, folder) = (model("rounded_up.onnx"), tempfile::tempdir().unwrap());
    let eight = bucket([("batch", 2), ("width", 8)]);
    let executable = load(backend.as_ref(), &model, [eight], folder.path());
    let (_, whole) = answer(executable.as_ref(), &[ones(&[1, 8])]).unwrap();
    assert_eq!(whole.shape(), [1, 8]);
    let error = answer(executable.as_ref(), &[ones(&[1, 7])]).unwrap_err();
    assert!(matches!(error, RunError::NotReady { .. }), "{error}");
}

fn axis(tensor: &str, axis: usize, symbol: &str) -> AxisSymbol {
    AxisSymbol { tensor: tensor.to_owned(), axis, symbol: symbol.to_owned() }
}

#[test]
fn the_order_in_which_axes_are_declared_does_not_matter() {
    let Some(backend) = backend("declared in any order") else { return };
    let declared = |axes: &[AxisSymbol]| -> Model { model("pairs.onnx").declare(axes).unwrap() };
    let rows = [axis("x", 0, "batch"), axis("x", 1, "width")];
    let columns = [axis("x", 1, "width"), axis("x", 0, "batch")];
    let shape = bucket([("batch", 4), ("width", 4)]);
    let numbers: Vec<f32> = (0..6_u8).map(f32::from).collect();
    let x = Tensor::from_slice(&[2, 3], &numbers).unwrap();
    for axes in [rows, columns] {
        let (model, folder) = (declared(&axes), tempfile::tempdir().unwrap());
        let executable = load(backend.as_ref(), &model, [shape.clone()], folder.path());
        let (_, y) = answer(executable.as_ref(), std::slice::from_ref(&x)).unwrap();
        assert_eq!((y.shape(), values::<f32>(&y)), (&[2, 3][..], &numbers[..]));
    }
}

#[test]
fn what_inputs_are_padded_with_lies_inside_their_tables() {
    let with = |name: &str, value| {
        let fills = [(name.to_owned(), value)].into();
        MigraphxOptions { padding: Padding { fills, ..Padding::default() }, ..options() }
    };
    let shape = bucket([("batch", 2), ("width", 4)]);
    for (name, value) in [("index", 1e6), ("index", 0.5), ("indexx", 0.0)] {
        let Some(backend) = backend_with("fills", with(name, value)) else { return };
        let folder = tempfile::tempdir().unwrap();
        let lookup = model("lookup.onnx");
        let error = compile(backend.as_ref(), &lookup, shape.clone(), folder.path()).unwrap_err();
        assert!(matches!(error, BackendError::Option { option: "padding", .. }), "{error}");
    }
    let backend = backend_with("fills", with("index", 3.0)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    load(backend.as_ref(), &model("lookup.onnx"), [shape], folder.path());
}

#[test]
fn an_extent_of_0_that_counts_no_rows_is_padded() {
    let Some(backend) = backend("empty memory") else { return };
    let (model, folder) = (model("memory.onnx"), tempfile::tempdir().unwrap());
    let shape = bucket([("batch", 2), ("past", 4)]);
    let executable = load(backend.as_ref(), &model, [shape], folder.path());
    let first = [ones(&[1, 0, 2]), ones(&[1, 1, 2])];
    let (route, sum) = answer(executable.as_ref(), &first).unwrap();
    assert_eq!((route, values::<f32>(&sum)), (Route::Padded, &[1.0, 1.0][..]));
}
