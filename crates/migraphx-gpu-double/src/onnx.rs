//! Reading an ONNX file into a graph of one shape.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use rten_onnx::onnx::{
    DataLocation, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

use crate::dtype::Dtype;
use crate::error::Error;
use crate::graph::{Builder, Graph, Input, Tensor};
use crate::kernel::Home;
use crate::operators;
use crate::shape::Shape;

/// How a model is read.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The extents of inputs by name. Names that the model does not have are ignored.
    pub(crate) inputs: HashMap<String, Vec<usize>>,
    /// The extent of an axis that has none.
    pub(crate) default_extent: usize,
    /// Where external data lies; otherwise beside the model.
    pub(crate) folder: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { inputs: HashMap::new(), default_extent: 1, folder: None }
    }
}

pub(crate) fn read_file(path: &Path, options: &Options) -> Result<Graph, Error> {
    let bytes = fs::read(path).map_err(|error| {
        Error::failed(format!("Failure opening file: {}: {error}", path.display()))
    })?;
    let folder = options.folder.clone().or_else(|| path.parent().map(Path::to_owned));
    read(&bytes, &Options { folder, ..options.clone() })
}

pub(crate) fn read(bytes: &[u8], options: &Options) -> Result<Graph, Error> {
    let model = ModelProto::parse_buf(bytes)
        .map_err(|error| Error::failed(format!("Failed reading onnx file: {error}")))?;
    let graph = model.graph.unwrap_or_default();
    let mut reader = Reader { builder: Builder::default(), names: HashMap::new() };
    for tensor in &graph.initializer {
        let name = tensor.name.clone().unwrap_or_default();
        let literal = reader.literal(tensor, options)?;
        reader.names.insert(name, literal);
    }
    for input in &graph.input {
        reader.input(input, options)?;
    }
    for node in &graph.node {
        reader.node(node)?;
    }
    reader.outputs(&graph)?;
    Ok(reader.builder.graph)
}

struct Reader {
    builder: Builder,
    names: HashMap<String, Tensor>,
}

impl Reader {
    fn input(&mut self, input: &ValueInfoProto, options: &Options) -> Result<(), Error> {
        let name = input.name.clone().unwrap_or_default();
        // Old models list their weights among the inputs.
        if self.names.contains_key(&name) {
            return Ok(());
        }
        let declared = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
        let number = declared.and_then(|tensor| tensor.elem_type).map_or(0, |kind| kind.0);
        let dtype = dtype(number)?;
        let dims = declared.and_then(|tensor| tensor.shape.as_ref()).map(|shape| &shape.dim[..]);
        let own = dims.unwrap_or_default().iter().map(|dim| {
            dim.dim_value
                .and_then(|value| usize::try_from(value).ok())
                .unwrap_or(options.default_extent)
        });
        let lengths = options.inputs.get(&name).cloned().unwrap_or_else(|| own.collect());
        let shape = Shape::standard(dtype, &lengths);
        let value = self.builder.value(dtype, shape.n_elements(), Home::Input);
        self.names.insert(name.clone(), Tensor::whole(value, dtype, &lengths));
        self.builder.graph.inputs.push(Input { name, shape, value });
        Ok(())
    }

    fn node(&mut self, node: &NodeProto) -> Result<(), Error> {
        let operator = node.op_type.as_deref().unwrap_or_default();
        let mut inputs = Vec::new();
        for name in &node.input {
            // An input that is left out has an empty name.
            inputs.push(match name.as_str() {
                "" => None,
                name => Some(self.named(name)?.clone()),
            });
        }
        let made = operators::lower(&mut self.builder, operator, &inputs, &node.attribute)
            .map_err(|error| Error::failed(format!("{operator}: {error}")))?;
        let name = node.output.first().cloned().unwrap_or_default();
        self.names.insert(name, made);
        Ok(())
    }

    fn named(&self, name: &str) -> Result<&Tensor, Error> {
        self.names.get(name).ok_or_else(|| Error::failed(format!("nothing is called `{name}`")))
    }

    fn outputs(&mut self, graph: &GraphProto) -> Result<(), Error> {
        for output in &graph.output {
            let tensor = self.named(output.name.as_deref().unwrap_or_default())?.clone();
            self.builder.output(&tensor);
        }
        Ok(())
    }

    fn literal(&mut self, tensor: &TensorProto, options: &Options) -> Result<Tensor, Error> {
        let dtype = dtype(tensor.data_type.map_or(0, |kind| kind.0))?;
        let lengths: Vec<usize> =
            tensor.dims.iter().map(|length| usize::try_from(*length).unwrap_or(0)).collect();
        let n_bytes = lengths.iter().product::<usize>() * dtype.n_bytes();
        let mut bytes = bytes_of(tensor, dtype, options)?;
        if bytes.len() < n_bytes {
            let name = tensor.name.as_deref().unwrap_or_default();
            return Err(Error::failed(format!("the tensor `{name}` is cut off")));
        }
        bytes.truncate(n_bytes);
        Ok(self.builder.literal(dtype, &lengths, &bytes))
    }
}

fn dtype(number: i32) -> Result<Dtype, Error> {
    Dtype::from_onnx(number).ok_or_else(|| {
        Error::failed(format!("the double does not compute with ONNX type {number}"))
    })
}

/// The elements of a tensor, wherever the file keeps them.
fn bytes_of(tensor: &TensorProto, dtype: Dtype, options: &Options) -> Result<Vec<u8>, Error> {
    if tensor.data_location == Some(DataLocation::EXTERNAL) {
        return external(tensor, options);
    }
    if let Some(raw) = &tensor.raw_data {
        return Ok(raw.borrow().clone());
    }
    Ok(match dtype {
        Dtype::Float => tensor.float_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Dtype::Double => {
            tensor.double_data.iter().flat_map(|number| number.to_le_bytes()).collect()
        }
        Dtype::Int64 => tensor.int64_data.iter().flat_map(|number| number.to_le_bytes()).collect(),
        // Narrow types lie in the lower bytes of 32 bits.
        narrow => tensor
            .int32_data
            .iter()
            .flat_map(|number| number.to_le_bytes().into_iter().take(narrow.n_bytes()))
            .collect(),
    })
}

fn external(tensor: &TensorProto, options: &Options) -> Result<Vec<u8>, Error> {
    let entry = |key: &str| {
        let entries = tensor.external_data.iter();
        let found = entries.into_iter().find(|entry| entry.key.as_deref() == Some(key));
        found.and_then(|entry| entry.value.clone())
    };
    let location = entry("location").unwrap_or_default();
    let path = options.folder.clone().unwrap_or_default().join(location);
    let bytes = fs::read(&path).map_err(|error| {
        Error::failed(format!("Failure opening file: {}: {error}", path.display()))
    })?;
    let number = |key| entry(key).and_then(|text| text.parse::<usize>().ok());
    let start = number("offset").unwrap_or(0);
    let end = number("length").map_or(bytes.len(), |length| start.saturating_add(length));
    let part = bytes.get(start..end);
    part.map(<[u8]>::to_vec)
        .ok_or_else(|| Error::failed(format!("{} is too short", path.display())))
}
