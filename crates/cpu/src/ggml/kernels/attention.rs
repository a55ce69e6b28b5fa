//! Attention, of which no scores stay.

use std::ops::Range;

use rten_simd::ops::{BitOps as _, NumOps as _};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::Softmax;

use super::{Block, Share, evenly};

/// How far apart neighbours are along [batch, heads, length, width], in elements; 0 along an axis that a
/// tensor is stretched over. The last step of query, key and value is 1.
pub(crate) type Steps = [usize; 4];

/// `softmax(query · keyᵀ · scale + mask) · value`, for every text and head. The result is
/// [rows, heads, width], contiguous.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) n_heads: usize,
    pub(crate) width: usize,
    pub(crate) scale: f32,
    pub(crate) query: Steps,
    pub(crate) key: Steps,
    pub(crate) value: Steps,
}

/// The memory that an attention reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) query: &'a [f32],
    pub(crate) key: &'a [f32],
    pub(crate) value: &'a [f32],
    pub(crate) texts: Texts<'a>,
}

/// Which rows are a text's, and which of its keys they look at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Texts<'a> {
    /// All texts are of one length.
    Alike {
        alike: Alike,
        /// What is added to scores.
        mask: &'a [f32],
    },
    /// Texts of any lengths lie one after the other, and the batch's steps are not used.
    Packed {
        /// For each row, where its text begins and ends.
        spans: &'a [[i32; 2]],
        /// For each row, its place in its text; places grow.
        places: &'a [i32],
        /// How far a row looks to either side; at its whole text where it is `None`.
        reach: Option<usize>,
    },
}

/// The extents of texts of one length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alike {
    /// Rows of a text's query.
    pub(crate) length: usize,
    /// Rows of a text's key and value.
    pub(crate) n_keys: usize,
    /// The steps of the mask, [batch, heads, length, keys]; the last is 1.
    pub(crate) mask: Steps,
}

/// Rows of the query that share what is loaded of key and value.
const N_ROWS: usize = 6;

/// Vectors in a panel: what is loaded of key and value for a step.
const N_VECTORS: usize = 2;

/// A mask that adds no more than this takes its key out: the exponential is 0 beside any that is left.
const HIDDEN: f32 = -1e30;

/// Rows of one text.
struct Text {
    /// In the result.
    rows: Range<usize>,
    /// The first of them in its text.
    first: usize,
    /// Which text it is of those that are alike.
    number: usize,
    /// Where the text begins in query, key and value.
    start: [usize; 3],
    n_keys: usize,
}

impl Attention {
    /// Rows look at as many keys as their texts have, so that equal parts are no equal work.
    pub(crate) fn share(
        &self,
        part: usize,
        n_parts: usize,
        n_rows: usize,
        texts: Texts<'_>,
    ) -> Share {
        let rows = match texts {
            Texts::Alike { .. } => evenly(n_rows, part, n_parts),
            Texts::Packed { spans, reach, .. } => by_work(&spans[..n_rows], reach, part, n_parts),
        };
        Share { rows, columns: 0..self.n_heads * self.width }
    }

    /// Fills whole rows of the result.
    pub(crate) fn fill(&self, sources: Sources<'_>, to: &mut Block<'_>, scratch: &mut Vec<f32>) {
        Fill { shape: self, sources, to, scratch }.dispatch();
    }

    /// The rows from `at` on that are of one text.
    fn text(&self, texts: Texts<'_>, at: usize, end: usize) -> Text {
        let all = [&self.query, &self.key, &self.value];
        match texts {
            Texts::Alike { alike, mask } => {
                let (number, first) = (at / alike.length, at % alike.length);
                let rows = at..(at + alike.length - first).min(end);
                let n_keys = alike.n_visible(mask, number);
                Text { rows, first, number, start: all.map(|steps| number * steps[0]), n_keys }
            }
            Texts::Packed { spans, .. } => {
                let [start, stop] = spans[at].map(|it| usize::try_from(it).unwrap_or(0));
                let rows = at..stop.clamp(at + 1, end);
                let of_text = all.map(|steps| start * steps[2]);
                Text { rows, first: at - start, number: 0, start: of_text, n_keys: stop - start }
            }
        }
    }

    /// A head's key as panels, in each of which neighbours are of neighbouring rows.
    fn pack_key(&self, from: &[f32], n_keys: usize, panel: usize, to: &mut [f32]) {
        for row in 0..n_keys {
            let from = &from[row * self.key[2]..][..self.width];
            let to = &mut to[row / panel * panel * self.width..][..panel * self.width];
            for (to, from) in to.chunks_exact_mut(panel).zip(from) {
                to[row % panel] = *from;
            }
        }
    }

    /// A head's value as panels, in each of which neighbours are of one row.
    fn pack_value(&self, from: &[f32], n_keys: usize, panel: usize, to: &mut [f32]) {
        for (nth, to) in to.chunks_exact_mut(n_keys * panel).enumerate() {
            let column = nth * panel;
            let n = panel.min(self.width - column);
            for (row, to) in to.chunks_exact_mut(panel).enumerate() {
                to[..n].copy_from_slice(&from[row * self.value[2] + column..][..n]);
            }
        }
    }
}

impl Alike {
    /// Keys up to the last that a row of this text may look at; all where rows differ, or none is left.
    fn n_visible(&self, mask: &[f32], text: usize) -> usize {
        let [text_step, head_step, row_step, _] = self.mask;
        if head_step != 0 || row_step != 0 {
            return self.n_keys;
        }
        let mask = &mask[text * text_step..][..self.n_keys];
        mask.iter().rposition(|&it| it > HIDDEN).map_or(self.n_keys, |last| last + 1)
    }
}

impl Texts<'_> {
    /// The keys that some of `rows` look at.
    fn keys(&self, text: &Text, rows: Range<usize>) -> Range<usize> {
        let &Texts::Packed { places, reach: Some(reach), .. } = self else {
            return 0..text.n_keys;
        };
        let of_text = &places[text.rows.start - text.first..][..text.n_keys];
        let (low, high) = bounds(places[rows.start], places[rows.end - 1], reach);
        let first = of_text.partition_point(|&place| i64::from(place) < low);
        first..of_text.partition_point(|&place| i64::from(place) <= high)
    }

    /// Adds what is added to all of a row's scores.
    fn add_mask(&self, text: &Text, [head, row]: [usize; 2], scores: &mut [f32]) {
        if let &Texts::Alike { alike: Alike { mask: steps, .. }, mask } = self {
            let in_text = row - text.rows.start + text.first;
            let at = text.number * steps[0] + head * steps[1] + in_text * steps[2];
            let mask = &mask[at..][..scores.len()];
            scores.iter_mut().zip(mask).for_each(|(score, mask)| *score += mask);
        }
    }
}

/// One of `n_parts` parts of packed rows that are nearly equal work: a row's work is the keys that it looks at.
fn by_work(spans: &[[i32; 2]], reach: Option<usize>, part: usize, n_parts: usize) -> Range<usize> {
    let most = reach.map_or(usize::MAX, |reach| reach.saturating_mul(2).saturating_add(1));
    let work = |&[start, end]: &[i32; 2]| usize::try_from(end - start).unwrap_or(0).min(most);
    let whole: usize = spans.iter().map(work).sum();
    let bound = |part: usize| {
        let mut done = 0;
        let is_after = |span: &[i32; 2]| {
            done += work(span);
            done > part * whole / n_parts
        };
        spans.iter().position(is_after).unwrap_or(spans.len())
    };
    bound(part)..bound(part + 1)
}

/// The places that rows from one place to another look at.
fn bounds(first: i32, last: i32, reach: usize) -> (i64, i64) {
    let reach = i64::try_from(reach).unwrap_or(i64::MAX);
    (i64::from(first).saturating_sub(reach), i64::from(last).saturating_add(reach))
}

struct Fill<'a, 'b> {
    shape: &'a Attention,
    sources: Sources<'a>,
    to: &'a mut Block<'b>,
    scratch: &'a mut Vec<f32>,
}

impl SimdOp for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(mut self, isa: I) {
        let rows = self.to.rows.clone();
        let mut at = rows.start;
        while at < rows.end {
            let text = self.shape.text(self.sources.texts, at, rows.end);
            at = text.rows.end;
            self.text(isa, &text);
        }
    }
}

impl Fill<'_, '_> {
    #[inline(always)]
    fn text<I: Isa>(&mut self, isa: I, text: &Text) {
        let Self { shape, sources, to, scratch } = self;
        let panel = N_VECTORS * isa.f32().len();
        let (keys, width) =
            (text.n_keys.next_multiple_of(panel), shape.width.next_multiple_of(panel));
        let n = keys * shape.width + text.n_keys * width + N_ROWS * (keys + panel);
        if scratch.len() < n {
            scratch.resize(n, 0.0);
        }
        let (key, rest) = scratch.split_at_mut(keys * shape.width);
        let (value, rest) = rest.split_at_mut(text.n_keys * width);
        let (scores, rest) = rest.split_at_mut(N_ROWS * keys);
        let mixed = &mut rest[..N_ROWS * panel];
        for head in 0..shape.n_heads {
            let steps = [&shape.query, &shape.key, &shape.value];
            let [at_query, at_key, at_value] =
                std::array::from_fn(|nth| text.start[nth] + head * steps[nth][1]);
            shape.pack_key(&sources.key[at_key..], text.n_keys, panel, key);
            shape.pack_value(&sources.value[at_value..], text.n_keys, panel, value);
            for block in text.rows.clone().step_by(N_ROWS) {
                let block = block..(block + N_ROWS).min(text.rows.end);
                let seen = sources.texts.keys(text, block.clone());
                // Rows that are missing in the last block repeat its last.
                let query: [&[f32]; N_ROWS] = std::array::from_fn(|nth| {
                    let row = (block.start + nth).min(block.end - 1) - text.rows.start + text.first;
                    &sources.query[at_query + row * shape.query[2]..][..shape.width]
                });
                for at in (seen.start / panel * panel..seen.end).step_by(panel) {
                    let key = &key[at * shape.width..][..panel * shape.width];
                    product(isa, query, key, &mut scores[at..], keys);
                }
                for (row, scores) in block.clone().zip(scores.chunks_exact_mut(keys)) {
                    // What other rows of the block look at is no part of this one's.
                    let own = sources.texts.keys(text, row..row + 1);
                    scores[seen.start..own.start].fill(0.0);
                    scores[own.end..seen.end].fill(0.0);
                    let scores = &mut scores[own];
                    scores.iter_mut().for_each(|score| *score *= shape.scale);
                    sources.texts.add_mask(text, [head, row], scores);
                    Softmax::new_mut(scores).eval(isa);
                }
                let shares: [&[f32]; N_ROWS] =
                    std::array::from_fn(|nth| &scores[nth * keys..][seen.clone()]);
                for (nth, value) in value.chunks_exact(text.n_keys * panel).enumerate() {
                    let value = &value[seen.start * panel..seen.end * panel];
                    product(isa, shares, value, mixed, panel);
                    let column = nth * panel;
                    let n = panel.min(shape.width - column);
                    for (row, mixed) in block.clone().zip(mixed.chunks_exact(panel)) {
                        let to = &mut to.row(row)[head * shape.width + column..][..n];
                        to.copy_from_slice(&mixed[..n]);
                    }
                }
            }
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
    use super::super::testing::noise;
    use super::*;

    /// What row, head and column of a result is, given the keys that are looked at and what is added to them.
    fn plain(
        it: &Attention,
        from: Sources<'_>,
        text: [usize; 3],
        rows: [usize; 2],
        keys: &[(usize, f32)],
    ) -> Vec<f64> {
        let wide = |x: f32| f64::from(x);
        let [row, head] = rows;
        let key = |key: usize, column: usize| {
            from.key[text[1] + head * it.key[1] + key * it.key[2] + column * it.key[3]]
        };
        let query = &from.query[text[0] + head * it.query[1] + row * it.query[2]..][..it.width];
        let score = |&(at, added): &(usize, f32)| {
            let product: f64 =
                query.iter().enumerate().map(|(column, x)| wide(*x) * wide(key(at, column))).sum();
            product * wide(it.scale) + wide(added)
        };
        let scores: Vec<f64> = keys.iter().map(score).collect();
        let largest = scores.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        let mixed = |column: usize| {
            let share = |(&(at, _), score): (&(usize, f32), &f64)| {
                let value = from.value[text[2] + head * it.value[1] + at * it.value[2] + column];
                (score - largest).exp() / sum * wide(value)
            };
            keys.iter().zip(&scores).map(share).sum()
        };
        (0..it.width).map(mixed).collect()
    }

    /// Contiguous [batch, length, heads, width].
    fn steps(length: usize, n_heads: usize, width: usize) -> Steps {
        [length * n_heads * width, width, n_heads * width, 1]
    }

    fn filled(it: &Attention, sources: Sources<'_>, n_rows: usize, n_parts: usize) -> Vec<f32> {
        let width = it.n_heads * it.width;
        let (mut to, mut scratch) = (vec![f32::NAN; n_rows * width], Vec::new());
        for part in 0..n_parts {
            let share = it.share(part, n_parts, n_rows, sources.texts);
            it.fill(sources, &mut Block::of(&mut to, width, share), &mut scratch);
        }
        to
    }

    fn check(it: &Attention, sources: Sources<'_>, n_rows: usize, wanted: &[f64]) {
        let whole = filled(it, sources, n_rows, 1);
        let close = whole.iter().zip(wanted).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-6);
        assert!(close && whole.len() == wanted.len(), "{whole:?}\n{wanted:?}");
        for n_parts in [2, 3, 5] {
            assert!(filled(it, sources, n_rows, n_parts) == whole, "a row depends on who fills it");
        }
    }

    #[test]
    fn texts_of_one_length_see_what_their_mask_leaves() {
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
                width,
                scale: 0.3,
                query: steps(length, n_heads, width),
                key: keys,
                value: keys,
            };
            let alike = Alike { length, n_keys, mask: [n_keys, 0, 0, 1] };
            let query = noise(n_texts * length * n_heads * width, 1);
            let key = noise(n_texts * n_keys * n_heads * width, 2);
            let value = noise(key.len(), 3);
            let mut mask = vec![0.0; n_texts * n_keys];
            // A hole, a hidden end, and a text of which nothing is left.
            mask[0] = if n_keys > 1 { -3.4e38 } else { 0.0 };
            mask[n_keys - 1] = -3.4e38;
            mask[(n_texts - 1) * n_keys..].fill(-3.4e38);
            let texts = Texts::Alike { alike, mask: &mask };
            let sources = Sources { query: &query, key: &key, value: &value, texts };
            let mut wanted = Vec::new();
            for row in 0..n_texts * length {
                let text = row / length;
                let keys: Vec<(usize, f32)> =
                    (0..n_keys).map(|key| (key, mask[text * n_keys + key])).collect();
                let start = [&it.query, &it.key, &it.value].map(|steps| text * steps[0]);
                for head in 0..n_heads {
                    wanted.extend(plain(&it, sources, start, [row % length, head], &keys));
                }
            }
            check(&it, sources, n_texts * length, &wanted);
        }
    }

    #[test]
    fn packed_texts_see_themselves_and_no_further_than_they_reach() {
        for (lengths, n_heads, width, reach) in [
            (&[1][..], 1, 1, None),
            (&[7, 1, 30, 2], 3, 32, None),
            (&[65, 64, 3], 2, 20, None),
            (&[40, 5, 1, 9], 2, 16, Some(0)),
            (&[33, 70], 1, 33, Some(4)),
            (&[20, 9], 2, 8, Some(usize::MAX)),
        ] {
            let n_rows: usize = lengths.iter().sum();
            let (mut spans, mut places) = (Vec::new(), Vec::new());
            for (nth, &length) in lengths.iter().enumerate() {
                let start = spans.len() as i32;
                spans.extend(vec![[start, start + length as i32]; length]);
                // Every third token of the second text is left out.
                let place = |at: usize| if nth == 1 { at + at / 2 } else { at };
                places.extend((0..length).map(|at| place(at) as i32));
            }
            // Query, key and value side by side, as one product makes them.
            let hidden = n_heads * width;
            let all = noise(n_rows * 3 * hidden, 5);
            let own = [0, width, 3 * hidden, 1];
            let it = Attention { n_heads, width, scale: 0.4, query: own, key: own, value: own };
            let texts = Texts::Packed { spans: &spans, places: &places, reach };
            let sources =
                Sources { query: &all, key: &all[hidden..], value: &all[2 * hidden..], texts };
            let mut wanted = Vec::new();
            for row in 0..n_rows {
                let [start, end] = spans[row].map(|it| it as usize);
                let is_near = |key: &usize| {
                    let apart = places[row].abs_diff(places[start + key]) as usize;
                    reach.is_none_or(|reach| apart <= reach)
                };
                let keys: Vec<(usize, f32)> =
                    (0..end - start).filter(is_near).map(|key| (key, 0.0)).collect();
                for head in 0..n_heads {
                    let at = [start * 3 * hidden; 3];
                    wanted.extend(plain(&it, sources, at, [row - start, head], &keys));
                }
            }
            check(&it, sources, n_rows, &wanted);
        }
    }

    #[test]
    fn parts_of_packed_texts_are_equal_work() {
        let mut spans = vec![[0, 100]; 100];
        spans.extend((100..200).map(|at| [at, at + 1]));
        let parts = |n: usize, reach| -> Vec<Range<usize>> {
            (0..n).map(|part| by_work(&spans, reach, part, n)).collect()
        };
        assert_eq!(parts(2, None), [0..50, 50..200]);
        assert_eq!(parts(2, Some(0)), [0..100, 100..200]);
        assert!(matches!(&*parts(1, None), [all] if *all == (0..200)));
    }

    #[test]
    fn a_mask_may_differ_from_row_to_row() {
        let own = steps(2, 1, 1);
        let it = Attention { n_heads: 1, width: 1, scale: 1.0, query: own, key: own, value: own };
        let mask = [0.0, f32::NEG_INFINITY, f32::NEG_INFINITY, 0.0];
        let alike = Alike { length: 2, n_keys: 2, mask: [4, 4, 2, 1] };
        let texts = Texts::Alike { alike, mask: &mask };
        let ones = [1.0, 1.0];
        let sources = Sources { query: &ones, key: &ones, value: &[3.0, 5.0], texts };
        assert_eq!(filled(&it, sources, 2, 1), [3.0, 5.0]);
    }
}
