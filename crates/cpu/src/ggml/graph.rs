//! Describing a computation to ggml, with every check that it answers with the end of the process.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ggml_sys::{Api, MAX_DIMS, ggml_context, ggml_init_params, ggml_tensor, ggml_type};
use smallvec::SmallVec;

use super::custom::{Job, Workshop};
use super::library::Engine;

/// Extents or distances, outermost first, as ONNX has them.
pub(super) type Dims = SmallVec<[usize; MAX_DIMS]>;

pub(super) type Made = Result<Tensor, Refusal>;

/// Why a tensor cannot be described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
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
pub(super) struct Context {
    engine: Arc<Engine>,
    raw: NonNull<ggml_context>,
    n_left: Cell<usize>,
    /// Operators of ours in its graphs, which know them by their address.
    #[allow(clippy::vec_box, reason = "a list moves what it holds")]
    pub(super) jobs: RefCell<Vec<Box<Job>>>,
}

// SAFETY: a context is memory that nothing else points to but the tensors in it, which are used only
// together with it.
unsafe impl Send for Context {}

impl Context {
    /// Room for `n_tensors` descriptions, and `n_more` bytes.
    pub(super) fn new(
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
            jobs: RefCell::default(),
        })
    }

    pub(super) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) const fn raw(&self) -> NonNull<ggml_context> {
        self.raw
    }

    /// Takes room for one description.
    fn take(&self) -> Result<(), Refusal> {
        let left = self.n_left.get().checked_sub(1);
        self.n_left.set(left.ok_or("the graph is larger than was foreseen")?);
        Ok(())
    }

    /// A tensor that is filled from outside.
    pub(super) fn leaf(&self, dtype: ggml_type, shape: &[usize]) -> Made {
        let ne = extents(shape)?;
        self.take()?;
        let n_dims = MAX_DIMS as c_int;
        let new = self.engine.api.new_tensor;
        // SAFETY: the context is alive and has room, and the list has as many extents as are read.
        let tensor = unsafe { new(self.raw.as_ptr(), dtype, n_dims, ne.as_ptr()) };
        // The library names what has no name when it builds a graph; a name keeps it from writing.
        // SAFETY: the tensor is alive, and the text ends in a zero.
        unsafe { (self.engine.api.set_name)(tensor, c"leaf".as_ptr()) };
        Tensor::fresh(tensor, shape)
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
pub(super) struct Tensor {
    raw: NonNull<ggml_tensor>,
    pub(super) shape: Dims,
    /// In elements.
    pub(super) strides: Dims,
    /// Whether it shares its memory with another.
    is_view: bool,
}

// SAFETY: it only names memory; whoever reads or writes through it holds the context that it is in.
unsafe impl Send for Tensor {}
// SAFETY: as above.
unsafe impl Sync for Tensor {}

impl Tensor {
    fn fresh(raw: *mut ggml_tensor, shape: &[usize]) -> Made {
        let raw = NonNull::new(raw).ok_or("no memory for a tensor")?;
        let strides = super::host::strides(shape).into();
        Ok(Self { raw, shape: shape.into(), strides, is_view: false })
    }

    pub(super) const fn raw(&self) -> NonNull<ggml_tensor> {
        self.raw
    }

    pub(super) fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements in memory from the first to the last.
    pub(super) fn span(&self) -> usize {
        let steps = self.shape.iter().zip(&self.strides);
        1 + steps.map(|(&extent, &step)| extent.saturating_sub(1) * step).sum::<usize>()
    }

    fn is_contiguous(&self) -> bool {
        *self.strides == *super::host::strides(&self.shape)
    }

    /// Whether neighbours along the last axis are neighbours in memory.
    pub(super) fn has_whole_rows(&self) -> bool {
        self.strides.last().is_none_or(|&stride| stride == 1)
    }

    /// The extent of an axis, counted from the last.
    fn inner_extent(&self, axis: usize) -> usize {
        self.shape.len().checked_sub(axis + 1).map_or(1, |axis| self.shape[axis])
    }
}

/// ggml's four extents, innermost first.
pub(super) fn extents(shape: &[usize]) -> Result<[i64; MAX_DIMS], Refusal> {
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

/// Functions of one tensor that keep its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Abs,
    Neg,
    Exp,
    Log,
    Sqrt,
    Square,
    Sin,
    Cos,
    Tanh,
    Relu,
    Sigmoid,
    Silu,
    GeluErf,
    GeluTanh,
    Floor,
    Ceil,
    Softmax,
}

/// Functions of two tensors, the second stretched to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

/// Appends operators to a context. Every method checks what the library asserts.
#[derive(Debug)]
pub(super) struct Builder<'a> {
    pub(super) context: &'a Context,
    pub(super) workshop: &'a Arc<Workshop>,
}

impl<'a> Builder<'a> {
    pub(super) const fn new(context: &'a Context, workshop: &'a Arc<Workshop>) -> Self {
        Self { context, workshop }
    }

    pub(super) fn api(&self) -> &Api {
        &self.context.engine.api
    }

    /// Runs one of the library's constructors, for which there is room then.
    fn make(
        &self,
        shape: &[usize],
        make: impl FnOnce(&Api, *mut ggml_context) -> *mut ggml_tensor,
    ) -> Made {
        extents(shape)?;
        self.context.take()?;
        Tensor::fresh(make(self.api(), self.context.raw.as_ptr()), shape)
    }

    /// As [`Self::make`], for an operator that the device computes.
    pub(super) fn compute(
        &self,
        shape: &[usize],
        make: impl FnOnce(&Api, *mut ggml_context) -> *mut ggml_tensor,
    ) -> Made {
        let made = self.make(shape, make)?;
        let device = self.context.engine.device();
        // SAFETY: the device is the library's, and the tensor is alive.
        let supported =
            unsafe { (self.api().backend_dev_supports_op)(device.as_ptr(), made.raw.as_ptr()) };
        if supported {
            Ok(made)
        } else {
            Err(Refusal::Never("ggml's device does not compute it".to_owned()))
        }
    }

    /// The same elements, neighbours in memory.
    pub(super) fn contiguous(&self, a: &Tensor) -> Made {
        if a.is_contiguous() { Ok(a.clone()) } else { self.copy(a) }
    }

    /// The same elements in memory of their own.
    pub(super) fn copy(&self, a: &Tensor) -> Made {
        // SAFETY: context and tensor are alive; the operator takes any tensor.
        self.compute(&a.shape, |api, ctx| unsafe { (api.cont)(ctx, a.raw.as_ptr()) })
    }

    /// Memory of its own for a tensor that is read at the end.
    pub(super) fn owned(&self, a: &Tensor, is_leaf: bool) -> Made {
        if a.is_view || is_leaf { self.copy(a) } else { Ok(a.clone()) }
    }

    pub(super) fn unary(&self, function: Unary, a: &Tensor) -> Made {
        let a = self.contiguous(a)?;
        let api = self.api();
        let function = match function {
            Unary::Abs => api.abs,
            Unary::Neg => api.neg,
            Unary::Exp => api.exp,
            Unary::Log => api.log,
            Unary::Sqrt => api.sqrt,
            Unary::Square => api.sqr,
            Unary::Sin => api.sin,
            Unary::Cos => api.cos,
            Unary::Tanh => api.tanh,
            Unary::Relu => api.relu,
            Unary::Sigmoid => api.sigmoid,
            Unary::Silu => api.silu,
            Unary::GeluErf => api.gelu_erf,
            Unary::GeluTanh => api.gelu,
            Unary::Floor => api.floor,
            Unary::Ceil => api.ceil,
            Unary::Softmax => api.soft_max,
        };
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&a.shape, |_, ctx| unsafe { function(ctx, a.raw.as_ptr()) })
    }

    /// `a` with `b`, either stretched to the other where that is needed.
    pub(super) fn binary(&self, function: Binary, a: &Tensor, b: &Tensor) -> Made {
        let shape = super::host::broadcast(&a.shape, &b.shape)?;
        let commutes = matches!(function, Binary::Add | Binary::Mul);
        let (a, b) =
            if *a.shape != *shape && *b.shape == *shape && commutes { (b, a) } else { (a, b) };
        let (a, b) = (self.repeat(a, &shape)?, self.contiguous(b)?);
        let api = self.api();
        let function = match function {
            Binary::Add => api.add,
            Binary::Sub => api.sub,
            Binary::Mul => api.mul,
            Binary::Div => api.div,
        };
        // SAFETY: context and tensors are alive and contiguous; the first has the shape of the result,
        // to which the second can be stretched.
        self.compute(&shape, |_, ctx| unsafe { function(ctx, a.raw.as_ptr(), b.raw.as_ptr()) })
    }

    /// `a` stretched to `shape`, contiguous.
    pub(super) fn repeat(&self, a: &Tensor, shape: &[usize]) -> Made {
        let a = self.contiguous(a)?;
        if *a.shape == *shape {
            return Ok(a);
        }
        if super::host::broadcast(&a.shape, shape)? != shape {
            return Err(Refusal::Here(format!("{:?} cannot be stretched to {shape:?}", a.shape)));
        }
        if a.n_elements() == shape.iter().product::<usize>() {
            return self.reshape(&a, shape);
        }
        let [ne0, ne1, ne2, ne3] = extents(shape)?;
        // SAFETY: context and tensor are alive; every extent is that of the tensor, which may be 1.
        self.compute(shape, |api, ctx| unsafe {
            (api.repeat_4d)(ctx, a.raw.as_ptr(), ne0, ne1, ne2, ne3)
        })
    }

    /// `a * scale + shift`.
    pub(super) fn scale(&self, a: &Tensor, scale: f32, shift: f32) -> Made {
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&a.shape, |api, ctx| unsafe {
            (api.scale_bias)(ctx, a.raw.as_ptr(), scale, shift)
        })
    }

    pub(super) fn clamp(&self, a: &Tensor, min: f32, max: f32) -> Made {
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&a.shape, |api, ctx| unsafe { (api.clamp)(ctx, a.raw.as_ptr(), min, max) })
    }

    /// Less the mean over the deviation, along the last axis.
    pub(super) fn norm(&self, a: &Tensor, epsilon: f32) -> Made {
        if epsilon.is_nan() || epsilon < 0.0 {
            return Err(Refusal::Here(format!("an epsilon of {epsilon} is not taken")));
        }
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, and epsilon is not negative.
        self.compute(&a.shape, |api, ctx| unsafe { (api.norm)(ctx, a.raw.as_ptr(), epsilon) })
    }

    /// The softmax of `a * scale + mask` along the last axis; the mask is stretched over the heads.
    pub(super) fn masked_softmax(&self, a: &Tensor, mask: &Tensor, scale: f32) -> Made {
        let (a, mask) = (self.contiguous(a)?, self.contiguous(mask)?);
        let divides = |axis| a.inner_extent(axis).is_multiple_of(mask.inner_extent(axis));
        let fits = (0..2).all(|axis| a.inner_extent(axis) == mask.inner_extent(axis));
        if !fits || !(2..MAX_DIMS).all(divides) {
            return Err(Refusal::Here(format!(
                "a mask of {:?} does not fit {:?}",
                mask.shape, a.shape
            )));
        }
        // SAFETY: context and tensors are alive and contiguous; the mask's shape was checked.
        self.compute(&a.shape, |api, ctx| unsafe {
            (api.soft_max_ext)(ctx, a.raw.as_ptr(), mask.raw.as_ptr(), scale, 0.0)
        })
    }

    /// `a` times the transpose of `b`: rows of `a` with rows of `b`, batches of `b` stretched to those of
    /// `a`.
    pub(super) fn matmul_transposed(&self, a: &Tensor, b: &Tensor) -> Made {
        let a = self.contiguous(a)?;
        let b = if b.has_whole_rows() { b.clone() } else { self.contiguous(b)? };
        let divides = |axis| a.inner_extent(axis).is_multiple_of(b.inner_extent(axis));
        if a.inner_extent(0) != b.inner_extent(0) || !(2..MAX_DIMS).all(divides) {
            return Err(Refusal::Here(format!(
                "{:?} and {:?} cannot be multiplied",
                a.shape, b.shape
            )));
        }
        let mut shape = a.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = b.inner_extent(1);
        }
        if shape.is_empty() {
            return Err(Refusal::Never("numbers are not multiplied as matrices".to_owned()));
        }
        // SAFETY: context and tensors are alive; rows are whole, equally long, and batches divide.
        self.compute(&shape, |api, ctx| unsafe {
            (api.mul_mat)(ctx, b.raw.as_ptr(), a.raw.as_ptr())
        })
    }

    /// Rows of `table`, [n, width], picked by a list of indices, which have to lie inside.
    pub(super) fn rows(&self, table: &Tensor, indices: &Tensor) -> Made {
        let table = self.contiguous(table)?;
        let (&[_, width], &[n]) = (&*table.shape, &*indices.shape) else {
            return Err(Refusal::Never("rows are picked from a matrix by a list".to_owned()));
        };
        // SAFETY: context and tensors are alive; shapes fit, and whoever fills the indices checks them.
        self.compute(&[n, width], |api, ctx| unsafe {
            (api.get_rows)(ctx, table.raw.as_ptr(), indices.raw.as_ptr())
        })
    }

    pub(super) fn concat(&self, a: &Tensor, b: &Tensor, axis: usize) -> Made {
        let (a, b) = (self.contiguous(a)?, self.contiguous(b)?);
        let rank = a.shape.len();
        let alike = |it: usize| it == axis || a.shape[it] == b.shape[it];
        if b.shape.len() != rank || axis >= rank || !(0..rank).all(alike) {
            return Err(Refusal::Here(format!(
                "{:?} and {:?} cannot be put together",
                a.shape, b.shape
            )));
        }
        let mut shape = a.shape.clone();
        shape[axis] += b.shape[axis];
        let dim = (rank - 1 - axis) as c_int;
        // SAFETY: context and tensors are alive, of one type, and alike but for the axis.
        self.compute(&shape, |api, ctx| unsafe {
            (api.concat)(ctx, a.raw.as_ptr(), b.raw.as_ptr(), dim)
        })
    }

    /// The sum or the mean along the last axis, which stays with an extent of 1.
    pub(super) fn reduce_rows(&self, a: &Tensor, mean: bool) -> Made {
        let a = self.contiguous(a)?;
        let mut shape = a.shape.clone();
        *shape.last_mut().ok_or("a number has no rows")? = 1;
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&shape, |api, ctx| unsafe {
            (if mean { api.mean } else { api.sum_rows })(ctx, a.raw.as_ptr())
        })
    }

    pub(super) fn reshape(&self, a: &Tensor, shape: &[usize]) -> Made {
        let a = self.contiguous(a)?;
        if *a.shape == *shape {
            return Ok(a);
        }
        let [ne0, ne1, ne2, ne3] = extents(shape)?;
        if a.n_elements() != shape.iter().product::<usize>() {
            return Err(Refusal::Here(format!("{:?} cannot be seen as {shape:?}", a.shape)));
        }
        // SAFETY: context and tensor are alive, the tensor is contiguous and has as many elements.
        let mut made = self.make(shape, |api, ctx| unsafe {
            (api.reshape_4d)(ctx, a.raw.as_ptr(), ne0, ne1, ne2, ne3)
        })?;
        made.is_view = true;
        Ok(made)
    }

    /// Axes in another order; no element moves.
    pub(super) fn permute(&self, a: &Tensor, order: &[usize]) -> Made {
        let rank = a.shape.len();
        if order.len() != rank || !(0..rank).all(|axis| order.contains(&axis)) {
            return Err(Refusal::Here(format!("{order:?} is no order of {rank} axes")));
        }
        // The library asks where each axis goes, and counts from the innermost.
        let mut to = [0, 1, 2, 3];
        for (new, &old) in order.iter().enumerate() {
            to[rank - 1 - old] = (rank - 1 - new) as c_int;
        }
        let shape: Dims = order.iter().map(|&axis| a.shape[axis]).collect();
        // SAFETY: context and tensor are alive, and every axis is named once.
        let mut made = self.make(&shape, |api, ctx| unsafe {
            (api.permute)(ctx, a.raw.as_ptr(), to[0], to[1], to[2], to[3])
        })?;
        made.strides = order.iter().map(|&axis| a.strides[axis]).collect();
        made.is_view = true;
        Ok(made)
    }

    /// A part along one axis; no element moves.
    pub(super) fn part(&self, a: &Tensor, axis: usize, start: usize, len: usize) -> Made {
        let a = if a.has_whole_rows() { a.clone() } else { self.contiguous(a)? };
        let end = start.checked_add(len);
        if axis >= a.shape.len() || end.is_none_or(|end| end > a.shape[axis]) {
            return Err(Refusal::Here(format!(
                "{:?} has no {start}..+{len} along axis {axis}",
                a.shape
            )));
        }
        let mut shape = a.shape.clone();
        shape[axis] = len;
        let [ne0, ne1, ne2, ne3] = extents(&shape)?;
        let width = size_of::<f32>();
        let whole = a.n_elements() * width;
        let apart = |from_last: usize| {
            let at = a.strides.len().checked_sub(from_last + 1);
            at.map_or(whole, |axis| a.strides[axis] * width)
        };
        let offset = start * a.strides[axis] * width;
        // SAFETY: context and tensor are alive, rows are whole, and the part lies inside.
        let mut made = self.make(&shape, |api, ctx| unsafe {
            let (nb1, nb2, nb3) = (apart(1), apart(2), apart(3));
            (api.view_4d)(ctx, a.raw.as_ptr(), ne0, ne1, ne2, ne3, nb1, nb2, nb3, offset)
        })?;
        made.strides.clone_from(&a.strides);
        made.is_view = true;
        Ok(made)
    }
}
