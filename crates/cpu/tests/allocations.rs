//! A lane of ggml that has seen a shape asks Rust's allocator for nothing when the shape comes again, whatever the
//! ids and the mask are.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{ggml, lane, load, model};
use shapeyard_core::{Outputs, Request, Tensor};

#[test]
fn a_shape_that_was_seen_allocates_nothing() {
    let Some(backend) = ggml("a_shape_that_was_seen_allocates_nothing") else { return };
    let executable = load(backend.as_ref(), &model("encoder.gguf")).unwrap();
    let mut session = lane(executable.as_ref(), 2);
    let mut outputs = Outputs::new();
    let inputs = |batch: usize, length: usize, step: i64| {
        let ids: Vec<i64> = (0..).map(|at| at * step % 7).take(batch * length).collect();
        let mask: Vec<i64> = (0..).map(|at| i64::from(at % step != 1)).take(ids.len()).collect();
        [&ids, &mask].map(|values| Tensor::from_slice(&[batch, length], values).unwrap())
    };
    for (n_before, step) in [(0, 3), (2, 4)] {
        for (batch, length) in [(2, 9), (1, 30)] {
            let given = inputs(batch, length, step);
            let views = given.each_ref().map(Tensor::view);
            let request = Request::bind(executable.signature(), &views).unwrap();
            let counted = allocation_counter::measure(|| {
                session.run(&request, &mut outputs).unwrap();
            });
            let n_asked = counted.count_total;
            // Shapes that are new take what they need, and so do outputs that grow.
            assert!(n_before == 0 || n_asked == 0, "{batch} x {length}: {n_asked}");
        }
    }
}

#[test]
fn the_counter_counts() {
    let boxed = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(boxed.count_total, 1);
}
