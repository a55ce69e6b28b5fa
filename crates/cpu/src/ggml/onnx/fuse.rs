//! Finding what several nodes compute together, and putting one node in their place.

use std::collections::HashMap;

use super::program::{Attribute, Node, Program, ValueId};

/// The operator that stands for a whole GELU with the error function.
pub(crate) const GELU: &str = "shapeyard.GeluErf";

/// The operator that stands for a softmax of scores that are scaled and masked.
pub(crate) const MASKED_SOFTMAX: &str = "shapeyard.MaskedSoftmax";

/// The operator that stands for a whole attention: of query, key, value and mask.
pub(crate) const ATTENTION: &str = "shapeyard.Attention";

/// Replaces all that is known.
pub(crate) fn fuse(program: &mut Program) {
    find_gelu(program);
    find_masked_softmax(program);
    find_attention(program);
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
    let (raised_at, raised) = graph.only_user(erf.output()?)?;
    if raised.operator != "Add" || graph.number(raised, erf.output()?)? != 1.0 {
        return None;
    }
    let (product_at, product) = graph.only_user(raised.output()?)?;
    if product.operator != "Mul" {
        return None;
    }
    let mut gone = vec![scaled_at, erf_at, raised_at];
    let other = graph.other(product, raised.output()?)?;
    let end = if other == x || graph.constant(other) == Some(0.5) {
        gone.push(product_at);
        let wanted = if other == x { None } else { Some(x) };
        let (end_at, end) = graph.only_user(product.output()?)?;
        let factor = graph.other(end, product.output()?)?;
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
    gone.retain(|&at| program.nodes[at].output().is_none_or(|made| graph.n_users(made) <= 1));
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
fn find_attention(program: &mut Program) {
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
    let (mixed_at, mixed) = graph.only_user(softmax.output()?)?;
    let products = product.operator == "MatMul" && mixed.operator == "MatMul";
    if !products || graph.n_users(scores) != 1 || mixed.input(0)? != softmax.output()? {
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
    if masked.operator != "Add" || graph.n_users(masked.output()?) != 1 {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ggml::onnx::host::HostTensor;

    fn node(operator: &str, inputs: &[ValueId], outputs: &[ValueId]) -> Node {
        Node {
            operator: operator.to_owned(),
            name: String::new(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: outputs.to_vec(),
            attributes: HashMap::new(),
            opset: 17,
        }
    }

    fn program(nodes: Vec<Node>, constants: &[(ValueId, f32)]) -> Program {
        let number = |value: f32| Arc::new(HostTensor::floats(vec![], vec![value]));
        let constants = constants.iter().map(|&(id, value)| (id, number(value))).collect();
        Program { nodes, constants, inputs: vec![0], outputs: vec![99] }
    }

    /// `x * (1 + erf(x / sqrt 2)) / 2`, and a softmax with a mask between two products.
    fn fusible() -> Program {
        let nodes = vec![
            node("Mul", &[0, 10], &[1]),
            node("Erf", &[1], &[2]),
            node("Add", &[2, 11], &[3]),
            node("Mul", &[0, 3], &[4]),
            node("Mul", &[4, 12], &[5]),
            node("MatMul", &[5, 20], &[30]),
            node("Mul", &[30, 12], &[31]),
            node("Add", &[31, 21], &[32]),
            node("Softmax", &[32], &[33]),
            node("MatMul", &[33, 22], &[99]),
        ];
        program(nodes, &[(10, std::f32::consts::FRAC_1_SQRT_2), (11, 1.0), (12, 0.5)])
    }

    #[test]
    fn what_belongs_together_becomes_one_node() {
        let mut whole = fusible();
        fuse(&mut whole);
        let operators: Vec<&str> = whole.nodes.iter().map(|node| node.operator.as_str()).collect();
        assert_eq!(operators, [GELU, ATTENTION]);
    }

    #[test]
    fn a_node_without_outputs_is_no_part_of_anything() {
        let n_nodes = fusible().nodes.len();
        for at in 0..n_nodes {
            let mut damaged = fusible();
            damaged.nodes[at].outputs.clear();
            fuse(&mut damaged);
            let is_end = [4, 9].contains(&at);
            assert!(is_end || damaged.nodes.len() > 2, "node {at}");
        }
    }
}
