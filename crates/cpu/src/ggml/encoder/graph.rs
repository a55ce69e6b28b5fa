//! An encoder's graph for one form of request, to be run again and again.

use ggml_sys::ggml_type;

use super::Encoder;
use super::texts::{Form, Texts};
use crate::ggml::builder::{Binary, Builder};
use crate::ggml::cannot::Cannot;
use crate::ggml::computation::{self, Arena, Computation};
use crate::ggml::context::{Context, Made, Refusal, Tensor};
use crate::ggml::custom::{Kernel, steps};
use crate::ggml::kernels::attention::Attention;
use crate::ggml::store::Store;
use crate::ggml::stream::Stream;

/// What hidden keys get added to their scores. Twice as much is still finite, so that a row of which nothing is
/// shown gives numbers.
const HIDDEN: f32 = -1.7e38;

/// Leaves that are filled before every run.
#[derive(Debug)]
struct Leaves {
    store: Store,
    tokens: Tensor,
    places: Tensor,
    seen: Seen,
}

/// What tells rows which others they look at.
#[derive(Clone, Debug)]
enum Seen {
    /// Where the text of each row begins and ends.
    Spans(Tensor),
    /// What is added to scores, [batch, 1, 1, length].
    Mask(Tensor),
}

/// A described graph.
#[derive(Debug)]
pub(crate) struct Graph {
    computation: Computation,
    leaves: Leaves,
    /// One vector a row.
    output: Tensor,
}

/// Leaves besides those of a request: numbers of rows, and for each reach how far rows look.
const MOST_CONSTANTS: usize = 4;

/// Descriptions that a layer takes at most, by far; kernels of ours take fewer.
const fn most_descriptions(form: Form) -> usize {
    match form {
        Form::Packed { .. } => 24,
        Form::Rectangle { .. } => 100,
    }
}

impl Graph {
    pub(crate) fn describe(
        encoder: &Encoder,
        stream: &Stream,
        arena: &mut Arena,
        form: Form,
    ) -> Result<Self, Cannot> {
        let engine = stream.engine();
        let n_tensors = most_descriptions(form) * (encoder.n_layers + 1);
        let bytes = computation::graph_bytes(engine, 2 * n_tensors);
        let nodes = Context::new(engine, n_tensors, bytes)?;
        let leaves = Context::new(engine, 3 + MOST_CONSTANTS, 0)?;
        let n_rows = form.n_rows();
        let tokens = leaves.leaf(ggml_type::I32, &[n_rows])?;
        let places = leaves.leaf(ggml_type::I32, &[n_rows])?;
        let seen = match form {
            Form::Packed { .. } => leaves.leaf(ggml_type::I32, &[n_rows, 2]).map(Seen::Spans),
            Form::Rectangle { batch, length } => {
                leaves.leaf(ggml_type::F32, &[batch, 1, 1, length]).map(Seen::Mask)
            }
        };
        let seen = seen?;
        let mut sketch = Sketch {
            builder: Builder::new(&nodes, stream.workshop()),
            leaves: &leaves,
            tokens: tokens.clone(),
            places: places.clone(),
            seen: seen.clone(),
            form,
            masks: Vec::new(),
            constants: Vec::new(),
        };
        let output = encoder.network.forward(&mut sketch)?;
        let constants = sketch.constants;
        let store = Store::new(leaves, stream, 3 + constants.len(), None)?;
        for (leaf, values) in &constants {
            store.write(leaf, values)?;
        }
        let computation = Computation::new(nodes, arena, &[&output], 2 * n_tensors)?;
        Ok(Self { computation, leaves: Leaves { store, tokens, places, seen }, output })
    }

    /// Fills the leaves.
    pub(crate) fn fill(&self, texts: &Texts, mask: &mut Vec<f32>) -> Result<(), String> {
        let Leaves { store, tokens, places, seen } = &self.leaves;
        store.write(tokens, &texts.tokens)?;
        store.write(places, &texts.places)?;
        match seen {
            Seen::Spans(spans) => store.write(spans, &texts.spans),
            Seen::Mask(leaf) => {
                mask.clear();
                mask.extend(texts.shown.iter().map(|&shown| if shown { 0.0 } else { HIDDEN }));
                store.write(leaf, mask)
            }
        }
    }

    pub(crate) fn compute(&mut self, stream: &mut Stream) -> Result<(), String> {
        self.computation.run(stream)
    }

    /// Copies numbers of the rows' vectors, from the one at `start` on.
    pub(crate) fn read(&self, start: usize, to: &mut [f32]) -> Result<(), String> {
        self.computation.read(&self.output, start, to)
    }
}

/// A graph while it is described.
pub(crate) struct Sketch<'a> {
    pub(crate) builder: Builder<'a>,
    leaves: &'a Context,
    /// The rows' tokens.
    pub(crate) tokens: Tensor,
    /// Their places in their texts.
    pub(crate) places: Tensor,
    seen: Seen,
    form: Form,
    /// Of a rectangle, the masks that were made so far, by reach.
    masks: Vec<(Option<usize>, Tensor)>,
    constants: Vec<(Tensor, Vec<u8>)>,
}

impl Sketch<'_> {
    /// Attention of the rows' heads, [n, heads, width] each: [n, heads · width].
    ///
    /// A row looks at its whole text, or `reach` places to either side.
    pub(crate) fn attention(
        &mut self,
        [query, key, value]: [&Tensor; 3],
        reach: Option<usize>,
    ) -> Made {
        let &[n_rows, n_heads, width] = &*query.shape else {
            return Err(Refusal::Never("attention is of heads, [n, heads, width]".to_owned()));
        };
        if key.shape != query.shape || value.shape != query.shape {
            return Err(Refusal::Never("query, key and value differ".to_owned()));
        }
        let scale = 1.0 / (width as f32).sqrt();
        let hidden = [n_rows, n_heads * width];
        match (self.seen.clone(), self.form) {
            (Seen::Mask(mask), Form::Rectangle { batch, length }) => {
                let apart = |it: &Tensor| {
                    let apart = self.builder.reshape(it, &[batch, length, n_heads, width])?;
                    self.builder.permute(&apart, &[0, 2, 1, 3])
                };
                let [query, key, value] = [apart(query)?, apart(key)?, apart(value)?];
                let mask = self.mask(&mask, [batch, length], reach)?;
                let scores = self.builder.matmul_transposed(&query, &key)?;
                let shares = self.builder.masked_softmax(&scores, &mask, scale)?;
                let value = self.builder.permute(&value, &[0, 1, 3, 2])?;
                let mixed = self.builder.matmul_transposed(&shares, &value)?;
                let rows = self.builder.permute(&mixed, &[0, 2, 1, 3])?;
                self.builder.reshape(&rows, &hidden)
            }
            (Seen::Spans(spans), _) => {
                let whole = |it| self.builder.whole_rows(it);
                let [query, key, value] = [whole(query)?, whole(key)?, whole(value)?];
                // Rows of texts that are packed: [rows, heads, width] without a batch.
                let of = |it: &Tensor| steps(&[0, it.strides[1], it.strides[0], it.strides[2]]);
                let [of_query, of_key, of_value] = [&query, &key, &value].map(of);
                let attention = Attention {
                    n_heads,
                    width,
                    scale,
                    query: of_query,
                    key: of_key,
                    value: of_value,
                };
                let kernel = Kernel::PackedAttention { attention, reach };
                let sources = [&query, &key, &value, &spans, &self.places];
                self.builder.custom(kernel, &sources, &hidden, n_heads * width)
            }
            (Seen::Mask(_), Form::Packed { .. }) => {
                Err(Refusal::Never("packed texts have no mask".to_owned()))
            }
        }
    }

    /// A rectangle's mask, [batch, 1, length, length], made once for all layers of one reach.
    fn mask(&mut self, given: &Tensor, [batch, length]: [usize; 2], reach: Option<usize>) -> Made {
        if let Some((_, mask)) = self.masks.iter().find(|(known, _)| *known == reach) {
            return Ok(mask.clone());
        }
        let mut mask = self.builder.repeat(given, &[batch, 1, length, length])?;
        if let Some(reach) = reach {
            let far = self.leaves.leaf(ggml_type::F32, &[length, length])?;
            let is_far = |at: usize| (at / length).abs_diff(at % length) > reach;
            let added = |at| if is_far(at) { HIDDEN } else { 0.0 };
            let values: Vec<f32> = (0..length * length).map(added).collect();
            self.constants.push((far.clone(), bytemuck::cast_slice(&values).to_vec()));
            mask = self.builder.binary(Binary::Add, &mask, &far)?;
        }
        self.masks.push((reach, mask.clone()));
        Ok(mask)
    }

    /// A list of rows that is the same in every run.
    pub(crate) fn row_numbers(&mut self, rows: &[i32]) -> Made {
        let leaf = self.leaves.leaf(ggml_type::I32, &[rows.len()])?;
        self.constants.push((leaf.clone(), bytemuck::cast_slice(rows).to_vec()));
        Ok(leaf)
    }

    /// Rows of hidden numbers as heads.
    pub(crate) fn heads(&self, rows: &Tensor, n_heads: usize) -> Made {
        let &[n, hidden] = &*rows.shape else {
            return Err(Refusal::Never("rows have heads, [n, hidden]".to_owned()));
        };
        self.builder.reshape(rows, &[n, n_heads, hidden / n_heads.max(1)])
    }
}
