//! Lanes: side by side, with changing shapes, and the buffers that they keep.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::thread;

use common::{inputs, lane, load, model, onnxruntime, rten, run};
use shapeyard_core::backend::{SessionOptions, Waiting};
use shapeyard_core::{Outputs, Tensor, Tier};

const MODELS: [&str; 4] = ["encoder.onnx", "conv.onnx", "fixed_leading.onnx", "many_outputs.onnx"];

#[test]
fn lanes_on_two_threads_give_the_bytes_of_one() {
    for backend in
        std::iter::once(rten()).chain(onnxruntime("lanes_on_two_threads_give_the_bytes_of_one"))
    {
        let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
        let work = || {
            let mut session = lane(executable.as_ref(), 1);
            let one = |batch| {
                let mut outputs = Outputs::new();
                let tensors = inputs(executable.signature(), batch);
                run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
                outputs
            };
            (1..20).map(one).collect::<Vec<_>>()
        };
        let serial = work();
        thread::scope(|scope| {
            let lanes = [scope.spawn(work), scope.spawn(work)];
            for lane in lanes {
                assert!(lane.join().unwrap() == serial, "{}", backend.id());
            }
        });
    }
}

#[test]
fn threads_of_a_lane_do_not_change_the_result_much() {
    for backend in std::iter::once(rten())
        .chain(onnxruntime("threads_of_a_lane_do_not_change_the_result_much"))
    {
        let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
        let tensors = inputs(executable.signature(), 8);
        let result = |n_threads| {
            let mut outputs = Outputs::new();
            let mut session = lane(executable.as_ref(), n_threads);
            run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
            outputs
        };
        common::assert_close(&result(1), &result(2), 1e-5, "two threads");
    }
}

#[test]
fn how_threads_wait_does_not_change_the_result() {
    let Some(backend) = onnxruntime("how_threads_wait_does_not_change_the_result") else { return };
    let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
    let tensors = inputs(executable.signature(), 8);
    let [sleeping, spinning] = [Waiting::Sleep, Waiting::Spin].map(|waiting| {
        let mut outputs = Outputs::new();
        let options = SessionOptions::threads(2).waiting(waiting);
        let mut session = executable.session(&options).unwrap();
        run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
        outputs
    });
    assert!(sleeping == spinning);
}

/// A lane that keeps buffers must answer as a fresh one does, whatever ran before.
#[test]
fn kept_buffers_never_show() {
    let order = [4, 4, 4, 3, 4, 3, 3, 3, 0, 0, 0, 4, 1, 1, 1, 3];
    for backend in std::iter::once(rten()).chain(onnxruntime("kept_buffers_never_show")) {
        for name in MODELS {
            let executable = load(backend.as_ref(), &model(name)).unwrap();
            let (mut session, mut outputs) = (lane(executable.as_ref(), 1), Outputs::new());
            let mut last = None;
            for (n, batch) in order.into_iter().enumerate() {
                let tensors = salted(inputs(executable.signature(), batch), n);
                let report =
                    run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
                let tier = if last == Some(batch) { Tier::Rebind } else { Tier::Cached };
                assert_eq!(report.tier, tier, "{name}, run {n}");
                last = Some(batch);
                let (mut fresh, mut wanted) = (lane(executable.as_ref(), 1), Outputs::new());
                run(executable.as_ref(), fresh.as_mut(), &tensors, &mut wanted).unwrap();
                assert!(outputs == wanted, "{}, {name}, run {n}", backend.id());
            }
        }
    }
}

/// Other values in the same shapes.
fn salted(mut tensors: Vec<Tensor>, salt: usize) -> Vec<Tensor> {
    for tensor in &mut tensors {
        if let Ok(elements) = tensor.as_mut_slice::<f32>() {
            elements.iter_mut().for_each(|element| *element += salt as f32);
        } else if let Ok(elements) = tensor.as_mut_slice::<i64>() {
            elements.rotate_left(salt.min(elements.len()));
        }
    }
    tensors
}

#[test]
fn outputs_stay_where_they_are() {
    for backend in std::iter::once(rten()).chain(onnxruntime("outputs_stay_where_they_are")) {
        let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
        let (mut session, mut outputs) = (lane(executable.as_ref(), 1), Outputs::new());
        let mut places = Vec::new();
        for batch in [8, 8, 3, 8, 8] {
            let tensors = inputs(executable.signature(), batch);
            run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
            places.push(outputs.tensors()[0].bytes().as_ptr().addr());
        }
        places.dedup();
        assert_eq!(places.len(), 1, "{}", backend.id());
    }
}

#[test]
fn a_lane_works_on_after_an_error() {
    for backend in std::iter::once(rten()).chain(onnxruntime("a_lane_works_on_after_an_error")) {
        let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
        let (mut session, mut outputs) = (lane(executable.as_ref(), 1), Outputs::new());
        let good = inputs(executable.signature(), 2);
        let mut bad = good.clone();
        bad[0].as_mut_slice::<i64>().unwrap()[0] = 100_000;
        run(executable.as_ref(), session.as_mut(), &good, &mut outputs).unwrap();
        let wanted = outputs.clone();
        run(executable.as_ref(), session.as_mut(), &bad, &mut outputs).unwrap_err();
        for _ in 0..3 {
            run(executable.as_ref(), session.as_mut(), &good, &mut outputs).unwrap();
            assert!(outputs == wanted, "{}", backend.id());
        }
    }
}
