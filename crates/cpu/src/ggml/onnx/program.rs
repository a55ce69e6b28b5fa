//! An ONNX file's nodes and constants, in the form that the translation walks.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use rten_onnx::onnx::{
    AttributeProto, DataLocation, DataType as Type, GraphProto, ModelProto, NodeProto, TensorProto,
};
use shapeyard_core::{DataType, Model};

use super::host::{HostData, HostTensor};
use crate::ggml::cannot::Cannot;

/// A value of the graph.
pub(crate) type ValueId = usize;

/// A graph: nodes in an order in which each finds its inputs made.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) nodes: Vec<Node>,
    pub(crate) constants: HashMap<ValueId, Arc<HostTensor>>,
    /// In the signature's order.
    pub(crate) inputs: Vec<ValueId>,
    /// In the signature's order.
    pub(crate) outputs: Vec<ValueId>,
}

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) operator: String,
    pub(crate) name: String,
    /// `None` for an optional input that is left out.
    pub(crate) inputs: Vec<Option<ValueId>>,
    pub(crate) outputs: Vec<ValueId>,
    pub(crate) attributes: HashMap<String, Attribute>,
    /// The version of the operator set that it is from.
    pub(crate) opset: i64,
}

#[derive(Clone, Debug)]
pub(crate) enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Tensor(Arc<HostTensor>),
}

impl Node {
    pub(crate) fn int(&self, name: &str, default: i64) -> i64 {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => *value,
            _ => default,
        }
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> f32 {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => *value,
            _ => default,
        }
    }

    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// The first output; a damaged file may have a node without any.
    pub(crate) fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied()
    }

    /// An input that is there.
    pub(crate) fn input(&self, at: usize) -> Option<ValueId> {
        self.inputs.get(at).copied().flatten()
    }
}

/// Reads the file; constants are in memory then.
pub(crate) fn read(model: &Model) -> Result<Program, Cannot> {
    let file = File::open(model.path())?;
    if file.metadata()?.len() < model.n_bytes() {
        return Err(Cannot::File(io::ErrorKind::UnexpectedEof.into()));
    }
    let proto = ModelProto::parse_file(file);
    let proto = proto.map_err(|error| Cannot::Model(error.to_string()))?;
    let graph = proto.graph.ok_or_else(|| Cannot::Model("the file has no graph".to_owned()))?;
    Reader { model, names: HashMap::new() }.program(graph)
}

struct Reader<'a> {
    model: &'a Model,
    names: HashMap<String, ValueId>,
}

impl Reader<'_> {
    fn id(&mut self, name: &str) -> ValueId {
        let next = self.names.len();
        *self.names.entry(name.to_owned()).or_insert(next)
    }

    fn program(mut self, graph: GraphProto) -> Result<Program, Cannot> {
        let mut constants = HashMap::new();
        for tensor in &graph.initializer {
            let name = tensor.name.clone().unwrap_or_default();
            let value = self.constant(tensor).map_err(|reason| {
                let name = name.clone();
                Cannot::Constant { name, reason }
            })?;
            constants.insert(self.id(&name), Arc::new(value));
        }
        let nodes = graph.node.into_iter().map(|node| self.node(node)).collect::<Result<_, _>>()?;
        let signature = self.model.signature();
        let inputs: Vec<_> = signature.inputs.iter().map(|spec| self.id(&spec.name)).collect();
        let outputs = signature.outputs.iter().map(|spec| self.id(&spec.name)).collect();
        // A constant that is also a declared input of the model is the request's to give.
        inputs.iter().for_each(|id| drop(constants.remove(id)));
        Ok(Program { nodes, constants, inputs, outputs })
    }

    fn node(&mut self, proto: NodeProto) -> Result<Node, Cannot> {
        let domain = proto.domain.unwrap_or_default();
        let domain = if domain == "ai.onnx" { String::new() } else { domain };
        let operator = proto.op_type.unwrap_or_default();
        let operator = if domain.is_empty() { operator } else { format!("{domain}.{operator}") };
        let name = proto.name.filter(|name| !name.is_empty());
        let name = name.or_else(|| proto.output.first().cloned()).unwrap_or_default();
        let id = |it: &mut Self, name: &String| (!name.is_empty()).then(|| it.id(name));
        let inputs = proto.input.iter().map(|name| id(self, name)).collect();
        let outputs = proto.output.iter().map(|name| self.id(name)).collect();
        let opset = self.model.opsets().get(&domain).copied().unwrap_or(1);
        let mut node = Node { operator, name, inputs, outputs, attributes: HashMap::new(), opset };
        for attribute in proto.attribute {
            let name = attribute.name.clone().unwrap_or_default();
            let value = self.attribute(attribute).map_err(|reason| Cannot::case(&node, reason))?;
            node.attributes.extend(value.map(|value| (name, value)));
        }
        Ok(node)
    }

    /// `None` for kinds that no supported operator reads.
    fn attribute(&self, proto: AttributeProto) -> Result<Option<Attribute>, String> {
        if let Some(tensor) = proto.t {
            return Ok(Some(Attribute::Tensor(Arc::new(self.constant(&tensor)?))));
        }
        if proto.g.is_some() {
            return Err("it holds a graph of its own".to_owned());
        }
        let lists = match (proto.ints.is_empty(), proto.floats.is_empty()) {
            (false, _) => Some(Attribute::Ints(proto.ints)),
            (true, false) => Some(Attribute::Floats(proto.floats)),
            (true, true) => None,
        };
        let single = proto.i.map(Attribute::Int).or(proto.f.map(Attribute::Float));
        Ok(lists.or(single).or(proto.s.map(Attribute::Text)))
    }

    fn constant(&self, tensor: &TensorProto) -> Result<HostTensor, String> {
        let shape: Vec<usize> = tensor
            .dims
            .iter()
            .map(|&extent| {
                usize::try_from(extent).map_err(|_| "it has a negative extent".to_owned())
            })
            .collect::<Result<_, _>>()?;
        let n_elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        let n_elements = n_elements.ok_or("its extents overflow")?;
        let external = tensor.data_location == Some(DataLocation::EXTERNAL);
        let raw = match (&tensor.raw_data, external) {
            (_, true) => Some(self.external(tensor)?),
            (Some(raw), false) => Some(raw.take()),
            (None, false) => None,
        };
        let (dtype, data) = values(tensor, raw.as_deref())?;
        let value = HostTensor { dtype, shape, data };
        if value.len() == n_elements {
            Ok(value)
        } else {
            Err(format!("it has {} of {n_elements} elements", value.len()))
        }
    }

    /// The bytes of a tensor beside the model. The model's own check found the file long enough.
    fn external(&self, tensor: &TensorProto) -> Result<Vec<u8>, String> {
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|it| it.key.as_deref() == Some(key));
            found.and_then(|entry| entry.value.as_deref())
        };
        let number = |key| entry(key).map(str::parse::<u64>).transpose();
        let location = entry("location").ok_or("it does not say in which file it is")?;
        let file = self.model.external_files().iter().find(|file| file.location == location);
        let file = file.ok_or_else(|| format!("`{location}` is not known"))?;
        let offset = number("offset").map_err(|error| error.to_string())?.unwrap_or(0);
        let length = number("length").map_err(|error| error.to_string())?;
        let found = fs::metadata(&file.path).map_err(|error| error.to_string())?.len();
        let length = length.unwrap_or(found.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > found) {
            return Err(format!("`{location}` is too short"));
        }
        let mut bytes = Vec::new();
        let mut file = File::open(&file.path).map_err(|error| error.to_string())?;
        file.seek(SeekFrom::Start(offset)).map_err(|error| error.to_string())?;
        file.take(length).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

fn values(tensor: &TensorProto, raw: Option<&[u8]>) -> Result<(DataType, HostData), String> {
    let wide = |values: &[i32]| values.iter().copied().map(i64::from).collect();
    Ok(match (tensor.data_type, raw) {
        (Some(Type::FLOAT), Some(raw)) => {
            (DataType::F32, HostData::Floats(elements(raw, f32::from_le_bytes)?))
        }
        (Some(Type::FLOAT), None) => (DataType::F32, HostData::Floats(tensor.float_data.clone())),
        (Some(Type::FLOAT16), Some(raw)) => {
            let half = |bytes| half::f16::from_le_bytes(bytes).to_f32();
            (DataType::F32, HostData::Floats(elements(raw, half)?))
        }
        (Some(Type::INT64), Some(raw)) => {
            (DataType::I64, HostData::Ints(elements(raw, i64::from_le_bytes)?))
        }
        (Some(Type::INT64), None) => (DataType::I64, HostData::Ints(tensor.int64_data.clone())),
        (Some(Type::INT32), Some(raw)) => {
            let int = |bytes| i32::from_le_bytes(bytes).into();
            (DataType::I32, HostData::Ints(elements(raw, int)?))
        }
        (Some(Type::INT32), None) => (DataType::I32, HostData::Ints(wide(&tensor.int32_data))),
        (Some(Type::BOOL), Some(raw)) => {
            let values = raw.iter().map(|&byte| i64::from(byte != 0)).collect();
            (DataType::Bool, HostData::Ints(values))
        }
        (Some(Type::BOOL), None) => (DataType::Bool, HostData::Ints(wide(&tensor.int32_data))),
        (dtype, _) => {
            let name = dtype.as_ref().and_then(Type::name).unwrap_or("unknown").to_owned();
            return Err(format!("constants of type {name} are not read"));
        }
    })
}

fn elements<const N: usize, T>(raw: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, String> {
    let (chunks, rest) = raw.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are no whole number of elements", raw.len()));
    }
    Ok(chunks.iter().copied().map(read).collect())
}
