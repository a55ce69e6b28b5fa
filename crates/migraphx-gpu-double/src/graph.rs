//! A network in one shape, and the builder that makes one.

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;
use crate::error::Error;
use crate::host;
use crate::kernel::{Home, Kernel, Op, Operand, Step, Value};
use crate::shape::{Shape, strides_of};

/// A network in one shape.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<Output>,
    /// The bytes of all literals, each from a multiple of [`ALIGNMENT`] on.
    #[serde(skip)]
    pub(crate) literals: Vec<u8>,
}

/// A declared input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    pub(crate) value: usize,
}

/// An output: a whole value. It may be an input or a literal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Output {
    pub(crate) shape: Shape,
    pub(crate) value: usize,
}

/// Where values may begin, in bytes.
pub(crate) const ALIGNMENT: usize = 256;

/// Elements of a value, looked at in some shape.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub(crate) value: usize,
    pub(crate) dtype: Dtype,
    pub(crate) lengths: Vec<usize>,
    pub(crate) strides: Vec<i64>,
    pub(crate) offset: i64,
}

impl Tensor {
    /// A value whole, in a shape with as many elements.
    pub(crate) fn whole(value: usize, dtype: Dtype, lengths: &[usize]) -> Self {
        let strides = strides_of(lengths).into_iter().map(signed).collect();
        Self { value, dtype, lengths: lengths.to_vec(), strides, offset: 0 }
    }

    pub(crate) fn n_elements(&self) -> usize {
        self.lengths.iter().product()
    }

    /// Whether its elements lie one behind the other.
    pub(crate) fn is_dense(&self) -> bool {
        let dense = strides_of(&self.lengths);
        let axes = self.strides.iter().zip(dense).zip(&self.lengths);
        axes.into_iter().all(|((own, dense), length)| *length == 1 || *own == signed(dense))
    }

    /// The axis that a number of ONNX names, which counts from the end where it is negative.
    pub(crate) fn axis(&self, number: i64) -> Result<usize, Error> {
        axis(number, self.lengths.len())
    }

    /// The tensor as an operand for places of a larger shape: axes are matched from the last one, and one
    /// of length 1 stands still.
    pub(crate) fn operand(&self, lengths: &[usize]) -> Operand {
        let missing = lengths.len().saturating_sub(self.lengths.len());
        let mut strides = vec![0; missing];
        let own = self.strides.iter().zip(&self.lengths);
        strides.extend(own.map(|(stride, length)| if *length == 1 { 0 } else { *stride }));
        let Self { value, dtype, offset, .. } = *self;
        Operand { value, dtype, offset, strides, inner_stride: 0 }
    }

    /// The operand with an axis taken out and made the inner one.
    pub(crate) fn operand_along(&self, axis: usize, lengths: &[usize]) -> Operand {
        let mut rest = self.clone();
        let inner_stride = rest.strides.remove(axis);
        rest.lengths.remove(axis);
        Operand { inner_stride, ..rest.operand(lengths) }
    }
}

/// See [`Tensor::axis`].
pub(crate) fn axis(number: i64, rank: usize) -> Result<usize, Error> {
    let counted = if number < 0 { number + signed(rank) } else { number };
    let axis = usize::try_from(counted).ok().filter(|axis| *axis < rank);
    axis.ok_or_else(|| Error::failed(format!("there is no axis {number} of {rank}")))
}

pub(crate) fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The shape that two shapes are spread to.
pub(crate) fn spread(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Error> {
    let rank = a.len().max(b.len());
    let at = |of: &[usize], axis: usize| (axis + of.len()).checked_sub(rank).map_or(1, |i| of[i]);
    let axes = (0..rank).map(|axis| match (at(a, axis), at(b, axis)) {
        (one, other) if one == other => Ok(one),
        (1, other) | (other, 1) => Ok(other),
        _ => Err(Error::failed(format!("the shapes {a:?} and {b:?} do not go together"))),
    });
    axes.collect()
}

/// What the operators are lowered with.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    pub(crate) graph: Graph,
}

impl Builder {
    pub(crate) fn value(&mut self, dtype: Dtype, n_elements: usize, home: Home) -> usize {
        self.graph.values.push(Value { dtype, n_elements, home });
        self.graph.values.len() - 1
    }

    pub(crate) fn literal(&mut self, dtype: Dtype, lengths: &[usize], bytes: &[u8]) -> Tensor {
        let start = self.graph.literals.len().next_multiple_of(ALIGNMENT);
        self.graph.literals.resize(start, 0);
        self.graph.literals.extend_from_slice(bytes);
        let value = self.value(dtype, lengths.iter().product(), Home::Literal(start));
        Tensor::whole(value, dtype, lengths)
    }

    /// Whole numbers as a literal.
    pub(crate) fn integers(&mut self, numbers: &[i64]) -> Tensor {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.literal(Dtype::Int64, &[numbers.len()], &bytes)
    }

    /// A number of some type as a literal without an axis.
    pub(crate) fn number(&mut self, dtype: Dtype, number: f64) -> Tensor {
        let wide = self.literal(Dtype::Double, &[], &number.to_le_bytes());
        self.cast(&wide, dtype)
    }

    pub(crate) fn is_literal(&self, value: usize) -> bool {
        matches!(self.graph.values[value].home, Home::Literal(_))
    }

    /// The whole numbers that a tensor is known to have.
    pub(crate) fn known(&mut self, tensor: &Tensor) -> Result<Vec<i64>, Error> {
        let wide = self.cast(tensor, Dtype::Int64);
        let dense = self.dense(&wide);
        let Home::Literal(start) = self.graph.values[dense.value].home else {
            return Err(Error::failed("a shape or an axis depends on an input".to_owned()));
        };
        let bytes = &self.graph.literals[start..start + dense.n_elements() * 8];
        Ok(bytes.as_chunks::<8>().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect())
    }

    pub(crate) fn cast(&mut self, tensor: &Tensor, dtype: Dtype) -> Tensor {
        if tensor.dtype == dtype { tensor.clone() } else { self.copy(tensor, dtype) }
    }

    /// The tensor with its elements one behind the other, from the beginning of a value on.
    pub(crate) fn dense(&mut self, tensor: &Tensor) -> Tensor {
        let is_whole = self.graph.values[tensor.value].n_elements == tensor.n_elements();
        if tensor.is_dense() && is_whole { tensor.clone() } else { self.copy(tensor, tensor.dtype) }
    }

    pub(crate) fn copy(&mut self, tensor: &Tensor, dtype: Dtype) -> Tensor {
        let operand = tensor.operand(&tensor.lengths);
        self.emit(Op::Copy, &tensor.lengths, 1, vec![operand], dtype)
    }

    /// A kernel that makes a new tensor of the shape `lengths`.
    pub(crate) fn emit(
        &mut self,
        op: Op,
        lengths: &[usize],
        inner: usize,
        operands: Vec<Operand>,
        dtype: Dtype,
    ) -> Tensor {
        let value = self.value(dtype, lengths.iter().product(), Home::Computed);
        let made = Tensor::whole(value, dtype, lengths);
        self.emit_into(op, lengths, inner, operands, &made);
        made
    }

    /// A kernel that makes a part of a tensor, or all of it.
    pub(crate) fn emit_into(
        &mut self,
        op: Op,
        lengths: &[usize],
        inner: usize,
        operands: Vec<Operand>,
        to: &Tensor,
    ) {
        let output = to.operand(lengths);
        let kernel = Kernel { op, lengths: lengths.to_vec(), inner, operands, output };
        let is_whole = self.graph.values[to.value].n_elements == kernel.n_places();
        if is_whole && kernel.operands.iter().all(|operand| self.is_literal(operand.value)) {
            return self.fold(&kernel);
        }
        if op.accumulates() {
            self.graph.steps.push(Step::Clear(to.value));
        }
        self.graph.steps.push(Step::Kernel(kernel));
    }

    /// Runs a kernel whose operands are known; what it makes is a literal from now on.
    fn fold(&mut self, kernel: &Kernel) {
        let mut made = vec![0; self.graph.values[kernel.output.value].n_bytes()];
        let operands: Vec<&[u8]> = kernel
            .operands
            .iter()
            .map(|operand| match self.graph.values[operand.value].home {
                Home::Literal(start) => &self.graph.literals[start..],
                Home::Input | Home::Computed => &[][..],
            })
            .collect();
        host::run(kernel, &operands, &mut made);
        let start = self.graph.literals.len().next_multiple_of(ALIGNMENT);
        self.graph.literals.resize(start, 0);
        self.graph.literals.extend_from_slice(&made);
        self.graph.values[kernel.output.value].home = Home::Literal(start);
    }

    /// Declares an output. It is a whole value, and no two are the same computed one.
    pub(crate) fn output(&mut self, tensor: &Tensor) {
        let is_taken = self.graph.outputs.iter().any(|output| output.value == tensor.value);
        let is_computed = self.graph.values[tensor.value].home == Home::Computed;
        let dense = if is_taken && is_computed {
            self.copy(tensor, tensor.dtype)
        } else {
            self.dense(tensor)
        };
        let shape = Shape::standard(dense.dtype, &dense.lengths);
        self.graph.outputs.push(Output { shape, value: dense.value });
    }
}
