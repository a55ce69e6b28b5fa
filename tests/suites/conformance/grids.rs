//! Two symbols at once: every batch and length of the encoder over grids of programs.

use std::collections::BTreeMap;
use std::slice;

use shapeyard_core::plan::{Steps, grid};
use shapeyard_core::{Route, RunError};

use super::asked::{ask, run_twice, runs_any_shape, runs_in_buckets};
use super::requests::{assert_alike, inputs};
use super::support::{
    Programs, bucket, dynamic, everywhere, ggml, migraphx, model, onnxruntime, rten,
};

const FILE: &str = "encoder.onnx";

fn covers(test: &str, batch: &str, sequence: &str, most: (usize, usize)) {
    let Some(reference) = onnxruntime(test) else { return };
    let shape = |batch| {
        (1..=most.1).map(move |sequence| bucket([("batch", batch), ("sequence", sequence)]))
    };
    let asked = ask(&mut dynamic(reference.as_ref(), FILE), (1..=most.0).flat_map(shape));
    runs_any_shape(dynamic(rten().as_ref(), FILE), &asked);
    if let Some(backend) = ggml(test) {
        runs_any_shape(dynamic(backend.as_ref(), FILE), &asked);
    }
    let Some(backend) = migraphx(test) else { return };
    let steps = [("batch", batch), ("sequence", sequence)];
    let steps: BTreeMap<String, Steps> =
        steps.map(|(symbol, text)| (symbol.to_owned(), text.parse().unwrap())).into();
    let buckets = grid(&steps).unwrap();
    let programs = Programs::compile(backend.as_ref(), model(FILE), buckets.clone()).unwrap();
    let mut loaded = programs.load(backend.as_ref(), |_| true);
    for asked in &asked {
        runs_in_buckets(&mut loaded, asked, &buckets, true);
    }
}

#[test]
fn powers_of_two() {
    covers("grid of powers of two", "..8", "..16", (9, 17));
}

#[test]
fn lists() {
    covers("grid of lists", "1,3,5", "5,12", (12, 13));
}

#[test]
fn equal_steps() {
    covers("grid of equal steps", "2..6:2", "4..16:6", (9, 17));
}

#[test]
fn pitfall_49_a_sequence_of_one_and_one_that_needs_no_padding() {
    let Some(backend) = migraphx("short sequences") else { return };
    let Some(reference) = onnxruntime("short sequences") else { return };
    let whole = bucket([("batch", 2), ("sequence", 8)]);
    let programs = Programs::compile(backend.as_ref(), model(FILE), [whole.clone()]).unwrap();
    let mut loaded = programs.load(backend.as_ref(), |_| true);
    let shapes = [whole.clone().with("sequence", 1), whole];
    let asked = ask(&mut dynamic(reference.as_ref(), FILE), shapes);
    let routes = [&asked[0], &asked[1]].map(|asked| run_twice(&mut loaded, asked).unwrap().route);
    assert_eq!(routes, [Route::Padded, Route::Exact]);
}

#[test]
fn pitfalls_48_and_49_inputs_that_disagree_are_named() {
    let whole = bucket([("batch", 4), ("sequence", 8)]);
    for mut loaded in everywhere("disagreement", FILE, slice::from_ref(&whole)) {
        let signature = loaded.executable.signature().clone();
        let right = inputs(&signature, &whole, 0);
        for other in [whole.clone().with("batch", 3), whole.clone().with("sequence", 5)] {
            let mut wrong = right.clone();
            wrong[1] = inputs(&signature, &other, 0).remove(1);
            let error = loaded.run(&wrong).unwrap_err();
            assert!(matches!(error, RunError::Bind(_)), "{error}");
            let words = error.to_string();
            assert!(words.contains("`input_ids`") && words.contains("`attention_mask`"), "{words}");
        }
        // And the lane goes on.
        assert_alike(&loaded.answer(&right), &loaded.lane().answer(&right), "afterwards");
    }
}
