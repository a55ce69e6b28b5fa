//! Encoders like ModernBERT: normalised before each part and without biases, positions as rotations, and
//! attention to what is near in most layers.
//!
//! Warner et al., "Smarter, Better, Faster, Longer", 2024; tensors as llama.cpp names them.

use shapeyard_core::model::gguf::{EncoderSizes, LocalAttention};

use super::graph::Sketch;
use super::weights::Weights;
use crate::ggml::cannot::Cannot;
use crate::ggml::context::{Made, Tensor};
use crate::ggml::layers::{Besides, Matrix};

#[derive(Debug)]
pub(crate) struct ModernBert {
    words: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
    last_norm: Norm,
    n_heads: usize,
}

#[derive(Debug)]
struct Layer {
    /// Published models lack the first: their embeddings have just been normalised.
    norm: Option<Norm>,
    /// Query, key and value one after the other.
    heads: Matrix,
    output: Matrix,
    wide_norm: Norm,
    /// What is bent, and what it is multiplied by.
    up: Matrix,
    down: Matrix,
    /// How far rows look, and the base of the rotations' wavelengths.
    reach: Option<usize>,
    base: f32,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    epsilon: f32,
}

impl ModernBert {
    pub(crate) fn read(
        weights: &mut Weights<'_>,
        sizes: &EncoderSizes,
        local: &LocalAttention,
    ) -> Result<Self, Cannot> {
        Ok(Self {
            words: weights.table("token_embd.weight", [sizes.vocabulary, sizes.hidden])?,
            norm: Norm::read(weights, "token_embd_norm", sizes)?,
            layers: (0..sizes.n_layers)
                .map(|layer| Layer::read(weights, layer, sizes, local))
                .collect::<Result<_, _>>()?,
            last_norm: Norm::read(weights, "output_norm", sizes)?,
            n_heads: sizes.n_heads,
        })
    }

    /// One vector a row.
    pub(crate) fn forward(&self, sketch: &mut Sketch<'_>) -> Made {
        let words = sketch.builder.rows(&self.words, &sketch.tokens)?;
        let mut state = self.norm.of(sketch, &words)?;
        for layer in &self.layers {
            state = layer.forward(sketch, &state, self.n_heads)?;
        }
        self.last_norm.of(sketch, &state)
    }
}

impl Layer {
    fn read(
        weights: &mut Weights<'_>,
        layer: usize,
        sizes: &EncoderSizes,
        local: &LocalAttention,
    ) -> Result<Self, Cannot> {
        let &EncoderSizes { hidden, intermediate, .. } = sizes;
        let part = |part: &str| format!("blk.{layer}.{part}");
        let norm = part("attn_norm");
        let has_norm = weights.n_rows(&format!("{norm}.weight")).is_some();
        let is_global = local.is_global(layer);
        Ok(Self {
            norm: has_norm.then(|| Norm::read(weights, &norm, sizes)).transpose()?,
            heads: weights.matrix(&part("attn_qkv"), [3 * hidden, hidden])?,
            output: weights.matrix(&part("attn_output"), [hidden, hidden])?,
            wide_norm: Norm::read(weights, &part("ffn_norm"), sizes)?,
            up: weights.matrix(&part("ffn_up"), [2 * intermediate, hidden])?,
            down: weights.matrix(&part("ffn_down"), [hidden, intermediate])?,
            reach: (!is_global).then_some(local.window / 2),
            base: if is_global { local.global_base } else { local.local_base },
        })
    }

    fn forward(&self, sketch: &mut Sketch<'_>, state: &Tensor, n_heads: usize) -> Made {
        let builder = sketch.builder;
        let plain = Besides::default();
        let normal = match &self.norm {
            Some(norm) => norm.of(sketch, state)?,
            None => state.clone(),
        };
        let flat = builder.linear(&normal, &self.heads, plain)?;
        let heads = sketch.heads(&flat, 3 * n_heads)?;
        let turning = builder.part(&heads, 1, 0, 2 * n_heads)?;
        let turned = builder.rotate(&turning, &sketch.places, self.base)?;
        let query = builder.part(&turned, 1, 0, n_heads)?;
        let key = builder.part(&turned, 1, n_heads, n_heads)?;
        let value = builder.part(&heads, 1, 2 * n_heads, n_heads)?;
        let mixed = sketch.attention([&query, &key, &value], self.reach)?;
        let state =
            builder.linear(&mixed, &self.output, Besides { added: Some(state), ..plain })?;
        let normal = self.wide_norm.of(sketch, &state)?;
        let wide = builder.linear(&normal, &self.up, plain)?;
        let gated = builder.gated_gelu(&wide)?;
        builder.linear(&gated, &self.down, Besides { added: Some(&state), ..plain })
    }
}

impl Norm {
    fn read(weights: &mut Weights<'_>, name: &str, sizes: &EncoderSizes) -> Result<Self, Cannot> {
        let weight = weights.vector(&format!("{name}.weight"), sizes.hidden)?;
        Ok(Self { weight, epsilon: sizes.epsilon })
    }

    fn of(&self, sketch: &Sketch<'_>, x: &Tensor) -> Made {
        sketch.builder.layer_norm(x, &self.weight, None, self.epsilon)
    }
}
