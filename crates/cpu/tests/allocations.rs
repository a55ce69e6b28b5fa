//! A lane of ggml that has seen as many tokens asks Rust's allocator for nothing when as many come again, whatever
//! they are and however they lie under the mask. Kernels run on this thread too, so it sees theirs.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use common::{ggml_on_the_processor, lane, load, model};
use shapeyard_core::{Outputs, Request, Tensor};

#[test]
fn as_many_tokens_as_were_seen_allocate_nothing() {
    let test = "as_many_tokens_as_were_seen_allocate_nothing";
    let Some(backend) = ggml_on_the_processor(test) else { return };
    let executable = load(backend.as_ref(), &model("encoder.gguf")).unwrap();
    let mut session = lane(executable.as_ref(), 2);
    let mut outputs = Outputs::new();
    let inputs = |batch: usize, length: usize, turn: i64| {
        let ids: Vec<i64> = (0..).map(|at| at * (turn + 3) % 7).take(batch * length).collect();
        let shown = |at: i64| i64::from((at + turn) % 3 != 1);
        let mask: Vec<i64> = (0..).map(shown).take(ids.len()).collect();
        [&ids, &mask].map(|values| Tensor::from_slice(&[batch, length], values).unwrap())
    };
    for (n_before, turn) in [(0, 0), (1, 2), (2, 1)] {
        for (batch, length) in [(2, 9), (1, 30)] {
            let given = inputs(batch, length, turn);
            let views = given.each_ref().map(Tensor::view);
            let request = Request::bind(executable.signature(), &views).unwrap();
            let counted = allocation_counter::measure(|| {
                session.run(&request, &mut outputs).unwrap();
            });
            let n_asked = counted.count_total;
            // Graphs that are new take what they need, and so do outputs that grow; a larger graph moves the
            // memory of those before it.
            assert!(n_before < 2 || n_asked == 0, "{batch} x {length}: {n_asked}");
        }
    }
}

#[test]
fn the_counter_counts() {
    let boxed = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(boxed.count_total, 1);
}
