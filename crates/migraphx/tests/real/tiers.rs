//! Which tier serves, and that each answers alike.

use shapeyard_core::{Route, RunError, Tensor, Tier};

use super::common::{backend, bucket, inputs, load, model, run, session, values};

/// `y = x + 1`, rows of 4.
fn x(n_rows: usize) -> Vec<Tensor> {
    let elements: Vec<f32> = (0..n_rows * 4).map(|n| n as f32).collect();
    vec![Tensor::from_slice(&[n_rows, 4], &elements).unwrap()]
}

fn wanted(n_rows: usize) -> Vec<f32> {
    (0..n_rows * 4).map(|n| n as f32 + 1.0).collect()
}

#[test]
fn pitfall_37_batches_that_alternate_in_one_bucket_are_right_every_time() {
    let Some(backend) = backend("alternating batches") else { return };
    let (model, folder) = (model("add_one.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 4)])], folder.path());
    let mut lane = session(executable.as_ref());
    let mut seen = Vec::new();
    for n_rows in [4, 3, 4, 3, 3, 1, 4] {
        let (report, outputs) = run(executable.as_ref(), lane.as_mut(), &x(n_rows)).unwrap();
        assert_eq!(outputs[0].shape(), [n_rows, 4]);
        assert_eq!(values::<f32>(&outputs[0]), wanted(n_rows));
        assert_eq!(report.n_padded_rows, 4 - n_rows);
        assert_eq!(report.route, if n_rows == 4 { Route::Exact } else { Route::Padded });
        seen.push(report.tier);
    }
    let cached = Tier::Cached;
    assert_eq!(seen, [cached, cached, cached, cached, Tier::Rebind, cached, cached]);
}

#[test]
fn pitfall_45_more_rows_than_the_largest_program_are_split() {
    let Some(backend) = backend("split requests") else { return };
    let (model, folder) = (model("add_one.onnx"), tempfile::tempdir().unwrap());
    let buckets = [1, 4, 8].map(|n| bucket([("batch", n)]));
    let executable = load(backend.as_ref(), &model, buckets, folder.path());
    let mut lane = session(executable.as_ref());
    for (n_rows, n_pieces) in [(9, 2), (13, 3), (16, 2), (21, 4), (40, 5)] {
        let (report, outputs) = run(executable.as_ref(), lane.as_mut(), &x(n_rows)).unwrap();
        assert_eq!(values::<f32>(&outputs[0]), wanted(n_rows));
        assert_eq!((report.route, report.n_pieces), (Route::Split, n_pieces), "{n_rows} rows");
    }
}

#[test]
fn a_shape_without_a_program_is_a_typed_answer() {
    let Some(backend) = backend("cold shapes") else { return };
    let (model, folder) = (model("encoder.onnx"), tempfile::tempdir().unwrap());
    let small = bucket([("batch", 2), ("sequence", 4)]);
    let executable = load(backend.as_ref(), &model, [small.clone()], folder.path());
    let mut lane = session(executable.as_ref());
    let wide = bucket([("batch", 2), ("sequence", 5)]);
    let requests = inputs(executable.as_ref(), &wide, 0);
    let error = run(executable.as_ref(), lane.as_mut(), &requests).unwrap_err();
    let RunError::NotReady { wanted, nearest } = error else { panic!("{error}") };
    assert_eq!((wanted, nearest), (wide, vec![small.clone()]));
    // And the lane goes on.
    let requests = inputs(executable.as_ref(), &small, 0);
    run(executable.as_ref(), lane.as_mut(), &requests).unwrap();
}

#[test]
fn a_bucket_that_is_admitted_later_serves_at_once() {
    let Some(backend) = backend("admission") else { return };
    let (model, folder) = (model("add_one.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 8)])], folder.path());
    let mut lane = session(executable.as_ref());
    let padded = run(executable.as_ref(), lane.as_mut(), &x(2)).unwrap().0;
    assert_eq!((padded.route, padded.n_padded_rows), (Route::Padded, 6));
    let two = bucket([("batch", 2)]);
    let artifact = super::common::compile(backend.as_ref(), &model, two, folder.path()).unwrap();
    executable.admit(&artifact).unwrap();
    let exact = run(executable.as_ref(), lane.as_mut(), &x(2)).unwrap().0;
    assert_eq!((exact.route, exact.tier), (Route::Exact, Tier::Cached));
    executable.admit(&artifact).unwrap();
}

#[test]
fn pitfall_44_an_empty_batch_has_empty_answers() {
    let Some(backend) = backend("empty batches") else { return };
    let (model, folder) = (model("add_one.onnx"), tempfile::tempdir().unwrap());
    let executable = load(backend.as_ref(), &model, [bucket([("batch", 2)])], folder.path());
    let (report, outputs) =
        run(executable.as_ref(), session(executable.as_ref()).as_mut(), &x(0)).unwrap();
    assert_eq!((outputs[0].shape(), report.n_pieces), (&[0, 4][..], 0));
}
