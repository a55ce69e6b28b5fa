//! A model in one shape as a ggml graph.
//!
//! Every value is one of three things. What follows from shapes alone is computed on the host while the
//! graph is described. What follows from integers of the request (masks, positions) is computed on the host
//! before every run. The rest is ggml's.

use std::collections::HashMap;
use std::sync::Arc;

use ggml_sys::ggml_type;
use shapeyard_core::DataType;

use super::evaluate;
use super::host::{Allowance, HostData, HostTensor};
use super::prepare::Prepared;
use super::program::{Node, ValueId};
use crate::ggml::builder::Builder;
use crate::ggml::cannot::Cannot;
use crate::ggml::computation::{self, Arena, Computation};
use crate::ggml::context::{Context, Refusal, Tensor};
use crate::ggml::layers::Matrix;
use crate::ggml::store::Store;
use crate::ggml::stream::Stream;

/// What a request gives for an input.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// Floats go to the device as they are.
    Floats { shape: Vec<usize> },
    /// Integers and booleans stay on the host.
    Late(Arc<HostTensor>),
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Known in this shape.
    Host(Arc<HostTensor>),
    /// Known in a run; this is what it was in the first, for its shape and type.
    Late(Arc<HostTensor>),
    Device(Tensor),
    /// A constant in the device's memory.
    Weight,
}

/// How a leaf is filled before a run.
#[derive(Debug)]
pub(crate) enum Fill {
    Input {
        input: usize,
        leaf: Tensor,
    },
    Floats {
        value: ValueId,
        leaf: Tensor,
    },
    /// Indices into a table of so many rows; negative ones count from its end.
    Rows {
        value: ValueId,
        leaf: Tensor,
        n_rows: usize,
    },
    /// As [`Fill::Rows`], of indices that the request gives as they are.
    Tokens {
        input: usize,
        leaf: Tensor,
        n_rows: usize,
    },
}

/// Where an output is after a run.
#[derive(Debug)]
pub(crate) enum Output {
    Device(Tensor),
    Late(ValueId),
    Host(Arc<HostTensor>),
}

/// A graph of one shape, to be run again and again.
#[derive(Debug)]
pub(crate) struct Described {
    /// `None` where the host computes everything.
    pub(crate) computation: Option<Computation>,
    pub(crate) leaves: Store,
    pub(crate) fills: Vec<Fill>,
    /// Nodes that the host computes in a run, in order.
    pub(crate) late: Vec<usize>,
    /// What late nodes read besides the request.
    pub(crate) known: HashMap<ValueId, Arc<HostTensor>>,
    pub(crate) outputs: Vec<Output>,
}

impl Described {
    /// Whether a run computes anything of integers on the host, beside what its fills do.
    pub(crate) fn reads_late(&self) -> bool {
        let late = |fill: &Fill| matches!(fill, Fill::Floats { .. } | Fill::Rows { .. });
        let is_late = |output: &Output| matches!(output, Output::Late(_));
        !self.late.is_empty() || self.fills.iter().any(late) || self.outputs.iter().any(is_late)
    }
}

/// Descriptions that a node makes at most, by far; `MatMul` makes seven.
const PER_NODE: usize = 12;

/// Elements on the host that a graph's own are made of.
fn n_given(prepared: &Prepared, given: &[Given]) -> usize {
    let constants = prepared.program.constants.values().map(|it| it.len());
    let given = given.iter().map(|it| match it {
        Given::Late(tensor) => tensor.len(),
        Given::Floats { .. } => 0,
    });
    constants.chain(given).sum()
}

/// Describes the model in the shapes of `given`.
pub(crate) fn describe(
    prepared: &Prepared,
    stream: &Stream,
    arena: &mut Arena,
    given: &[Given],
) -> Result<Described, Cannot> {
    let engine = &prepared.engine;
    let program = &prepared.program;
    let n_parts: usize = program.nodes.iter().map(|it| it.inputs.len() + it.outputs.len()).sum();
    let capacity = PER_NODE * program.nodes.len() + 2 * n_parts + 2 * program.outputs.len() + 64;
    let bytes = computation::graph_bytes(engine, 2 * capacity);
    let nodes = Context::new(engine, capacity, bytes)?;
    let leaves = Context::new(engine, capacity, 0)?;
    let mut translation = Translation {
        prepared,
        builder: Builder::new(&nodes, stream.workshop()),
        leaves: &leaves,
        values: HashMap::new(),
        on_device: HashMap::new(),
        rows: HashMap::new(),
        masks: Vec::new(),
        constants: Vec::new(),
        fills: Vec::new(),
        late: Vec::new(),
        allowance: Allowance::of(n_given(prepared, given)),
    };
    translation.inputs(given)?;
    for (at, node) in program.nodes.iter().enumerate() {
        translation.node(at, node)?;
    }
    let outputs = translation.outputs()?;
    let Translation { values, constants, fills, late, .. } = translation;
    let n_leaves = constants.len() + fills.len();
    let leaves = Store::new(leaves, stream, n_leaves, None)?;
    for (leaf, constant) in &constants {
        write(&leaves, leaf, constant)?;
    }
    let on_device: Vec<&Tensor> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Device(tensor) => Some(tensor),
            _ => None,
        })
        .collect();
    let computation = if on_device.is_empty() {
        None
    } else {
        Some(Computation::new(nodes, arena, &on_device, 2 * capacity)?)
    };
    let known = values.into_iter().filter_map(|(id, value)| match value {
        Value::Host(tensor) => Some((id, tensor)),
        _ => None,
    });
    Ok(Described { computation, leaves, fills, late, known: known.collect(), outputs })
}

pub(crate) struct Translation<'a> {
    pub(crate) prepared: &'a Prepared,
    pub(crate) builder: Builder<'a>,
    leaves: &'a Context,
    values: HashMap<ValueId, Value>,
    /// Values that were brought to the device.
    on_device: HashMap<ValueId, Tensor>,
    /// Lists of indices that were brought to the device, by table length.
    rows: HashMap<(ValueId, usize), Tensor>,
    /// Masks that were stretched, with what they were.
    pub(crate) masks: Vec<(Tensor, Tensor)>,
    constants: Vec<(Tensor, Arc<HostTensor>)>,
    fills: Vec<Fill>,
    late: Vec<usize>,
    allowance: Allowance,
}

impl Translation<'_> {
    fn inputs(&mut self, given: &[Given]) -> Result<(), Cannot> {
        let program = &self.prepared.program;
        for (id, constant) in &program.constants {
            self.values.insert(*id, Value::Host(Arc::clone(constant)));
        }
        for (input, (&id, given)) in program.inputs.iter().zip(given).enumerate() {
            let value = match given {
                Given::Late(tensor) => Value::Late(Arc::clone(tensor)),
                Given::Floats { shape } => {
                    let leaf = self.leaves.leaf(ggml_type::F32, shape);
                    let leaf = leaf.map_err(|refusal| Cannot::Border {
                        name: format!("input {input}"),
                        reason: refusal.to_string(),
                    })?;
                    self.fills.push(Fill::Input { input, leaf: leaf.clone() });
                    self.on_device.insert(id, leaf.clone());
                    Value::Device(leaf)
                }
            };
            self.values.insert(id, value);
        }
        Ok(())
    }

    fn node(&mut self, at: usize, node: &Node) -> Result<(), Cannot> {
        let Some(&output) = node.outputs.first() else { return Ok(()) };
        if matches!(node.operator.as_str(), "Shape" | "Size") {
            let value = Value::Host(Arc::new(self.extents(node)?));
            self.values.insert(output, value);
            return Ok(());
        }
        if let Some(value) = self.on_host(at, node)? {
            self.values.insert(output, value);
            return Ok(());
        }
        let made = self.operator(node)?;
        for (&id, tensor) in node.outputs.iter().zip(made) {
            self.values.insert(id, Value::Device(tensor));
        }
        Ok(())
    }

    /// What `Shape` and `Size` answer.
    fn extents(&self, node: &Node) -> Result<HostTensor, Cannot> {
        let shape = self.shape(node, 0)?;
        if node.operator == "Size" {
            let n_elements = shape.iter().product::<usize>() as i64;
            return Ok(HostTensor::ints(DataType::I64, vec![], vec![n_elements]));
        }
        let rank = shape.len() as i64;
        let bound = |at: i64| (if at < 0 { at + rank } else { at }).clamp(0, rank) as usize;
        let (start, end) = (bound(node.int("start", 0)), bound(node.int("end", rank)));
        Ok(HostTensor::extents(shape.get(start..end).unwrap_or_default()))
    }

    /// The node's value where the host computes it, now or in a run.
    fn on_host(&mut self, at: usize, node: &Node) -> Result<Option<Value>, Cannot> {
        if !evaluate::knows(&node.operator) {
            return Ok(None);
        }
        let mut inputs = Vec::with_capacity(node.inputs.len());
        let mut first_late = None;
        for (position, input) in node.inputs.iter().enumerate() {
            inputs.push(match input.map(|id| self.values.get(&id)) {
                None => None,
                Some(Some(Value::Host(tensor))) => Some(tensor.as_ref()),
                Some(Some(Value::Late(tensor))) => {
                    first_late = Some(position);
                    Some(tensor.as_ref())
                }
                Some(Some(Value::Device(_) | Value::Weight) | None) => return Ok(None),
            });
        }
        let is_float = inputs.first().copied().flatten().is_some_and(HostTensor::is_float);
        // Tables, and masks as wide as the hidden state, are the device's.
        if first_late.is_some() && is_float && matches!(node.operator.as_str(), "Gather" | "Expand")
        {
            return Ok(None);
        }
        if first_late.is_some_and(|at| at >= evaluate::first_shape_input(&node.operator)) {
            return Err(Cannot::case(node, "its shape depends on what the request holds"));
        }
        let made = evaluate::evaluate(node, &inputs).map_err(|it| refused(node, it))?;
        self.allowance.take(made.len()).map_err(|it| refused(node, it))?;
        let made = Arc::new(made);
        if first_late.is_none() {
            return Ok(Some(Value::Host(made)));
        }
        self.late.push(at);
        Ok(Some(Value::Late(made)))
    }

    pub(crate) fn value(&self, node: &Node, at: usize) -> Result<&Value, Cannot> {
        let missing = || Cannot::case(node, format!("its input {at} is not made"));
        let id = node.input(at).ok_or_else(missing)?;
        match self.values.get(&id) {
            Some(value) => Ok(value),
            None if self.prepared.weights.shape(id).is_some() => Ok(&Value::Weight),
            None => Err(missing()),
        }
    }

    pub(crate) fn shape(&self, node: &Node, at: usize) -> Result<Vec<usize>, Cannot> {
        Ok(match self.value(node, at)? {
            Value::Host(tensor) | Value::Late(tensor) => tensor.shape.clone(),
            Value::Device(tensor) => tensor.shape.to_vec(),
            Value::Weight => {
                let shape = node.input(at).and_then(|id| self.prepared.weights.shape(id));
                shape.unwrap_or_default().to_vec()
            }
        })
    }

    /// An input that is known while the graph is described.
    pub(crate) fn host(&self, node: &Node, at: usize) -> Result<Option<Arc<HostTensor>>, Cannot> {
        if node.input(at).is_none() {
            return Ok(None);
        }
        match self.value(node, at)? {
            Value::Host(tensor) => Ok(Some(Arc::clone(tensor))),
            _ => Err(Cannot::case(node, format!("its input {at} is not known beforehand"))),
        }
    }

    /// A constant single number, whatever its shape.
    pub(crate) fn number(&self, node: &Node, at: usize) -> Option<f32> {
        match self.value(node, at) {
            Ok(Value::Host(tensor)) => tensor.scalar(),
            _ => None,
        }
    }

    /// A constant that was put in place as rows are multiplied with it.
    pub(crate) fn matrix(&self, node: &Node, at: usize) -> Option<&Matrix> {
        self.prepared.weights.matrix(node.input(at)?)
    }

    /// An input on the device, brought there if need be.
    pub(crate) fn tensor(&mut self, node: &Node, at: usize) -> Result<Tensor, Cannot> {
        let value = self.value(node, at)?.clone();
        if let Value::Device(tensor) = value {
            return Ok(tensor);
        }
        if let Some(weight) = node.input(at).and_then(|id| self.prepared.weights.tensor(id)) {
            return Ok(weight.clone());
        }
        let missing = || Cannot::case(node, format!("its input {at} is not made"));
        let id = node.input(at).ok_or_else(missing)?;
        if let Some(tensor) = self.on_device.get(&id) {
            return Ok(tensor.clone());
        }
        let (Value::Host(host) | Value::Late(host)) = &value else { return Err(missing()) };
        if !host.is_float() {
            return Err(Cannot::case(node, format!("its input {at} is {}, not f32", host.dtype)));
        }
        let leaf = self.leaf(node, ggml_type::F32, &host.shape)?;
        match &value {
            Value::Host(host) => self.constants.push((leaf.clone(), Arc::clone(host))),
            _ => self.fills.push(Fill::Floats { value: id, leaf: leaf.clone() }),
        }
        self.on_device.insert(id, leaf.clone());
        Ok(leaf)
    }

    /// An input of integers as a list of rows of a table.
    pub(crate) fn indices(
        &mut self,
        node: &Node,
        at: usize,
        n_rows: usize,
    ) -> Result<Tensor, Cannot> {
        let value = self.value(node, at)?.clone();
        let (Value::Host(host) | Value::Late(host)) = &value else {
            return Err(Cannot::case(node, "its indices are computed by ggml"));
        };
        let Some(id) = node.input(at) else { return Err(Cannot::case(node, "it has no indices")) };
        if let Some(leaf) = self.rows.get(&(id, n_rows)) {
            return Ok(leaf.clone());
        }
        let leaf = self.leaf(node, ggml_type::I32, &[host.len()])?;
        match &value {
            Value::Host(host) => {
                let values = host.as_ints().map_err(|it| refused(node, it))?;
                let mut list = Vec::with_capacity(values.len());
                rows(values.iter().copied(), n_rows, &mut list)
                    .map_err(|it| Cannot::shapes(node, it))?;
                let rows = list.into_iter().map(i64::from).collect();
                let list = HostTensor::ints(DataType::I32, vec![host.len()], rows);
                self.constants.push((leaf.clone(), Arc::new(list)));
            }
            _ => self.fills.push(match self.input(id) {
                Some(input) => Fill::Tokens { input, leaf: leaf.clone(), n_rows },
                None => Fill::Rows { value: id, leaf: leaf.clone(), n_rows },
            }),
        }
        self.rows.insert((id, n_rows), leaf.clone());
        Ok(leaf)
    }

    /// Which input of the model a value is.
    fn input(&self, value: ValueId) -> Option<usize> {
        self.prepared.program.inputs.iter().position(|input| *input == value)
    }

    fn leaf(&self, node: &Node, dtype: ggml_type, shape: &[usize]) -> Result<Tensor, Cannot> {
        self.leaves.leaf(dtype, shape).map_err(|refusal| refused(node, refusal))
    }

    fn outputs(&self) -> Result<Vec<Output>, Cannot> {
        let program = &self.prepared.program;
        let output = |&id: &ValueId| {
            let border = |reason: String| {
                let name = format!(
                    "output {}",
                    program.outputs.iter().position(|it| *it == id).unwrap_or(0)
                );
                Cannot::Border { name, reason }
            };
            let device = |tensor: &Tensor, is_leaf| {
                let owned =
                    self.builder.owned(tensor, is_leaf).map_err(|it| border(it.to_string()))?;
                self.builder.contiguous(&owned).map_err(|it| border(it.to_string()))
            };
            match self.values.get(&id) {
                Some(Value::Host(tensor)) => Ok(Output::Host(Arc::clone(tensor))),
                Some(Value::Late(_)) => Ok(Output::Late(id)),
                Some(Value::Device(tensor)) => {
                    device(tensor, self.on_device.contains_key(&id)).map(Output::Device)
                }
                Some(Value::Weight) | None => {
                    let weight = self.prepared.weights.tensor(id);
                    let weight = weight.ok_or_else(|| border("is not made".to_owned()))?;
                    device(weight, true).map(Output::Device)
                }
            }
        };
        program.outputs.iter().map(output).collect()
    }
}

/// What a builder refuses, as a node's error.
pub(crate) fn refused(node: &Node, refusal: Refusal) -> Cannot {
    match refusal {
        Refusal::Never(reason) => Cannot::case(node, reason),
        Refusal::Here(reason) => Cannot::shapes(node, reason),
    }
}

/// Fills a leaf with what the host computed.
pub(crate) fn write(store: &Store, leaf: &Tensor, value: &HostTensor) -> Result<(), String> {
    match &value.data {
        HostData::Floats(values) => store.write(leaf, values),
        HostData::Ints(values) => {
            let narrow: Result<Vec<i32>, _> = values.iter().map(|&it| i32::try_from(it)).collect();
            store.write(leaf, &narrow.map_err(|error| error.to_string())?)
        }
    }
}

/// Indices that lie inside a table, counted from its start: the library ends the process over others.
pub(crate) fn rows(
    indices: impl Iterator<Item = i64>,
    n_rows: usize,
    to: &mut Vec<i32>,
) -> Result<(), String> {
    let n = n_rows as i64;
    let row = |index: i64| {
        let wrapped = if index < 0 { index.wrapping_add(n) } else { index };
        match i32::try_from(wrapped) {
            Ok(row) if (0..n).contains(&wrapped) => Ok(row),
            _ => Err(format!("index {index} lies outside of a table of {n_rows} rows")),
        }
    };
    to.clear();
    for index in indices {
        to.push(row(index)?);
    }
    Ok(())
}
