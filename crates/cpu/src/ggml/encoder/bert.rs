//! Encoders like BERT: a vector is learnt for every position, and layers are normalised at their ends.
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2018; tensors as llama.cpp names them.

use shapeyard_core::model::gguf::EncoderSizes;

use super::graph::Sketch;
use super::weights::Weights;
use crate::ggml::builder::Binary;
use crate::ggml::cannot::Cannot;
use crate::ggml::context::{Made, Tensor};
use crate::ggml::layers::{Besides, Matrix};

#[derive(Debug)]
pub(crate) struct Bert {
    words: Tensor,
    /// What each kind of token adds; texts without pairs are all of the first.
    types: Option<Tensor>,
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    n_heads: usize,
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: Norm,
    up: Linear,
    down: Linear,
    last_norm: Norm,
}

#[derive(Debug)]
struct Linear {
    matrix: Matrix,
    bias: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Bert {
    pub(crate) fn read(weights: &mut Weights<'_>, sizes: &EncoderSizes) -> Result<Self, Cannot> {
        let &EncoderSizes { hidden, n_heads, vocabulary, positions, .. } = sizes;
        let types = "token_types.weight";
        let types = match weights.n_rows(types) {
            Some(n_types) => Some(weights.table(types, [n_types, hidden])?),
            None => None,
        };
        Ok(Self {
            words: weights.table("token_embd.weight", [vocabulary, hidden])?,
            types,
            positions: weights.table("position_embd.weight", [positions, hidden])?,
            norm: Norm::read(weights, "token_embd_norm", sizes)?,
            layers: (0..sizes.n_layers)
                .map(|layer| Layer::read(weights, layer, sizes))
                .collect::<Result<_, _>>()?,
            n_heads,
        })
    }

    /// One vector a row.
    pub(crate) fn forward(&self, sketch: &mut Sketch<'_>) -> Made {
        let builder = sketch.builder;
        let words = builder.rows(&self.words, &sketch.tokens)?;
        let positions = builder.rows(&self.positions, &sketch.places)?;
        let mut state = builder.binary(Binary::Add, &words, &positions)?;
        if let Some(types) = &self.types {
            let first = sketch.row_numbers(&[0])?;
            let kind = builder.rows(types, &first)?;
            state = builder.binary(Binary::Add, &state, &kind)?;
        }
        state = self.norm.of(sketch, &state)?;
        for layer in &self.layers {
            state = layer.forward(sketch, &state, self.n_heads)?;
        }
        Ok(state)
    }
}

impl Layer {
    fn read(weights: &mut Weights<'_>, layer: usize, sizes: &EncoderSizes) -> Result<Self, Cannot> {
        let &EncoderSizes { hidden, intermediate, .. } = sizes;
        let part = |part: &str| format!("blk.{layer}.{part}");
        let mut linear = |name: &str, shape| Linear::read(weights, &part(name), shape);
        let (query, key) = (linear("attn_q", [hidden; 2])?, linear("attn_k", [hidden; 2])?);
        let (value, output) = (linear("attn_v", [hidden; 2])?, linear("attn_output", [hidden; 2])?);
        let up = linear("ffn_up", [intermediate, hidden])?;
        let down = linear("ffn_down", [hidden, intermediate])?;
        let norm = Norm::read(weights, &part("attn_output_norm"), sizes)?;
        let last_norm = Norm::read(weights, &part("layer_output_norm"), sizes)?;
        Ok(Self { query, key, value, output, norm, up, down, last_norm })
    }

    fn forward(&self, sketch: &mut Sketch<'_>, state: &Tensor, n_heads: usize) -> Made {
        let heads = |sketch: &Sketch<'_>, linear: &Linear| {
            sketch.heads(&linear.of(sketch, state, Besides::default())?, n_heads)
        };
        let query = heads(sketch, &self.query)?;
        let key = heads(sketch, &self.key)?;
        let value = heads(sketch, &self.value)?;
        let mixed = sketch.attention([&query, &key, &value], None)?;
        let after = |added| Besides { added: Some(added), ..Besides::default() };
        let sum = self.output.of(sketch, &mixed, after(state))?;
        let state = self.norm.of(sketch, &sum)?;
        let wide = self.up.of(sketch, &state, Besides { gelu: true, ..Besides::default() })?;
        let sum = self.down.of(sketch, &wide, after(&state))?;
        self.last_norm.of(sketch, &sum)
    }
}

impl Linear {
    fn read(weights: &mut Weights<'_>, name: &str, shape: [usize; 2]) -> Result<Self, Cannot> {
        let matrix = weights.matrix(name, shape)?;
        Ok(Self { matrix, bias: weights.vector(&format!("{name}.bias"), shape[0])? })
    }

    fn of(&self, sketch: &Sketch<'_>, x: &Tensor, besides: Besides<'_>) -> Made {
        let besides = Besides { bias: Some(&self.bias), ..besides };
        sketch.builder.linear(x, &self.matrix, besides)
    }
}

impl Norm {
    fn read(weights: &mut Weights<'_>, name: &str, sizes: &EncoderSizes) -> Result<Self, Cannot> {
        let mut vector = |part| weights.vector(&format!("{name}.{part}"), sizes.hidden);
        Ok(Self { weight: vector("weight")?, bias: vector("bias")?, epsilon: sizes.epsilon })
    }

    fn of(&self, sketch: &Sketch<'_>, x: &Tensor) -> Made {
        sketch.builder.layer_norm(x, &self.weight, Some(&self.bias), self.epsilon)
    }
}
