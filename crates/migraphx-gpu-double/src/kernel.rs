//! What a program is made of: values, and kernels that make one value of others. The same kernels run
//! on a device and on the host.

use serde::{Deserialize, Serialize};

use crate::dtype::{Class, Dtype};

/// A piece of memory of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Value {
    pub(crate) dtype: Dtype,
    pub(crate) n_elements: usize,
    pub(crate) home: Home,
}

impl Value {
    pub(crate) fn n_bytes(&self) -> usize {
        self.n_elements * self.dtype.n_bytes()
    }
}

/// Where the memory of a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Home {
    /// The caller's.
    Input,
    /// From this byte of the program's literals on.
    Literal(usize),
    /// Scratch, or an output.
    Computed,
}

/// One thing that a run does, after what stands before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Sets every byte of a value to 0, for a kernel that adds to it.
    Clear(usize),
    Kernel(Kernel),
}

/// For each place of `lengths`, an element of `output` is made of elements of the operands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kernel {
    pub(crate) op: Op,
    pub(crate) lengths: Vec<usize>,
    /// How many elements of each operand go into one place.
    pub(crate) inner: usize,
    pub(crate) operands: Vec<Operand>,
    pub(crate) output: Operand,
}

impl Kernel {
    pub(crate) fn n_places(&self) -> usize {
        self.lengths.iter().product()
    }

    /// What it computes in.
    pub(crate) fn class(&self) -> Class {
        // Of a gather, the first operand is the place and the second what is moved.
        let telling = match self.op {
            Op::Pick { .. } => self.operands.last(),
            _ => self.operands.first(),
        };
        telling.map_or(Class::Single, |operand| operand.dtype.class())
    }
}

/// Elements of a value: how far it is from one to the next along each axis, and along the inner one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Operand {
    pub(crate) value: usize,
    pub(crate) dtype: Dtype,
    pub(crate) offset: i64,
    pub(crate) strides: Vec<i64>,
    pub(crate) inner_stride: i64,
}

/// What a kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Moves an element, and makes it one of the output's type.
    Copy,
    Relu,
    Sqrt,
    Abs,
    Neg,
    Not,
    Exp,
    Erf,
    Tanh,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Min,
    Max,
    /// The sum of all operands.
    Sum,
    /// *Adds* the products of two operands' elements along the inner axis to what is there.
    Dot,
    /// *Adds* the elements along the inner axis to what is there.
    Total,
    /// The largest along the inner axis.
    Largest,
    /// The least along the inner axis.
    Least,
    /// The element of the second operand that the first one names, along an axis with so many entries
    /// that lie `stride` apart.
    Pick {
        extent: i64,
        stride: i64,
    },
}

impl Op {
    /// Whether it adds to its output, which has to be cleared before.
    pub(crate) fn accumulates(self) -> bool {
        matches!(self, Self::Dot | Self::Total)
    }
}
