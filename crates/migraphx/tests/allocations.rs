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
#![allow(unsafe_code, reason = "an allocator")]
#![cfg(unix)]

#[allow(dead_code, reason = "made for the tests in `real`, of which not all is needed here")]
#[path = "real/common.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use shapeyard_core::backend::{Executable, Session};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Outputs, Request, Tensor, TensorView, Tier};

use common::{backend, bucket, inputs, load, model, session};

/// Counts what one thread asks for; the test harness goes on in others.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The thread that is counted; 0 is none.
static THREAD: AtomicUsize = AtomicUsize::new(0);
static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

fn this_thread() -> usize {
    // SAFETY: it only says which thread calls.
    let thread = unsafe { libc::pthread_self() };
    thread as usize
}

fn count() {
    if THREAD.load(Ordering::Relaxed) == this_thread() {
        N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, n_bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promised.
        unsafe { System.realloc(memory, layout, n_bytes) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// How often `work` asks for memory.
fn n_allocations(work: impl FnOnce()) -> usize {
    N_ALLOCATIONS.store(0, Ordering::Relaxed);
    THREAD.store(this_thread(), Ordering::Relaxed);
    work();
    THREAD.store(0, Ordering::Relaxed);
    N_ALLOCATIONS.load(Ordering::Relaxed)
}

/// Requests of these shapes in turn, after each was seen once.
fn turns(
    executable: &dyn Executable,
    lane: &mut dyn Session,
    shapes: &[Bucket],
    tier: Tier,
) -> usize {
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
    n_allocations(|| {
        for request in requests.iter().cycle().take(4) {
            let report = lane.run(request, &mut outputs).unwrap();
            assert_eq!(report.tier, tier);
        }
    })
}

/// One test, so that nothing else of this binary runs beside it.
#[test]
fn a_shape_that_was_seen_asks_for_no_memory() {
    assert_ne!(n_allocations(|| drop(std::hint::black_box(Box::new(1)))), 0, "it counts");
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
