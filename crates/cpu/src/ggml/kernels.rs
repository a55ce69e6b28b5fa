//! Operators that are ours, where ggml's are slower or less exact: attention, and the GELU with the error
//! function.
//!
//! A kernel fills some rows of its result, so that threads can share the work; what a row holds does not
//! depend on how they share it.

use std::ops::Range;

use rten_simd::ops::{BitOps as _, NumOps as _};
use rten_simd::{Isa, SimdOp, SimdUnaryOp as _};
use rten_vecmath::{Gelu, Softmax};

/// The GELU with the error function of every element.
pub(super) fn gelu(from: &[f32], to: &mut [f32]) {
    to.copy_from_slice(from);
    Gelu {}.map_mut(to);
}

/// How far apart neighbours are along [batch, heads, length, width], in elements; 0 along an axis that a
/// tensor is stretched over.
pub(super) type Steps = [usize; 4];

/// `softmax(query · keyᵀ · scale + mask) · value`, for every text and head. The result is
/// [batch, length, heads, width], contiguous.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) n_heads: usize,
    /// Rows of a text's query.
    pub(super) length: usize,
    /// Rows of a text's key and value.
    pub(super) n_keys: usize,
    pub(super) width: usize,
    pub(super) scale: f32,
    /// Its last step is 1.
    pub(super) query: Steps,
    pub(super) key: Steps,
    /// Its last step is 1.
    pub(super) value: Steps,
    /// Of [batch, heads, length, keys]; its last step is 1.
    pub(super) mask: Steps,
}

/// The memory that an attention reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
    pub(super) mask: &'a [f32],
}

/// Rows of the query that share what is loaded of key and value.
const N_ROWS: usize = 6;

/// Vectors in a panel: what is loaded of key and value for a step.
const N_VECTORS: usize = 2;

/// A mask that adds no more than this takes its key out: the exponential is 0 beside any that is left.
const HIDDEN: f32 = -1e30;

impl Attention {
    /// Fills `rows` of the result, of which there are batch × length.
    pub(super) fn fill(
        &self,
        sources: Sources<'_>,
        rows: Range<usize>,
        to: &mut [f32],
        scratch: &mut Vec<f32>,
    ) {
        Fill { shape: self, sources, rows, to, scratch }.dispatch();
    }

    /// Keys up to the last that a row of this text may look at; all where rows differ, or none is left.
    fn n_visible(&self, mask: &[f32], text: usize) -> usize {
        let [text_step, head_step, row_step, _] = self.mask;
        if head_step != 0 || row_step != 0 {
            return self.n_keys;
        }
        let mask = &mask[text * text_step..][..self.n_keys];
        mask.iter().rposition(|&it| it > HIDDEN).map_or(self.n_keys, |last| last + 1)
    }

    fn add_mask(&self, mask: &[f32], [text, head, row]: [usize; 3], scores: &mut [f32]) {
        let at = text * self.mask[0] + head * self.mask[1] + row * self.mask[2];
        let mask = &mask[at..][..scores.len()];
        scores.iter_mut().zip(mask).for_each(|(score, mask)| *score = *score * self.scale + mask);
    }

    /// A head's key as panels, in each of which neighbours are of neighbouring rows.
    fn pack_key(&self, from: &[f32], start: usize, n_keys: usize, panel: usize, to: &mut [f32]) {
        let [_, _, row_step, step] = self.key;
        for row in 0..n_keys {
            let to = &mut to[row / panel * panel * self.width + row % panel..];
            let from = &from[start + row * row_step..];
            for (to, from) in
                to.iter_mut().step_by(panel).zip(from.iter().step_by(step)).take(self.width)
            {
                *to = *from;
            }
        }
    }

    /// A head's value as panels, in each of which neighbours are of one row.
    fn pack_value(&self, from: &[f32], start: usize, n_keys: usize, panel: usize, to: &mut [f32]) {
        for (nth, to) in to.chunks_exact_mut(self.n_keys * panel).enumerate() {
            let column = nth * panel;
            let n = panel.min(self.width - column);
            for (row, to) in to.chunks_exact_mut(panel).enumerate().take(n_keys) {
                to[..n].copy_from_slice(&from[start + row * self.value[2] + column..][..n]);
            }
        }
    }
}

struct Fill<'a> {
    shape: &'a Attention,
    sources: Sources<'a>,
    rows: Range<usize>,
    to: &'a mut [f32],
    scratch: &'a mut Vec<f32>,
}

impl SimdOp for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { shape, sources, rows, to, scratch } = self;
        let panel = N_VECTORS * isa.f32().len();
        let (keys, width) =
            (shape.n_keys.next_multiple_of(panel), shape.width.next_multiple_of(panel));
        scratch.resize(keys * shape.width + shape.n_keys * width + N_ROWS * (keys + panel), 0.0);
        let (key, rest) = scratch.split_at_mut(keys * shape.width);
        let (value, rest) = rest.split_at_mut(shape.n_keys * width);
        let (scores, mixed) = rest.split_at_mut(N_ROWS * keys);
        let row_width = shape.n_heads * shape.width;
        let mut at = rows.start;
        while at < rows.end {
            let (text, first) = (at / shape.length, at % shape.length);
            let n = (shape.length - first).min(rows.end - at);
            let n_keys = shape.n_visible(sources.mask, text);
            let to = &mut to[(at - rows.start) * row_width..][..n * row_width];
            for head in 0..shape.n_heads {
                let start = |steps: &Steps| text * steps[0] + head * steps[1];
                shape.pack_key(sources.key, start(&shape.key), n_keys, panel, key);
                shape.pack_value(sources.value, start(&shape.value), n_keys, panel, value);
                for (block, to) in to.chunks_mut(N_ROWS * row_width).enumerate() {
                    let block = first + block * N_ROWS;
                    let n_rows = to.len() / row_width;
                    // Rows that are missing in the last block repeat its last.
                    let query: [&[f32]; N_ROWS] = std::array::from_fn(|nth| {
                        let row = block + nth.min(n_rows - 1);
                        &sources.query[start(&shape.query) + row * shape.query[2]..][..shape.width]
                    });
                    let used = n_keys.next_multiple_of(panel) * shape.width;
                    for (nth, key) in key[..used].chunks_exact(panel * shape.width).enumerate() {
                        product(isa, query, key, &mut scores[nth * panel..], keys);
                    }
                    for (nth, scores) in scores.chunks_exact_mut(keys).enumerate().take(n_rows) {
                        let scores = &mut scores[..n_keys];
                        shape.add_mask(sources.mask, [text, head, block + nth], scores);
                        Softmax::new_mut(scores).eval(isa);
                    }
                    let shares: [&[f32]; N_ROWS] =
                        std::array::from_fn(|nth| &scores[nth * keys..][..n_keys]);
                    for (nth, value) in value.chunks_exact(shape.n_keys * panel).enumerate() {
                        product(isa, shares, &value[..n_keys * panel], mixed, panel);
                        let column = nth * panel;
                        let n = panel.min(shape.width - column);
                        let to = to.chunks_exact_mut(row_width).zip(mixed.chunks_exact(panel));
                        to.for_each(|(to, mixed)| {
                            to[head * shape.width + column..][..n].copy_from_slice(&mixed[..n]);
                        });
                    }
                }
            }
            at += n;
        }
    }
}

/// Rows of `a` times a panel: `to[row · step + column]`.
#[inline(always)]
fn product<I: Isa>(isa: I, a: [&[f32]; N_ROWS], panel: &[f32], to: &mut [f32], step: usize) {
    let ops = isa.f32();
    let width = N_VECTORS * ops.len();
    let n = panel.len() / width;
    let a = a.map(|row| &row[..n]);
    let mut sums = [[ops.zero(); N_VECTORS]; N_ROWS];
    for (at, vectors) in panel.chunks_exact(width).enumerate().take(n) {
        let vectors: [I::F32; N_VECTORS] = ops.load_many(vectors);
        for (sums, row) in sums.iter_mut().zip(&a) {
            let x = ops.splat(row[at]);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = ops.mul_add(x, vector, *sum);
            }
        }
    }
    for (row, sums) in sums.into_iter().enumerate() {
        let to = &mut to[row * step..][..width];
        for (to, sum) in to.chunks_exact_mut(ops.len()).zip(sums) {
            ops.store(sum, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers between -1 and 1 that look random.
    fn noise(n: usize, seed: usize) -> Vec<f32> {
        let number = |at: usize| ((at * 2654435761 + seed * 40503) % 2001) as f32 / 1000.0 - 1.0;
        (0..n).map(number).collect()
    }

    fn plain(it: &Attention, from: Sources<'_>, n_texts: usize) -> Vec<f32> {
        let mut to = Vec::new();
        let at = |steps: Steps, place: [usize; 4]| -> usize {
            steps.iter().zip(place).map(|(step, at)| step * at).sum()
        };
        for (text, row, head) in (0..n_texts * it.length * it.n_heads)
            .map(|at| (at / it.n_heads / it.length, at / it.n_heads % it.length, at % it.n_heads))
        {
            let score = |key: usize| -> f64 {
                let product = |column| {
                    let query = from.query[at(it.query, [text, head, row, column])];
                    f64::from(query) * f64::from(from.key[at(it.key, [text, head, key, column])])
                };
                let mask = f64::from(from.mask[at(it.mask, [text, head, row, key])]);
                (0..it.width).map(product).sum::<f64>() * f64::from(it.scale) + mask
            };
            let scores: Vec<f64> = (0..it.n_keys).map(score).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
            for column in 0..it.width {
                let share = |(key, score): (usize, &f64)| {
                    let value = from.value[at(it.value, [text, head, key, column])];
                    (score - largest).exp() / sum * f64::from(value)
                };
                to.push(scores.iter().enumerate().map(share).sum::<f64>() as f32);
            }
        }
        to
    }

    /// Contiguous [batch, length, heads, width].
    fn steps(length: usize, n_heads: usize, width: usize) -> Steps {
        [length * n_heads * width, width, n_heads * width, 1]
    }

    #[test]
    fn attention_is_what_it_says_in_any_shape_and_any_share() {
        for (n_texts, n_heads, length, n_keys, width) in [
            (1, 1, 1, 1, 1),
            (2, 3, 7, 7, 32),
            (1, 2, 65, 65, 20),
            (3, 1, 6, 11, 64),
            (1, 2, 33, 5, 33),
        ] {
            let keys = steps(n_keys, n_heads, width);
            let it = Attention {
                n_heads,
                length,
                n_keys,
                width,
                scale: 0.3,
                query: steps(length, n_heads, width),
                key: keys,
                value: keys,
                mask: [n_keys, 0, 0, 1],
            };
            let (query, key) = (
                noise(n_texts * length * n_heads * width, 1),
                noise(n_texts * n_keys * n_heads * width, 2),
            );
            let value = noise(key.len(), 3);
            let mut mask = vec![0.0; n_texts * n_keys];
            // A hole, a hidden end, and a text of which nothing is left.
            mask[0] = if n_keys > 1 { -3.4e38 } else { 0.0 };
            mask[n_keys - 1] = -3.4e38;
            mask[(n_texts - 1) * n_keys..].fill(-3.4e38);
            let sources = Sources { query: &query, key: &key, value: &value, mask: &mask };
            let wanted = plain(&it, sources, n_texts);
            let row = n_heads * width;
            let n_rows = n_texts * length;
            let mut whole = vec![f32::NAN; wanted.len()];
            it.fill(sources, 0..n_rows, &mut whole, &mut Vec::new());
            let close = whole.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 2e-6);
            assert!(close, "{whole:?}\n{wanted:?}");
            let mut parts = vec![f32::NAN; wanted.len()];
            let (mut scratch, half) = (Vec::new(), n_rows / 2);
            it.fill(sources, 0..half, &mut parts[..half * row], &mut scratch);
            it.fill(sources, half..n_rows, &mut parts[half * row..], &mut scratch);
            assert!(parts == whole, "a row depends on who fills it");
        }
    }

    #[test]
    fn a_mask_may_differ_from_row_to_row() {
        let it = Attention {
            n_heads: 1,
            length: 2,
            n_keys: 2,
            width: 1,
            scale: 1.0,
            query: steps(2, 1, 1),
            key: steps(2, 1, 1),
            value: steps(2, 1, 1),
            mask: [4, 4, 2, 1],
        };
        let sources = Sources {
            query: &[1.0, 1.0],
            key: &[1.0, 1.0],
            value: &[3.0, 5.0],
            mask: &[0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0],
        };
        let mut to = [0.0; 2];
        it.fill(sources, 0..2, &mut to, &mut Vec::new());
        assert_eq!(to, [3.0, 5.0]);
    }

    #[test]
    fn gelu_has_known_values() {
        let mut to = [0.0; 3];
        gelu(&[-1.0, 0.0, 2.0], &mut to);
        let wanted = [-0.158_655_25, 0.0, 1.954_499_7];
        assert!(to.iter().zip(wanted).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-6), "{to:?}");
    }
}
