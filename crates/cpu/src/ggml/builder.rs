//! Describing a computation to ggml, with every check that it answers with the end of the process.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::c_int;
use std::sync::Arc;

use ggml_sys::{Api, MAX_DIMS, ggml_context, ggml_prec, ggml_tensor, ggml_type};

use super::context::{Context, Dims, Made, Refusal, Tensor, extents};
use super::custom::Workshop;
use super::shape;

/// Functions of one tensor that keep its shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unary {
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
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

/// ggml's number for the kind of rotation that pairs the halves of a head.
const ROTATE_HALVES: c_int = 2;

/// Appends operators to a context. Every method checks what the library asserts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Builder<'a> {
    pub(crate) context: &'a Context,
    pub(crate) workshop: &'a Arc<Workshop>,
}

impl<'a> Builder<'a> {
    pub(crate) const fn new(context: &'a Context, workshop: &'a Arc<Workshop>) -> Self {
        Self { context, workshop }
    }

    pub(crate) fn api(&self) -> &Api {
        &self.context.engine().api
    }

    /// Runs one of the library's constructors, for which there is room then.
    fn make(
        &self,
        shape: &[usize],
        make: impl FnOnce(&Api, *mut ggml_context) -> *mut ggml_tensor,
    ) -> Made {
        extents(shape)?;
        self.context.take()?;
        let made = make(self.api(), self.context.raw().as_ptr());
        let made = Tensor::fresh(made, shape, ggml_type::F32)?;
        self.context.made.borrow_mut().push(made.raw());
        Ok(made)
    }

    /// As [`Self::make`], for an operator that the device computes.
    pub(crate) fn compute(
        &self,
        shape: &[usize],
        make: impl FnOnce(&Api, *mut ggml_context) -> *mut ggml_tensor,
    ) -> Made {
        let made = self.make(shape, make)?;
        let device = self.context.engine().device();
        // SAFETY: the device is the library's, and the tensor is alive.
        let supported =
            unsafe { (self.api().backend_dev_supports_op)(device.as_ptr(), made.raw().as_ptr()) };
        if supported {
            Ok(made)
        } else {
            Err(Refusal::Never("ggml's device does not compute it".to_owned()))
        }
    }

    /// The same elements, neighbours in memory.
    pub(crate) fn contiguous(&self, a: &Tensor) -> Made {
        if a.is_contiguous() { Ok(a.clone()) } else { self.copy(a) }
    }

    /// The same elements, neighbours along the last axis neighbours in memory.
    pub(crate) fn whole_rows(&self, a: &Tensor) -> Made {
        if a.has_whole_rows() { Ok(a.clone()) } else { self.copy(a) }
    }

    /// The same elements in memory of their own.
    pub(crate) fn copy(&self, a: &Tensor) -> Made {
        // SAFETY: context and tensor are alive; the operator takes any tensor.
        let mut made =
            self.compute(&a.shape, |api, ctx| unsafe { (api.cont)(ctx, a.raw().as_ptr()) })?;
        made.dtype = a.dtype;
        Ok(made)
    }

    /// Memory of its own for a tensor that is read at the end.
    pub(crate) fn owned(&self, a: &Tensor, is_leaf: bool) -> Made {
        if a.is_view || is_leaf { self.copy(a) } else { Ok(a.clone()) }
    }

    pub(crate) fn unary(&self, function: Unary, a: &Tensor) -> Made {
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
        self.compute(&a.shape, |_, ctx| unsafe { function(ctx, a.raw().as_ptr()) })
    }

    /// `a` with `b`, either stretched to the other where that is needed.
    pub(crate) fn binary(&self, function: Binary, a: &Tensor, b: &Tensor) -> Made {
        let shape = shape::broadcast(&a.shape, &b.shape)?;
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
        self.compute(&shape, |_, ctx| unsafe { function(ctx, a.raw().as_ptr(), b.raw().as_ptr()) })
    }

    /// `a` stretched to `shape`, contiguous.
    pub(crate) fn repeat(&self, a: &Tensor, shape: &[usize]) -> Made {
        let a = self.contiguous(a)?;
        if *a.shape == *shape {
            return Ok(a);
        }
        if shape::broadcast(&a.shape, shape)? != shape {
            return Err(Refusal::Here(format!("{:?} cannot be stretched to {shape:?}", a.shape)));
        }
        if a.n_elements() == shape.iter().product::<usize>() {
            return self.reshape(&a, shape);
        }
        let [ne0, ne1, ne2, ne3] = extents(shape)?;
        // SAFETY: context and tensor are alive; every extent is that of the tensor, which may be 1.
        self.compute(shape, |api, ctx| unsafe {
            (api.repeat_4d)(ctx, a.raw().as_ptr(), ne0, ne1, ne2, ne3)
        })
    }

    /// `a * scale + shift`.
    pub(crate) fn scale(&self, a: &Tensor, scale: f32, shift: f32) -> Made {
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&a.shape, |api, ctx| unsafe {
            (api.scale_bias)(ctx, a.raw().as_ptr(), scale, shift)
        })
    }

    pub(crate) fn clamp(&self, a: &Tensor, min: f32, max: f32) -> Made {
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&a.shape, |api, ctx| unsafe { (api.clamp)(ctx, a.raw().as_ptr(), min, max) })
    }

    /// Less the mean over the deviation, along the last axis.
    pub(crate) fn norm(&self, a: &Tensor, epsilon: f32) -> Made {
        if epsilon.is_nan() || epsilon < 0.0 {
            return Err(Refusal::Here(format!("an epsilon of {epsilon} is not taken")));
        }
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, and epsilon is not negative.
        self.compute(&a.shape, |api, ctx| unsafe { (api.norm)(ctx, a.raw().as_ptr(), epsilon) })
    }

    /// The softmax of `a * scale + mask` along the last axis; the mask is stretched over the heads.
    pub(crate) fn masked_softmax(&self, a: &Tensor, mask: &Tensor, scale: f32) -> Made {
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
            (api.soft_max_ext)(ctx, a.raw().as_ptr(), mask.raw().as_ptr(), scale, 0.0)
        })
    }

    /// `a` times the transpose of `b`: rows of `a` with rows of `b`, batches of `b` stretched to those of
    /// `a`.
    pub(crate) fn matmul_transposed(&self, a: &Tensor, b: &Tensor) -> Made {
        let a = self.contiguous(a)?;
        let b = self.whole_rows(b)?;
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
        let made = self.compute(&shape, |api, ctx| unsafe {
            (api.mul_mat)(ctx, b.raw().as_ptr(), a.raw().as_ptr())
        })?;
        // Some devices would add up f16 in f16.
        // SAFETY: the tensor is alive, and a product.
        unsafe { (self.api().prec_set_acc)(made.raw().as_ptr(), ggml_prec::F32) };
        Ok(made)
    }

    /// Rows of `table`, [n, width], picked by a list of indices, which have to lie inside.
    pub(crate) fn rows(&self, table: &Tensor, indices: &Tensor) -> Made {
        let table = self.contiguous(table)?;
        let (&[_, width], &[n]) = (&*table.shape, &*indices.shape) else {
            return Err(Refusal::Never("rows are picked from a matrix by a list".to_owned()));
        };
        // SAFETY: context and tensors are alive; shapes fit, and whoever fills the indices checks them.
        self.compute(&[n, width], |api, ctx| unsafe {
            (api.get_rows)(ctx, table.raw().as_ptr(), indices.raw().as_ptr())
        })
    }

    /// The halves of every head of `a`, [n, heads, width], turned against each other by the places of the
    /// rows: angle `i` of a place is `place · base^(-2i / width)` (Su et al., "RoFormer", 2021).
    pub(crate) fn rotate(&self, a: &Tensor, places: &Tensor, base: f32) -> Made {
        let (&[n, _, width], &[n_places]) = (&*a.shape, &*places.shape) else {
            return Err(Refusal::Never("heads are rotated, [n, heads, width]".to_owned()));
        };
        if n != n_places || !width.is_multiple_of(2) {
            return Err(Refusal::Here(format!("{:?} has not {n_places} places", a.shape)));
        }
        let turn = |a: &Tensor| {
            // SAFETY: context and tensors are alive, there is a place for each row, and widths are even; null
            // asks for no other wavelengths.
            self.compute(&a.shape, |api, ctx| unsafe {
                (api.rope_ext)(
                    ctx,
                    a.raw().as_ptr(),
                    places.raw().as_ptr(),
                    std::ptr::null_mut(),
                    width as c_int,
                    ROTATE_HALVES,
                    0,
                    base,
                    1.0,
                    0.0,
                    1.0,
                    0.0,
                    0.0,
                )
            })
        };
        let whole = self.whole_rows(a)?;
        turn(&whole).or_else(|_| turn(&self.contiguous(a)?))
    }

    /// `gelu(a) · b` of rows that hold `a` and then `b`.
    pub(crate) fn geglu(&self, a: &Tensor) -> Made {
        let &[n, width] = &*a.shape else {
            return Err(Refusal::Never("rows are gated, [n, width]".to_owned()));
        };
        if !width.is_multiple_of(2) {
            return Err(Refusal::Never(format!("a row of {width} has no halves")));
        }
        let a = self.contiguous(a)?;
        // SAFETY: context and tensor are alive, rows are whole and have two halves.
        self.compute(&[n, width / 2], |api, ctx| unsafe { (api.geglu_erf)(ctx, a.raw().as_ptr()) })
    }

    pub(crate) fn concat(&self, a: &Tensor, b: &Tensor, axis: usize) -> Made {
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
            (api.concat)(ctx, a.raw().as_ptr(), b.raw().as_ptr(), dim)
        })
    }

    /// The sum or the mean along the last axis, which stays with an extent of 1.
    pub(crate) fn reduce_rows(&self, a: &Tensor, mean: bool) -> Made {
        let a = self.contiguous(a)?;
        let mut shape = a.shape.clone();
        *shape.last_mut().ok_or("a number has no rows")? = 1;
        // SAFETY: context and tensor are alive, and the tensor is contiguous.
        self.compute(&shape, |api, ctx| unsafe {
            (if mean { api.mean } else { api.sum_rows })(ctx, a.raw().as_ptr())
        })
    }

    pub(crate) fn reshape(&self, a: &Tensor, shape: &[usize]) -> Made {
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
            (api.reshape_4d)(ctx, a.raw().as_ptr(), ne0, ne1, ne2, ne3)
        })?;
        made.is_view = true;
        made.dtype = a.dtype;
        Ok(made)
    }

    /// Axes in another order; no element moves.
    pub(crate) fn permute(&self, a: &Tensor, order: &[usize]) -> Made {
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
            (api.permute)(ctx, a.raw().as_ptr(), to[0], to[1], to[2], to[3])
        })?;
        made.strides = order.iter().map(|&axis| a.strides[axis]).collect();
        made.is_view = true;
        made.dtype = a.dtype;
        Ok(made)
    }

    /// A part along one axis; no element moves.
    pub(crate) fn part(&self, a: &Tensor, axis: usize, start: usize, len: usize) -> Made {
        if a.dtype != ggml_type::F32 {
            return Err(Refusal::Never("only floats are cut into parts".to_owned()));
        }
        let a = self.whole_rows(a)?;
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
            (api.view_4d)(ctx, a.raw().as_ptr(), ne0, ne1, ne2, ne3, nb1, nb2, nb3, offset)
        })?;
        made.strides.clone_from(&a.strides);
        made.is_view = true;
        Ok(made)
    }
}
