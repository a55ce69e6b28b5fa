//! A lane that has seen a shape asks for no memory when the shape comes again, nor when shapes alternate.
//!
//! A binary of its own, because the allocator that counts is that of the whole process. What MIGraphX
//! itself asks for is not seen here: it has an allocator of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

#[allow(dead_code, reason = "made for the tests in `real`, of which not all is needed here")]
#[path = "real/common.rs"]
mod common;

use shapeyard_core::backend::{Executable, Session};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Outputs, Request, Tensor, TensorView, Tier};

use common::{backend, bucket, inputs, load, model, session};

/// Requests of these shapes in turn, after each was seen once.
fn turns(
    executable: &dyn Executable,
    lane: &mut dyn Session,
    shapes: &[Bucket],
    tier: Tier,
) -> u64 {
    let tensors: Vec<Vec<Tensor>> =
        shapes.iter().map(|shape| inputs(executable, shape, 1)).collect();
    let views: Vec<Vec<TensorView<'_>>> =
        tensors.iter().map(|tensors| tensors.iter().map(Tensor::view).collect()).collect();
    let requests: Vec<Request<'_>> =
        views.iter().map(|views| Request::bind(executable.signature(), views).unwrap()).collect();
    let mut outputs = Outputs::new();
    for request in &requests {
        lane.run(request, &mut outputs).unwrap();
    }
    let counted = allocation_counter::measure(|| {
        for request in requests.iter().cycle().take(4) {
            let report = lane.run(request, &mut outputs).unwrap();
            assert_eq!(report.tier, tier);
        }
    });
    counted.count_total
}

/// One test, so that nothing else of this binary runs beside it.
#[test]
fn a_shape_that_was_seen_asks_for_no_memory() {
    let boxed = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(boxed.count_total, 1, "it counts");
    let Some(backend) = backend("allocations") else { return };
    for name in ["add_one.onnx", "many_inputs.onnx", "many_outputs.onnx", "mixed_types.onnx"] {
        let (model, folder) = (model(name), tempfile::tempdir().unwrap());
        let executable = load(backend.as_ref(), &model, [bucket([("batch", 2)])], folder.path());
        let mut lane = session(executable.as_ref());
        let mut n = |sizes: &[usize], tier| {
            let shapes: Vec<Bucket> = sizes.iter().map(|&n| bucket([("batch", n)])).collect();
            let n = turns(executable.as_ref(), lane.as_mut(), &shapes, tier);
            assert_eq!(n, 0, "{name}, batches of {sizes:?}, {tier:?}");
        };
        // Exact, padded, and split; then in turn.
        n(&[2], Tier::Rebind);
        n(&[1], Tier::Rebind);
        n(&[5], Tier::Rebind);
        n(&[1, 2], Tier::Cached);
        n(&[5, 1], Tier::Cached);
    }
    let (model, folder) = (model("encoder.onnx"), tempfile::tempdir().unwrap());
    let shape = |batch, sequence| bucket([("batch", batch), ("sequence", sequence)]);
    let executable = load(backend.as_ref(), &model, [shape(2, 4)], folder.path());
    let mut lane = session(executable.as_ref());
    for (shapes, tier) in
        [(vec![shape(1, 3)], Tier::Rebind), (vec![shape(1, 3), shape(2, 2)], Tier::Cached)]
    {
        let n = turns(executable.as_ref(), lane.as_mut(), &shapes, tier);
        assert_eq!(n, 0, "the encoder, {shapes:?}");
    }
}
