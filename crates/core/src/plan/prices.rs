//! What work costs, in seconds, as data.
//!
//! * device = load, if the program is not resident, + launch + padded tokens × token
//! * CPU = load, if the model is not, + launch + real tokens × token
//!
//! To each token's cost, attention adds one that grows with the length of its row. Measuring is the
//! caller's; [`fit`] finds the prices that explain what was measured best.

use serde::{Deserialize, Serialize};

use super::Bucket;

/// What running on one backend costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Price {
    /// Seconds until the first run: of a device for each program, of the CPU for the model.
    pub load: f64,
    /// Seconds to start a batch.
    pub launch: f64,
    /// Seconds a token.
    pub token: f64,
    /// Seconds a token for every token of its row.
    pub token_length: f64,
}

impl Price {
    /// Seconds to run `rows` rows of `length` tokens.
    #[must_use]
    pub fn batch(&self, rows: usize, length: usize) -> f64 {
        let (tokens, length) = ((rows as f64) * (length as f64), length as f64);
        self.launch + self.tokens(tokens, tokens * length)
    }

    /// Seconds that tokens take once their batch is started; `squares` is the sum of the rows' squared
    /// lengths.
    #[must_use]
    pub fn tokens(&self, n_tokens: f64, squares: f64) -> f64 {
        n_tokens * self.token + squares * self.token_length
    }

    /// The tokens that could run in the time that starting a batch takes.
    #[must_use]
    pub fn launch_tokens(&self) -> u64 {
        if self.token > 0.0 { (self.launch / self.token).round() as u64 } else { 0 }
    }
}

/// A cost that has a fixed part and one that grows with the tokens of a program's shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PerProgram {
    /// For any program.
    pub fixed: f64,
    /// For each token of its shape.
    pub token: f64,
}

impl PerProgram {
    /// For a program of that shape.
    #[must_use]
    pub fn of(&self, rows: usize, length: usize) -> f64 {
        self.fixed + self.token * rows as f64 * length as f64
    }
}

/// All that a plan weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prices {
    /// The backend whose programs have fixed shapes.
    pub device: Price,
    /// The backend that takes any shape; padding is taken off before.
    pub cpu: Price,
    /// Seconds to compile a program.
    pub compile: PerProgram,
    /// Bytes of device memory that a loaded program takes.
    pub memory: PerProgram,
}

/// After how many runs a compilation has paid; `None` is never.
#[must_use]
pub fn break_even(compile_seconds: f64, saved_seconds: f64) -> Option<u64> {
    match compile_seconds {
        free if free <= 0.0 => Some(0),
        seconds if saved_seconds > 0.0 => Some((seconds / saved_seconds).ceil() as u64),
        _ => None,
    }
}

/// One measured run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Rows that ran, padding counted.
    pub rows: usize,
    /// The length that they had, in tokens.
    pub length: usize,
    /// How long it took.
    pub seconds: f64,
}

impl Sample {
    /// A run of a program.
    #[must_use]
    pub fn of(bucket: &Bucket, rows: &str, length: &str, seconds: f64) -> Self {
        let extent = |symbol| bucket.get(symbol).unwrap_or(1);
        Self { rows: extent(rows), length: extent(length), seconds }
    }

    fn terms(&self) -> [f64; N_TERMS] {
        let tokens = self.rows as f64 * self.length as f64;
        [1.0, tokens, tokens * self.length as f64]
    }
}

/// Prices and how well they explain what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The prices; a load is not part of a run, so it is 0.
    pub price: Price,
    /// Runs that they were fitted to.
    pub n_samples: usize,
    /// The median of the runs' errors, as a share of what was measured.
    pub median_error: f64,
    /// The largest of them.
    pub largest_error: f64,
}

const N_TERMS: usize = 3;

/// The prices that explain measured runs best; none is negative.
///
/// Least squares of the *relative* errors, because a run of a second is not a thousand times as important
/// as one of a millisecond: minimises `sum of ((launch + token × n + token_length × n × l) / t - 1)²`. Of
/// the solutions for every subset of the terms, the best without a negative price is taken, which is the
/// non-negative least-squares solution (Lawson and Hanson, *Solving Least Squares Problems*, 1974, chapter
/// 23; three terms have only seven subsets). `None` without a usable sample.
#[must_use]
pub fn fit(samples: &[Sample]) -> Option<Fit> {
    let usable: Vec<Sample> =
        samples.iter().copied().filter(|it| it.seconds.is_finite() && it.seconds > 0.0).collect();
    let rows: Vec<[f64; N_TERMS]> =
        usable.iter().map(|it| it.terms().map(|term| term / it.seconds)).collect();
    let residual = |prices: &[f64; N_TERMS]| -> f64 {
        rows.iter().map(|row| (dot(row, prices) - 1.0).powi(2)).sum()
    };
    let solutions = (1..1_usize << N_TERMS).filter_map(|subset| solve(&rows, subset));
    let valid = solutions.filter(|prices| prices.iter().all(|it| it.is_finite() && *it >= 0.0));
    let [launch, token, token_length] = valid.min_by(|a, b| residual(a).total_cmp(&residual(b)))?;
    let price = Price { load: 0.0, launch, token, token_length };
    let error = |it: &Sample| (price.batch(it.rows, it.length) / it.seconds - 1.0).abs();
    let mut errors: Vec<f64> = usable.iter().map(error).collect();
    errors.sort_by(f64::total_cmp);
    let (median_error, largest_error) = (errors[errors.len() / 2], *errors.last()?);
    Some(Fit { price, n_samples: usable.len(), median_error, largest_error })
}

fn dot(a: &[f64; N_TERMS], b: &[f64; N_TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The normal equations of the terms in `subset`, by elimination; every right-hand side is 1. `None` where
/// the samples do not tell the terms apart.
fn solve(rows: &[[f64; N_TERMS]], subset: usize) -> Option<[f64; N_TERMS]> {
    let terms: Vec<usize> = (0..N_TERMS).filter(|term| subset >> term & 1 == 1).collect();
    let sum = |of: &dyn Fn(&[f64; N_TERMS]) -> f64| rows.iter().map(of).sum::<f64>();
    // The terms differ by many orders of magnitude; scaled to length 1 they may be compared with a bound.
    let scale: Vec<f64> = terms.iter().map(|&i| sum(&|row| row[i] * row[i]).sqrt()).collect();
    let entry =
        |a: usize, b: usize| sum(&|row| row[terms[a]] * row[terms[b]]) / (scale[a] * scale[b]);
    let n = terms.len();
    let mut system: Vec<Vec<f64>> = (0..n)
        .map(|a| {
            let right = sum(&|row| row[terms[a]]) / scale[a];
            (0..n).map(|b| entry(a, b)).chain([right]).collect()
        })
        .collect();
    for at in 0..n {
        if system[at][at].is_nan() || system[at][at] <= 1e-9 {
            return None;
        }
        let pivot = system[at].clone();
        for (_, row) in system.iter_mut().enumerate().filter(|(nth, _)| *nth != at) {
            let factor = row[at] / pivot[at];
            row.iter_mut().zip(&pivot).for_each(|(it, pivot)| *it -= factor * pivot);
        }
    }
    let mut prices = [0.0; N_TERMS];
    for (at, &term) in terms.iter().enumerate() {
        prices[term] = system[at][n] / system[at][at] / scale[at];
    }
    Some(prices)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RUNTIME: Price =
        Price { load: 0.0, launch: 1.4e-3, token: 83.7e-6, token_length: 72.8e-9 };

    fn samples(price: &Price, noise: impl Fn(usize) -> f64) -> Vec<Sample> {
        let shapes = [1, 2, 4, 8, 32]
            .into_iter()
            .flat_map(|rows| [16, 64, 128, 256, 512].into_iter().map(move |length| (rows, length)));
        let run = |(nth, (rows, length))| {
            let seconds = price.batch(rows, length) * noise(nth);
            Sample { rows, length, seconds }
        };
        shapes.enumerate().map(run).collect()
    }

    #[test]
    fn exact_runs_give_their_prices() {
        let fit = fit(&samples(&RUNTIME, |_| 1.0)).unwrap();
        for (found, wanted) in [
            (fit.price.launch, RUNTIME.launch),
            (fit.price.token, RUNTIME.token),
            (fit.price.token_length, RUNTIME.token_length),
        ] {
            assert!((found / wanted - 1.0).abs() < 1e-6, "{fit:?}");
        }
        assert!(fit.largest_error < 1e-9);
    }

    #[test]
    fn noise_is_reported_and_does_little() {
        let noise = |nth: usize| if nth.is_multiple_of(2) { 1.05 } else { 0.95 };
        let fit = fit(&samples(&RUNTIME, noise)).unwrap();
        assert!((fit.price.token / RUNTIME.token - 1.0).abs() < 0.1, "{fit:?}");
        assert!(fit.median_error > 0.03 && fit.largest_error < 0.08, "{fit:?}");
    }

    #[test]
    fn few_samples_give_the_terms_that_they_show() {
        assert_eq!(fit(&[]), None);
        assert_eq!(fit(&[Sample { rows: 1, length: 8, seconds: f64::NAN }]), None);
        let one = fit(&[Sample { rows: 2, length: 50, seconds: 1.0 }]).unwrap();
        assert!(one.largest_error < 1e-9 && one.price.batch(2, 50) > 0.999);
    }

    #[test]
    fn what_never_saves_never_pays() {
        // The experience report: 136.7 s of compiling, 3.641 s on the CPU, 3.172 s with programs.
        assert_eq!(break_even(136.7, 3.641 - 3.172), Some(292));
        assert_eq!(break_even(10.0, 0.0), None);
        assert_eq!(break_even(10.0, -1.0), None);
        assert_eq!(break_even(0.0, -1.0), Some(0));
    }

    proptest! {
        #[test]
        fn no_price_is_negative(
            seconds in proptest::collection::vec(1e-4_f64..1.0, 1..30),
        ) {
            let run = |(nth, &seconds): (usize, &f64)| {
                Sample { rows: 1 + nth % 5, length: 8 * (1 + nth % 7), seconds }
            };
            let samples: Vec<Sample> = seconds.iter().enumerate().map(run).collect();
            let Price { launch, token, token_length, .. } = fit(&samples).unwrap().price;
            prop_assert!(launch >= 0.0 && token >= 0.0 && token_length >= 0.0);
        }
    }
}
