//! The constants of an ONNX graph where a device computes.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use ggml_sys::ggml_type;

use super::host::HostTensor;
use super::program::{Node, Program, ValueId};
use crate::ggml::cannot::Cannot;
use crate::ggml::context::{Context, Tensor};
use crate::ggml::kernels::product::{PANEL, panels};
use crate::ggml::layers::{Layout, Matrix};
use crate::ggml::library::Engine;
use crate::ggml::shape::{Walk, strides};
use crate::ggml::store::Store;
use crate::ggml::stream::Stream;

/// Constants in the device's memory.
#[derive(Debug)]
pub(crate) struct Weights {
    /// Keeps the tensors' memory.
    _store: Store,
    /// As nodes have them.
    tensors: HashMap<ValueId, Tensor>,
    /// As rows are multiplied with them.
    matrices: HashMap<ValueId, Matrix>,
    /// As nodes see them, whatever they are held as.
    shapes: HashMap<ValueId, Vec<usize>>,
}

impl Weights {
    pub(crate) fn tensor(&self, value: ValueId) -> Option<&Tensor> {
        self.tensors.get(&value)
    }

    /// A matrix that rows are multiplied with.
    pub(crate) fn matrix(&self, value: ValueId) -> Option<&Matrix> {
        self.matrices.get(&value)
    }

    /// The shape of a constant, whatever it is held as.
    pub(crate) fn shape(&self, value: ValueId) -> Option<&[usize]> {
        self.shapes.get(&value).map(Vec::as_slice)
    }
}

/// How a node uses a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Tensor,
    /// Rows are multiplied with it: `[inputs, outputs]`.
    Matrix,
}

/// Every use of a float constant that a node has on the device.
fn uses(program: &Program) -> Vec<(ValueId, Use)> {
    let mut uses = Vec::new();
    for node in &program.nodes {
        for (at, input) in node.inputs.iter().enumerate() {
            let Some(id) = *input else { continue };
            let Some(constant) = program.constants.get(&id) else { continue };
            let key = (id, use_of(node, at, constant));
            // A single number becomes part of the operator.
            if constant.is_float() && constant.len() > 1 && !uses.contains(&key) {
                uses.push(key);
            }
        }
    }
    uses
}

fn use_of(node: &Node, at: usize, constant: &HostTensor) -> Use {
    let right = at == 1 && constant.shape.len() == 2;
    match node.operator.as_str() {
        "MatMul" if right => Use::Matrix,
        "Gemm" if right && node.int("transB", 0) == 0 => Use::Matrix,
        _ => Use::Tensor,
    }
}

/// Puts constants where nodes find them.
pub(crate) fn place(engine: &Arc<Engine>, program: &Program) -> Result<Weights, Cannot> {
    let uses = uses(program);
    let context = Context::new(engine, uses.len(), 0)?;
    let stream = Stream::new(engine, NonZeroUsize::MIN)?;
    let (mut tensors, mut matrices) = (HashMap::new(), HashMap::new());
    let mut shapes = HashMap::new();
    let leaf = |shape: &[usize]| context.leaf(ggml_type::F32, shape);
    for &(id, kind) in &uses {
        let shape = &program.constants[&id].shape;
        shapes.insert(id, shape.clone());
        match (kind, shape.as_slice()) {
            (Use::Matrix, &[n_inputs, n_outputs]) => {
                let layout = if engine.is_processor() { Layout::Panels } else { Layout::Rows };
                let tensor = match layout {
                    Layout::Panels => leaf(&[n_outputs.div_ceil(PANEL), n_inputs, PANEL])?,
                    Layout::Rows => leaf(&[n_outputs, n_inputs])?,
                };
                matrices.insert(id, Matrix { tensor, layout, n_inputs, n_outputs });
            }
            _ => drop(tensors.insert(id, leaf(shape)?)),
        }
    }
    let store = Store::new(context, &stream, uses.len(), None)?;
    for (id, tensor) in &tensors {
        store.write(tensor, program.constants[id].as_floats().unwrap_or_default())?;
    }
    for (id, matrix) in &matrices {
        let constant = &program.constants[id];
        let rows = transposed(constant.as_floats().unwrap_or_default(), &constant.shape);
        match matrix.layout {
            Layout::Panels => store.write(&matrix.tensor, &panels(&rows, matrix.n_inputs))?,
            Layout::Rows => store.write(&matrix.tensor, &rows)?,
        }
    }
    Ok(Weights { _store: store, tensors, matrices, shapes })
}

fn transposed(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut steps = strides(shape);
    steps.reverse();
    let turned: Vec<usize> = shape.iter().rev().copied().collect();
    Walk::new(&turned, steps, 0).map(|at| values[at]).collect()
}
