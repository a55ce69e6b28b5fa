//! A model made ready to be described in any shape: constants folded, GELU found, weights in place.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ggml_sys::ggml_type;
use shapeyard_core::Model;

use super::cannot::Cannot;
use super::compute::Store;
use super::graph::{Context, Tensor};
use super::host::{HostTensor, Walk, strides};
use super::library::{Engine, Stream};
use super::mapped::Residence;
use super::onnx::{self, Attribute, Node, Program, ValueId};
use super::{evaluate, gguf, operators};

/// The operator that stands for a whole GELU with the error function.
pub(super) const GELU: &str = "shapeyard.GeluErf";

/// The operator that stands for a softmax of scores that are scaled and masked.
pub(super) const MASKED_SOFTMAX: &str = "shapeyard.MaskedSoftmax";

/// The operator that stands for a whole attention: of query, key, value and mask.
pub(super) const ATTENTION: &str = "shapeyard.Attention";

/// The operator that turns a mask of ones and zeros into what is added to scores.
pub(super) const MASK: &str = "shapeyard.Mask";

/// Constants larger than this are weights: once they are in place, the host forgets them.
const LARGEST_ON_HOST: usize = 4096;

/// A model that every lane shares.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) engine: Arc<Engine>,
    pub(super) program: Program,
    pub(super) weights: Weights,
}

/// How a weight lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Layout {
    Plain,
    /// A matrix as ggml multiplies with it.
    Transposed,
}

/// Constants in the device's memory.
#[derive(Debug)]
pub(super) struct Weights {
    /// Keeps the tensors' memory.
    pub(super) _store: Store,
    pub(super) tensors: HashMap<(ValueId, Layout), Tensor>,
    /// As the nodes see them, whatever the layout.
    pub(super) shapes: HashMap<ValueId, Vec<usize>>,
}

impl Weights {
    pub(super) fn tensor(&self, value: ValueId, layout: Layout) -> Option<&Tensor> {
        self.tensors.get(&(value, layout))
    }

    /// The shape of a constant, in any layout.
    pub(super) fn shape(&self, value: ValueId) -> Option<&[usize]> {
        self.shapes.get(&value).map(Vec::as_slice)
    }
}

/// Reads a model and puts its weights in place.
pub(super) fn prepare(
    engine: &Arc<Engine>,
    model: &Model,
    residence: Residence,
) -> Result<Prepared, Cannot> {
    if let Some(file) = model.gguf() {
        return gguf::prepare(engine, model.path(), file, residence);
    }
    let mut program = onnx::read(model)?;
    fold(&mut program)?;
    find_gelu(&mut program);
    find_masked_softmax(&mut program);
    find_attention(&mut program);
    check_operators(&program)?;
    let weights = place(engine, &program).map_err(Cannot::Failed)?;
    let outputs = program.outputs.clone();
    program.constants.retain(|id, constant| {
        constant.len() <= LARGEST_ON_HOST || !constant.is_float() || outputs.contains(id)
    });
    Ok(Prepared { engine: Arc::clone(engine), program, weights })
}

/// Computes what depends on constants alone.
fn fold(program: &mut Program) -> Result<(), Cannot> {
    let mut kept = Vec::with_capacity(program.nodes.len());
    for node in std::mem::take(&mut program.nodes) {
        let constants = &program.constants;
        let known = |input: &Option<ValueId>| input.is_none_or(|id| constants.contains_key(&id));
        if !evaluate::knows(&node.operator) || !node.inputs.iter().all(known) {
            kept.push(node);
            continue;
        }
        let inputs: Vec<Option<&HostTensor>> = node
            .inputs
            .iter()
            .map(|input| input.and_then(|id| constants.get(&id)).map(Arc::as_ref))
            .collect();
        let made = evaluate::evaluate(&node, &inputs).map_err(|it| Cannot::case(&node, it))?;
        program.constants.extend(node.outputs.first().map(|&output| (output, Arc::new(made))));
    }
    program.nodes = kept;
    Ok(())
}

/// The first operator that neither table has.
fn check_operators(program: &Program) -> Result<(), Cannot> {
    let known = |node: &&Node| evaluate::knows(&node.operator) || operators::knows(&node.operator);
    match program.nodes.iter().find(|node| !known(node)) {
        Some(node) => Err(Cannot::operator(node)),
        None => Ok(()),
    }
}

/// Replaces `x * (1 + erf(x / sqrt 2)) / 2`, in whatever order it is multiplied, by one node.
fn find_gelu(program: &mut Program) {
    while let Some((at, gelu, gone)) = next_gelu(program) {
        program.nodes[at] = gelu;
        let mut index = 0;
        program.nodes.retain(|_| {
            index += 1;
            !gone.contains(&(index - 1))
        });
    }
}

/// Where a GELU ends, the node that replaces it, and the nodes that go.
fn next_gelu(program: &Program) -> Option<(usize, Node, Vec<usize>)> {
    let candidates = program.nodes.iter().enumerate().filter(|(_, node)| node.operator == "Erf");
    candidates.into_iter().find_map(|(at, erf)| gelu_around(program, at, erf))
}

fn gelu_around(program: &Program, erf_at: usize, erf: &Node) -> Option<(usize, Node, Vec<usize>)> {
    let graph = Uses { program };
    let (scaled_at, scaled) = graph.maker(erf.input(0)?)?;
    let x = graph.scaled_by(scaled, std::f32::consts::FRAC_1_SQRT_2)?;
    let (raised_at, raised) = graph.only_user(erf.outputs[0])?;
    if raised.operator != "Add" || graph.number(raised, erf.outputs[0])? != 1.0 {
        return None;
    }
    let (product_at, product) = graph.only_user(raised.outputs[0])?;
    if product.operator != "Mul" {
        return None;
    }
    let mut gone = vec![scaled_at, erf_at, raised_at];
    let other = graph.other(product, raised.outputs[0])?;
    let end = if other == x || graph.constant(other) == Some(0.5) {
        gone.push(product_at);
        let wanted = if other == x { None } else { Some(x) };
        let (end_at, end) = graph.only_user(product.outputs[0])?;
        let factor = graph.other(end, product.outputs[0])?;
        let fits = match wanted {
            Some(x) => factor == x,
            None => graph.constant(factor) == Some(0.5),
        };
        (end.operator == "Mul" && fits).then_some((end_at, end))?
    } else {
        let (half_at, half) = graph.maker(other)?;
        (graph.scaled_by(half, 0.5)? == x).then(|| gone.push(half_at))?;
        (product_at, product)
    };
    // What is used elsewhere too has to stay.
    gone.retain(|&at| graph.n_users(program.nodes[at].outputs[0]) <= 1);
    let inputs = vec![Some(x)];
    let operator = GELU.to_owned();
    let gelu = Node { operator, inputs, attributes: HashMap::new(), ..end.1.clone() };
    Some((end.0, gelu, gone))
}

/// Replaces `softmax(scores * scale + mask)` along the last axis by one node, which goes over the scores
/// once instead of three times.
fn find_masked_softmax(program: &mut Program) {
    let graph = Uses { program };
    let found: Vec<_> =
        graph.nodes().filter_map(|(at, it)| masked_softmax(&graph, at, it)).collect();
    replace(program, found);
}

/// Puts nodes in the place of others, and takes out what they stand for besides.
fn replace(program: &mut Program, found: Vec<(usize, Node, [usize; 2])>) {
    let mut gone = Vec::new();
    for (at, node, inner) in found {
        program.nodes[at] = node;
        gone.extend(inner);
    }
    let mut index = 0;
    program.nodes.retain(|_| {
        index += 1;
        !gone.contains(&(index - 1))
    });
}

/// Replaces `softmax(query · key · scale + mask) · value` by one node, which keeps no scores.
pub(super) fn find_attention(program: &mut Program) {
    let graph = Uses { program };
    let found = graph.nodes().filter_map(|(at, it)| attention(&graph, at, it)).collect();
    replace(program, found);
}

fn attention(graph: &Uses<'_>, at: usize, softmax: &Node) -> Option<(usize, Node, [usize; 2])> {
    if softmax.operator != MASKED_SOFTMAX {
        return None;
    }
    let scores = softmax.input(0)?;
    let (scores_at, product) = graph.maker(scores)?;
    let (mixed_at, mixed) = graph.only_user(softmax.outputs[0])?;
    let products = product.operator == "MatMul" && mixed.operator == "MatMul";
    if !products || graph.n_users(scores) != 1 || mixed.input(0)? != softmax.outputs[0] {
        return None;
    }
    let inputs = vec![product.input(0), product.input(1), mixed.input(1), softmax.input(1)];
    let (operator, attributes) = (ATTENTION.to_owned(), softmax.attributes.clone());
    Some((mixed_at, Node { operator, inputs, attributes, ..mixed.clone() }, [at, scores_at]))
}

fn masked_softmax(
    graph: &Uses<'_>,
    at: usize,
    softmax: &Node,
) -> Option<(usize, Node, [usize; 2])> {
    let last = softmax.int("axis", if softmax.opset < 13 { 1 } else { -1 }) == -1;
    if softmax.operator != "Softmax" || !last {
        return None;
    }
    let (masked_at, masked) = graph.maker(softmax.input(0)?)?;
    if masked.operator != "Add" || graph.n_users(masked.outputs[0]) != 1 {
        return None;
    }
    let (scores, mask) = (masked.input(0)?, masked.input(1)?);
    [(scores, mask), (mask, scores)].into_iter().find_map(|(scaled, mask)| {
        let (scaled_at, node) = graph.maker(scaled)?;
        let by = graph.constant(node.input(1)?)?;
        let scale = match node.operator.as_str() {
            "Div" => 1.0 / by,
            "Mul" => by,
            _ => return None,
        };
        if graph.n_users(scaled) != 1 {
            return None;
        }
        let attributes = HashMap::from([("scale".to_owned(), Attribute::Float(scale))]);
        let inputs = vec![node.input(0), Some(mask)];
        let operator = MASKED_SOFTMAX.to_owned();
        let fused = Node { operator, inputs, attributes, ..softmax.clone() };
        Some((at, fused, [masked_at, scaled_at]))
    })
}

/// Who makes and who uses a value.
struct Uses<'a> {
    program: &'a Program,
}

impl<'a> Uses<'a> {
    fn nodes(&self) -> impl Iterator<Item = (usize, &'a Node)> + use<'a> {
        self.program.nodes.iter().enumerate()
    }

    fn maker(&self, value: ValueId) -> Option<(usize, &'a Node)> {
        self.nodes().find(|(_, node)| node.outputs.contains(&value))
    }

    fn n_users(&self, value: ValueId) -> usize {
        let uses = |node: &Node| node.inputs.iter().filter(|it| **it == Some(value)).count();
        let outside = self.program.outputs.iter().filter(|it| **it == value).count();
        self.nodes().map(|(_, node)| uses(node)).sum::<usize>() + outside
    }

    fn only_user(&self, value: ValueId) -> Option<(usize, &'a Node)> {
        if self.n_users(value) != 1 {
            return None;
        }
        self.nodes().find(|(_, node)| node.inputs.contains(&Some(value)))
    }

    fn constant(&self, value: ValueId) -> Option<f32> {
        self.program.constants.get(&value)?.scalar()
    }

    /// The input of a node of two that is not `one`.
    fn other(&self, node: &Node, one: ValueId) -> Option<ValueId> {
        match (node.input(0)?, node.input(1)?) {
            (a, b) if a == one => Some(b),
            (a, b) if b == one => Some(a),
            _ => None,
        }
    }

    fn number(&self, node: &Node, one: ValueId) -> Option<f32> {
        self.constant(self.other(node, one)?)
    }

    /// What a node multiplies by `factor`, or divides by its inverse.
    fn scaled_by(&self, node: &Node, factor: f32) -> Option<ValueId> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        let near = |found: f32, wanted: f32| (found - wanted).abs() <= 1e-6 * wanted.abs();
        match (node.operator.as_str(), self.constant(a), self.constant(b)) {
            ("Mul", None, Some(by)) if near(by, factor) => Some(a),
            ("Mul", Some(by), None) if near(by, factor) => Some(b),
            ("Div", None, Some(by)) if near(by, 1.0 / factor) => Some(a),
            _ => None,
        }
    }
}

/// Every use of a float constant that a node has on the device.
fn uses(program: &Program) -> Vec<(ValueId, Layout)> {
    let mut uses = Vec::new();
    for node in &program.nodes {
        for (at, input) in node.inputs.iter().enumerate() {
            let Some(id) = *input else { continue };
            let Some(constant) = program.constants.get(&id) else { continue };
            let key = (id, layout(node, at, constant));
            // A single number becomes part of the operator.
            if constant.is_float() && constant.len() > 1 && !uses.contains(&key) {
                uses.push(key);
            }
        }
    }
    uses
}

fn layout(node: &Node, at: usize, constant: &HostTensor) -> Layout {
    let right = at == 1 && constant.shape.len() == 2;
    match node.operator.as_str() {
        "MatMul" if right => Layout::Transposed,
        "Gemm" if right && node.int("transB", 0) == 0 => Layout::Transposed,
        _ => Layout::Plain,
    }
}

fn place(engine: &Arc<Engine>, program: &Program) -> Result<Weights, String> {
    let uses = uses(program);
    let context = Context::new(engine, uses.len(), 0)?;
    let stream = Stream::new(engine, NonZeroUsize::MIN)?;
    let mut tensors = HashMap::new();
    let mut shapes = HashMap::new();
    for &(id, layout) in &uses {
        let mut shape = program.constants[&id].shape.clone();
        shapes.insert(id, shape.clone());
        if layout == Layout::Transposed {
            shape.reverse();
        }
        let leaf = context.leaf(ggml_type::F32, &shape).map_err(|it| it.to_string())?;
        tensors.insert((id, layout), leaf);
    }
    let store = Store::new(context, &stream, uses.len())?;
    for ((id, layout), leaf) in &tensors {
        let constant = &program.constants[id];
        let values = constant.as_floats().unwrap_or_default();
        match layout {
            Layout::Plain => store.write(leaf, values)?,
            Layout::Transposed => store.write(leaf, &transposed(values, &constant.shape))?,
        }
    }
    Ok(Weights { _store: store, tensors, shapes })
}

fn transposed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut steps = strides(shape);
    steps.reverse();
    let turned: Vec<usize> = shape.iter().rev().copied().collect();
    Walk::new(&turned, steps, 0).map(|at| values[at]).collect()
}
