//! ONNX's operators as kernels. Only what the tests' networks have.

use rten_onnx::onnx::AttributeProto;

use crate::dtype::Dtype;
use crate::error::Error;
use crate::graph::{Builder, Tensor, axis, signed, spread};
use crate::kernel::Op;

/// A node with what it reads.
struct Node<'a> {
    inputs: &'a [Option<Tensor>],
    attributes: &'a [AttributeProto],
}

/// Makes what an operator makes of its inputs.
pub(crate) fn lower(
    builder: &mut Builder,
    operator: &str,
    inputs: &[Option<Tensor>],
    attributes: &[AttributeProto],
) -> Result<Tensor, Error> {
    let node = Node { inputs, attributes };
    if let Some(op) = unary_of(operator) {
        let x = node.input(0)?;
        let dtype = x.dtype;
        return Ok(builder.emit(op, &x.lengths, 1, vec![x.operand(&x.lengths)], dtype));
    }
    if let Some(op) = binary_of(operator) {
        return binary(builder, op, node.input(0)?, node.input(1)?);
    }
    match operator {
        "Identity" => node.input(0).cloned(),
        "Sum" => sum(builder, &node),
        "Cast" => cast(builder, &node),
        "MatMul" => matrix_product(builder, node.input(0)?, node.input(1)?),
        "Gemm" => gemm(builder, &node),
        "Gather" => gather(builder, &node),
        "Concat" => concat(builder, &node),
        "ReduceSum" => reduce(builder, &node, Op::Total),
        "ReduceMean" => reduce_mean(builder, &node),
        "ReduceMax" => reduce(builder, &node, Op::Largest),
        "ReduceMin" => reduce(builder, &node, Op::Least),
        "Softmax" => softmax(builder, &node),
        "LayerNormalization" => layer_normalisation(builder, &node),
        "CumSum" => cumulative_sum(builder, &node),
        "Shape" => shape(builder, &node),
        "Range" => range(builder, &node),
        "Reshape" => reshape(builder, &node),
        "Flatten" => flatten(builder, &node),
        "Unsqueeze" => unsqueeze(builder, &node),
        "Transpose" => transpose(&node),
        "Slice" => slice(builder, &node),
        "Expand" => expand(builder, &node),
        _ => Err(Error::failed("Unknown operator")),
    }
}

fn unary_of(operator: &str) -> Option<Op> {
    Some(match operator {
        "Relu" => Op::Relu,
        "Sqrt" => Op::Sqrt,
        "Abs" => Op::Abs,
        "Neg" => Op::Neg,
        "Not" => Op::Not,
        "Exp" => Op::Exp,
        "Erf" => Op::Erf,
        "Tanh" => Op::Tanh,
        _ => return None,
    })
}

fn binary_of(operator: &str) -> Option<Op> {
    Some(match operator {
        "Add" => Op::Add,
        "Sub" => Op::Sub,
        "Mul" => Op::Mul,
        "Div" => Op::Div,
        "Mod" => Op::Mod,
        "Pow" => Op::Pow,
        "Min" => Op::Min,
        "Max" => Op::Max,
        _ => return None,
    })
}

impl Node<'_> {
    fn optional(&self, index: usize) -> Option<&Tensor> {
        self.inputs.get(index)?.as_ref()
    }

    fn input(&self, index: usize) -> Result<&Tensor, Error> {
        self.optional(index).ok_or_else(|| Error::failed(format!("input {index} is missing")))
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attributes.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    fn integer(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.attribute(name).and_then(|attribute| attribute.f).unwrap_or(default))
    }

    fn integers(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|attribute| attribute.ints.clone())
    }

    /// Axes, which newer operator sets have as an input and older ones as an attribute.
    fn axes(&self, builder: &mut Builder, input: usize) -> Result<Option<Vec<i64>>, Error> {
        match self.optional(input) {
            Some(tensor) => builder.known(tensor).map(Some),
            None => Ok(self.integers("axes")),
        }
    }
}

fn binary(builder: &mut Builder, op: Op, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    let lengths = spread(&a.lengths, &b.lengths)?;
    let operands = vec![a.operand(&lengths), b.operand(&lengths)];
    Ok(builder.emit(op, &lengths, 1, operands, a.dtype))
}

fn sum(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let inputs: Vec<&Tensor> = node.inputs.iter().flatten().collect();
    let mut lengths = Vec::new();
    for input in &inputs {
        lengths = spread(&lengths, &input.lengths)?;
    }
    let dtype = node.input(0)?.dtype;
    let operands = inputs.iter().map(|input| input.operand(&lengths)).collect();
    Ok(builder.emit(Op::Sum, &lengths, 1, operands, dtype))
}

fn cast(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let number = i32::try_from(node.integer("to", 0)).unwrap_or(0);
    let dtype = Dtype::from_onnx(number)
        .ok_or_else(|| Error::failed(format!("the double does not know type {number}")))?;
    Ok(builder.cast(node.input(0)?, dtype))
}

/// `a` times `b` over their last two axes, for each place of the axes before. Both have two axes or more.
fn matrix_product(builder: &mut Builder, a: &Tensor, b: &Tensor) -> Result<Tensor, Error> {
    let ([.., m, k], [.., other, n]) = (&a.lengths[..], &b.lengths[..]) else {
        return Err(Error::failed("a matrix has two axes"));
    };
    if k != other {
        return Err(Error::failed(format!("{:?} times {:?}", a.lengths, b.lengths)));
    }
    let (a_rank, b_rank) = (a.lengths.len(), b.lengths.len());
    let mut lengths = spread(&a.lengths[..a_rank - 2], &b.lengths[..b_rank - 2])?;
    lengths.extend([*m, *n]);
    // `a` stands still along the columns, `b` along the rows; both walk along what is summed.
    let wide = |tensor: &Tensor, summed: usize, still: usize| {
        let mut tensor = tensor.clone();
        let stride = tensor.strides.remove(summed);
        tensor.lengths.remove(summed);
        tensor.strides.insert(still, 0);
        tensor.lengths.insert(still, 1);
        let mut operand = tensor.operand(&lengths);
        operand.inner_stride = stride;
        operand
    };
    let operands = vec![wide(a, a_rank - 1, a_rank - 1), wide(b, b_rank - 2, b_rank - 2)];
    Ok(builder.emit(Op::Dot, &lengths, *k, operands, a.dtype))
}

fn gemm(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let turned = |tensor: &Tensor, name: &str| {
        let mut tensor = tensor.clone();
        if node.integer(name, 0) != 0 {
            tensor.lengths.reverse();
            tensor.strides.reverse();
        }
        tensor
    };
    let (a, b) = (turned(node.input(0)?, "transA"), turned(node.input(1)?, "transB"));
    let mut made = matrix_product(builder, &a, &b)?;
    made = scaled(builder, made, node.float("alpha", 1.0))?;
    if let Some(c) = node.optional(2) {
        let c = scaled(builder, c.clone(), node.float("beta", 1.0))?;
        made = binary(builder, Op::Add, &made, &c)?;
    }
    Ok(made)
}

fn scaled(builder: &mut Builder, tensor: Tensor, factor: f64) -> Result<Tensor, Error> {
    if factor == 1.0 {
        return Ok(tensor);
    }
    let factor = builder.number(tensor.dtype, factor);
    binary(builder, Op::Mul, &tensor, &factor)
}

fn gather(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let (data, places) = (node.input(0)?, node.input(1)?);
    let along = data.axis(node.integer("axis", 0))?;
    let mut lengths = data.lengths[..along].to_vec();
    lengths.extend(&places.lengths);
    lengths.extend(&data.lengths[along + 1..]);
    let behind = lengths.len() - along - places.lengths.len();
    let mut place = places.operand(&places.lengths);
    place.strides.splice(0..0, vec![0; along]);
    place.strides.extend(vec![0; behind]);
    let mut moved = data.operand(&data.lengths);
    moved.strides.splice(along..=along, vec![0; places.lengths.len()]);
    let op = Op::Pick { extent: signed(data.lengths[along]), stride: data.strides[along] };
    Ok(builder.emit(op, &lengths, 1, vec![place, moved], data.dtype))
}

fn concat(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let parts: Vec<&Tensor> = node.inputs.iter().flatten().collect();
    let along = node.input(0)?.axis(node.integer("axis", 0))?;
    let mut lengths = node.input(0)?.lengths.clone();
    lengths[along] = parts.iter().map(|part| part.lengths[along]).sum();
    let dtype = node.input(0)?.dtype;
    let n_elements = lengths.iter().product();
    let value = builder.value(dtype, n_elements, crate::kernel::Home::Computed);
    let whole = Tensor::whole(value, dtype, &lengths);
    let mut start = 0;
    for part in parts {
        let mut to = whole.clone();
        to.lengths.clone_from(&part.lengths);
        to.offset = start * whole.strides[along];
        start += signed(part.lengths[along]);
        builder.emit_into(Op::Copy, &part.lengths, 1, vec![part.operand(&part.lengths)], &to);
    }
    Ok(whole)
}

/// Axes that a reduction goes along, all of them where none is named.
fn reduced_axes(builder: &mut Builder, node: &Node<'_>) -> Result<Vec<usize>, Error> {
    let rank = node.input(0)?.lengths.len();
    let named = node.axes(builder, 1)?.filter(|axes| !axes.is_empty());
    let mut axes = match named {
        Some(axes) => {
            axes.into_iter().map(|number| axis(number, rank)).collect::<Result<_, _>>()?
        }
        None => (0..rank).collect::<Vec<usize>>(),
    };
    axes.sort_unstable();
    Ok(axes)
}

fn reduce(builder: &mut Builder, node: &Node<'_>, op: Op) -> Result<Tensor, Error> {
    let axes = reduced_axes(builder, node)?;
    let keeps = node.integer("keepdims", 1) != 0;
    Ok(reduced(builder, node.input(0)?, op, &axes, keeps))
}

/// One kernel an axis, the last one first.
fn reduced(builder: &mut Builder, x: &Tensor, op: Op, axes: &[usize], keeps: bool) -> Tensor {
    let mut made = x.clone();
    for along in axes.iter().rev() {
        let inner = made.lengths[*along];
        let mut lengths = made.lengths.clone();
        lengths.remove(*along);
        let operand = made.operand_along(*along, &lengths);
        made = builder.emit(op, &lengths, inner, vec![operand], x.dtype);
        if keeps {
            made.lengths.insert(*along, 1);
            made.strides.insert(*along, 0);
        }
    }
    made
}

fn reduce_mean(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let axes = reduced_axes(builder, node)?;
    let keeps = node.integer("keepdims", 1) != 0;
    mean(builder, node.input(0)?, &axes, keeps)
}

fn mean(builder: &mut Builder, x: &Tensor, axes: &[usize], keeps: bool) -> Result<Tensor, Error> {
    let total = reduced(builder, x, Op::Total, axes, keeps);
    let n: usize = axes.iter().map(|along| x.lengths[*along]).product();
    #[expect(clippy::cast_precision_loss, reason = "an extent is small")]
    let n = builder.number(x.dtype, n as f64);
    binary(builder, Op::Div, &total, &n)
}

fn softmax(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let along = [x.axis(node.integer("axis", -1))?];
    let largest = reduced(builder, x, Op::Largest, &along, true);
    let lowered = binary(builder, Op::Sub, x, &largest)?;
    let lengths = x.lengths.clone();
    let raised = builder.emit(Op::Exp, &lengths, 1, vec![lowered.operand(&lengths)], x.dtype);
    let total = reduced(builder, &raised, Op::Total, &along, true);
    binary(builder, Op::Div, &raised, &total)
}

fn layer_normalisation(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let first = x.axis(node.integer("axis", -1))?;
    let axes: Vec<usize> = (first..x.lengths.len()).collect();
    let average = mean(builder, x, &axes, true)?;
    let centred = binary(builder, Op::Sub, x, &average)?;
    let squares = binary(builder, Op::Mul, &centred, &centred)?;
    let variance = mean(builder, &squares, &axes, true)?;
    let epsilon = builder.number(x.dtype, node.float("epsilon", 1e-5));
    let variance = binary(builder, Op::Add, &variance, &epsilon)?;
    let operand = variance.operand(&variance.lengths);
    let deviation = builder.emit(Op::Sqrt, &variance.lengths, 1, vec![operand], x.dtype);
    let normal = binary(builder, Op::Div, &centred, &deviation)?;
    let stretched = binary(builder, Op::Mul, &normal, node.input(1)?)?;
    match node.optional(2) {
        Some(bias) => binary(builder, Op::Add, &stretched, bias),
        None => Ok(stretched),
    }
}

/// A product with a triangle of ones.
fn cumulative_sum(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let number = builder.known(node.input(1)?)?.first().copied().unwrap_or(0);
    let along = x.axis(number)?;
    let n = x.lengths[along];
    let ones = (0..n * n).flat_map(|at| f64::from(u8::from(at % n <= at / n)).to_le_bytes());
    let triangle = builder.literal(Dtype::Double, &[n, n], &ones.collect::<Vec<u8>>());
    let triangle = builder.cast(&triangle, x.dtype);
    let mut rows = x.operand(&x.lengths);
    rows.strides[along] = 0;
    rows.inner_stride = x.strides[along];
    let mut weights = triangle.operand(&[n, n]);
    weights.strides = vec![0; x.lengths.len()];
    weights.strides[along] = signed(n);
    weights.inner_stride = 1;
    Ok(builder.emit(Op::Dot, &x.lengths, n, vec![rows, weights], x.dtype))
}

fn shape(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let lengths: Vec<i64> = node.input(0)?.lengths.iter().map(|length| signed(*length)).collect();
    let rank = signed(lengths.len());
    let bound = |name, default| {
        let number = node.integer(name, default);
        let counted = if number < 0 { number + rank } else { number };
        usize::try_from(counted.clamp(0, rank)).unwrap_or(0)
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    Ok(builder.integers(lengths.get(start..end).unwrap_or_default()))
}

fn range(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let mut one = |index| {
        let known = builder.known(node.input(index)?)?;
        known.first().copied().ok_or_else(|| Error::failed("a range without a bound"))
    };
    let (start, limit, step) = (one(0)?, one(1)?, one(2)?.max(1));
    let numbers: Vec<i64> = (start..limit).step_by(usize::try_from(step).unwrap_or(1)).collect();
    let made = builder.integers(&numbers);
    Ok(builder.cast(&made, node.input(0)?.dtype))
}

/// The same elements in another shape.
fn shaped(builder: &mut Builder, x: &Tensor, lengths: &[usize]) -> Tensor {
    let dense = builder.dense(x);
    Tensor::whole(dense.value, dense.dtype, lengths)
}

fn reshape(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let wanted = builder.known(node.input(1)?)?;
    let mut lengths = Vec::new();
    for (at, length) in wanted.iter().enumerate() {
        lengths.push(match length {
            0 => x.lengths.get(at).copied().unwrap_or(0),
            length => usize::try_from(*length).unwrap_or(1),
        });
    }
    if let Some(open) = wanted.iter().position(|length| *length == -1) {
        lengths[open] = 1;
        lengths[open] = x.n_elements() / lengths.iter().product::<usize>().max(1);
    }
    if lengths.iter().product::<usize>() != x.n_elements() {
        return Err(Error::failed(format!("{:?} does not fit into {wanted:?}", x.lengths)));
    }
    Ok(shaped(builder, x, &lengths))
}

fn flatten(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let along = x.axis(node.integer("axis", 1))?;
    let lengths = [x.lengths[..along].iter().product(), x.lengths[along..].iter().product()];
    Ok(shaped(builder, x, &lengths))
}

fn unsqueeze(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let mut made = node.input(0)?.clone();
    let axes = node.axes(builder, 1)?.unwrap_or_default();
    let rank = made.lengths.len() + axes.len();
    let mut axes =
        axes.into_iter().map(|number| axis(number, rank)).collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    for along in axes {
        made.lengths.insert(along, 1);
        made.strides.insert(along, 0);
    }
    Ok(made)
}

fn transpose(node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let backwards = || (0..x.lengths.len()).rev().map(signed).collect();
    let order = node.integers("perm").unwrap_or_else(backwards);
    let order = order.into_iter().map(|number| x.axis(number)).collect::<Result<Vec<_>, _>>()?;
    let lengths = order.iter().map(|along| x.lengths[*along]).collect();
    let strides = order.iter().map(|along| x.strides[*along]).collect();
    Ok(Tensor { lengths, strides, ..x.clone() })
}

fn slice(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let mut made = node.input(0)?.clone();
    let starts = builder.known(node.input(1)?)?;
    let ends = builder.known(node.input(2)?)?;
    let mut more = |index| node.optional(index).map(|tensor| builder.known(tensor)).transpose();
    let axes = more(3)?.unwrap_or_else(|| (0..signed(starts.len())).collect());
    let steps = more(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    for (((number, start), end), step) in axes.iter().zip(&starts).zip(&ends).zip(&steps) {
        if *step < 1 {
            return Err(Error::failed("the double slices forwards only"));
        }
        let along = made.axis(*number)?;
        let length = signed(made.lengths[along]);
        let bound = |at: i64| (if at < 0 { at + length } else { at }).clamp(0, length);
        let (start, end) = (bound(*start), bound(*end));
        let n = (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
        made.lengths[along] = usize::try_from(n).unwrap_or(0);
        made.offset += start * made.strides[along];
        made.strides[along] *= step;
    }
    Ok(made)
}

fn expand(builder: &mut Builder, node: &Node<'_>) -> Result<Tensor, Error> {
    let x = node.input(0)?;
    let wanted: Vec<usize> = builder
        .known(node.input(1)?)?
        .into_iter()
        .map(|length| usize::try_from(length).unwrap_or(0))
        .collect();
    let lengths = spread(&x.lengths, &wanted)?;
    let strides = x.operand(&lengths).strides;
    Ok(Tensor { lengths, strides, ..x.clone() })
}
