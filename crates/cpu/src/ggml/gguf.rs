//! An encoder from a GGUF file, as the same kind of program that an ONNX file becomes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use ggml_sys::ggml_type;
use shapeyard_core::DataType;
use shapeyard_core::model::gguf::{EncoderKind, EncoderSizes, GgufFile, GgufTensor};

use super::cannot::Cannot;
use super::compute::Store;
use super::graph::{Context, Tensor};
use super::host::HostTensor;
use super::library::{Engine, Stream};
use super::mapped::{Mapped, Residence};
use super::onnx::{Attribute, Node, Program, ValueId};
use super::prepare::{self, GELU, Layout, MASK, MASKED_SOFTMAX, Prepared, Weights};
use super::widen;

/// Puts the file's tensors in place, and writes down what is computed with them.
pub(super) fn prepare(
    engine: &Arc<Engine>,
    path: &Path,
    file: &GgufFile,
    residence: Residence,
) -> Result<Prepared, Cannot> {
    let sizes = EncoderSizes::of(file).map_err(|error| Cannot::Failed(error.to_string()))?;
    let mut writer = Writer { file, names: HashMap::new(), program: empty() };
    let mut program = writer.encoder(&sizes).map_err(Cannot::Failed)?;
    prepare::find_attention(&mut program);
    let names = writer.names;
    let weights = place(engine, path, file, &names, residence).map_err(Cannot::Failed)?;
    Ok(Prepared { engine: Arc::clone(engine), program, weights })
}

fn empty() -> Program {
    let (nodes, constants) = (Vec::new(), HashMap::new());
    Program { nodes, constants, inputs: Vec::new(), outputs: Vec::new() }
}

/// Writes an encoder's nodes; every method answers the value that it made.
pub(super) struct Writer<'a> {
    file: &'a GgufFile,
    /// Values of tensors of the file, and of ours under names that no tensor has.
    names: HashMap<String, ValueId>,
    program: Program,
}

impl Writer<'_> {
    pub(super) fn value(&mut self, name: &str) -> ValueId {
        let next = self.names.len();
        *self.names.entry(name.to_owned()).or_insert(next)
    }

    pub(super) fn constant(&mut self, name: &str, value: HostTensor) -> ValueId {
        let id = self.value(name);
        self.program.constants.insert(id, Arc::new(value));
        id
    }

    pub(super) fn extents(&mut self, name: &str, values: &[i64]) -> ValueId {
        let list = HostTensor::ints(DataType::I64, vec![values.len()], values.to_vec());
        self.constant(name, list)
    }

    pub(super) fn node(
        &mut self,
        operator: &str,
        name: &str,
        inputs: &[ValueId],
        attributes: &[(&str, Attribute)],
    ) -> ValueId {
        let output = self.value(&format!("/{name}"));
        let attributes = attributes.iter().map(|(name, it)| ((*name).to_owned(), it.clone()));
        self.program.nodes.push(Node {
            operator: operator.to_owned(),
            name: name.to_owned(),
            inputs: inputs.iter().copied().map(Some).collect(),
            outputs: vec![output],
            attributes: attributes.collect(),
            opset: 17,
        });
        output
    }

    fn linear(&mut self, part: &str, from: ValueId) -> ValueId {
        let weight = self.value(&format!("{part}.weight"));
        let bias = self.value(&format!("{part}.bias"));
        let product = self.node("MatMul", &format!("{part}.product"), &[from, weight], &[]);
        self.node("Add", &format!("{part}.out"), &[product, bias], &[])
    }

    fn norm(&mut self, part: &str, epsilon: f32, from: ValueId) -> ValueId {
        let weight = self.value(&format!("{part}.weight"));
        let bias = self.value(&format!("{part}.bias"));
        let epsilon = [("epsilon", Attribute::Float(epsilon))];
        self.node("LayerNormalization", &format!("{part}.out"), &[from, weight, bias], &epsilon)
    }

    /// Whether the file has a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.file.tensors.contains_key(tensor)
    }

    fn encoder(&mut self, sizes: &EncoderSizes) -> Result<Program, String> {
        let ids = self.value("/input_ids");
        let given = self.value("/attention_mask");
        let state = match &sizes.kind {
            EncoderKind::Bert => self.bert(sizes, [ids, given]),
            EncoderKind::ModernBert(local) => self.modern_bert(sizes, local, [ids, given]),
            other => return Err(format!("ggml has no graph for {other:?}")),
        };
        let mut program = std::mem::replace(&mut self.program, empty());
        program.inputs = vec![ids, given];
        program.outputs = vec![state];
        Ok(program)
    }

    fn bert(&mut self, sizes: &EncoderSizes, [ids, given]: [ValueId; 2]) -> ValueId {
        let mask = self.node(MASK, "mask", &[given], &[]);
        let mut state = self.embeddings(sizes, ids);
        for layer in 0..sizes.n_layers {
            state = self.layer(sizes, layer, state, mask);
        }
        state
    }

    /// 0, 1, 2 … up to the length of the texts.
    pub(super) fn places(&mut self, ids: ValueId) -> ValueId {
        let part = [("start", Attribute::Int(1)), ("end", Attribute::Int(2))];
        let length = self.node("Shape", "n_places", &[ids], &part);
        let (zero, step) = (self.extents("/zero", &[0]), self.extents("/step", &[1]));
        self.node("Range", "places", &[zero, length, step], &[])
    }

    fn embeddings(&mut self, sizes: &EncoderSizes, ids: ValueId) -> ValueId {
        let table = self.value("token_embd.weight");
        let mut sum = self.node("Gather", "words", &[table, ids], &[]);
        if self.has("token_types.weight") {
            // Texts without pairs are all of the first type.
            let first = self.constant("/first", HostTensor::ints(DataType::I64, vec![], vec![0]));
            let table = self.value("token_types.weight");
            let kind = self.node("Gather", "types", &[table, first], &[]);
            sum = self.node("Add", "typed", &[sum, kind], &[]);
        }
        let places = self.places(ids);
        let table = self.value("position_embd.weight");
        let places = self.node("Gather", "places.rows", &[table, places], &[]);
        let sum = self.node("Add", "embeddings", &[sum, places], &[]);
        self.norm("token_embd_norm", sizes.epsilon, sum)
    }

    fn layer(
        &mut self,
        sizes: &EncoderSizes,
        layer: usize,
        state: ValueId,
        mask: ValueId,
    ) -> ValueId {
        let part = |part: &str| format!("blk.{layer}.{part}");
        let mixed = self.attention(sizes, &part(""), state, mask);
        let mixed = self.linear(&part("attn_output"), mixed);
        let sum = self.node("Add", &part("attn_sum"), &[mixed, state], &[]);
        let state = self.norm(&part("attn_output_norm"), sizes.epsilon, sum);
        let wide = self.linear(&part("ffn_up"), state);
        let bent = self.node(GELU, &part("gelu"), &[wide], &[]);
        let narrow = self.linear(&part("ffn_down"), bent);
        let sum = self.node("Add", &part("ffn_sum"), &[narrow, state], &[]);
        self.norm(&part("layer_output_norm"), sizes.epsilon, sum)
    }

    fn attention(
        &mut self,
        sizes: &EncoderSizes,
        layer: &str,
        state: ValueId,
        mask: ValueId,
    ) -> ValueId {
        let width = sizes.hidden / sizes.n_heads;
        let split = self.extents("/split", &[0, 0, sizes.n_heads as i64, width as i64]);
        let heads = |it: &mut Self, part: &str, order: [i64; 4]| {
            let part = format!("{layer}{part}");
            let flat = it.linear(&part, state);
            let apart = it.node("Reshape", &format!("{part}.apart"), &[flat, split], &[]);
            let order = [("perm", Attribute::Ints(order.to_vec()))];
            it.node("Transpose", &format!("{part}.heads"), &[apart], &order)
        };
        let query = heads(self, "attn_q", [0, 2, 1, 3]);
        let key = heads(self, "attn_k", [0, 2, 3, 1]);
        let value = heads(self, "attn_v", [0, 2, 1, 3]);
        self.mix(sizes, layer, [query, key, value, mask])
    }

    /// Attention of heads, [batch, heads, sequence, width]; the key as it is multiplied. The result is
    /// [batch, sequence, hidden].
    pub(super) fn mix(
        &mut self,
        sizes: &EncoderSizes,
        layer: &str,
        [query, key, value, mask]: [ValueId; 4],
    ) -> ValueId {
        let width = sizes.hidden / sizes.n_heads;
        let join = self.extents("/join", &[0, 0, sizes.hidden as i64]);
        let scores = self.node("MatMul", &format!("{layer}scores"), &[query, key], &[]);
        let scale = [("scale", Attribute::Float(1.0 / (width as f32).sqrt()))];
        let shares = self.node(MASKED_SOFTMAX, &format!("{layer}shares"), &[scores, mask], &scale);
        let mixed = self.node("MatMul", &format!("{layer}mixed"), &[shares, value], &[]);
        let order = [("perm", Attribute::Ints(vec![0, 2, 1, 3]))];
        let rows = self.node("Transpose", &format!("{layer}rows"), &[mixed], &order);
        self.node("Reshape", &format!("{layer}joined"), &[rows, join], &[])
    }
}

/// A matrix lies in the file as ggml multiplies with it; tables and vectors are used as they are.
fn layout(name: &str, tensor: &GgufTensor) -> Layout {
    let is_table = name.ends_with("_embd.weight") || name == "token_types.weight";
    if tensor.shape.len() == 2 && !is_table { Layout::Transposed } else { Layout::Plain }
}

fn place(
    engine: &Arc<Engine>,
    path: &Path,
    file: &GgufFile,
    names: &HashMap<String, ValueId>,
    residence: Residence,
) -> Result<Weights, String> {
    let used: Vec<(&GgufTensor, ValueId, Layout)> = file
        .tensors
        .iter()
        .filter_map(|(name, tensor)| Some((tensor, *names.get(name)?, layout(name, tensor))))
        .collect();
    let mut content = File::open(path).map_err(|error| error.to_string())?;
    let mapped = match residence {
        Residence::Mapped => Mapped::new(engine, &content)?,
        Residence::Copied => None,
    };
    let context = Context::new(engine, used.len(), 0)?;
    let mut tensors: HashMap<(ValueId, Layout), Tensor> = HashMap::new();
    let mut shapes = HashMap::new();
    let mut copied = Vec::new();
    for &(tensor, id, layout) in &used {
        let dtype = widen::held(tensor.dtype, layout);
        let number = i32::try_from(dtype.number()).map_err(|error| error.to_string())?;
        let leaf = context.leaf(ggml_type(number), &tensor.shape).map_err(|it| it.to_string())?;
        let stays = match &mapped {
            Some(mapped) if dtype == tensor.dtype => {
                mapped.place(&leaf, tensor.offset, tensor.n_bytes)?
            }
            _ => false,
        };
        if !stays {
            copied.push((tensor, leaf.clone(), dtype));
        }
        tensors.insert((id, layout), leaf);
        let mut shape = tensor.shape.clone();
        if layout == Layout::Transposed {
            shape.reverse();
        }
        shapes.insert(id, shape);
    }
    let stream = Stream::new(engine, NonZeroUsize::MIN)?;
    let store = Store::beside(mapped, context, &stream, copied.len())?;
    for (tensor, leaf, dtype) in copied {
        content.seek(SeekFrom::Start(tensor.offset)).map_err(|error| error.to_string())?;
        let mut part = content.by_ref().take(tensor.n_bytes);
        if dtype == tensor.dtype {
            store.read(&leaf, &mut part)?;
        } else {
            let mut bytes = Vec::new();
            part.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            store.write(&leaf, &widen::widen(&bytes))?;
        }
    }
    Ok(Weights { _store: store, tensors, shapes })
}
