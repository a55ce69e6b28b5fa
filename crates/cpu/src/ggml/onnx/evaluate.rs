//! Operators on the host, for what a graph computes of shapes, positions and masks.

use shapeyard_core::DataType;

use super::host::{HostData, HostTensor, never, room};
use super::program::{Attribute, Node};
use crate::ggml::context::Refusal;
use crate::ggml::shape::{self, Walk, broadcast, stretched, strides};

/// Inputs in the node's order; `None` for one that is left out.
pub(crate) type Inputs<'a> = [Option<&'a HostTensor>];

type Made = Result<HostTensor, Refusal>;

/// Whether the host has this operator.
pub(crate) fn knows(operator: &str) -> bool {
    OPERATORS.binary_search(&operator).is_ok()
}

/// Sorted, to be searched.
pub(crate) const OPERATORS: [&str; 39] = [
    "Abs",
    "Add",
    "And",
    "Cast",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Cos",
    "CumSum",
    "Div",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Greater",
    "GreaterOrEqual",
    "Identity",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Neg",
    "Not",
    "Or",
    "Pow",
    "Range",
    "ReduceMax",
    "ReduceMin",
    "ReduceSum",
    "Reshape",
    "Sin",
    "Slice",
    "Squeeze",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Inputs that decide the shape of what comes out, by position from the one given on.
pub(crate) fn first_shape_input(operator: &str) -> usize {
    match operator {
        "ConstantOfShape" | "Range" => 0,
        "CumSum" | "Expand" | "ReduceMax" | "ReduceMin" | "ReduceSum" | "Reshape" | "Slice"
        | "Squeeze" | "Unsqueeze" => 1,
        _ => usize::MAX,
    }
}

/// The node's only output.
pub(crate) fn evaluate(node: &Node, inputs: &Inputs<'_>) -> Made {
    let input = |at: usize| {
        let found = inputs.get(at).copied().flatten();
        found.ok_or_else(|| never(format!("input {at} is missing")))
    };
    let one = || input(0);
    match node.operator.as_str() {
        "Identity" => Ok(one()?.clone()),
        "Constant" => constant(node),
        "ConstantOfShape" => constant_of_shape(node, one()?),
        "Cast" => cast(node, one()?),
        "Abs" => map(one()?, i64::wrapping_abs, f32::abs),
        "Neg" => map(one()?, i64::wrapping_neg, |value| -value),
        "Cos" => floats(one()?, f32::cos),
        "Sin" => floats(one()?, f32::sin),
        "Not" => map(one()?, |value| i64::from(value == 0), |value| value),
        "Add" => binary(one()?, input(1)?, i64::checked_add, |a, b| a + b),
        "Sub" => binary(one()?, input(1)?, i64::checked_sub, |a, b| a - b),
        "Mul" => binary(one()?, input(1)?, i64::checked_mul, |a, b| a * b),
        "Div" => binary(one()?, input(1)?, i64::checked_div, |a, b| a / b),
        "Mod" if node.int("fmod", 0) == 0 => {
            let floored = |a: i64, b: i64| {
                a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
            };
            binary(one()?, input(1)?, floored, |a, b| a - b * (a / b).floor())
        }
        "Pow" => binary(one()?, input(1)?, power, f32::powf),
        "Max" => fold(inputs, |a, b| Some(a.max(b)), f32::max),
        "Min" => fold(inputs, |a, b| Some(a.min(b)), f32::min),
        "And" => compare(one()?, input(1)?, |a, b| a != 0 && b != 0, |_, _| false),
        "Or" => compare(one()?, input(1)?, |a, b| a != 0 || b != 0, |_, _| false),
        "Equal" => compare(one()?, input(1)?, |a, b| a == b, |a, b| a == b),
        "Less" => compare(one()?, input(1)?, |a, b| a < b, |a, b| a < b),
        "LessOrEqual" => compare(one()?, input(1)?, |a, b| a <= b, |a, b| a <= b),
        "Greater" => compare(one()?, input(1)?, |a, b| a > b, |a, b| a > b),
        "GreaterOrEqual" => compare(one()?, input(1)?, |a, b| a >= b, |a, b| a >= b),
        "Where" => choose(one()?, input(1)?, input(2)?),
        "Reshape" => {
            let target = input(1)?.as_ints()?;
            let shape = shape::reshape(&one()?.shape, target, node.int("allowzero", 0) != 0)?;
            Ok(one()?.reshaped(shape))
        }
        "Flatten" => Ok(one()?.reshaped(flattened(node, &one()?.shape)?)),
        "Unsqueeze" => {
            let axes = axes(node, inputs)?.ok_or_else(|| never("it has no axes"))?;
            Ok(one()?.reshaped(unsqueezed(&one()?.shape, &axes)?))
        }
        "Squeeze" => Ok(one()?.reshaped(squeezed(&one()?.shape, axes(node, inputs)?.as_deref())?)),
        "Expand" => expand(one()?, input(1)?.as_ints()?),
        "Transpose" => transpose(one()?, node.ints("perm")),
        "Concat" => concat(node, inputs),
        "Slice" => slice(node, inputs),
        "Gather" => gather(one()?, input(1)?, node.int("axis", 0)),
        "Range" => range(one()?, input(1)?, input(2)?),
        "CumSum" => cumulate(node, one()?, input(1)?.as_ints()?),
        "ReduceSum" => reduce(node, inputs, i64::checked_add, |a, b| a + b),
        "ReduceMax" => reduce(node, inputs, |a, b| Some(a.max(b)), f32::max),
        "ReduceMin" => reduce(node, inputs, |a, b| Some(a.min(b)), f32::min),
        "Mod" => Err(never("only the remainder with the divisor's sign is computed")),
        other => Err(never(format!("the host has no `{other}`"))),
    }
}

/// Axes as an input (newer operator sets) or as an attribute.
pub(crate) fn axes(node: &Node, inputs: &Inputs<'_>) -> Result<Option<Vec<i64>>, Refusal> {
    match inputs.get(1).copied().flatten() {
        Some(axes) => Ok(Some(axes.as_ints()?.to_vec())),
        None => Ok(node.ints("axes").map(<[i64]>::to_vec)),
    }
}

pub(crate) fn unsqueezed(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>, String> {
    let rank = shape.len() + axes.len();
    let new: Vec<usize> = axes.iter().map(|&it| shape::axis(it, rank)).collect::<Result<_, _>>()?;
    let mut old = shape.iter().copied();
    let extent = |axis: usize| if new.contains(&axis) { Some(1) } else { old.next() };
    (0..rank).map(extent).collect::<Option<_>>().ok_or_else(|| "an axis is named twice".to_owned())
}

pub(crate) fn squeezed(shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, String> {
    let Some(axes) = axes else {
        return Ok(shape.iter().copied().filter(|&extent| extent != 1).collect());
    };
    let rank = shape.len();
    let gone: Vec<usize> =
        axes.iter().map(|&it| shape::axis(it, rank)).collect::<Result<_, _>>()?;
    if gone.iter().any(|&axis| shape[axis] != 1) {
        return Err(format!("{shape:?} has other extents than 1 there"));
    }
    Ok((0..rank).filter(|axis| !gone.contains(axis)).map(|axis| shape[axis]).collect())
}

pub(crate) fn flattened(node: &Node, shape: &[usize]) -> Result<Vec<usize>, String> {
    let at = node.int("axis", 1);
    let at = if at == shape.len() as i64 { shape.len() } else { shape::axis(at, shape.len())? };
    Ok(vec![shape[..at].iter().product(), shape[at..].iter().product()])
}

/// The order of axes that `Transpose` makes.
pub(crate) fn permutation(perm: Option<&[i64]>, rank: usize) -> Result<Vec<usize>, String> {
    let Some(perm) = perm else { return Ok((0..rank).rev().collect()) };
    let order: Vec<usize> =
        perm.iter().map(|&it| shape::axis(it, rank)).collect::<Result<_, _>>()?;
    let whole = order.len() == rank && (0..rank).all(|axis| order.contains(&axis));
    if whole { Ok(order) } else { Err(format!("{perm:?} is no order of {rank} axes")) }
}

/// One axis of a `Slice`: from where, how many, how far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) axis: usize,
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) step: i64,
}

pub(crate) fn cuts(node: &Node, inputs: &Inputs<'_>, shape: &[usize]) -> Result<Vec<Cut>, Refusal> {
    let list = |at: usize, name: &str| match inputs.get(at).copied().flatten() {
        Some(given) => Ok::<_, Refusal>(Some(given.as_ints()?.to_vec())),
        None => Ok(node.ints(name).map(<[i64]>::to_vec)),
    };
    let starts = list(1, "starts")?.ok_or_else(|| never("it has no starts"))?;
    let ends = list(2, "ends")?.ok_or_else(|| never("it has no ends"))?;
    let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(never("its lists have different lengths"));
    }
    let parts = starts.iter().zip(&ends).zip(axes.iter().zip(&steps));
    parts
        .map(|((&start, &end), (&axis, &step))| {
            let axis = shape::axis(axis, shape.len())?;
            cut(axis, shape[axis], start, end, step).map_err(Refusal::from)
        })
        .collect()
}

fn cut(axis: usize, extent: usize, start: i64, end: i64, step: i64) -> Result<Cut, String> {
    if step == 0 {
        return Err("its step is 0".to_owned());
    }
    let extent = extent as i64;
    let (low, high) = if step > 0 { (0, extent) } else { (-1, extent - 1) };
    let bound = |at: i64| {
        let at = if at < 0 { at.saturating_add(extent) } else { at };
        at.clamp(low, high)
    };
    let (start, end) = (bound(start), bound(end));
    let span = if step > 0 { end - start } else { start - end };
    let len = if span <= 0 { 0 } else { (span - 1) / step.saturating_abs() + 1 };
    Ok(Cut { axis, start: start.max(0) as usize, len: len as usize, step })
}

fn slice(node: &Node, inputs: &Inputs<'_>) -> Made {
    let data = inputs.first().copied().flatten().ok_or_else(|| never("it has no data"))?;
    let cuts = cuts(node, inputs, &data.shape)?;
    let (mut shape, mut steps, mut start) = (data.shape.clone(), strides(&data.shape), 0usize);
    for cut in cuts {
        let apart = steps[cut.axis];
        start += cut.start * apart;
        shape[cut.axis] = cut.len;
        // A step backwards wraps around, as the walk does.
        steps[cut.axis] = (cut.step as usize).wrapping_mul(apart);
    }
    let walk = Walk::new(&shape, steps, start);
    Ok(data.picked(shape, walk)?)
}

fn constant(node: &Node) -> Made {
    let attribute = |name: &str| node.attributes.get(name);
    let ints = |values: &[i64], shape| HostTensor::ints(DataType::I64, shape, values.to_vec());
    let named = ["value", "value_int", "value_ints", "value_float", "value_floats"];
    match named.iter().find_map(|name| attribute(name)) {
        Some(Attribute::Tensor(tensor)) => Ok(tensor.as_ref().clone()),
        Some(Attribute::Int(value)) => Ok(ints(&[*value], vec![])),
        Some(Attribute::Ints(values)) => Ok(ints(values, vec![values.len()])),
        Some(Attribute::Float(value)) => Ok(HostTensor::floats(vec![], vec![*value])),
        Some(Attribute::Floats(values)) => {
            Ok(HostTensor::floats(vec![values.len()], values.clone()))
        }
        _ => Err(never("it has no value that is read")),
    }
}

fn constant_of_shape(node: &Node, shape: &HostTensor) -> Made {
    let shape = extents(shape.as_ints()?)?;
    let zero = HostTensor::floats(vec![1], vec![0.0]);
    let value = match node.attributes.get("value") {
        Some(Attribute::Tensor(value)) => value.as_ref(),
        _ => &zero,
    };
    let n_elements = room(&shape, 0)?;
    Ok(value.picked(shape, std::iter::repeat_n(0, n_elements))?)
}

fn extents(values: &[i64]) -> Result<Vec<usize>, String> {
    let shape: Option<Vec<usize>> = values.iter().map(|&it| usize::try_from(it).ok()).collect();
    shape.ok_or_else(|| format!("{values:?} is no shape"))
}

/// The shape to which tensors are stretched, if the host has room for it.
fn together(a: &HostTensor, b: &HostTensor) -> Result<Vec<usize>, String> {
    let shape = broadcast(&a.shape, &b.shape)?;
    room(&shape, a.len().max(b.len()))?;
    Ok(shape)
}

/// The type that a `Cast` makes, by ONNX's number.
pub(crate) fn cast_type(node: &Node) -> Result<DataType, Refusal> {
    match node.int("to", 0) {
        1 => Ok(DataType::F32),
        6 => Ok(DataType::I32),
        7 => Ok(DataType::I64),
        9 => Ok(DataType::Bool),
        other => Err(never(format!("type number {other} is not made"))),
    }
}

fn cast(node: &Node, from: &HostTensor) -> Made {
    let dtype = cast_type(node)?;
    let data = match (&from.data, dtype) {
        (HostData::Ints(values), DataType::F32) => {
            HostData::Floats(values.iter().map(|&value| value as f32).collect())
        }
        (HostData::Floats(_), DataType::F32) => from.data.clone(),
        (HostData::Ints(values), DataType::Bool) => {
            HostData::Ints(values.iter().map(|&value| i64::from(value != 0)).collect())
        }
        (HostData::Floats(values), DataType::Bool) => {
            HostData::Ints(values.iter().map(|&value| i64::from(value != 0.0)).collect())
        }
        (HostData::Ints(values), DataType::I32) => {
            HostData::Ints(values.iter().map(|&value| i64::from(value as i32)).collect())
        }
        (HostData::Ints(_), _) => from.data.clone(),
        (HostData::Floats(values), _) => {
            HostData::Ints(values.iter().map(|&value| value as i64).collect())
        }
    };
    Ok(HostTensor { dtype, shape: from.shape.clone(), data })
}

fn map(from: &HostTensor, int: impl Fn(i64) -> i64, float: impl Fn(f32) -> f32) -> Made {
    let data = match &from.data {
        HostData::Ints(values) => HostData::Ints(values.iter().copied().map(int).collect()),
        HostData::Floats(values) => HostData::Floats(values.iter().copied().map(float).collect()),
    };
    Ok(HostTensor { data, ..HostTensor::ints(from.dtype, from.shape.clone(), Vec::new()) })
}

fn floats(from: &HostTensor, function: impl Fn(f32) -> f32) -> Made {
    let values = from.as_floats().ok_or_else(|| never("it gets integers"))?;
    let values = values.iter().copied().map(function).collect();
    Ok(HostTensor::floats(from.shape.clone(), values))
}

fn power(base: i64, exponent: i64) -> Option<i64> {
    base.checked_pow(u32::try_from(exponent).ok()?)
}

fn binary(
    a: &HostTensor,
    b: &HostTensor,
    int: impl Fn(i64, i64) -> Option<i64>,
    float: impl Fn(f32, f32) -> f32,
) -> Made {
    let shape = together(a, b)?;
    let places = stretched(&a.shape, &shape).zip(stretched(&b.shape, &shape));
    let data = match (&a.data, &b.data) {
        (HostData::Ints(a), HostData::Ints(b)) => {
            let values: Option<_> = places.map(|(i, j)| int(a[i], b[j])).collect();
            HostData::Ints(values.ok_or("an integer overflows or is divided by 0")?)
        }
        (HostData::Floats(a), HostData::Floats(b)) => {
            HostData::Floats(places.map(|(i, j)| float(a[i], b[j])).collect())
        }
        _ => return Err(never("it gets integers and floats")),
    };
    Ok(HostTensor { dtype: a.dtype, shape, data })
}

fn fold(
    inputs: &Inputs<'_>,
    int: impl Fn(i64, i64) -> Option<i64>,
    float: impl Fn(f32, f32) -> f32,
) -> Made {
    let mut given = inputs.iter().flatten();
    let first = (*given.next().ok_or_else(|| never("it has no input"))?).clone();
    given.try_fold(first, |so_far, next| binary(&so_far, next, &int, &float))
}

fn compare(
    a: &HostTensor,
    b: &HostTensor,
    int: impl Fn(i64, i64) -> bool,
    float: impl Fn(f32, f32) -> bool,
) -> Made {
    let shape = together(a, b)?;
    let places = stretched(&a.shape, &shape).zip(stretched(&b.shape, &shape));
    let values = match (&a.data, &b.data) {
        (HostData::Ints(a), HostData::Ints(b)) => {
            places.map(|(i, j)| int(a[i], b[j]).into()).collect()
        }
        (HostData::Floats(a), HostData::Floats(b)) => {
            places.map(|(i, j)| float(a[i], b[j]).into()).collect()
        }
        _ => return Err(never("it gets integers and floats")),
    };
    Ok(HostTensor::ints(DataType::Bool, shape, values))
}

fn choose(condition: &HostTensor, yes: &HostTensor, no: &HostTensor) -> Made {
    let shape = broadcast(&broadcast(&condition.shape, &yes.shape)?, &no.shape)?;
    room(&shape, condition.len().max(yes.len()).max(no.len()))?;
    let condition_at = stretched(&condition.shape, &shape);
    let places = stretched(&yes.shape, &shape).zip(stretched(&no.shape, &shape));
    let chosen = condition.as_ints()?;
    let all = condition_at.zip(places).map(|(at, places)| (chosen[at] != 0, places));
    let data = match (&yes.data, &no.data) {
        (HostData::Ints(yes), HostData::Ints(no)) => {
            HostData::Ints(all.map(|(it, (i, j))| if it { yes[i] } else { no[j] }).collect())
        }
        (HostData::Floats(yes), HostData::Floats(no)) => {
            HostData::Floats(all.map(|(it, (i, j))| if it { yes[i] } else { no[j] }).collect())
        }
        _ => return Err(never("it gets integers and floats")),
    };
    Ok(HostTensor { dtype: yes.dtype, shape, data })
}

fn expand(from: &HostTensor, target: &[i64]) -> Made {
    let shape = broadcast(&from.shape, &extents(target)?)?;
    let places = stretched(&from.shape, &shape);
    Ok(from.picked(shape, places)?)
}

fn transpose(from: &HostTensor, perm: Option<&[i64]>) -> Made {
    let order = permutation(perm, from.shape.len())?;
    let own = strides(&from.shape);
    let shape: Vec<usize> = order.iter().map(|&axis| from.shape[axis]).collect();
    let walk = Walk::new(&shape, order.iter().map(|&axis| own[axis]).collect(), 0);
    Ok(from.picked(shape, walk)?)
}

fn concat(node: &Node, inputs: &Inputs<'_>) -> Made {
    let parts: Vec<&HostTensor> = inputs.iter().copied().flatten().collect();
    let first = parts.first().ok_or_else(|| never("it has no input"))?;
    let axis = shape::axis(node.int("axis", 0), first.shape.len())?;
    let outer: usize = first.shape[..axis].iter().product();
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for part in &parts {
        let alike = part.shape.len() == shape.len()
            && (0..shape.len()).all(|it| it == axis || part.shape[it] == first.shape[it]);
        if !alike || part.is_float() != first.is_float() {
            return Err("its parts do not fit each other".into());
        }
        shape[axis] += part.shape[axis];
    }
    room(&shape, 0)?;
    let rows = (0..outer).flat_map(|row| parts.iter().map(move |part| (row, *part)));
    let mut data = match first.data {
        HostData::Ints(_) => HostData::Ints(Vec::new()),
        HostData::Floats(_) => HostData::Floats(Vec::new()),
    };
    for (row, part) in rows {
        let width = part.shape[axis..].iter().product::<usize>();
        let span = row * width..(row + 1) * width;
        match (&mut data, &part.data) {
            (HostData::Ints(all), HostData::Ints(some)) => all.extend_from_slice(&some[span]),
            (HostData::Floats(all), HostData::Floats(some)) => all.extend_from_slice(&some[span]),
            _ => return Err(never("it gets integers and floats")),
        }
    }
    Ok(HostTensor { dtype: first.dtype, shape, data })
}

fn gather(from: &HostTensor, indices: &HostTensor, axis: i64) -> Made {
    let axis = shape::axis(axis, from.shape.len())?;
    let extent = from.shape[axis];
    let inner: usize = from.shape[axis + 1..].iter().product();
    let outer: usize = from.shape[..axis].iter().product();
    let wrapped: Vec<usize> = indices
        .as_ints()?
        .iter()
        .map(|&index| shape::axis(index, extent))
        .collect::<Result<_, _>>()?;
    let shape = [&from.shape[..axis], &indices.shape, &from.shape[axis + 1..]].concat();
    let rows = (0..outer).flat_map(|row| wrapped.iter().map(move |&index| row * extent + index));
    Ok(from.picked(shape, rows.flat_map(|row| row * inner..(row + 1) * inner))?)
}

fn range(start: &HostTensor, limit: &HostTensor, delta: &HostTensor) -> Made {
    let one = |tensor: &HostTensor| match tensor.as_ints()? {
        &[value] => Ok(value),
        _ => Err(Refusal::from("its bounds are no single numbers")),
    };
    let (start, limit, delta) = (one(start)?, one(limit)?, one(delta)?);
    let span = limit.checked_sub(start).ok_or("its bounds are too far apart")?;
    let n = match delta {
        0 => return Err("its step is 0".into()),
        delta if (span > 0) == (delta > 0) && span != 0 => {
            (span.unsigned_abs() - 1) / delta.unsigned_abs() + 1
        }
        _ => 0,
    };
    let shape = vec![n as usize];
    room(&shape, 0)?;
    let values = (0..n as i64).map(|at| start + at * delta).collect();
    Ok(HostTensor::ints(DataType::I64, shape, values))
}

fn cumulate(node: &Node, from: &HostTensor, axis: &[i64]) -> Made {
    if node.int("exclusive", 0) != 0 || node.int("reverse", 0) != 0 {
        return Err(never(
            "only sums from the first element on are computed, that element included",
        ));
    }
    let axis = shape::axis(axis.first().copied().unwrap_or(0), from.shape.len())?;
    let apart = strides(&from.shape)[axis];
    let mut result = from.clone();
    let has_before = |at: usize| !(at / apart).is_multiple_of(from.shape[axis]);
    match &mut result.data {
        HostData::Ints(values) => {
            for at in (0..values.len()).filter(|&at| has_before(at)) {
                values[at] = values[at].wrapping_add(values[at - apart]);
            }
        }
        HostData::Floats(values) => {
            for at in (0..values.len()).filter(|&at| has_before(at)) {
                values[at] += values[at - apart];
            }
        }
    }
    Ok(result)
}

fn reduce(
    node: &Node,
    inputs: &Inputs<'_>,
    int: impl Fn(i64, i64) -> Option<i64>,
    float: impl Fn(f32, f32) -> f32,
) -> Made {
    let mut so_far =
        inputs.first().copied().flatten().ok_or_else(|| never("it has no data"))?.clone();
    let rank = so_far.shape.len();
    let gone: Vec<usize> = match axes(node, inputs)? {
        Some(axes) if !axes.is_empty() => {
            axes.iter().map(|&it| shape::axis(it, rank)).collect::<Result<_, _>>()?
        }
        _ if node.int("noop_with_empty_axes", 0) != 0 => return Ok(so_far),
        _ => (0..rank).collect(),
    };
    for &axis in &gone {
        so_far = reduce_axis(&so_far, axis, &int, &float)?;
    }
    if node.int("keepdims", 1) == 0 {
        let kept = (0..rank).filter(|axis| !gone.contains(axis));
        so_far.shape = kept.map(|axis| so_far.shape[axis]).collect();
    }
    Ok(so_far)
}

/// Folds the slices along an axis into one, of extent 1.
fn reduce_axis(
    from: &HostTensor,
    axis: usize,
    int: &impl Fn(i64, i64) -> Option<i64>,
    float: &impl Fn(f32, f32) -> f32,
) -> Made {
    let mut shape = from.shape.clone();
    shape[axis] = 1;
    let layer = |at: usize| {
        let apart = strides(&from.shape);
        let walk = Walk::new(&shape, apart.clone(), at * apart[axis]);
        from.picked(shape.clone(), walk)
    };
    let mut layers = (0..from.shape[axis]).map(layer);
    let first = layers.next().ok_or("there is nothing to reduce")??;
    layers.try_fold(first, |so_far, next| binary(&so_far, &next?, int, float))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, attributes: &[(&str, Attribute)]) -> Node {
        Node {
            operator: operator.to_owned(),
            name: String::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: attributes
                .iter()
                .map(|(name, it)| ((*name).to_owned(), it.clone()))
                .collect(),
            opset: 17,
        }
    }

    fn ints(shape: &[usize], values: &[i64]) -> HostTensor {
        HostTensor::ints(DataType::I64, shape.to_vec(), values.to_vec())
    }

    fn made(node: &Node, inputs: &[&HostTensor]) -> HostTensor {
        let inputs: Vec<_> = inputs.iter().map(|&it| Some(it)).collect();
        evaluate(node, &inputs).unwrap()
    }

    #[test]
    fn the_table_is_sorted_and_every_operator_in_it_is_computed() {
        assert!(OPERATORS.is_sorted());
        for operator in OPERATORS {
            let said = evaluate(&node(operator, &[]), &[]);
            assert!(!format!("{said:?}").contains("the host has no"), "{operator}");
        }
    }

    #[test]
    fn slices_count_from_both_ends() {
        let data = ints(&[5], &[0, 1, 2, 3, 4]);
        let cut = |start, end, step| {
            let bounds =
                [ints(&[1], &[start]), ints(&[1], &[end]), ints(&[1], &[0]), ints(&[1], &[step])];
            let [start, end, axes, steps] = &bounds;
            made(&node("Slice", &[]), &[&data, start, end, axes, steps]).as_ints().unwrap().to_vec()
        };
        assert_eq!(cut(1, 3, 1), [1, 2]);
        assert_eq!(cut(-2, i64::MAX, 1), [3, 4]);
        assert_eq!(cut(-1, i64::MIN, -2), [4, 2, 0]);
        assert_eq!(cut(3, 1, 1), [0; 0]);
    }

    #[test]
    fn masks_are_made_as_in_onnx() {
        let mask = ints(&[2, 2], &[1, 0, 1, 1]);
        let zero = ints(&[], &[0]);
        let padding = made(&node("Equal", &[]), &[&mask, &zero]);
        let low = HostTensor::floats(vec![], vec![-9.0]);
        let high = HostTensor::floats(vec![1], vec![0.0]);
        let chosen = made(&node("Where", &[]), &[&padding, &low, &high]);
        assert_eq!(chosen.as_floats().unwrap(), [0.0, -9.0, 0.0, 0.0]);
        let sums = made(
            &node("ReduceSum", &[("keepdims", Attribute::Int(0))]),
            &[&mask, &ints(&[1], &[1])],
        );
        assert_eq!(sums, ints(&[2], &[1, 2]));
        let sums = made(&node("CumSum", &[]), &[&mask, &ints(&[], &[1])]);
        assert_eq!(sums, ints(&[2, 2], &[1, 1, 1, 2]));
    }

    #[test]
    fn an_empty_list_of_axes_means_all_unless_it_means_none() {
        let data = ints(&[2, 2], &[1, 2, 3, 4]);
        let none = ints(&[0], &[]);
        let sum = |attributes: &[(&str, Attribute)], inputs: &[&HostTensor]| {
            made(&node("ReduceSum", attributes), inputs)
        };
        let noop = [("noop_with_empty_axes", Attribute::Int(1))];
        assert_eq!(sum(&[], &[&data, &none]), ints(&[1, 1], &[10]));
        assert_eq!(sum(&[], &[&data]), ints(&[1, 1], &[10]));
        assert_eq!(sum(&noop, &[&data, &none]), data);
        assert_eq!(sum(&noop, &[&data]), data);
    }

    #[test]
    fn ranges_between_the_ends_of_integers_are_counted_right() {
        let range = |start: i64, limit: i64, delta: i64| {
            let bounds = [start, limit, delta].map(|value| ints(&[], &[value]));
            let inputs: Vec<_> = bounds.iter().map(Some).collect();
            evaluate(&node("Range", &[]), &inputs).map(|made| made.as_ints().unwrap().to_vec())
        };
        assert_eq!(range(0, i64::MIN, i64::MIN), Ok(vec![0]));
        assert_eq!(range(-1, i64::MIN, i64::MIN), Ok(vec![-1]));
        assert_eq!(range(3, 0, -2), Ok(vec![3, 1]));
        range(0, i64::MIN, -1).unwrap_err();
        range(1, i64::MIN, -1).unwrap_err();
    }

    #[test]
    fn what_moves_elements_keeps_them() {
        let data = ints(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let turned = made(&node("Transpose", &[]), &[&data]);
        assert_eq!(turned, ints(&[3, 2], &[0, 3, 1, 4, 2, 5]));
        let rows =
            made(&node("Gather", &[("axis", Attribute::Int(1))]), &[&data, &ints(&[2], &[-1, 0])]);
        assert_eq!(rows, ints(&[2, 2], &[2, 0, 5, 3]));
        let twice = made(&node("Concat", &[("axis", Attribute::Int(1))]), &[&data, &data]);
        assert_eq!(twice.as_ints().unwrap()[..6], [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn nonsense_is_an_error() {
        let data = ints(&[3], &[i64::MAX, 1, 0]);
        let all: Vec<_> = vec![Some(&data), Some(&data), Some(&data)];
        for operator in ["Add", "Div", "Range", "Slice", "Expand", "Reshape", "Gather", "Unsqueeze"]
        {
            assert!(evaluate(&node(operator, &[]), &all).is_err(), "{operator}");
        }
    }
}
