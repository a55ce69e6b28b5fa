//! Putting operators of our own into a ggml graph.
#![allow(unsafe_code, reason = "a C library calls back")]

use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ggml_sys::{Api, N_TASKS_MAX, ggml_tensor, ggml_type};
use smallvec::SmallVec;

use super::graph::{Builder, Made, Refusal, Tensor, Unary, extents};
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

impl Builder<'_> {
    /// An operator of ours, of floats.
    fn custom(&self, kernel: Kernel, sources: &[&Tensor], shape: &[usize], row: usize) -> Made {
        let ne = extents(shape)?;
        let n_elements: usize = shape.iter().product();
        for source in sources {
            // SAFETY: the tensor is alive.
            let n_bytes = unsafe { (self.api().nbytes)(source.raw().as_ptr()) };
            if n_bytes != source.span() * size_of::<f32>() {
                return Err(Refusal::Never("it takes floats".to_owned()));
            }
        }
        let job = Box::new(Job {
            api: *self.api(),
            kernel,
            workshop: Arc::clone(self.workshop),
            sources: sources.iter().map(|it| (it.raw(), it.span())).collect(),
            n_rows: n_elements / row,
            row_width: row,
        });
        let place = (&raw const *job).cast_mut().cast::<c_void>();
        let mut raw: SmallVec<[*mut ggml_tensor; 4]> =
            sources.iter().map(|it| it.raw().as_ptr()).collect();
        let n_sources = raw.len() as c_int;
        let [ne0, ne1, ne2, ne3] = ne;
        // SAFETY: context and tensors are alive. The context keeps the job where it is as long as the
        // graph, whose memory has room for every element that the job reads and writes.
        let made = self.compute(shape, |api, ctx| unsafe {
            (api.custom_4d)(
                ctx,
                ggml_type::F32,
                ne0,
                ne1,
                ne2,
                ne3,
                raw.as_mut_ptr(),
                n_sources,
                compute,
                N_TASKS_MAX,
                place,
            )
        });
        self.context.jobs.borrow_mut().push(job);
        made
    }

    /// The GELU with the error function.
    pub(super) fn gelu(&self, a: &Tensor) -> Made {
        let a = self.contiguous(a)?;
        let row = a.shape.last().copied().unwrap_or(1);
        match self.custom(Kernel::Gelu, &[&a], &a.shape, row) {
            Err(Refusal::Never(_)) => self.unary(Unary::GeluErf, &a),
            made => made,
        }
    }

    /// Attention of [batch, heads, length, width]; `key` as it is multiplied, [batch, heads, width, keys].
    ///
    /// The result has the shape of the query, and is contiguous once heads and length are exchanged.
    pub(super) fn attention(&self, [query, key, value, mask]: [&Tensor; 4], scale: f32) -> Made {
        let never = || Refusal::Never("that is no attention".to_owned());
        let key = self.permute(key, &[0, 1, 3, 2])?;
        let (&[batch, n_heads, length, width], &[_, _, n_keys, _]) = (&*query.shape, &*value.shape)
        else {
            return Err(never());
        };
        let [whole, rows] = [[batch, n_heads, length, n_keys], [batch, n_heads, n_keys, width]];
        let stretches = mask.shape.len() <= whole.len()
            && mask.shape.iter().rev().zip(whole.iter().rev()).all(|(a, b)| a == b || *a == 1)
            && mask.shape.last() == Some(&n_keys);
        if *key.shape != rows || *value.shape != rows || !stretches {
            return Err(never());
        }
        let mask = self.contiguous(mask)?;
        let query = if query.has_whole_rows() { query.clone() } else { self.contiguous(query)? };
        let value = if value.has_whole_rows() { value.clone() } else { self.contiguous(value)? };
        let mut over = [0, 0, 0, 1];
        let missing = over.len() - mask.shape.len();
        for (axis, (&extent, &step)) in
            mask.shape.iter().zip(&mask.strides).enumerate().rev().skip(1)
        {
            over[missing + axis] = if extent == 1 { 0 } else { step };
        }
        let kernel = Kernel::Attention(Attention {
            n_heads,
            length,
            n_keys,
            width,
            scale,
            query: steps(&query),
            key: steps(&key),
            value: steps(&value),
            mask: over,
        });
        let shape = [batch, length, n_heads, width];
        let made = self.custom(kernel, &[&query, &key, &value, &mask], &shape, n_heads * width)?;
        self.permute(&made, &[0, 2, 1, 3])
    }
}

/// The strides of a tensor with four axes.
fn steps(tensor: &Tensor) -> kernels::Steps {
    std::array::from_fn(|axis| tensor.strides.get(axis).copied().unwrap_or(0))
}
