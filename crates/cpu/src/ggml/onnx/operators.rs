//! ONNX operators as ggml's.

use super::evaluate;
use super::fuse::{ATTENTION, GELU, MASKED_SOFTMAX};
use super::host::HostTensor;
use super::program::Node;
use super::translate::{Translation, refused};
use crate::ggml::builder::{Binary, Unary};
use crate::ggml::cannot::Cannot;
use crate::ggml::context::{Refusal, Tensor};
use crate::ggml::layers::Besides;
use crate::ggml::shape;

/// Whether ggml has this operator, at least in some case.
pub(crate) fn knows(operator: &str) -> bool {
    OPERATORS.binary_search(&operator).is_ok()
}

/// What is translated, sorted. `Erf` alone is not: it is part of a GELU, or missing.
pub(crate) const OPERATORS: [&str; 49] = [
    "Abs",
    "Add",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Cos",
    "Div",
    "Dropout",
    "Exp",
    "Expand",
    "Flatten",
    "Floor",
    "Gather",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "LayerNormalization",
    "Log",
    "MatMul",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "ReduceMean",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Shape",
    "Sigmoid",
    "Silu",
    "Sin",
    "Size",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Swish",
    "Tanh",
    "Transpose",
    "Unsqueeze",
    "com.microsoft.Gelu",
    ATTENTION,
    GELU,
    MASKED_SOFTMAX,
];

type Made = Result<Tensor, Cannot>;

/// Turns a builder's refusal into the node's error.
trait At<T> {
    fn at(self, node: &Node) -> Result<T, Cannot>;
}

impl<T> At<T> for Result<T, Refusal> {
    fn at(self, node: &Node) -> Result<T, Cannot> {
        self.map_err(|refusal| refused(node, refusal))
    }
}

impl<T> At<T> for Result<T, String> {
    fn at(self, node: &Node) -> Result<T, Cannot> {
        self.map_err(|reason| Cannot::shapes(node, reason))
    }
}

impl Translation<'_> {
    /// What a node makes on the device.
    pub(crate) fn operator(&mut self, node: &Node) -> Result<Vec<Tensor>, Cannot> {
        if node.operator == "Split" {
            return self.split(node);
        }
        if matches!(node.operator.as_str(), GELU | "com.microsoft.Gelu")
            || (node.operator == "Gelu" && node.text("approximate") != Some("tanh"))
        {
            let x = self.tensor(node, 0)?;
            return Ok(vec![self.builder.gelu(&x).at(node)?]);
        }
        if let Some(function) = unary(node) {
            let x = self.tensor(node, 0)?;
            return Ok(vec![self.builder.unary(function, &x).at(node)?]);
        }
        let made = match node.operator.as_str() {
            "Identity" | "Dropout" => self.tensor(node, 0),
            "Cast" => self.cast(node),
            "Add" | "Sub" | "Mul" | "Div" => self.arithmetic(node),
            "Sum" => self.sum(node),
            "Pow" => self.power(node),
            "Reciprocal" => self.reciprocal(node),
            "Clip" => self.clip(node),
            "MatMul" => self.matmul(node),
            "Gemm" => self.gemm(node),
            "Softmax" => self.softmax(node),
            ATTENTION => self.attention(node),
            MASKED_SOFTMAX => self.masked_softmax(node),
            "LayerNormalization" => self.layer_norm(node),
            "Gather" => self.gather(node),
            "Concat" => self.concat(node),
            "Slice" => self.slice(node),
            "Transpose" => self.transpose(node),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(node),
            "Expand" => self.expand(node),
            "ReduceMean" | "ReduceSum" => self.reduce(node),
            "GlobalAveragePool" => {
                let x = self.tensor(node, 0)?;
                let axes: Vec<usize> = (2..x.shape.len()).collect();
                self.reduce_axes(node, &x, &axes, true, true)
            }
            "Silu" | "Swish" if node.float("alpha", 1.0) == 1.0 => {
                let x = self.tensor(node, 0)?;
                self.builder.unary(Unary::Silu, &x).at(node)
            }
            _ => Err(Cannot::operator(node)),
        };
        Ok(vec![made?])
    }

    fn cast(&mut self, node: &Node) -> Made {
        let dtype = evaluate::cast_type(node).at(node)?;
        if dtype == shapeyard_core::DataType::F32 {
            self.tensor(node, 0)
        } else {
            Err(Cannot::case(node, format!("floats do not become {dtype} there")))
        }
    }

    fn arithmetic(&mut self, node: &Node) -> Made {
        let (left, right) = (self.number(node, 0), self.number(node, 1));
        let widens = |it: &Self, number: usize, other: usize| {
            let (number, other) = (it.shape(node, number)?, it.shape(node, other)?);
            Ok::<_, Cannot>(number.len() > other.len())
        };
        // A single number with more axes than the other operand gives the result its rank.
        let right = right.filter(|_| matches!(widens(self, 1, 0), Ok(false)));
        let left = left.filter(|_| matches!(widens(self, 0, 1), Ok(false)));
        let scaled = match (node.operator.as_str(), left, right) {
            ("Add", None, Some(number)) => Some((0, 1.0, number)),
            ("Add", Some(number), None) => Some((1, 1.0, number)),
            ("Sub", None, Some(number)) => Some((0, 1.0, -number)),
            ("Sub", Some(number), None) => Some((1, -1.0, number)),
            ("Mul", None, Some(number)) => Some((0, number, 0.0)),
            ("Mul", Some(number), None) => Some((1, number, 0.0)),
            ("Div", None, Some(number)) if number != 0.0 => Some((0, 1.0 / number, 0.0)),
            _ => None,
        };
        if let Some((at, scale, shift)) = scaled {
            let x = self.tensor(node, at)?;
            return self.builder.scale(&x, scale, shift).at(node);
        }
        let function = match node.operator.as_str() {
            "Add" => Binary::Add,
            "Sub" => Binary::Sub,
            "Mul" => Binary::Mul,
            _ => Binary::Div,
        };
        let (a, b) = (self.tensor(node, 0)?, self.tensor(node, 1)?);
        self.builder.binary(function, &a, &b).at(node)
    }

    fn sum(&mut self, node: &Node) -> Made {
        let mut sum = self.tensor(node, 0)?;
        for at in 1..node.inputs.len() {
            let next = self.tensor(node, at)?;
            sum = self.builder.binary(Binary::Add, &sum, &next).at(node)?;
        }
        Ok(sum)
    }

    fn power(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        match self.number(node, 1) {
            Some(2.0) => self.builder.unary(Unary::Square, &x).at(node),
            Some(0.5) => self.builder.unary(Unary::Sqrt, &x).at(node),
            Some(1.0) => Ok(x),
            Some(3.0) => {
                let square = self.builder.unary(Unary::Square, &x).at(node)?;
                self.builder.binary(Binary::Mul, &square, &x).at(node)
            }
            _ => Err(Cannot::case(node, "only the constant powers 0.5, 1, 2 and 3 are computed")),
        }
    }

    fn reciprocal(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        let zeros = self.builder.scale(&x, 0.0, 1.0).at(node)?;
        self.builder.binary(Binary::Div, &zeros, &x).at(node)
    }

    fn clip(&mut self, node: &Node) -> Made {
        let bound = |it: &Self, at: usize, name: &str, default: f32| {
            if node.input(at).is_none() {
                return Ok(node.float(name, default));
            }
            it.number(node, at).ok_or_else(|| Cannot::case(node, "its bounds are no constants"))
        };
        let min = bound(self, 1, "min", f32::MIN)?;
        let max = bound(self, 2, "max", f32::MAX)?;
        let x = self.tensor(node, 0)?;
        self.builder.clamp(&x, min, max).at(node)
    }

    fn matmul(&mut self, node: &Node) -> Made {
        let a = self.tensor(node, 0)?;
        let right = self.shape(node, 1)?;
        if a.shape.is_empty() || right.len() < 2 {
            return Err(Cannot::case(node, "its right operand is no matrix"));
        }
        if right.len() == 2 {
            return self.rows_times(node, &a);
        }
        let b = self.tensor(node, 1)?;
        self.product(node, &a, &b)
    }

    /// The product of matrices that are both computed, `b` with more than two axes.
    fn product(&mut self, node: &Node, a: &Tensor, b: &Tensor) -> Made {
        if a.shape.len() < 2 || b.shape.len() < 2 {
            return Err(Cannot::case(node, "its operands are no matrices"));
        }
        let batch_b = &b.shape[..b.shape.len() - 2];
        // ggml stretches only what it calls the first operand, which is the right one.
        let (batch_a, matrix) = a.shape.split_at(a.shape.len() - 2);
        let mut stretched = shape::broadcast(batch_a, batch_b).at(node)?;
        stretched.extend_from_slice(matrix);
        let a = self.builder.repeat(a, &stretched).at(node)?;
        let b = self.exchanged(node, b)?;
        self.builder.matmul_transposed(&a, &b).at(node)
    }

    /// All rows of `a` times a matrix in one product, which is faster than one for each batch.
    fn rows_times(&mut self, node: &Node, a: &Tensor) -> Made {
        let Some((&inner, batch)) = a.shape.split_last() else {
            return Err(Cannot::case(node, "a number is no matrix"));
        };
        let n_rows: usize = batch.iter().product();
        let flat = self.builder.reshape(a, &[n_rows, inner]).at(node)?;
        let product = self.times_matrix(node, &flat)?;
        let mut shape = batch.to_vec();
        shape.extend(product.shape.last());
        self.builder.reshape(&product, &shape).at(node)
    }

    /// Rows times the node's second input, `[inputs, outputs]`, whether it is a constant or computed.
    fn times_matrix(&mut self, node: &Node, rows: &Tensor) -> Made {
        if let Some(matrix) = self.matrix(node, 1) {
            return self.builder.linear(rows, matrix, Besides::default()).at(node);
        }
        let matrix = self.swapped(node, 1)?;
        self.builder.matmul_transposed(rows, &matrix).at(node)
    }

    /// An input with its last two axes exchanged.
    fn swapped(&mut self, node: &Node, at: usize) -> Made {
        let tensor = self.tensor(node, at)?;
        self.exchanged(node, &tensor)
    }

    fn exchanged(&self, node: &Node, tensor: &Tensor) -> Made {
        let rank = tensor.shape.len();
        let mut order: Vec<usize> = (0..rank).collect();
        if rank >= 2 {
            order.swap(rank - 2, rank - 1);
        }
        self.builder.permute(tensor, &order).at(node)
    }

    fn gemm(&mut self, node: &Node) -> Made {
        let a = match node.int("transA", 0) {
            0 => self.tensor(node, 0)?,
            _ => self.swapped(node, 0)?,
        };
        if a.shape.len() != 2 || self.shape(node, 1)?.len() != 2 {
            return Err(Cannot::case(node, "its operands are no matrices"));
        }
        let mut product = match node.int("transB", 0) {
            0 => self.times_matrix(node, &a)?,
            _ => {
                let b = self.tensor(node, 1)?;
                self.builder.matmul_transposed(&a, &b).at(node)?
            }
        };
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        if alpha != 1.0 {
            product = self.builder.scale(&product, alpha, 0.0).at(node)?;
        }
        if node.input(2).is_none() || beta == 0.0 {
            return Ok(product);
        }
        let mut bias = self.tensor(node, 2)?;
        if beta != 1.0 {
            bias = self.builder.scale(&bias, beta, 0.0).at(node)?;
        }
        self.builder.binary(Binary::Add, &product, &bias).at(node)
    }

    fn softmax(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        let default = if node.opset < 13 { 1 } else { -1 };
        self.check_last_axis(node, &x, node.int("axis", default))?;
        self.builder.unary(Unary::Softmax, &x).at(node)
    }

    fn attention(&mut self, node: &Node) -> Made {
        let [query, key, value, mask] = [0, 1, 2, 3].map(|at| self.tensor(node, at));
        let (query, key, value, mask) = (query?, key?, value?, mask?);
        let scale = node.float("scale", 1.0);
        if let Ok(made) = self.builder.attention([&query, &key, &value, &mask], scale) {
            return Ok(made);
        }
        let scores = self.product(node, &query, &key)?;
        let shares = self.masked_softmax_of(node, &scores, &mask)?;
        self.product(node, &shares, &value)
    }

    fn masked_softmax(&mut self, node: &Node) -> Made {
        let (scores, mask) = (self.tensor(node, 0)?, self.tensor(node, 1)?);
        self.masked_softmax_of(node, &scores, &mask)
    }

    fn masked_softmax_of(&mut self, node: &Node, scores: &Tensor, mask: &Tensor) -> Made {
        let scale = node.float("scale", 1.0);
        let rank = scores.shape.len();
        // The mask has to have every row of the scores, but not every head and batch.
        let mut wanted = mask.shape.to_vec();
        if wanted.len() == rank && rank >= 2 {
            wanted[rank - 2..].copy_from_slice(&scores.shape[rank - 2..]);
            let stretched = self.stretched(node, mask, &wanted);
            let fused = stretched
                .and_then(|mask| self.builder.masked_softmax(scores, &mask, scale).at(node));
            if fused.is_ok() {
                return fused;
            }
        }
        let scaled = self.builder.scale(scores, scale, 0.0).at(node)?;
        let masked = self.builder.binary(Binary::Add, &scaled, mask).at(node)?;
        self.builder.unary(Unary::Softmax, &masked).at(node)
    }

    /// A mask in the shape of the scores, made once for all layers.
    fn stretched(&mut self, node: &Node, mask: &Tensor, shape: &[usize]) -> Made {
        let known =
            self.masks.iter().find(|(from, to)| from.raw() == mask.raw() && *to.shape == *shape);
        if let Some((_, stretched)) = known {
            return Ok(stretched.clone());
        }
        let stretched = self.builder.repeat(mask, shape).at(node)?;
        self.masks.push((mask.clone(), stretched.clone()));
        Ok(stretched)
    }

    fn check_last_axis(&self, node: &Node, x: &Tensor, axis: i64) -> Result<(), Cannot> {
        let rank = x.shape.len();
        match shape::axis(axis, rank) {
            Ok(axis) if axis + 1 == rank => Ok(()),
            _ => Err(Cannot::case(node, format!("axis {axis} is not the last"))),
        }
    }

    fn layer_norm(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        self.check_last_axis(node, &x, node.int("axis", -1))?;
        let scale = self.tensor(node, 1)?;
        let bias = node.input(2).map(|_| self.tensor(node, 2)).transpose()?;
        let epsilon = node.float("epsilon", 1e-5);
        self.builder.layer_norm(&x, &scale, bias.as_ref(), epsilon).at(node)
    }

    fn gather(&mut self, node: &Node) -> Made {
        let table = self.tensor(node, 0)?;
        let axis = shape::axis(node.int("axis", 0), table.shape.len()).at(node)?;
        let extent = table.shape[axis];
        let picked = self.shape(node, 1)?;
        if axis > 0 || table.shape.len() == 1 {
            return self.pick(node, &table, axis);
        }
        let width: usize = table.shape[1..].iter().product();
        let flat = self.builder.reshape(&table, &[extent, width]).at(node)?;
        let indices = self.indices(node, 1, extent)?;
        let rows = self.builder.rows(&flat, &indices).at(node)?;
        let shape = [&picked, &table.shape[1..]].concat();
        self.builder.reshape(&rows, &shape).at(node)
    }

    /// One known index along any axis, such as the first token of every text.
    fn pick(&mut self, node: &Node, from: &Tensor, axis: usize) -> Made {
        let several = || Cannot::case(node, format!("it picks several along axis {axis}"));
        let index = self.host(node, 1)?.ok_or_else(several)?;
        let &[at] = index.as_ints().at(node)? else { return Err(several()) };
        let at = shape::axis(at, from.shape[axis]).at(node)?;
        let part = self.builder.part(from, axis, at, 1).at(node)?;
        let shape = [&from.shape[..axis], &index.shape, &from.shape[axis + 1..]].concat();
        self.builder.reshape(&part, &shape).at(node)
    }

    fn concat(&mut self, node: &Node) -> Made {
        let mut whole = self.tensor(node, 0)?;
        let axis = shape::axis(node.int("axis", 0), whole.shape.len()).at(node)?;
        for at in 1..node.inputs.len() {
            let next = self.tensor(node, at)?;
            whole = self.builder.concat(&whole, &next, axis).at(node)?;
        }
        Ok(whole)
    }

    fn slice(&mut self, node: &Node) -> Made {
        let mut x = self.tensor(node, 0)?;
        let lists: Vec<_> =
            (1..node.inputs.len()).map(|at| self.host(node, at)).collect::<Result<_, _>>()?;
        let mut inputs: Vec<Option<&HostTensor>> = vec![None];
        inputs.extend(lists.iter().map(|list| list.as_deref()));
        for cut in evaluate::cuts(node, &inputs, &x.shape).at(node)? {
            if cut.step != 1 {
                return Err(Cannot::case(node, format!("its step is {}", cut.step)));
            }
            if cut.len != x.shape[cut.axis] {
                x = self.builder.part(&x, cut.axis, cut.start, cut.len).at(node)?;
            }
        }
        Ok(x)
    }

    fn split(&mut self, node: &Node) -> Result<Vec<Tensor>, Cannot> {
        let x = self.tensor(node, 0)?;
        let axis = shape::axis(node.int("axis", 0), x.shape.len()).at(node)?;
        let n_parts = node.outputs.len();
        let sizes = match (self.host(node, 1)?, node.ints("split")) {
            (Some(sizes), _) => sizes.as_ints().at(node)?.to_vec(),
            (None, Some(sizes)) => sizes.to_vec(),
            // Equal parts, the last one smaller where they do not divide.
            (None, None) => {
                let each = x.shape[axis].div_ceil(n_parts);
                let part = |at: usize| each.min(x.shape[axis].saturating_sub(at * each)) as i64;
                (0..n_parts).map(part).collect()
            }
        };
        if sizes.len() != n_parts {
            return Err(Cannot::case(node, "it has other sizes than outputs"));
        }
        let mut start = 0;
        let mut parts = Vec::with_capacity(n_parts);
        for size in sizes {
            let size = usize::try_from(size).map_err(|it| Cannot::case(node, it.to_string()))?;
            parts.push(self.builder.part(&x, axis, start, size).at(node)?);
            start += size;
        }
        Ok(parts)
    }

    fn transpose(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        let order = evaluate::permutation(node.ints("perm"), x.shape.len()).at(node)?;
        self.builder.permute(&x, &order).at(node)
    }

    fn reshape(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        let axes = |it: &Self| -> Result<Option<Vec<i64>>, Cannot> {
            let given = it.host(node, 1)?;
            evaluate::axes(node, &[None, given.as_deref()]).at(node)
        };
        let shape = match node.operator.as_str() {
            "Flatten" => evaluate::flattened(node, &x.shape).at(node)?,
            "Squeeze" => evaluate::squeezed(&x.shape, axes(self)?.as_deref()).at(node)?,
            "Unsqueeze" => {
                let axes = axes(self)?.ok_or_else(|| Cannot::case(node, "it has no axes"))?;
                evaluate::unsqueezed(&x.shape, &axes).at(node)?
            }
            _ => {
                let target = self.host(node, 1)?;
                let target = target.ok_or_else(|| Cannot::case(node, "it has no shape"))?;
                let target = target.as_ints().at(node)?;
                shape::reshape(&x.shape, target, node.int("allowzero", 0) != 0).at(node)?
            }
        };
        self.builder.reshape(&x, &shape).at(node)
    }

    fn expand(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        let target = self.host(node, 1)?.ok_or_else(|| Cannot::case(node, "it has no shape"))?;
        let target: Option<Vec<usize>> =
            target.as_ints().at(node)?.iter().map(|&it| usize::try_from(it).ok()).collect();
        let target = target.ok_or_else(|| Cannot::case(node, "an extent is negative"))?;
        let shape = shape::broadcast(&x.shape, &target).at(node)?;
        self.builder.repeat(&x, &shape).at(node)
    }

    fn reduce(&mut self, node: &Node) -> Made {
        let x = self.tensor(node, 0)?;
        let given = self.host(node, 1)?;
        let axes = evaluate::axes(node, &[None, given.as_deref()]).at(node)?;
        let rank = x.shape.len();
        let axes: Vec<usize> = match axes {
            Some(axes) if !axes.is_empty() => axes
                .iter()
                .map(|&axis| shape::axis(axis, rank))
                .collect::<Result<_, _>>()
                .at(node)?,
            _ if node.int("noop_with_empty_axes", 0) != 0 => return Ok(x),
            _ => (0..rank).collect(),
        };
        let (keep, mean) = (node.int("keepdims", 1) != 0, node.operator == "ReduceMean");
        self.reduce_axes(node, &x, &axes, keep, mean)
    }

    /// The sum or the mean over some axes, which are moved to the end and seen as one.
    fn reduce_axes(
        &mut self,
        node: &Node,
        x: &Tensor,
        axes: &[usize],
        keep: bool,
        mean: bool,
    ) -> Made {
        let rank = x.shape.len();
        let kept: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
        let gone: Vec<usize> = (0..rank).filter(|axis| axes.contains(axis)).collect();
        let order = [kept.as_slice(), &gone].concat();
        let moved = self.builder.permute(x, &order).at(node)?;
        let n: usize = gone.iter().map(|&axis| x.shape[axis]).product();
        let rows: usize = kept.iter().map(|&axis| x.shape[axis]).product();
        let flat = self.builder.reshape(&moved, &[rows, n]).at(node)?;
        let reduced = self.builder.reduce_rows(&flat, mean).at(node)?;
        let extent = |axis: usize| if axes.contains(&axis) { 1 } else { x.shape[axis] };
        let shape: Vec<usize> =
            (0..rank).filter(|axis| keep || !axes.contains(axis)).map(extent).collect();
        self.builder.reshape(&reduced, &shape).at(node)
    }
}

/// Operators that are a function of one tensor and nothing else.
fn unary(node: &Node) -> Option<Unary> {
    Some(match node.operator.as_str() {
        "Abs" => Unary::Abs,
        "Neg" => Unary::Neg,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sqrt" => Unary::Sqrt,
        "Sin" => Unary::Sin,
        "Cos" => Unary::Cos,
        "Tanh" => Unary::Tanh,
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Gelu" if node.text("approximate") == Some("tanh") => Unary::GeluTanh,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(OPERATORS.is_sorted(), "{OPERATORS:?}");
        assert!(knows("MatMul") && !knows("Erf") && !knows("Conv"));
    }
}
