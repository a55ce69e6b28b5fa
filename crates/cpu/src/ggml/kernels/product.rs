//! Rows times a matrix of weights that lies in panels.
//!
//! The loops are those of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008: a
//! block of rows stays in the second cache, a panel of weights in the first, and what a step multiplies is
//! contiguous in both.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use rten_simd::ops::{BitOps as _, NumOps as _};
use rten_simd::{Isa, SimdOp, SimdUnaryOp as _};
use rten_vecmath::Gelu;

use super::{Block, Share, evenly};

/// Columns of a panel: one vector of AVX-512, two of AVX2, four of NEON.
pub(crate) const PANEL: usize = 16;

/// Inputs that are multiplied before the sums are put down: a panel of them fits into the first cache.
const DEPTH: usize = 384;

/// Rows that are packed at a time: with `DEPTH` inputs they fit into the second cache. A multiple of every
/// group of rows.
const HEIGHT: usize = 96;

/// The rows that threads share out go by so many.
const GROUP: usize = 6;

/// `f(x · weightsᵀ + bias) + added`: a linear layer and what comes with it.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    pub(crate) n_inputs: usize,
    pub(crate) n_outputs: usize,
    /// From one row of `x` to the next.
    pub(crate) step: usize,
    /// Whether `f` is the GELU with the error function; it is nothing otherwise.
    pub(crate) gelu: bool,
}

/// The memory that a product reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weights: Weights<'a>,
    /// One number an output.
    pub(crate) bias: Option<&'a [f32]>,
    /// As many rows and outputs as the result.
    pub(crate) added: Option<&'a [f32]>,
}

/// Panels: `[outputs / PANEL, inputs, PANEL]`, the last one filled up with zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

/// The panels of a matrix of `[outputs, inputs]`, row by row.
pub(crate) fn panels<T: Copy + Default>(rows: &[T], n_inputs: usize) -> Vec<T> {
    let mut panels = Vec::with_capacity(rows.len().next_multiple_of(PANEL * n_inputs.max(1)));
    for rows in rows.chunks(PANEL * n_inputs.max(1)) {
        let n_rows = rows.len() / n_inputs.max(1);
        for input in 0..n_inputs {
            panels.extend((0..n_rows).map(|row| rows[row * n_inputs + input]));
            panels.extend(std::iter::repeat_n(T::default(), PANEL - n_rows));
        }
    }
    panels
}

impl Product {
    /// Few rows are shared out by columns: a thread then reads only its own weights.
    pub(crate) fn share(&self, part: usize, n_parts: usize, n_rows: usize) -> Share {
        let (n_groups, n_panels) = (n_rows.div_ceil(GROUP), self.n_outputs.div_ceil(PANEL));
        let by_rows = n_groups.div_ceil(n_parts) * n_panels;
        let by_columns = n_panels.div_ceil(n_parts) * n_groups;
        let scaled = |range: Range<usize>, by: usize, most: usize| {
            (range.start * by).min(most)..(range.end * by).min(most)
        };
        if by_columns < by_rows {
            let columns = scaled(evenly(n_panels, part, n_parts), PANEL, self.n_outputs);
            Share { rows: 0..n_rows, columns }
        } else {
            let rows = scaled(evenly(n_groups, part, n_parts), GROUP, n_rows);
            Share { rows, columns: 0..self.n_outputs }
        }
    }

    /// Fills a block of the result, whose columns begin with a panel.
    pub(crate) fn fill(&self, sources: Sources<'_>, to: &mut Block<'_>, scratch: &mut Vec<f32>) {
        Fill { shape: self, sources, to, scratch }.dispatch();
    }
}

struct Fill<'a, 'b> {
    shape: &'a Product,
    sources: Sources<'a>,
    to: &'a mut Block<'b>,
    scratch: &'a mut Vec<f32>,
}

impl SimdOp for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        // As many sums as there are registers for, beside a panel's vectors.
        match isa.f32().len() {
            16 => self.run::<I, 12, 1>(isa),
            8 => self.run::<I, 6, 2>(isa),
            _ => self.run::<I, 6, 4>(isa),
        }
    }
}

/// Inputs that are multiplied now.
struct Depth {
    range: Range<usize>,
    is_first: bool,
    is_last: bool,
}

impl Fill<'_, '_> {
    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(mut self, isa: I) {
        let Product { n_inputs, step, .. } = *self.shape;
        let x = self.sources.x;
        let (rows, columns) = (self.to.rows.clone(), self.to.columns.clone());
        let mut scratch = std::mem::take(self.scratch);
        scratch.resize((HEIGHT + PANEL) * DEPTH, 0.0);
        let (packed, widened) = scratch.split_at_mut(HEIGHT * DEPTH);
        for block in rows.clone().step_by(HEIGHT) {
            let block = block..(block + HEIGHT).min(rows.end);
            for start in (0..n_inputs).step_by(DEPTH) {
                let end = (start + DEPTH).min(n_inputs);
                let depth =
                    Depth { range: start..end, is_first: start == 0, is_last: end == n_inputs };
                let n = end - start;
                pack::<ROWS>(x, step, block.clone(), depth.range.clone(), packed);
                for column in columns.clone().step_by(PANEL) {
                    let at = column * n_inputs + start * PANEL;
                    let panel = match self.sources.weights {
                        Weights::F32(panels) => &panels[at..][..n * PANEL],
                        Weights::F16(panels) => {
                            panels[at..][..n * PANEL]
                                .convert_to_f32_slice(&mut widened[..n * PANEL]);
                            &widened[..n * PANEL]
                        }
                    };
                    let groups = block.clone().step_by(ROWS).zip(packed.chunks_exact(n * ROWS));
                    for (first, packed) in groups {
                        let sums = multiply::<I, ROWS, VECTORS>(isa, packed, panel);
                        let rows = first..(first + ROWS).min(block.end);
                        self.put(isa, &sums, rows, column, &depth);
                    }
                }
            }
        }
        *self.scratch = scratch;
    }

    /// Adds the sums of a group to those of the inputs before, and what a layer adds to those of all.
    #[inline(always)]
    fn put<I: Isa, const VECTORS: usize>(
        &mut self,
        isa: I,
        sums: &[[I::F32; VECTORS]],
        rows: Range<usize>,
        column: usize,
        depth: &Depth,
    ) {
        let n_outputs = self.shape.n_outputs;
        let end = (column + PANEL).min(n_outputs);
        let bias = self.sources.bias.filter(|_| depth.is_last).map(|bias| &bias[column..end]);
        let added = self.sources.added.filter(|_| depth.is_last);
        let start = column - self.to.columns.start;
        for (row, sums) in rows.zip(sums) {
            let to = &mut self.to.row(row)[start..][..end - column];
            let mut sums = *sums;
            if !depth.is_first {
                add(isa, &mut sums, to);
            }
            if let Some(bias) = bias {
                add(isa, &mut sums, bias);
            }
            if self.shape.gelu && depth.is_last {
                for sum in &mut sums {
                    *sum = Gelu {}.eval(isa, *sum);
                }
            }
            if let Some(added) = added {
                add(isa, &mut sums, &added[row * n_outputs..][column..end]);
            }
            put_down(isa, sums, to);
        }
    }
}

// Vectors pass through no closure: what is not inlined would hand them over in memory.

/// Adds a panel's part of a row, or as much of one as there is.
#[inline(always)]
fn add<I: Isa, const VECTORS: usize>(isa: I, sums: &mut [I::F32; VECTORS], terms: &[f32]) {
    let ops = isa.f32();
    let mut filled = [0.0; PANEL];
    let terms = if let Some((whole, _)) = terms.split_first_chunk() {
        whole
    } else {
        filled[..terms.len()].copy_from_slice(terms);
        &filled
    };
    for nth in 0..VECTORS {
        sums[nth] = ops.add(sums[nth], ops.load(&terms[nth * ops.len()..][..ops.len()]));
    }
}

/// Stores a panel's part of a row, or as much of one as there is room for.
#[inline(always)]
fn put_down<I: Isa, const VECTORS: usize>(isa: I, sums: [I::F32; VECTORS], to: &mut [f32]) {
    let ops = isa.f32();
    let mut all = [0.0; PANEL];
    let is_whole = to.len() == PANEL;
    let place = if is_whole { &mut *to } else { &mut all };
    for nth in 0..VECTORS {
        ops.store(sums[nth], &mut place[nth * ops.len()..][..ops.len()]);
    }
    if !is_whole {
        let n = to.len();
        to.copy_from_slice(&all[..n]);
    }
}

/// Rows in groups, in each of which neighbours are of neighbouring rows; rows that a group lacks are zeros.
#[inline(always)]
fn pack<const ROWS: usize>(
    x: &[f32],
    step: usize,
    rows: Range<usize>,
    inputs: Range<usize>,
    to: &mut [f32],
) {
    for (first, to) in rows.clone().step_by(ROWS).zip(to.chunks_exact_mut(inputs.len() * ROWS)) {
        for nth in 0..ROWS {
            let to = to[nth..].iter_mut().step_by(ROWS);
            match rows.contains(&(first + nth)) {
                true => {
                    to.zip(&x[(first + nth) * step..][inputs.clone()]).for_each(|(a, b)| *a = *b);
                }
                false => to.for_each(|to| *to = 0.0),
            }
        }
    }
}

/// A group of packed rows times a panel.
#[inline(always)]
fn multiply<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    rows: &[f32],
    panel: &[f32],
) -> [[I::F32; VECTORS]; ROWS] {
    let ops = isa.f32();
    let mut sums = [[ops.zero(); VECTORS]; ROWS];
    for (x, vectors) in rows.chunks_exact(ROWS).zip(panel.chunks_exact(PANEL)) {
        let vectors: [I::F32; VECTORS] = ops.load_many(vectors);
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = ops.splat(*x);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = ops.mul_add(x, vector, *sum);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::super::testing::noise;
    use super::*;

    struct Case {
        n_rows: usize,
        n_inputs: usize,
        n_outputs: usize,
        gelu: bool,
        adds: bool,
    }

    /// `f(x · weightsᵀ + bias) + added` as one would write it.
    fn plain(case: &Case, [x, weights, bias, added]: [&[f32]; 4]) -> Vec<f64> {
        let wide = |x: f32| f64::from(x);
        let mut to = Vec::new();
        for row in 0..case.n_rows {
            for output in 0..case.n_outputs {
                let x = &x[row * case.n_inputs..][..case.n_inputs];
                let weights = &weights[output * case.n_inputs..][..case.n_inputs];
                let mut sum: f64 = x.iter().zip(weights).map(|(x, w)| wide(*x) * wide(*w)).sum();
                if case.adds {
                    sum += wide(bias[output]);
                }
                if case.gelu {
                    sum = wide((Gelu {}).scalar_eval(sum as f32));
                }
                to.push(
                    sum + if case.adds { wide(added[row * case.n_outputs + output]) } else { 0.0 },
                );
            }
        }
        to
    }

    fn check(case: &Case) {
        let &Case { n_rows, n_inputs, n_outputs, gelu, adds } = case;
        let (x, weights) = (noise(n_rows * n_inputs, 1), noise(n_outputs * n_inputs, 2));
        let (bias, added) = (noise(n_outputs, 3), noise(n_rows * n_outputs, 4));
        let halves: Vec<f16> = weights.iter().copied().map(f16::from_f32).collect();
        let rounded: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
        let (wide, narrow) = (panels(&weights, n_inputs), panels(&halves, n_inputs));
        let product = Product { n_inputs, n_outputs, step: n_inputs, gelu };
        for (panels, rows) in [(Weights::F32(&wide), &weights), (Weights::F16(&narrow), &rounded)] {
            let (bias, added) = (adds.then_some(&*bias), adds.then_some(&*added));
            let sources = Sources { x: &x, weights: panels, bias, added };
            let filled = |n_parts| {
                let mut to = vec![f32::NAN; n_rows * n_outputs];
                for part in 0..n_parts {
                    let share = product.share(part, n_parts, n_rows);
                    let mut block = Block::of(&mut to, n_outputs, share);
                    product.fill(sources, &mut block, &mut Vec::new());
                }
                to
            };
            let whole = filled(1);
            let wanted = plain(case, [&x, rows, bias.unwrap_or(&[]), added.unwrap_or(&[])]);
            let bound = 1e-6 * (10 + n_inputs) as f64;
            let apart = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs();
            let farthest = whole.iter().zip(&wanted).map(apart).fold(0.0, f64::max);
            assert!(farthest < bound, "{n_rows} x {n_inputs} x {n_outputs}: {farthest}");
            for n_parts in [2, 3, 7] {
                assert!(filled(n_parts) == whole, "a row depends on who fills it");
            }
        }
    }

    #[test]
    fn products_are_what_they_say_in_any_shape_and_any_share() {
        for (n_rows, n_inputs, n_outputs) in [
            (1, 1, 1),
            (1, 7, 40),
            (5, 16, 16),
            (6, DEPTH, 17),
            (13, DEPTH + 1, 15),
            (HEIGHT + 1, 2 * DEPTH + 3, 33),
            (2 * HEIGHT, 20, 3),
        ] {
            for (gelu, adds) in [(false, false), (true, true), (false, true)] {
                check(&Case { n_rows, n_inputs, n_outputs, gelu, adds });
            }
        }
    }

    #[test]
    fn every_element_is_in_one_share() {
        for (n_rows, n_outputs, n_parts) in [(1, 16, 5), (1, 1000, 3), (600, 16, 7), (17, 33, 16)] {
            let product = Product { n_inputs: 1, n_outputs, step: 1, gelu: false };
            let mut n_filled = vec![0; n_rows * n_outputs];
            for part in 0..n_parts {
                let share = product.share(part, n_parts, n_rows);
                assert!(share.columns.start.is_multiple_of(PANEL));
                for row in share.rows {
                    share
                        .columns
                        .clone()
                        .for_each(|column| n_filled[row * n_outputs + column] += 1);
                }
            }
            assert!(n_filled.iter().all(|&n| n == 1), "{n_rows} x {n_outputs} over {n_parts}");
        }
    }
}
