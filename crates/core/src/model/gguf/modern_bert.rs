//! Encoders like ModernBERT: positions are rotations, and most layers look only near by.
//!
//! Keys and tensors are named as in llama.cpp's architecture `modern-bert`.

use std::collections::BTreeMap;

use super::encoder::{EncoderKind, EncoderSizes, check, not, read_common, size};
use super::{GgufError, GgufFile, GgufValue};

/// The architecture's name in the metadata, which its keys begin with.
pub(super) const NAME: &str = "modern-bert";

/// The norm before the first attention, which published models lack: the embeddings have just been normalised.
const FIRST_NORM: &str = "blk.0.attn_norm.weight";

/// Every so many layers one is global, where the file does not say; as in llama.cpp.
const USUAL_PERIOD: usize = 3;

/// More positions than any model has; what is kept for each stays small.
const MOST_POSITIONS: usize = 1 << 20;

/// How an encoder like ModernBERT attends.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LocalAttention {
    /// Tokens that a local layer looks at: up to half as many on either side.
    pub window: usize,
    /// The first of every so many layers looks at all tokens.
    pub period: usize,
    /// The base of the rotations' wavelengths in layers that look at all tokens.
    pub global_base: f32,
    /// As `global_base`, in local layers.
    pub local_base: f32,
}

impl LocalAttention {
    /// Whether a layer looks at all tokens.
    #[must_use]
    pub const fn is_global(&self, layer: usize) -> bool {
        layer.is_multiple_of(self.period)
    }
}

pub(super) fn read(file: &GgufFile) -> Result<EncoderSizes, GgufError> {
    let local = LocalAttention {
        window: size(file, NAME, "attention.sliding_window")?,
        period: match file.metadata.contains_key(&key("attention.sliding_window_pattern")) {
            true => size(file, NAME, "attention.sliding_window_pattern")?,
            false => USUAL_PERIOD,
        },
        global_base: base(file, "rope.freq_base")?,
        local_base: base(file, "rope.freq_base_swa")?,
    };
    let positions = size(file, NAME, "context_length")?;
    if positions > MOST_POSITIONS {
        return Err(not(format!("`{}` is {positions}", key("context_length"))));
    }
    let sizes = read_common(file, NAME, positions, EncoderKind::ModernBert(local))?;
    let width = sizes.hidden / sizes.n_heads;
    if !width.is_multiple_of(2) {
        return Err(not(format!("a head of {width} numbers cannot be rotated in pairs")));
    }
    check_variant(file, &sizes, width)?;
    if let Some(norm) = file.tensors.get(FIRST_NORM) {
        check(FIRST_NORM, norm, &[sizes.hidden])?;
    }
    Ok(sizes)
}

/// What other models of the architecture do and this reader's do not.
fn check_variant(file: &GgufFile, sizes: &EncoderSizes, width: usize) -> Result<(), GgufError> {
    let is_size = |name: &str, wanted: usize| match file.metadata.get(&key(name)) {
        Some(found) if file.size(&key(name)) != Some(wanted) => {
            Err(not(format!("`{}` is {found:?}; {wanted} is served", key(name))))
        }
        _ => Ok(()),
    };
    let is_text = |name: &str, wanted: &str| match file.metadata.get(&key(name)) {
        Some(found) if file.text(&key(name)) != Some(wanted) => {
            Err(not(format!("`{}` is {found:?}; `{wanted}` is served", key(name))))
        }
        _ => Ok(()),
    };
    is_size("attention.head_count_kv", sizes.n_heads)?;
    is_size("rope.dimension_count", width)?;
    is_text("rope.scaling.type", "none")?;
    is_text("hidden_activation", "gelu")?;
    match file.metadata.get(&key("attention.causal")) {
        None | Some(GgufValue::Bool(false)) => Ok(()),
        Some(_) => Err(not("its tokens look only at those before them".to_owned())),
    }
}

fn key(name: &str) -> String {
    format!("{NAME}.{name}")
}

fn base(file: &GgufFile, name: &str) -> Result<f32, GgufError> {
    match file.metadata.get(&key(name)) {
        Some(&GgufValue::Float(value)) if (1.0..=1e12).contains(&value) => Ok(value as f32),
        _ => Err(not(format!("`{}` is missing or no number of at least 1", key(name)))),
    }
}

pub(super) fn tensors(sizes: &EncoderSizes) -> BTreeMap<String, Vec<usize>> {
    let EncoderSizes { hidden, intermediate, .. } = *sizes;
    let times = |n: usize, extent: usize| extent.saturating_mul(n);
    let mut tensors = BTreeMap::from([
        ("token_embd.weight".to_owned(), vec![sizes.vocabulary, hidden]),
        ("token_embd_norm.weight".to_owned(), vec![hidden]),
        ("output_norm.weight".to_owned(), vec![hidden]),
    ]);
    for layer in 0..sizes.n_layers {
        let mut insert = |part: &str, shape: Vec<usize>| {
            tensors.insert(format!("blk.{layer}.{part}.weight"), shape);
        };
        if layer > 0 {
            insert("attn_norm", vec![hidden]);
        }
        // Query, key and value one after the other; then what is bent and what it is multiplied by.
        insert("attn_qkv", vec![times(3, hidden), hidden]);
        insert("attn_output", vec![hidden, hidden]);
        insert("ffn_norm", vec![hidden]);
        insert("ffn_up", vec![times(2, intermediate), hidden]);
        insert("ffn_down", vec![hidden, intermediate]);
    }
    tensors
}
