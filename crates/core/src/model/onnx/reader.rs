//! The messages of `onnx.proto`, as far as they matter to metadata.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{Read, Seek};
use std::sync::Arc;

use super::wire::{Field, Span, Value, Wire};
use super::{ForeignValue, OnnxDim, OnnxError, OnnxFile, OnnxValue};
use crate::DataType;

/// Deeper nesting of subgraphs than any exporter makes, and shallow enough for every stack.
const MAX_DEPTH: usize = 32;

/// More axes than any operator takes.
const MAX_RANK: usize = 64;

pub(super) fn read(file: impl Read + Seek) -> Result<OnnxFile, OnnxError> {
    let mut wire = Wire::new(file)?;
    if wire.whole().len() == 0 {
        return Err(OnnxError::Empty);
    }
    let mut reader = Reader::default();
    let whole = wire.whole();
    wire.fields(whole, |wire, field| reader.model_field(wire, field))?;
    reader.finish()
}

#[derive(Debug, Default)]
struct Reader {
    file: OnnxFile,
    has_graph: bool,
    /// Constants of the main graph, with their extents.
    initializers: HashMap<String, Vec<u64>>,
    /// Outputs of nodes that hand on the elements of their first input, with where those come from. Nodes
    /// stand in the order of their work, so that is known when a node is read.
    aliases: HashMap<String, Arc<str>>,
    gathers: Vec<Gather>,
}

/// A look-up in the main graph: `output = data[indices]` along `axis`.
#[derive(Debug)]
struct Gather {
    data: String,
    indices: String,
    axis: i64,
}

#[derive(Debug, Default)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    data_type: u64,
    location: Option<String>,
    offset: u64,
    length: Option<u64>,
}

#[derive(Debug, Default)]
struct Node {
    inputs: Vec<String>,
    outputs: Vec<String>,
    operator: String,
    domain: String,
    axis: i64,
}

impl Reader {
    fn model_field<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        field: Field,
    ) -> Result<(), OnnxError> {
        match field.number {
            1 => self.file.ir_version = field.value.varint("the IR version")?.cast_signed(),
            2 | 3 => {
                let text = wire.string(field.value.span("the producer")?)?;
                if !self.file.producer.is_empty() && !text.is_empty() {
                    self.file.producer.push(' ');
                }
                self.file.producer.push_str(&text);
            }
            7 => {
                self.has_graph = true;
                self.graph(wire, field.value.span("the graph")?, 0)?;
            }
            8 => {
                let (domain, version) = opset(wire, field.value.span("an operator set")?)?;
                self.file.opsets.insert(domain, version);
            }
            25 => self.function(wire, field.value.span("a function")?)?,
            _ => {}
        }
        Ok(())
    }

    fn graph<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        span: Span,
        depth: usize,
    ) -> Result<(), OnnxError> {
        if depth > MAX_DEPTH {
            return Err(OnnxError::TooDeep { limit: MAX_DEPTH });
        }
        let main = depth == 0;
        wire.fields(span, |wire, field| {
            match field.number {
                1 => self.node(wire, field.value.span("a node")?, depth)?,
                5 => {
                    let tensor = self.tensor(wire, field.value.span("an initializer")?)?;
                    if main {
                        self.initializers.insert(tensor.name, tensor.dims);
                    }
                }
                11 if main => match value_info(wire, field.value.span("an input")?)? {
                    ValueInfo::Tensor(input) => self.file.inputs.push(input),
                    ValueInfo::Foreign { name, kind } => {
                        self.file.foreign.push(ForeignValue { name, kind, is_input: true });
                    }
                    ValueInfo::Untyped => {}
                },
                12 if main => match value_info(wire, field.value.span("an output")?)? {
                    ValueInfo::Tensor(output) => self.file.outputs.push(output),
                    ValueInfo::Foreign { name, kind } => {
                        self.file.foreign.push(ForeignValue { name, kind, is_input: false });
                    }
                    ValueInfo::Untyped => {}
                },
                15 => {
                    let name = self.sparse(wire, field.value.span("a sparse initializer")?)?;
                    if main {
                        self.initializers.insert(name, Vec::new());
                    }
                }
                _ => {}
            }
            Ok(())
        })
    }

    fn function<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        span: Span,
    ) -> Result<(), OnnxError> {
        wire.fields(span, |wire, field| match field.number {
            7 => self.node(wire, field.value.span("a function's node")?, 1),
            _ => Ok(()),
        })
    }

    fn node<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        span: Span,
        depth: usize,
    ) -> Result<(), OnnxError> {
        let mut node = Node::default();
        wire.fields(span, |wire, field| {
            match field.number {
                1 => node.inputs.push(wire.string(field.value.span("a node's input")?)?),
                2 => node.outputs.push(wire.string(field.value.span("a node's output")?)?),
                4 => node.operator = wire.string(field.value.span("an operator")?)?,
                5 => {
                    let span = field.value.span("an attribute")?;
                    if let Some(axis) = self.attribute(wire, span, depth)? {
                        node.axis = axis;
                    }
                }
                7 => node.domain = wire.string(field.value.span("a node's domain")?)?,
                _ => {}
            }
            Ok(())
        })?;
        self.count(&node);
        if depth == 0 {
            self.follow(node);
        }
        Ok(())
    }

    fn count(&mut self, node: &Node) {
        let name = match node.domain.as_str() {
            "" | "ai.onnx" => node.operator.clone(),
            domain => format!("{domain}.{}", node.operator),
        };
        *self.file.operators.entry(name).or_default() += 1;
    }

    /// Remembers where the elements of an index or a table come from.
    fn follow(&mut self, node: Node) {
        let mut inputs = node.inputs.into_iter();
        match node.operator.as_str() {
            "Cast" | "Identity" | "DequantizeLinear" => {
                if let (Some(input), Some(output)) =
                    (inputs.next(), node.outputs.into_iter().next())
                {
                    let origin = match self.aliases.get(&input) {
                        Some(origin) => Arc::clone(origin),
                        None => input.into(),
                    };
                    self.aliases.insert(output, origin);
                }
            }
            "Gather" => {
                if let (Some(data), Some(indices)) = (inputs.next(), inputs.next()) {
                    self.gathers.push(Gather { data, indices, axis: node.axis });
                }
            }
            _ => {}
        }
    }

    /// Reads the tensors and subgraphs in an attribute; gives its value when it is named `axis`.
    fn attribute<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        span: Span,
        depth: usize,
    ) -> Result<Option<i64>, OnnxError> {
        let mut is_axis = false;
        let mut int = None;
        wire.fields(span, |wire, field| {
            match field.number {
                1 => is_axis = wire.string(field.value.span("an attribute's name")?)? == "axis",
                3 => int = Some(field.value.varint("an attribute's integer")?.cast_signed()),
                5 | 10 => {
                    self.tensor(wire, field.value.span("an attribute's tensor")?)?;
                }
                6 | 11 => self.graph(wire, field.value.span("a subgraph")?, depth + 1)?,
                22 | 23 => {
                    self.sparse(wire, field.value.span("an attribute's sparse tensor")?)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(int.filter(|_| is_axis))
    }

    /// A sparse tensor's two parts; gives the name, which is that of its values.
    fn sparse<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        span: Span,
    ) -> Result<String, OnnxError> {
        let mut name = String::new();
        wire.fields(span, |wire, field| {
            match field.number {
                1 => name = self.tensor(wire, field.value.span("a sparse tensor's values")?)?.name,
                2 => {
                    self.tensor(wire, field.value.span("a sparse tensor's indices")?)?;
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(name)
    }

    /// A constant: its bytes are counted and passed over.
    fn tensor<R: Read + Seek>(
        &mut self,
        wire: &mut Wire<R>,
        span: Span,
    ) -> Result<Tensor, OnnxError> {
        let mut tensor = Tensor::default();
        let mut external = false;
        let mut n_payload_bytes = 0u64;
        wire.fields(span, |wire, field| {
            match field.number {
                1 => {
                    match field.value {
                        Value::Varint(extent) => tensor.dims.push(extent),
                        // An integer takes up to ten bytes.
                        Value::Span(span) if span.len() <= 10 * MAX_RANK as u64 => {
                            tensor.dims.extend(wire.packed(span)?);
                        }
                        _ => return Err(OnnxError::Malformed { what: "a tensor's extents" }),
                    }
                    if tensor.dims.len() > MAX_RANK {
                        return Err(OnnxError::Malformed {
                            what: "a tensor (it has too many axes)",
                        });
                    }
                }
                2 => tensor.data_type = field.value.varint("a tensor's type")?,
                8 => tensor.name = wire.string(field.value.span("a tensor's name")?)?,
                4..=7 | 9..=11 => {
                    if let Value::Span(span) = field.value {
                        n_payload_bytes = n_payload_bytes.saturating_add(span.len());
                    }
                }
                13 => external_entry(wire, field.value.span("external data")?, &mut tensor)?,
                14 => external = field.value.varint("a tensor's data location")? == 1,
                _ => {}
            }
            Ok(())
        })?;
        if external {
            n_payload_bytes = self.external(&tensor)?;
        }
        self.file.n_parameter_bytes = self.file.n_parameter_bytes.saturating_add(n_payload_bytes);
        Ok(tensor)
    }

    /// Notes how long a file of external data must be; gives the bytes that this tensor takes of it.
    fn external(&mut self, tensor: &Tensor) -> Result<u64, OnnxError> {
        let malformed = OnnxError::Malformed { what: "the entry of a tensor with external data" };
        let Some(location) = tensor.location.clone().filter(|location| !location.is_empty()) else {
            return Err(malformed);
        };
        let length = match (tensor.length, data_type(tensor.data_type)) {
            (Some(length), _) => length,
            (None, Ok(dtype)) => tensor
                .dims
                .iter()
                .try_fold(dtype.size() as u64, |bytes, &extent| bytes.checked_mul(extent))
                .ok_or(malformed)?,
            (None, Err(_)) => 0,
        };
        let malformed = OnnxError::Malformed { what: "the offset of a tensor with external data" };
        let end = tensor.offset.checked_add(length).ok_or(malformed)?;
        let needed = self.file.external_data.entry(location).or_default();
        *needed = end.max(*needed);
        Ok(length)
    }

    fn finish(mut self) -> Result<OnnxFile, OnnxError> {
        if !self.has_graph {
            return Err(OnnxError::NotAModel { missing: "graph" });
        }
        if self.file.opsets.is_empty() {
            return Err(OnnxError::NotAModel { missing: "operator set" });
        }
        if self.file.outputs.is_empty() && self.file.foreign.iter().all(|it| it.is_input) {
            return Err(OnnxError::NotAModel { missing: "output" });
        }
        // Before IR version 4 every initializer is an input as well; it has a value, so no request gives it.
        let initializers = &self.initializers;
        self.file.inputs.retain(|input| !initializers.contains_key(&input.name));
        check_names(&self.file.inputs)?;
        check_names(&self.file.outputs)?;
        let limits = self.index_limits();
        for input in &mut self.file.inputs {
            input.index_limit = limits.get(&input.name).copied();
        }
        Ok(self.file)
    }

    fn index_limits(&self) -> BTreeMap<String, usize> {
        let mut limits = BTreeMap::new();
        for gather in &self.gathers {
            let Some(dims) = self.initializers.get(self.origin(&gather.data)) else { continue };
            let axis = match usize::try_from(gather.axis) {
                Ok(axis) => Some(axis),
                Err(_) => usize::try_from(gather.axis.unsigned_abs())
                    .ok()
                    .and_then(|from_end| dims.len().checked_sub(from_end)),
            };
            let Some(&extent) = axis.and_then(|axis| dims.get(axis)) else { continue };
            let Ok(extent) = usize::try_from(extent) else { continue };
            let limit = limits.entry(self.origin(&gather.indices).to_owned()).or_insert(extent);
            *limit = extent.min(*limit);
        }
        limits
    }

    fn origin<'a>(&'a self, name: &'a str) -> &'a str {
        self.aliases.get(name).map_or(name, |origin| origin)
    }
}

fn check_names(values: &[OnnxValue]) -> Result<(), OnnxError> {
    let mut seen = HashSet::new();
    match values.iter().find(|value| !seen.insert(value.name.as_str())) {
        Some(twice) => Err(OnnxError::DuplicateName { name: twice.name.clone() }),
        None => Ok(()),
    }
}

fn opset<R: Read + Seek>(wire: &mut Wire<R>, span: Span) -> Result<(String, i64), OnnxError> {
    let (mut domain, mut version) = (String::new(), 0);
    wire.fields(span, |wire, field| {
        match field.number {
            1 => domain = wire.string(field.value.span("an operator set's domain")?)?,
            2 => version = field.value.varint("an operator set's version")?.cast_signed(),
            _ => {}
        }
        Ok(())
    })?;
    if domain == "ai.onnx" {
        domain.clear();
    }
    Ok((domain, version))
}

fn external_entry<R: Read + Seek>(
    wire: &mut Wire<R>,
    span: Span,
    tensor: &mut Tensor,
) -> Result<(), OnnxError> {
    let (mut key, mut value) = (String::new(), String::new());
    wire.fields(span, |wire, field| {
        match field.number {
            1 => key = wire.string(field.value.span("external data's key")?)?,
            2 => value = wire.string(field.value.span("external data's value")?)?,
            _ => {}
        }
        Ok(())
    })?;
    let number = || {
        let malformed = OnnxError::Malformed { what: "the offset or length of external data" };
        value.parse::<u64>().map_err(|_| malformed)
    };
    match key.as_str() {
        "offset" => tensor.offset = number()?,
        "length" => tensor.length = Some(number()?),
        "location" => tensor.location = Some(value),
        _ => {}
    }
    Ok(())
}

/// An input or output as it is read.
enum ValueInfo {
    Tensor(OnnxValue),
    Foreign {
        name: String,
        kind: String,
    },
    /// One without a type, which a runtime can only refuse when it is used.
    Untyped,
}

fn value_info<R: Read + Seek>(wire: &mut Wire<R>, span: Span) -> Result<ValueInfo, OnnxError> {
    let mut name = String::new();
    let mut kind = None;
    wire.fields(span, |wire, field| {
        match field.number {
            1 => name = wire.string(field.value.span("a value's name")?)?,
            2 => kind = Some(type_proto(wire, field.value.span("a value's type")?)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(match kind {
        None => ValueInfo::Untyped,
        Some(Kind::Tensor { data_type: number, shape }) => match data_type(number) {
            Ok(dtype) => ValueInfo::Tensor(OnnxValue { name, dtype, shape, index_limit: None }),
            Err(kind) => ValueInfo::Foreign { name, kind },
        },
        Some(Kind::Other(kind)) => ValueInfo::Foreign { name, kind: kind.to_owned() },
    })
}

enum Kind {
    Tensor { data_type: u64, shape: Option<Vec<OnnxDim>> },
    Other(&'static str),
}

fn type_proto<R: Read + Seek>(wire: &mut Wire<R>, span: Span) -> Result<Kind, OnnxError> {
    let mut kind = Kind::Other("of no declared kind");
    wire.fields(span, |wire, field| {
        match field.number {
            1 => kind = tensor_type(wire, field.value.span("a tensor type")?)?,
            4 => kind = Kind::Other("a sequence"),
            5 => kind = Kind::Other("a map"),
            8 => kind = Kind::Other("a sparse tensor"),
            9 => kind = Kind::Other("an optional value"),
            _ => {}
        }
        Ok(())
    })?;
    Ok(kind)
}

fn tensor_type<R: Read + Seek>(wire: &mut Wire<R>, span: Span) -> Result<Kind, OnnxError> {
    let (mut data_type, mut shape) = (0, None);
    wire.fields(span, |wire, field| {
        match field.number {
            1 => data_type = field.value.varint("an element type")?,
            2 => shape = Some(tensor_shape(wire, field.value.span("a shape")?)?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(Kind::Tensor { data_type, shape })
}

fn tensor_shape<R: Read + Seek>(wire: &mut Wire<R>, span: Span) -> Result<Vec<OnnxDim>, OnnxError> {
    let mut dims = Vec::new();
    wire.fields(span, |wire, field| {
        if field.number == 1 {
            dims.push(dimension(wire, field.value.span("a dimension")?)?);
        }
        if dims.len() > MAX_RANK {
            return Err(OnnxError::Malformed { what: "a shape (it has too many axes)" });
        }
        Ok(())
    })?;
    Ok(dims)
}

fn dimension<R: Read + Seek>(wire: &mut Wire<R>, span: Span) -> Result<OnnxDim, OnnxError> {
    let mut dim = OnnxDim::Unnamed;
    wire.fields(span, |wire, field| {
        match field.number {
            1 => {
                // Old exporters write -1 for an extent that is not known.
                dim = match field.value.varint("an extent")?.cast_signed() {
                    -1 => OnnxDim::Unnamed,
                    extent => OnnxDim::Fixed(
                        usize::try_from(extent)
                            .map_err(|_| OnnxError::Malformed { what: "a negative extent" })?,
                    ),
                };
            }
            2 => {
                let name = wire.string(field.value.span("a dimension's name")?)?;
                if !name.is_empty() {
                    dim = OnnxDim::Named(name);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(dim)
}

/// `TensorProto.DataType`; the error says what the number stands for.
fn data_type(number: u64) -> Result<DataType, String> {
    Ok(match number {
        1 => DataType::F32,
        2 => DataType::U8,
        3 => DataType::I8,
        4 => DataType::U16,
        5 => DataType::I16,
        6 => DataType::I32,
        7 => DataType::I64,
        9 => DataType::Bool,
        10 => DataType::F16,
        11 => DataType::F64,
        12 => DataType::U32,
        13 => DataType::U64,
        16 => DataType::BF16,
        17 => DataType::F8E4M3FN,
        18 => DataType::F8E4M3FNUZ,
        19 => DataType::F8E5M2,
        20 => DataType::F8E5M2FNUZ,
        8 => return Err("a tensor of strings".to_owned()),
        14 | 15 => return Err("a tensor of complex numbers".to_owned()),
        21..=23 => return Err("a tensor of 4-bit elements".to_owned()),
        other => return Err(format!("a tensor of the unknown element type {other}")),
    })
}
