//! Tensors as ggml knows them before they have memory.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ggml_sys::{MAX_DIMS, ggml_context, ggml_init_params, ggml_tensor, ggml_type};
use smallvec::SmallVec;

use super::custom::Job;
use super::library::Engine;
use super::shape::strides;

/// Extents or distances, outermost first, as ONNX has them.
pub(crate) type Dims = SmallVec<[usize; MAX_DIMS]>;

pub(crate) type Made = Result<Tensor, Refusal>;

/// Why a tensor cannot be described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// In no shape.
    Never(String),
    /// In these shapes; in others it may be.
    Here(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

impl From<&str> for Refusal {
    fn from(reason: &str) -> Self {
        Self::Here(reason.to_owned())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Never(reason) | Self::Here(reason)) = self;
        f.write_str(reason)
    }
}

/// Memory for descriptions of tensors. It does not grow.
#[derive(Debug)]
pub(crate) struct Context {
    engine: Arc<Engine>,
    raw: NonNull<ggml_context>,
    n_left: Cell<usize>,
    /// What was computed or seen anew in it, each after what it is made of.
    pub(super) made: RefCell<Vec<NonNull<ggml_tensor>>>,
    /// Operators of ours in its graphs, which know them by their address.
    #[allow(clippy::vec_box, reason = "a list moves what it holds")]
    pub(crate) jobs: RefCell<Vec<Box<Job>>>,
}

// SAFETY: a context is memory that nothing else points to but the tensors in it, which are used only
// together with it.
unsafe impl Send for Context {}

impl Context {
    /// Room for `n_tensors` descriptions, and `n_more` bytes.
    pub(crate) fn new(
        engine: &Arc<Engine>,
        n_tensors: usize,
        n_more: usize,
    ) -> Result<Self, String> {
        // SAFETY: it takes nothing and answers a number.
        let overhead = unsafe { (engine.api.tensor_overhead)() };
        let mem_size = n_tensors * overhead + n_more;
        let params = ggml_init_params { mem_size, mem_buffer: ptr::null_mut(), no_alloc: true };
        // SAFETY: the parameters are valid; the library allocates.
        let raw = NonNull::new(unsafe { (engine.api.init)(params) });
        let raw = raw.ok_or("no memory for a graph")?;
        Ok(Self {
            engine: Arc::clone(engine),
            raw,
            n_left: Cell::new(n_tensors),
            made: RefCell::default(),
            jobs: RefCell::default(),
        })
    }

    pub(crate) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) const fn raw(&self) -> NonNull<ggml_context> {
        self.raw
    }

    /// Takes room for one description.
    pub(super) fn take(&self) -> Result<(), Refusal> {
        let left = self.n_left.get().checked_sub(1);
        self.n_left.set(left.ok_or("the graph is larger than was foreseen")?);
        Ok(())
    }

    /// A tensor that is filled from outside.
    pub(crate) fn leaf(&self, dtype: ggml_type, shape: &[usize]) -> Made {
        let ne = extents(shape)?;
        self.take()?;
        let n_dims = MAX_DIMS as c_int;
        let new = self.engine.api.new_tensor;
        // SAFETY: the context is alive and has room, and the list has as many extents as are read.
        let tensor = unsafe { new(self.raw.as_ptr(), dtype, n_dims, ne.as_ptr()) };
        // The library names what has no name when it builds a graph; a name keeps it from writing.
        // SAFETY: the tensor is alive, and the text ends in a zero.
        unsafe { (self.engine.api.set_name)(tensor, c"leaf".as_ptr()) };
        Tensor::fresh(tensor, shape, dtype)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is alive, and whoever holds tensors of it drops them with it.
        unsafe { (self.engine.api.free)(self.raw.as_ptr()) };
    }
}

/// A tensor in a graph's description. It is valid as long as its context is.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    raw: NonNull<ggml_tensor>,
    pub(crate) shape: Dims,
    /// In elements.
    pub(crate) strides: Dims,
    pub(crate) dtype: ggml_type,
    /// Whether it shares its memory with another.
    pub(super) is_view: bool,
}

// SAFETY: it only names memory; whoever reads or writes through it holds the context that it is in.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

impl Tensor {
    pub(super) fn fresh(raw: *mut ggml_tensor, shape: &[usize], dtype: ggml_type) -> Made {
        let raw = NonNull::new(raw).ok_or("no memory for a tensor")?;
        let strides = strides(shape).into();
        Ok(Self { raw, shape: shape.into(), strides, dtype, is_view: false })
    }

    pub(crate) const fn raw(&self) -> NonNull<ggml_tensor> {
        self.raw
    }

    pub(crate) fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn is_contiguous(&self) -> bool {
        *self.strides == *strides(&self.shape)
    }

    /// Whether neighbours along the last axis are neighbours in memory.
    pub(crate) fn has_whole_rows(&self) -> bool {
        self.strides.last().is_none_or(|&stride| stride == 1)
    }

    /// The extent of an axis, counted from the last.
    pub(crate) fn inner_extent(&self, axis: usize) -> usize {
        self.shape.len().checked_sub(axis + 1).map_or(1, |axis| self.shape[axis])
    }
}

/// ggml's four extents, innermost first.
pub(crate) fn extents(shape: &[usize]) -> Result<[i64; MAX_DIMS], Refusal> {
    if shape.len() > MAX_DIMS {
        return Err(Refusal::Never(format!("{shape:?} has more than {MAX_DIMS} axes")));
    }
    let n_elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    if n_elements.is_none_or(|n| n == 0 || n > LARGEST) {
        return Err(Refusal::Here(format!("{shape:?} is empty or too large")));
    }
    let mut ne = [1; MAX_DIMS];
    for (ne, &extent) in ne.iter_mut().zip(shape.iter().rev()) {
        *ne = extent as i64;
    }
    Ok(ne)
}

/// More elements than a machine holds; products with element sizes stay far from overflow.
const LARGEST: usize = 1 << 40;
