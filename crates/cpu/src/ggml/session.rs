//! One lane through a model that ggml serves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use shapeyard_core::backend::{Outputs, Request, RunError, Session};
use shapeyard_core::{
    DataType, Dim, RunReport, Signature, StageTimes, Tensor, TensorSpec, TensorView, Tier,
};

use super::ID;
use super::evaluate;
use super::host::{HostData, HostTensor};
use super::library::Stream;
use super::onnx::ValueId;
use super::prepare::Prepared;
use super::translate::{self, Described, Fill, Given, MASKED, Output};
use crate::dynamic;

/// Graphs that a lane keeps; each has memory of its own (MiniLM-L6 at 8 x 128 tokens: 13 MiB).
const MOST_GRAPHS: usize = 8;

/// A lane: threads of its own, and a graph with memory of its own for each of the last shapes.
#[derive(Debug)]
pub(super) struct GgmlSession {
    prepared: Arc<Prepared>,
    signature: Arc<Signature>,
    /// The one used last comes last. Before the stream, so that they go first.
    graphs: Vec<(Vec<usize>, Described)>,
    stream: Stream,
    /// What is written to the graph's leaves, kept from run to run.
    indices: Vec<i32>,
    mask: Vec<f32>,
}

/// Integers of a run by value.
type Late = HashMap<ValueId, Arc<HostTensor>>;

impl GgmlSession {
    pub(super) fn new(prepared: Arc<Prepared>, signature: Arc<Signature>, stream: Stream) -> Self {
        let (graphs, indices, mask) = Default::default();
        Self { prepared, signature, graphs, stream, indices, mask }
    }

    /// Makes the graph for these inputs the last one, described now if need be.
    fn choose(&mut self, inputs: &[TensorView<'_>]) -> Result<Tier, String> {
        let is_alike = |(key, _): &(Vec<usize>, _)| key.iter().copied().eq(shapes(inputs));
        if let Some(at) = self.graphs.iter().position(is_alike) {
            let again = at + 1 == self.graphs.len();
            self.graphs[at..].rotate_left(1);
            return Ok(if again { Tier::Rebind } else { Tier::Cached });
        }
        if self.graphs.len() >= MOST_GRAPHS {
            self.graphs.remove(0);
        }
        let given: Vec<Given> = inputs.iter().map(given).collect::<Result<_, _>>()?;
        let described = translate::describe(&self.prepared, &self.stream, &given);
        let described = described.map_err(|error| error.to_string())?;
        self.graphs.push((shapes(inputs).collect(), described));
        Ok(Tier::Cached)
    }

    /// What the host computes of the request's integers.
    fn late(&self, inputs: &[TensorView<'_>]) -> Result<Late, String> {
        let mut late = Late::new();
        let Some((_, graph)) = self.graphs.last().filter(|(_, graph)| graph.reads_late()) else {
            return Ok(late);
        };
        for (&id, view) in self.prepared.program.inputs.iter().zip(inputs) {
            if let Given::Late(tensor) = given(view)? {
                late.insert(id, tensor);
            }
        }
        for &at in &graph.late {
            let node = &self.prepared.program.nodes[at];
            let value = |id: &ValueId| late.get(id).or_else(|| graph.known.get(id));
            let given: Vec<_> =
                node.inputs.iter().map(|id| id.as_ref().and_then(value).map(Arc::as_ref)).collect();
            let made = evaluate::evaluate(node, &given)
                .map_err(|reason| format!("node `{}`: {reason}", node.name))?;
            late.extend(node.outputs.first().map(|&id| (id, Arc::new(made))));
        }
        Ok(late)
    }

    fn fill(&mut self, inputs: &[TensorView<'_>], late: &Late) -> Result<(), String> {
        let Self { graphs, indices, mask, .. } = self;
        let Some((_, graph)) = graphs.last() else { return Ok(()) };
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
                    let values = made(value)?.as_ints()?.iter().copied();
                    translate::rows(values, *n_rows, indices)?;
                    graph.leaves.write(leaf, indices)?;
                }
                Fill::Tokens { input, leaf, n_rows } => {
                    translate::rows(integers(&inputs[*input])?, *n_rows, indices)?;
                    graph.leaves.write(leaf, indices)?;
                }
                Fill::Mask { input, leaf } => {
                    mask.clear();
                    let is_padding = |real: i64| (1.0 - real as f32) * MASKED;
                    mask.extend(integers(&inputs[*input])?.map(is_padding));
                    graph.leaves.write(leaf, mask)?;
                }
            }
        }
        Ok(())
    }

    fn compute(&mut self) -> Result<(), String> {
        match self.graphs.last_mut() {
            Some((_, Described { computation: Some(computation), .. })) => {
                computation.run(&mut self.stream)
            }
            _ => Ok(()),
        }
    }

    fn take(&self, late: &Late, outputs: &mut Outputs) -> Result<(), String> {
        let Some((_, graph)) = self.graphs.last() else { return Ok(()) };
        let slots = outputs.slots(self.signature.outputs.len());
        for ((spec, output), slot) in self.signature.outputs.iter().zip(&graph.outputs).zip(slots) {
            let taken = match (output, &graph.computation) {
                (Output::Device(tensor), Some(computation)) if spec.dtype == DataType::F32 => slot
                    .reset(DataType::F32, &tensor.shape)
                    .map_err(|error| error.to_string())
                    .and_then(|()| computation.read(tensor, slot.bytes_mut())),
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

    fn run_stages(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut Outputs,
    ) -> Result<(Tier, StageTimes), String> {
        let start = Instant::now();
        let tier = self.choose(inputs)?;
        let late = self.late(inputs)?;
        self.fill(inputs, &late)?;
        let prepare = start.elapsed();
        let start = Instant::now();
        self.compute()?;
        let run = start.elapsed();
        let start = Instant::now();
        self.take(&late, outputs)?;
        Ok((tier, StageTimes { prepare, run, finish: start.elapsed() }))
    }

    /// The answer to a request without elements, which ggml does not take.
    fn empty(&self, request: &Request<'_>, outputs: &mut Outputs) -> Result<(), RunError> {
        let slots = outputs.slots(self.signature.outputs.len());
        for (spec, slot) in self.signature.outputs.iter().zip(slots) {
            let shape = empty_shape(spec, request).ok_or_else(|| RunError::Empty {
                symbol: self.empty_symbol(request),
                output: spec.name.clone(),
            })?;
            slot.reset(spec.dtype, &shape).map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }

    fn empty_symbol(&self, request: &Request<'_>) -> String {
        let symbols = self.signature.inputs.iter().flat_map(|spec| spec.shape.iter().flatten());
        let empty = symbols.filter_map(|dim| match *dim {
            Dim::Symbol(symbol) if request.extents().get(symbol) == Some(0) => Some(symbol),
            _ => None,
        });
        let first = empty.map(|symbol| self.signature.symbol_name(symbol).to_owned()).next();
        first.unwrap_or_else(|| "an axis without a name".to_owned())
    }
}

/// The shape of an output without elements; `None` if it has some, or has axes that only a run tells.
fn empty_shape(spec: &TensorSpec, request: &Request<'_>) -> Option<Vec<usize>> {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(extent) => Some(extent),
        Dim::Symbol(symbol) => request.extents().get(symbol),
        Dim::Unnamed => None,
    };
    let shape: Vec<usize> = spec.shape.as_ref()?.iter().map(extent).collect::<Option<_>>()?;
    shape.contains(&0).then_some(shape)
}

impl Session for GgmlSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(&self.signature)?;
        if request.inputs().iter().any(|view| view.shape().contains(&0)) {
            self.empty(request, outputs)?;
            return Ok(RunReport::exact_on_host(ID, Tier::Cached, StageTimes::default()));
        }
        let run = dynamic::caught(|| self.run_stages(request.inputs(), outputs)).flatten();
        let (tier, times) = run.map_err(failed)?;
        Ok(RunReport::exact_on_host(ID, tier, times))
    }
}

fn failed(message: String) -> RunError {
    RunError::Library { backend: ID, message }
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

/// The elements of an input of integers or booleans, aligned or not.
fn integers(view: &TensorView<'_>) -> Result<impl Iterator<Item = i64>, String> {
    let bytes = view.bytes();
    let (dtype, size) = (view.dtype(), view.dtype().size());
    if !matches!(dtype, DataType::Bool | DataType::I32 | DataType::I64) {
        return Err(format!("{dtype} cannot be handed over"));
    }
    Ok(bytes.chunks_exact(size).map(move |element| match *element {
        [byte] => i64::from(byte != 0),
        [a, b, c, d] => i64::from(i32::from_ne_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }))
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
