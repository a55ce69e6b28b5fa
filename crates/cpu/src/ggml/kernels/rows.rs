//! Functions of one row at a time.

use rten_simd::ops::{BitOps as _, NumOps as _};
use rten_simd::{Isa, SimdOp, SimdUnaryOp as _};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Sum, SumSquareSub};

use super::{Block, load, store};

/// What is made of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RowFunction<'a> {
    /// The GELU with the error function.
    Gelu,
    /// `gelu(a) · b` of a row that holds `a` and then `b`.
    GatedGelu,
    /// Less its mean, over its deviation, times a weight and with a bias (Ba et al., "Layer Normalization", 2016).
    LayerNorm { weight: &'a [f32], bias: Option<&'a [f32]>, epsilon: f32 },
}

impl RowFunction<'_> {
    /// Fills whole rows of a result from rows of `x`, which lie one after the other.
    pub(crate) fn fill(self, x: &[f32], to: &mut Block<'_>) {
        Fill { function: self, x, to }.dispatch();
    }
}

struct Fill<'a, 'b> {
    function: RowFunction<'a>,
    x: &'a [f32],
    to: &'a mut Block<'b>,
}

impl SimdOp for Fill<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { function, x, to } = self;
        let width = to.columns.len();
        let width_before =
            if matches!(function, RowFunction::GatedGelu) { 2 * width } else { width };
        for row in to.rows.clone() {
            let from = &x[row * width_before..][..width_before];
            let to = to.row(row);
            match function {
                RowFunction::Gelu => gelu(isa, from, None, to),
                RowFunction::GatedGelu => gelu(isa, &from[..width], Some(&from[width..]), to),
                RowFunction::LayerNorm { weight, bias, epsilon } => {
                    layer_norm(isa, from, [Some(weight), bias], epsilon, to);
                }
            }
        }
    }
}

#[inline(always)]
fn gelu<I: Isa>(isa: I, from: &[f32], gate: Option<&[f32]>, to: &mut [f32]) {
    let ops = isa.f32();
    for (nth, to) in to.chunks_mut(ops.len()).enumerate() {
        let at = nth * ops.len();
        let part = |values: &[f32]| load(isa, &values[at..][..to.len()]);
        let bent = Gelu {}.eval(isa, part(from));
        store(isa, gate.map_or(bent, |gate| ops.mul(bent, part(gate))), to);
    }
}

#[inline(always)]
fn layer_norm<I: Isa>(
    isa: I,
    from: &[f32],
    [element_scale, element_bias]: [Option<&[f32]>; 2],
    epsilon: f32,
    to: &mut [f32],
) {
    let n = from.len() as f32;
    let mean = Sum::new(from).eval(isa) / n;
    let variance = SumSquareSub::new(from, mean).eval(isa) / n;
    to.copy_from_slice(from);
    let scale = 1.0 / (variance + epsilon).sqrt();
    let options =
        NormalizeOptions { pre_scale_bias: mean, scale, element_scale, bias: 0.0, element_bias };
    Normalize::new_mut(to, options).eval(isa);
}

#[cfg(test)]
mod tests {
    use super::super::Share;
    use super::super::testing::noise;
    use super::*;

    fn filled(function: RowFunction<'_>, x: &[f32], n_rows: usize, width: usize) -> Vec<f32> {
        let mut to = vec![f32::NAN; n_rows * width];
        for rows in [0..n_rows / 2, n_rows / 2..n_rows] {
            function.fill(x, &mut Block::of(&mut to, width, Share { rows, columns: 0..width }));
        }
        to
    }

    fn assert_close(found: &[f32], wanted: &[f64]) {
        let close = found.iter().zip(wanted).all(|(a, b)| (f64::from(*a) - b).abs() < 2e-6);
        assert!(close && found.len() == wanted.len(), "{found:?}\n{wanted:?}");
    }

    #[test]
    fn gelu_has_known_values() {
        let x = [-1.0, 0.0, 2.0];
        assert_close(&filled(RowFunction::Gelu, &x, 1, 3), &[-0.158_655_25, 0.0, 1.954_499_7]);
        let x = [-1.0, 2.0, 3.0, 0.5];
        assert_close(&filled(RowFunction::GatedGelu, &x, 1, 2), &[-0.475_965_76, 0.977_249_9]);
    }

    #[test]
    fn rows_are_normalised_each_for_itself() {
        for width in [1, 5, 16, 37] {
            let (x, weight, bias) = (noise(3 * width, 1), noise(width, 2), noise(width, 3));
            let epsilon = 1e-3;
            let wanted: Vec<f64> = x
                .chunks(width)
                .flat_map(|row| {
                    let row: Vec<f64> = row.iter().copied().map(f64::from).collect();
                    let mean = row.iter().sum::<f64>() / width as f64;
                    let square = |x: &f64| (x - mean).powi(2);
                    let variance = row.iter().map(square).sum::<f64>() / width as f64;
                    let deviation = (variance + f64::from(epsilon)).sqrt();
                    let (weight, bias) = (&weight, &bias);
                    (0..width)
                        .map(move |at| {
                            (row[at] - mean) / deviation * f64::from(weight[at])
                                + f64::from(bias[at])
                        })
                        .collect::<Vec<_>>()
                })
                .collect();
            let function = RowFunction::LayerNorm { weight: &weight, bias: Some(&bias), epsilon };
            assert_close(&filled(function, &x, 3, width), &wanted);
            let none = vec![0.0; width];
            let with_zeros = RowFunction::LayerNorm { weight: &weight, bias: Some(&none), epsilon };
            let without = RowFunction::LayerNorm { weight: &weight, bias: None, epsilon };
            let pair = [with_zeros, without].map(|it| filled(it, &x, 3, width));
            assert!(pair[0].iter().zip(&pair[1]).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }
}
