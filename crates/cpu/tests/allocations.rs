//! A lane of ggml that has seen as many tokens asks Rust's allocator for nothing when as many come again, whatever
//! they are and however they lie under the mask.
//!
//! Alone in its file, since it counts what the whole process asks for.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(unsafe_code, reason = "an allocator is unsafe to write")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{ggml, lane, load, model};
use shapeyard_core::{Outputs, Request, Tensor};

struct Counting;

static N_ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller vouches for the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller vouches for both.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        N_ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller vouches for all.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn as_many_tokens_as_were_seen_allocate_nothing() {
    let Some(backend) = ggml("as_many_tokens_as_were_seen_allocate_nothing") else { return };
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
            let before = N_ASKED.load(Ordering::Relaxed);
            session.run(&request, &mut outputs).unwrap();
            let n_asked = N_ASKED.load(Ordering::Relaxed) - before;
            // Graphs that are new take what they need, and so do outputs that grow; a larger graph moves the
            // memory of those before it.
            assert!(n_before < 2 || n_asked == 0, "{batch} x {length}: {n_asked}");
        }
    }
}
