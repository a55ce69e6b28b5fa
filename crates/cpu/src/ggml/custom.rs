//! Putting operators of our own into a ggml graph.
#![allow(unsafe_code, reason = "a C library calls back")]

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{AnyBitPattern, PodCastError, try_cast_slice};
use ggml_sys::{Api, N_TASKS_MAX, ggml_tensor, ggml_type};
use smallvec::SmallVec;

use super::builder::Builder;
use super::context::{Made, Refusal, Tensor, extents};
use super::kernels::attention::{self, Alike, Attention, Texts};
use super::kernels::product::{self, Product, Weights};
use super::kernels::rows::RowFunction;
use super::kernels::{Block, Share, evenly};

/// An operator of ours, which says what its sources are.
#[derive(Clone, Debug)]
pub(crate) enum Kernel {
    /// Of rows.
    Gelu,
    /// Of rows twice as wide.
    GatedGelu,
    /// Of rows, a weight, and a bias or none.
    LayerNorm { epsilon: f32 },
    /// Of rows, panels of weights, and what else it has.
    Product { product: Product, has_bias: bool, adds: bool },
    /// Of query, key, value and mask.
    Attention { attention: Attention, alike: Alike },
    /// Of query, key, value, spans and places.
    PackedAttention { attention: Attention, reach: Option<usize> },
}

/// A kernel with the memory that it reads.
enum Work<'a> {
    Rows(RowFunction<'a>, &'a [f32]),
    Product(&'a Product, product::Sources<'a>),
    Attention(&'a Attention, attention::Sources<'a>),
}

/// Memory is not what a kernel reads.
struct Unfit;

impl From<PodCastError> for Unfit {
    fn from(_: PodCastError) -> Self {
        Self
    }
}

fn list<'a, T: AnyBitPattern>(
    sources: &[(ggml_type, &'a [u8])],
    at: usize,
) -> Result<&'a [T], Unfit> {
    let &(_, bytes) = sources.get(at).ok_or(Unfit)?;
    Ok(try_cast_slice(bytes)?)
}

impl Kernel {
    fn with<'a>(&'a self, sources: &[(ggml_type, &'a [u8])]) -> Result<Work<'a>, Unfit> {
        let floats = |at| list::<f32>(sources, at);
        Ok(match self {
            Self::Gelu => Work::Rows(RowFunction::Gelu, floats(0)?),
            Self::GatedGelu => Work::Rows(RowFunction::GatedGelu, floats(0)?),
            &Self::LayerNorm { epsilon } => {
                let bias = if sources.len() > 2 { Some(floats(2)?) } else { None };
                let function = RowFunction::LayerNorm { weight: floats(1)?, bias, epsilon };
                Work::Rows(function, floats(0)?)
            }
            &Self::Product { ref product, has_bias, adds } => {
                let weights = match sources.get(1) {
                    Some((ggml_type::F32, _)) => Weights::F32(floats(1)?),
                    Some((ggml_type::F16, _)) => Weights::F16(list(sources, 1)?),
                    _ => return Err(Unfit),
                };
                let bias = if has_bias { Some(floats(2)?) } else { None };
                let added = if adds { Some(floats(2 + usize::from(has_bias))?) } else { None };
                Work::Product(product, product::Sources { x: floats(0)?, weights, bias, added })
            }
            &Self::Attention { ref attention, alike } => {
                let texts = Texts::Alike { alike, mask: floats(3)? };
                let [query, key, value] = [floats(0)?, floats(1)?, floats(2)?];
                Work::Attention(attention, attention::Sources { query, key, value, texts })
            }
            &Self::PackedAttention { ref attention, reach } => {
                let (spans, places) = (list(sources, 3)?, list(sources, 4)?);
                let texts = Texts::Packed { spans, places, reach };
                let [query, key, value] = [floats(0)?, floats(1)?, floats(2)?];
                Work::Attention(attention, attention::Sources { query, key, value, texts })
            }
        })
    }
}

impl Work<'_> {
    fn share(&self, part: usize, n_parts: usize, [n_rows, width]: [usize; 2]) -> Share {
        match self {
            Self::Rows(..) => Share { rows: evenly(n_rows, part, n_parts), columns: 0..width },
            Self::Product(product, _) => product.share(part, n_parts, n_rows),
            Self::Attention(it, sources) => it.share(part, n_parts, n_rows, sources.texts),
        }
    }

    fn fill(self, to: &mut Block<'_>, scratch: &mut Vec<f32>) {
        match self {
            Self::Rows(function, x) => function.fill(x, to),
            Self::Product(product, sources) => product.fill(sources, to, scratch),
            Self::Attention(attention, sources) => attention.fill(sources, to, scratch),
        }
    }
}

/// What the threads of a lane share while they compute.
#[derive(Debug)]
pub(crate) struct Workshop {
    /// Memory for each thread, kept from run to run.
    scratch: Vec<Mutex<Vec<f32>>>,
    failed: AtomicBool,
}

impl Workshop {
    pub(crate) fn new(n_threads: usize) -> Self {
        let scratch = (0..n_threads).map(|_| Mutex::default()).collect();
        Self { scratch, failed: AtomicBool::new(false) }
    }

    /// Whether an operator failed since the last question.
    pub(crate) fn take_failure(&self) -> bool {
        self.failed.swap(false, Ordering::Relaxed)
    }
}

/// A tensor that a job reads.
#[derive(Clone, Copy, Debug)]
struct Source {
    tensor: NonNull<ggml_tensor>,
    dtype: ggml_type,
    /// From its first element to the end of its last.
    n_bytes: usize,
}

/// One operator in a graph. It has to stay where it is as long as the graph.
#[derive(Debug)]
pub(crate) struct Job {
    api: Api,
    kernel: Kernel,
    workshop: Arc<Workshop>,
    sources: SmallVec<[Source; 5]>,
    n_rows: usize,
    row_width: usize,
}

/// Computes one thread's part.
///
/// # Safety
///
/// `job` has to be a [`Job`] whose sources are alive tensors with as many bytes in memory, and `to` one of `f32`
/// with as many rows and columns. Nobody else may write to any of them.
unsafe extern "C" fn compute(to: *mut ggml_tensor, part: c_int, n_parts: c_int, job: *mut c_void) {
    // SAFETY: the caller vouches for it; threads share it, and only read.
    let job = unsafe { &*job.cast::<Job>() };
    let (part, n_parts) = (part.unsigned_abs() as usize, n_parts.unsigned_abs().max(1) as usize);
    // SAFETY: the tensor is alive.
    let start = NonNull::new(unsafe { (job.api.get_data)(to) }.cast::<f32>());
    let source = |source: &Source| {
        // SAFETY: the tensor is alive.
        let from = unsafe { (job.api.get_data)(source.tensor.as_ptr()) }.cast::<u8>();
        // SAFETY: so many bytes lie there, and nobody writes to them now.
        (source.dtype, unsafe { slice::from_raw_parts(from, source.n_bytes) })
    };
    let sources: SmallVec<[(ggml_type, &[u8]); 5]> = job.sources.iter().map(source).collect();
    // A panic may not reach the library; what it leaves half done is not read.
    let done = catch_unwind(AssertUnwindSafe(|| {
        let (Some(start), Ok(work)) = (start, job.kernel.with(&sources)) else { return Err(Unfit) };
        let share = work.share(part, n_parts, [job.n_rows, job.row_width]);
        // SAFETY: the result has so many rows of that width, and what kernels share out does not overlap.
        let mut block = unsafe { Block::new(start, job.row_width, share) };
        let scratch = job.workshop.scratch.get(part).ok_or(Unfit)?;
        work.fill(&mut block, &mut scratch.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }));
    if !matches!(done, Ok(Ok(()))) {
        job.workshop.failed.store(true, Ordering::Relaxed);
    }
}

impl Builder<'_> {
    /// An operator of ours, of rows of floats; only the processor has it.
    pub(crate) fn custom(
        &self,
        kernel: Kernel,
        sources: &[&Tensor],
        shape: &[usize],
        row: usize,
    ) -> Made {
        let ne = extents(shape)?;
        let source = |it: &&Tensor| {
            // SAFETY: the tensor is alive.
            let n_bytes = unsafe { (self.api().nbytes)(it.raw().as_ptr()) };
            Source { tensor: it.raw(), dtype: it.dtype, n_bytes }
        };
        let job = Box::new(Job {
            api: *self.api(),
            kernel,
            workshop: Arc::clone(self.workshop),
            sources: sources.iter().map(source).collect(),
            n_rows: shape.iter().product::<usize>() / row,
            row_width: row,
        });
        // Its address is taken where it stays: moving a box ends what was derived from it before.
        let mut jobs = self.context.jobs.borrow_mut();
        jobs.push(job);
        let place = jobs.last().map_or(ptr::null(), |job| &raw const **job);
        let place = place.cast_mut().cast::<c_void>();
        drop(jobs);
        let mut raw: SmallVec<[*mut ggml_tensor; 5]> =
            sources.iter().map(|it| it.raw().as_ptr()).collect();
        let n_sources = raw.len() as c_int;
        let [ne0, ne1, ne2, ne3] = ne;
        // SAFETY: context and tensors are alive. The context keeps the job where it is as long as the
        // graph, whose memory has room for every element that the job reads and writes.
        self.compute(shape, |api, ctx| unsafe {
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
        })
    }

    /// Attention of [batch, heads, length, width]; `key` as it is multiplied, [batch, heads, width, keys].
    ///
    /// The result has the shape of the query, and is contiguous once heads and length are exchanged.
    pub(crate) fn attention(&self, [query, key, value, mask]: [&Tensor; 4], scale: f32) -> Made {
        let never = || Refusal::Never("that is no attention".to_owned());
        if !self.context.engine().is_processor() {
            return Err(never());
        }
        let key = self.permute(key, &[0, 1, 3, 2])?;
        let (&[batch, n_heads, length, width], &[_, _, n_keys, _]) = (&*query.shape, &*value.shape)
        else {
            return Err(never());
        };
        let [whole, rows] = [[batch, n_heads, length, n_keys], [batch, n_heads, n_keys, width]];
        let stretches = mask.shape.len() <= whole.len()
            && mask.shape.iter().rev().zip(whole.iter().rev()).all(|(a, b)| a == b || *a == 1)
            && mask.shape.last() == Some(&n_keys);
        let are_floats = [query, &key, value, mask].iter().all(|it| it.dtype == ggml_type::F32);
        if *key.shape != rows || *value.shape != rows || !stretches || !are_floats {
            return Err(never());
        }
        let mask = self.contiguous(mask)?;
        let [query, key, value] =
            [self.whole_rows(query)?, self.whole_rows(&key)?, self.whole_rows(value)?];
        let mut over = [0, 0, 0, 1];
        let missing = over.len() - mask.shape.len();
        for (axis, (&extent, &step)) in
            mask.shape.iter().zip(&mask.strides).enumerate().rev().skip(1)
        {
            over[missing + axis] = if extent == 1 { 0 } else { step };
        }
        let [of_query, of_key, of_value] = [&query, &key, &value].map(|it| steps(&it.strides));
        let attention =
            Attention { n_heads, width, scale, query: of_query, key: of_key, value: of_value };
        let kernel = Kernel::Attention { attention, alike: Alike { length, n_keys, mask: over } };
        let shape = [batch, length, n_heads, width];
        let made = self.custom(kernel, &[&query, &key, &value, &mask], &shape, n_heads * width)?;
        self.permute(&made, &[0, 2, 1, 3])
    }
}

/// The strides of a tensor with four axes.
pub(crate) fn steps(strides: &[usize]) -> attention::Steps {
    std::array::from_fn(|axis| strides.get(axis).copied().unwrap_or(0))
}
