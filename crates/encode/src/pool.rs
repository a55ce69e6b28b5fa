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
    /// The first one's, which models such as BERT are trained to make stand for the text.
    Cls,
    /// Not at all: a text keeps one vector a token.
    None,
}

impl Pooling {
    /// Every way of pooling.
    pub const ALL: [Self; 3] = [Self::Mean, Self::Cls, Self::None];

    const fn name(self) -> &'static str {
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

/// A name that is no way of pooling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{found}` is no way of pooling; known are mean, cls and none")]
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

/// Writes one vector of `n_dims` numbers for a text to `out`.
///
/// `hidden` holds the text's token vectors, without padding; with none, `out` becomes zeros.
/// [`Pooling::None`] has nothing to write and leaves `out` as it is.
pub fn pool_row(pooling: Pooling, hidden: &[f32], n_dims: usize, out: &mut [f32]) {
    match pooling {
        Pooling::Mean => mean(hidden, n_dims, out),
        Pooling::Cls => match hidden.get(..n_dims) {
            Some(first) => out.copy_from_slice(first),
            None => out.fill(0.0),
        },
        Pooling::None => {}
    }
}

fn mean(hidden: &[f32], n_dims: usize, out: &mut [f32]) {
    out.fill(0.0);
    let tokens = hidden.chunks_exact(n_dims.max(1));
    let scale = 1.0 / tokens.len().max(1) as f32;
    for token in tokens {
        out.iter_mut().zip(token).for_each(|(sum, x)| *sum += x);
    }
    out.iter_mut().for_each(|sum| *sum *= scale);
}

/// Scales a vector to length 1; zeros stay zeros.
pub fn normalise(vector: &mut [f32]) {
    let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if squares > 0.0 {
        let scale = squares.sqrt().recip();
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pooled(pooling: Pooling, hidden: &[f32]) -> [f32; 2] {
        let mut out = [9.0; 2];
        pool_row(pooling, hidden, 2, &mut out);
        out
    }

    #[test]
    fn each_way_of_pooling() {
        let hidden = [1.0, 2.0, 3.0, 6.0];
        assert_eq!(pooled(Pooling::Mean, &hidden), [2.0, 4.0]);
        assert_eq!(pooled(Pooling::Cls, &hidden), [1.0, 2.0]);
        assert_eq!(pooled(Pooling::Mean, &[]), [0.0, 0.0]);
        assert_eq!(pooled(Pooling::Cls, &[]), [0.0, 0.0]);
        for pooling in Pooling::ALL {
            assert_eq!(pooling.to_string().parse(), Ok(pooling));
        }
        assert!("max".parse::<Pooling>().is_err());
    }

    #[test]
    fn zeros_have_no_direction() {
        let mut zeros = [0.0; 3];
        normalise(&mut zeros);
        assert_eq!(zeros, [0.0; 3]);
    }

    proptest! {
        #[test]
        fn the_mean_lies_between_the_extremes(
            tokens in proptest::collection::vec([-1e3f32..1e3, -1e3..1e3], 1..20),
        ) {
            let mean = pooled(Pooling::Mean, tokens.as_flattened());
            for dim in 0..2 {
                let values = tokens.iter().map(|token| token[dim]);
                let least = values.clone().fold(f32::INFINITY, f32::min);
                let most = values.fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((least - 1e-2..=most + 1e-2).contains(&mean[dim]));
            }
        }

        #[test]
        fn vectors_get_length_one(mut vector in proptest::collection::vec(-1e3f32..1e3, 1..50)) {
            prop_assume!(vector.iter().any(|x| x.abs() > 1e-3));
            normalise(&mut vector);
            let squares: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            prop_assert!((squares - 1.0).abs() < 1e-5);
        }
    }
}
