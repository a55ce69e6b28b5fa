//! Putting operators of our own into a ggml graph.
#![allow(unsafe_code, reason = "a C library calls back")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ggml_sys::{Api, ggml_tensor};
use smallvec::SmallVec;

use super::kernels::{self, Attention, Sources};

/// An operator of ours.
#[derive(Clone, Debug)]
pub(super) enum Kernel {
    /// Of one tensor.
    Gelu,
    /// Of query, key, value and mask.
    Attention(Attention),
}

/// What the threads of a lane share while they compute.
#[derive(Debug)]
pub(super) struct Workshop {
    /// Memory for each thread, kept from run to run.
    scratch: Vec<Mutex<Vec<f32>>>,
    failed: AtomicBool,
}

impl Workshop {
    pub(super) fn new(n_threads: usize) -> Self {
        let scratch = (0..n_threads).map(|_| Mutex::default()).collect();
        Self { scratch, failed: AtomicBool::new(false) }
    }

    /// Whether an operator failed since the last question.
    pub(super) fn take_failure(&self) -> bool {
        self.failed.swap(false, Ordering::Relaxed)
    }
}

/// One operator in a graph. It has to stay where it is as long as the graph.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) api: Api,
    pub(super) kernel: Kernel,
    pub(super) workshop: Arc<Workshop>,
    /// What it reads, and how many elements lie from the first to the last.
    pub(super) sources: SmallVec<[(NonNull<ggml_tensor>, usize); 4]>,
    pub(super) n_rows: usize,
    pub(super) row_width: usize,
}

/// Computes one thread's part.
///
/// # Safety
///
/// `job` has to be a [`Job`] whose sources are alive `f32` tensors with as many elements in memory, and
/// `to` one with as many as it has rows and columns. Nobody else may write to any of them.
pub(super) unsafe extern "C" fn compute(
    to: *mut ggml_tensor,
    part: c_int,
    n_parts: c_int,
    job: *mut c_void,
) {
    // SAFETY: the caller vouches for it; threads share it, and only read.
    let job = unsafe { &*job.cast::<Job>() };
    let (part, n_parts) = (part.unsigned_abs() as usize, n_parts.unsigned_abs().max(1) as usize);
    let rows = part * job.n_rows / n_parts..(part + 1) * job.n_rows / n_parts;
    // SAFETY: the tensor is alive.
    let to = unsafe { (job.api.get_data)(to) }.cast::<f32>();
    // SAFETY: it has so many rows of that width.
    let to = unsafe { to.add(rows.start * job.row_width) };
    // SAFETY: as above, and these rows are this thread's alone.
    let to = unsafe { slice::from_raw_parts_mut(to, rows.len() * job.row_width) };
    let source = |&(tensor, n): &(NonNull<ggml_tensor>, usize)| {
        // SAFETY: the tensor is alive.
        let from = unsafe { (job.api.get_data)(tensor.as_ptr()) }.cast::<f32>();
        // SAFETY: so many elements lie there, and nobody writes to them now.
        unsafe { slice::from_raw_parts(from, n) }
    };
    let sources: SmallVec<[&[f32]; 4]> = job.sources.iter().map(source).collect();
    // A panic may not reach the library; what it leaves half done is not read.
    let done = catch_unwind(AssertUnwindSafe(|| job.fill(&sources, rows, part, to)));
    if done.is_err() {
        job.workshop.failed.store(true, Ordering::Relaxed);
    }
}

impl Job {
    fn fill(&self, sources: &[&[f32]], rows: Range<usize>, part: usize, to: &mut [f32]) {
        match (&self.kernel, sources) {
            (Kernel::Gelu, [from]) => {
                let from = &from[rows.start * self.row_width..rows.end * self.row_width];
                kernels::gelu(from, to);
            }
            (Kernel::Attention(attention), &[query, key, value, mask]) => {
                let sources = Sources { query, key, value, mask };
                let scratch = &self.workshop.scratch[part];
                let mut scratch = scratch.lock().unwrap_or_else(PoisonError::into_inner);
                attention.fill(sources, rows, to, &mut scratch);
            }
            _ => self.workshop.failed.store(true, Ordering::Relaxed),
        }
    }
}
