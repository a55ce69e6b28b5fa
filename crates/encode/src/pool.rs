//! One vector a token to one vector a text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a text's token vectors become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Their mean.
    #[default]
    Mean,
    /// The first, which some models train to stand for the text.
    Cls,
    /// Not at all: all are kept.
    None,
}

impl Pooling {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Mean, Self::Cls, Self::None];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no kind of pooling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no kind of pooling; known are mean, cls, none")]
pub struct UnknownPooling {
    /// The name that was given.
    pub found: String,
}

impl FromStr for Pooling {
    type Err = UnknownPooling;

    fn from_str(name: &str) -> Result<Self, UnknownPooling> {
        let known = Self::ALL.into_iter().find(|pooling| pooling.name() == name);
        known.ok_or_else(|| UnknownPooling { found: name.to_owned() })
    }
}

/// Dimensions that are summed at a time: their sums stay in registers while rows go by.
const BLOCK: usize = 32;

/// Pools the rows of `hidden`, each `n_dims` long and of a real token, into `out`.
///
/// `out` has `n_dims` numbers, or as many as `hidden` where nothing is pooled. A text without tokens
/// gives zeros.
pub fn pool_row(pooling: Pooling, hidden: &[f32], n_dims: usize, out: &mut [f32]) {
    match pooling {
        Pooling::Mean => mean(hidden, n_dims, out),
        Pooling::Cls | Pooling::None => {
            let n = hidden.len().min(out.len());
            out[..n].copy_from_slice(&hidden[..n]);
            out[n..].fill(0.0);
        }
    }
}

/// Pools a text's token vectors into its own, or takes all of them, and scales each to length 1 where that is wanted.
pub(crate) fn pool_text(
    pooling: Pooling,
    is_unit: bool,
    hidden: &[f32],
    n_dims: usize,
    out: &mut [f32],
) {
    pool_row(pooling, hidden, n_dims, out);
    if is_unit {
        out.chunks_exact_mut(n_dims).for_each(normalise);
    }
}

fn mean(hidden: &[f32], n_dims: usize, out: &mut [f32]) {
    let n_rows = hidden.len().checked_div(n_dims).unwrap_or(0).max(1) as f64;
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let start = block * BLOCK;
        let mut sums = [0.0f64; BLOCK];
        for row in hidden.chunks_exact(n_dims.max(1)) {
            for (sum, value) in sums.iter_mut().zip(&row[start..start + out.len()]) {
                *sum += f64::from(*value);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = (sum / n_rows) as f32;
        }
    }
}

/// Scales a vector to length 1. One that has no direction (zeros, or not finite) is left as it is.
pub fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 && length.is_finite() {
        for x in vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_are_pooled() {
        let hidden = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0];
        let pooled = |pooling, n_out| {
            let mut out = vec![9.0; n_out];
            pool_row(pooling, &hidden, 2, &mut out);
            out
        };
        assert_eq!(pooled(Pooling::Mean, 2), [4.0, 2.0]);
        assert_eq!(pooled(Pooling::Cls, 2), [1.0, 2.0]);
        assert_eq!(pooled(Pooling::None, 6), hidden);
    }

    #[test]
    fn no_token_gives_zeros() {
        for pooling in [Pooling::Mean, Pooling::Cls] {
            let mut out = [9.0; 3];
            pool_row(pooling, &[], 3, &mut out);
            assert_eq!(out, [0.0; 3]);
        }
    }

    #[test]
    fn what_has_no_direction_is_left_alone() {
        let mut vector = [3.0, 4.0];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        for vector in [[0.0, 0.0], [f32::INFINITY, 1.0]] {
            let mut after = vector;
            normalise(&mut after);
            assert_eq!(after, vector);
        }
    }

    #[test]
    fn names_read_back() {
        for pooling in Pooling::ALL {
            assert_eq!(pooling.to_string().parse(), Ok(pooling));
        }
        assert!("max".parse::<Pooling>().is_err());
    }

    fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
        (1usize..80, 1usize..20).prop_flat_map(|(n_dims, n_rows)| {
            let values = proptest::collection::vec(-1e6f32..1e6, n_dims * n_rows);
            (Just(n_dims), values)
        })
    }

    proptest! {
        #[test]
        fn a_mean_lies_among_its_values((n_dims, hidden) in rows()) {
            let mut out = vec![0.0; n_dims];
            pool_row(Pooling::Mean, &hidden, n_dims, &mut out);
            for (at, mean) in out.into_iter().enumerate() {
                let column = || hidden.iter().skip(at).step_by(n_dims).copied();
                let least = column().fold(f32::INFINITY, f32::min);
                let most = column().fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((least..=most).contains(&mean));
            }
        }

        #[test]
        fn a_normalised_vector_has_length_1(mut vector in proptest::collection::vec(-1e30f32..1e30, 1..500)) {
            prop_assume!(vector.iter().any(|&x| x != 0.0));
            normalise(&mut vector);
            let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            prop_assert!((length - 1.0).abs() < 1e-6, "{length}");
        }
    }
}
