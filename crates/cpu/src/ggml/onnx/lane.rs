//! One lane through an ONNX graph.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use shapeyard_core::{DataType, Signature, StageTimes, Tensor, TensorView, Tier};

use super::evaluate;
use super::host::{Allowance, HostData, HostTensor};
use super::prepare::Prepared;
use super::program::ValueId;
use super::translate::{self, Described, Fill, Given, Output};
use crate::ggml::computation::Graphs;
use crate::ggml::context::Refusal;
use crate::ggml::inputs::integers;
use crate::ggml::session::Lane;
use crate::ggml::stream::Stream;

#[derive(Debug)]
pub(crate) struct OnnxLane {
    prepared: Arc<Prepared>,
    signature: Arc<Signature>,
    /// By the inputs' ranks and extents. Before the stream, so that they go first.
    graphs: Graphs<Vec<usize>, Described>,
    stream: Stream,
    /// What is written to the graph's leaves, kept from run to run.
    indices: Vec<i32>,
}

/// Integers of a run by value.
type Late = HashMap<ValueId, Arc<HostTensor>>;

impl OnnxLane {
    pub(crate) fn new(
        prepared: Arc<Prepared>,
        signature: Arc<Signature>,
        stream: Stream,
    ) -> Result<Self, String> {
        let graphs = Graphs::new(&stream)?;
        Ok(Self { prepared, signature, graphs, stream, indices: Vec::new() })
    }

    /// Makes the graph for these inputs the one that is computed.
    fn choose(&mut self, inputs: &[TensorView<'_>]) -> Result<Tier, String> {
        let Self { prepared, graphs, stream, .. } = self;
        graphs.choose(
            |key| key.iter().copied().eq(shapes(inputs)),
            |arena| {
                let given: Vec<Given> = inputs.iter().map(given).collect::<Result<_, _>>()?;
                let described = translate::describe(prepared, stream, arena, &given);
                Ok((shapes(inputs).collect(), described.map_err(|error| error.to_string())?))
            },
        )
    }

    /// What the host computes of the request's integers.
    fn late(&self, inputs: &[TensorView<'_>]) -> Result<Late, String> {
        let mut late = Late::new();
        let Some(graph) = self.graphs.chosen().filter(|graph| graph.reads_late()) else {
            return Ok(late);
        };
        for (&id, view) in self.prepared.program.inputs.iter().zip(inputs) {
            if let Given::Late(tensor) = given(view)? {
                late.insert(id, tensor);
            }
        }
        let mut allowance = Allowance::of(late.values().map(|it| it.len()).sum());
        for &at in &graph.late {
            let node = &self.prepared.program.nodes[at];
            let value = |id: &ValueId| late.get(id).or_else(|| graph.known.get(id));
            let given: Vec<_> =
                node.inputs.iter().map(|id| id.as_ref().and_then(value).map(Arc::as_ref)).collect();
            let refused = |reason: Refusal| format!("node `{}`: {reason}", node.name);
            let made = evaluate::evaluate(node, &given).map_err(refused)?;
            allowance.take(made.len()).map_err(refused)?;
            late.extend(node.outputs.first().map(|&id| (id, Arc::new(made))));
        }
        Ok(late)
    }

    fn fill(&mut self, inputs: &[TensorView<'_>], late: &Late) -> Result<(), String> {
        let Self { graphs, indices, .. } = self;
        let Some(graph) = graphs.chosen() else { return Ok(()) };
        let made = |id: &ValueId| late.get(id).ok_or("a value was not made");
        for fill in &graph.fills {
            match fill {
                Fill::Input { input, leaf } => {
                    let copy = copy_if_needed(inputs[*input]);
                    let view = copy.as_ref().map_or(inputs[*input], Tensor::view);
                    let values = view.as_slice::<f32>().map_err(|error| error.to_string())?;
                    graph.leaves.write(leaf, values)?;
                }
                Fill::Floats { value, leaf } => {
                    translate::write(&graph.leaves, leaf, made(value)?.as_ref())?;
                }
                Fill::Rows { value, leaf, n_rows } => {
                    let values = made(value)?.as_ints().map_err(|it| it.to_string())?;
                    translate::rows(values.iter().copied(), *n_rows, indices)?;
                    graph.leaves.write(leaf, indices)?;
                }
                Fill::Tokens { input, leaf, n_rows } => {
                    translate::rows(integers(&inputs[*input])?, *n_rows, indices)?;
                    graph.leaves.write(leaf, indices)?;
                }
            }
        }
        Ok(())
    }

    fn take(&self, late: &Late, slots: &mut [Tensor]) -> Result<(), String> {
        let Some(graph) = self.graphs.chosen() else { return Ok(()) };
        for ((spec, output), slot) in self.signature.outputs.iter().zip(&graph.outputs).zip(slots) {
            let taken = match (output, &graph.computation) {
                (Output::Device(tensor), Some(computation)) if spec.dtype == DataType::F32 => slot
                    .reset(DataType::F32, &tensor.shape)
                    .map_err(|error| error.to_string())
                    .and_then(|()| {
                        let to = slot.as_mut_slice::<f32>().map_err(|error| error.to_string())?;
                        computation.read(tensor, 0, to)
                    }),
                (Output::Late(id), _) => match late.get(id) {
                    Some(value) => store(value, spec.dtype, slot),
                    None => Err("was not made".to_owned()),
                },
                (Output::Host(value), _) => store(value, spec.dtype, slot),
                _ => Err(format!("is f32, the model declares {}", spec.dtype)),
            };
            taken.map_err(|reason| format!("output `{}` {reason}", spec.name))?;
        }
        Ok(())
    }
}

impl Lane for OnnxLane {
    fn run(
        &mut self,
        inputs: &[TensorView<'_>],
        slots: &mut [Tensor],
    ) -> Result<(Tier, StageTimes), String> {
        let start = Instant::now();
        let tier = self.choose(inputs)?;
        let late = self.late(inputs)?;
        self.fill(inputs, &late)?;
        let prepare = start.elapsed();
        let start = Instant::now();
        let computation = self.graphs.chosen_mut().and_then(|graph| graph.computation.as_mut());
        if let Some(computation) = computation {
            computation.run(&mut self.stream)?;
        }
        let run = start.elapsed();
        let start = Instant::now();
        self.take(&late, slots)?;
        Ok((tier, StageTimes { prepare, run, finish: start.elapsed() }))
    }
}

/// Ranks and extents, which together tell shapes apart.
fn shapes<'a>(inputs: &'a [TensorView<'_>]) -> impl Iterator<Item = usize> + 'a {
    inputs
        .iter()
        .flat_map(|view| std::iter::once(view.shape().len()).chain(view.shape().iter().copied()))
}

/// A copy of `view` whose elements are aligned, if its own are not.
fn copy_if_needed(view: TensorView<'_>) -> Option<Tensor> {
    let aligned = view.bytes().as_ptr().addr().is_multiple_of(view.dtype().size());
    (!aligned).then(|| view.to_tensor())
}

fn given(view: &TensorView<'_>) -> Result<Given, String> {
    let shape = view.shape().to_vec();
    if view.dtype() == DataType::F32 {
        return Ok(Given::Floats { shape });
    }
    let values = integers(view)?.collect();
    Ok(Given::Late(Arc::new(HostTensor::ints(view.dtype(), shape, values))))
}

/// Copies a value into `slot` as the type that the model declares.
fn store(value: &HostTensor, dtype: DataType, slot: &mut Tensor) -> Result<(), String> {
    slot.reset(dtype, &value.shape).map_err(|error| error.to_string())?;
    match (&value.data, dtype) {
        (HostData::Floats(values), DataType::F32) => copy(slot, values, |value| value),
        (HostData::Ints(values), DataType::I64) => copy(slot, values, |value| value),
        (HostData::Ints(values), DataType::I32) => copy(slot, values, |value| value as i32),
        (HostData::Ints(values), DataType::Bool) => {
            let bytes = slot.bytes_mut().iter_mut().zip(values);
            bytes.for_each(|(byte, &value)| *byte = u8::from(value != 0));
            Ok(())
        }
        _ => Err(format!("is {}, the model declares {dtype}", value.dtype)),
    }
}

fn copy<F: Copy, T: shapeyard_core::Element>(
    slot: &mut Tensor,
    from: &[F],
    convert: impl Fn(F) -> T,
) -> Result<(), String> {
    let to = slot.as_mut_slice::<T>().map_err(|error| error.to_string())?;
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = convert(from));
    Ok(())
}
