//! Encoders like BERT: which tensors they have, and what a request looks like.

use std::collections::BTreeMap;

use super::modern_bert::{self, LocalAttention};
use super::{GgufError, GgufFile, GgufTensor, GgufType, GgufValue};
use crate::DataType;
use crate::signature::{Dim, Signature, SymbolId, TensorSpec};

/// What an encoder computes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EncoderKind {
    /// As BERT: a vector is learnt for every position, and every layer looks at all tokens.
    Bert,
    /// As ModernBERT: positions are rotations, and most layers look only near by.
    ModernBert(LocalAttention),
}

/// The sizes of an encoder.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct EncoderSizes {
    /// What it computes with them.
    pub kind: EncoderKind,
    /// Layers.
    pub n_layers: usize,
    /// Heads of a layer's attention.
    pub n_heads: usize,
    /// Numbers in a token's vector.
    pub hidden: usize,
    /// Numbers between the two matrices after the attention.
    pub intermediate: usize,
    /// Tokens that are known.
    pub vocabulary: usize,
    /// Positions that are known: the longest text.
    pub positions: usize,
    /// What the variance is raised by before its root is taken.
    pub epsilon: f32,
}

/// The largest number of layers that is taken.
const MOST_LAYERS: usize = 1024;

impl EncoderSizes {
    /// Reads the sizes, and checks that every tensor is there in its shape.
    ///
    /// # Errors
    ///
    /// [`GgufError::Architecture`] and [`GgufError::NotAnEncoder`].
    pub fn of(file: &GgufFile) -> Result<Self, GgufError> {
        let sizes = match file.text("general.architecture").unwrap_or_default() {
            BERT => read_bert(file)?,
            modern_bert::NAME => modern_bert::read(file)?,
            other => return Err(GgufError::Architecture { found: other.to_owned() }),
        };
        for (name, shape) in sizes.tensors() {
            let found =
                file.tensors.get(&name).ok_or_else(|| not(format!("it has no `{name}`")))?;
            check(&name, found, &shape)?;
        }
        Ok(sizes)
    }

    /// Every tensor that has to be there, with its shape.
    #[must_use]
    pub fn tensors(&self) -> BTreeMap<String, Vec<usize>> {
        match self.kind {
            EncoderKind::Bert => self.bert_tensors(),
            EncoderKind::ModernBert(_) => modern_bert::tensors(self),
        }
    }

    fn bert_tensors(&self) -> BTreeMap<String, Vec<usize>> {
        let mut tensors = BTreeMap::from([
            ("token_embd.weight".to_owned(), vec![self.vocabulary, self.hidden]),
            ("position_embd.weight".to_owned(), vec![self.positions, self.hidden]),
            ("token_embd_norm.weight".to_owned(), vec![self.hidden]),
            ("token_embd_norm.bias".to_owned(), vec![self.hidden]),
        ]);
        for layer in 0..self.n_layers {
            for (part, outward, inward) in layer_tensors(self.hidden, self.intermediate) {
                let weight = if inward == 0 { vec![outward] } else { vec![outward, inward] };
                tensors.insert(format!("blk.{layer}.{part}.weight"), weight);
                tensors.insert(format!("blk.{layer}.{part}.bias"), vec![outward]);
            }
        }
        tensors
    }

    /// What a request gives and gets: ids and mask to one vector a token.
    #[must_use]
    pub fn signature(&self) -> Signature {
        let (batch, sequence) = (Dim::Symbol(SymbolId(0)), Dim::Symbol(SymbolId(1)));
        let input = |name: &str, index_limit| TensorSpec {
            name: name.to_owned(),
            dtype: DataType::I64,
            shape: Some(vec![batch, sequence]),
            index_limit,
        };
        Signature {
            inputs: vec![input("input_ids", Some(self.vocabulary)), input("attention_mask", None)],
            outputs: vec![TensorSpec {
                name: "last_hidden_state".to_owned(),
                dtype: DataType::F32,
                shape: Some(vec![batch, sequence, Dim::Fixed(self.hidden)]),
                index_limit: None,
            }],
            symbols: vec!["batch".to_owned(), "sequence".to_owned()],
        }
    }
}

/// The parts of a layer of [`EncoderKind::Bert`] with the extents of their weights, outward and inward; a norm has none inward.
#[must_use]
pub const fn layer_tensors(hidden: usize, wide: usize) -> [(&'static str, usize, usize); 8] {
    [
        ("attn_q", hidden, hidden),
        ("attn_k", hidden, hidden),
        ("attn_v", hidden, hidden),
        ("attn_output", hidden, hidden),
        ("attn_output_norm", hidden, 0),
        ("ffn_up", wide, hidden),
        ("ffn_down", hidden, wide),
        ("layer_output_norm", hidden, 0),
    ]
}

/// A table that an encoder may lack: what each kind of token adds.
const TOKEN_TYPES: &str = "token_types.weight";

/// The architecture's name in the metadata, which its keys begin with.
const BERT: &str = "bert";

pub(super) fn check(name: &str, found: &GgufTensor, shape: &[usize]) -> Result<(), GgufError> {
    if found.shape != shape {
        return Err(not(format!("`{name}` is {:?}, not {shape:?}", found.shape)));
    }
    // Vectors are added and multiplied, for which nothing but f32 is taken.
    let fits =
        if shape.len() == 1 { found.dtype == GgufType::F32 } else { found.dtype.is_weight() };
    let number = found.dtype.number();
    if fits { Ok(()) } else { Err(not(format!("`{name}` is of type number {number}"))) }
}

pub(super) fn not(reason: String) -> GgufError {
    GgufError::NotAnEncoder { reason }
}

/// A size of the metadata, by the architecture's name and the key's; never 0.
pub(super) fn size(file: &GgufFile, architecture: &str, key: &str) -> Result<usize, GgufError> {
    let key = format!("{architecture}.{key}");
    let found = file.size(&key).filter(|size| *size > 0);
    found.ok_or_else(|| not(format!("`{key}` is no size or missing")))
}

fn rows(file: &GgufFile, name: &str) -> Result<usize, GgufError> {
    match file.tensors.get(name).map(|tensor| tensor.shape.as_slice()) {
        Some(&[rows, _]) => Ok(rows),
        _ => Err(not(format!("`{name}` is missing or no matrix"))),
    }
}

fn read_bert(file: &GgufFile) -> Result<EncoderSizes, GgufError> {
    let positions = rows(file, "position_embd.weight")?;
    let sizes = read_common(file, BERT, positions, EncoderKind::Bert)?;
    if let Some(types) = file.tensors.get(TOKEN_TYPES) {
        let n_types = types.shape.first().copied().unwrap_or_default();
        check(TOKEN_TYPES, types, &[n_types, sizes.hidden])?;
    }
    Ok(sizes)
}

/// What the metadata says under the same keys for every kind.
pub(super) fn read_common(
    file: &GgufFile,
    architecture: &str,
    positions: usize,
    kind: EncoderKind,
) -> Result<EncoderSizes, GgufError> {
    let epsilon_key = format!("{architecture}.attention.layer_norm_epsilon");
    let epsilon = match file.metadata.get(&epsilon_key) {
        Some(&GgufValue::Float(value)) if (0.0..1.0).contains(&value) => value as f32,
        _ => return Err(not(format!("`{epsilon_key}` is missing"))),
    };
    let size = |key: &str| size(file, architecture, key);
    let sizes = EncoderSizes {
        kind,
        n_layers: size("block_count")?,
        n_heads: size("attention.head_count")?,
        hidden: size("embedding_length")?,
        intermediate: size("feed_forward_length")?,
        vocabulary: rows(file, "token_embd.weight")?,
        positions,
        epsilon,
    };
    if sizes.n_layers > MOST_LAYERS {
        return Err(not(format!("it has {} layers", sizes.n_layers)));
    }
    if !sizes.hidden.is_multiple_of(sizes.n_heads) {
        let (hidden, heads) = (sizes.hidden, sizes.n_heads);
        return Err(not(format!("{heads} heads do not divide a vector of {hidden}")));
    }
    Ok(sizes)
}
