//! The prices that explain measured runs best.

use serde::{Deserialize, Serialize};

use super::{Price, Sample};

/// Prices and how well they explain what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// The prices; a load is not part of a run, so it is 0.
    pub price: Price,
    /// Samples that they were fitted to.
    pub n_samples: usize,
    /// The median of the samples' errors, as a share of what was measured.
    pub median_error: f64,
    /// The largest of them.
    pub largest_error: f64,
}

pub(super) const N_TERMS: usize = 3;

/// Subsets of the terms that may be used, as bits: for each run, each token, each token times its length.
pub(super) const ALL: usize = 0b111;
pub(super) const WITHOUT_LENGTHS: usize = 0b011;
const TOKENS: usize = 0b010;

/// How many times as large the largest batch must be as the smallest for the time of a start to show.
const LEAST_SPREAD: f64 = 2.0;

/// The prices that explain measured runs best; none is negative. `None` without a usable sample.
///
/// Errors count as shares of what was measured, because a run of a second is not a thousand times as important
/// as one of a millisecond. Where all batches are of about one size, the start of a batch and its tokens explain
/// it equally well; it is the tokens then, because tokens for free would make any padding free.
#[must_use]
pub fn fit(samples: &[Sample]) -> Option<Fit> {
    let terms = if sizes_differ(samples) { ALL } else { TOKENS };
    let [launch, token, token_length] = least_squares(samples, terms)?;
    let price = Price { load: 0.0, launch, token, token_length };
    let usable = samples.iter().filter(|it| it.is_usable());
    let error = |it: &Sample| {
        let predicted = dot(&it.terms(), &[launch, token, token_length]);
        (predicted / it.cost - 1.0).abs()
    };
    let mut errors: Vec<f64> = usable.map(error).collect();
    errors.sort_by(f64::total_cmp);
    let (median_error, largest_error) = (errors[errors.len() / 2], *errors.last()?);
    Some(Fit { price, n_samples: errors.len(), median_error, largest_error })
}

/// Whether batches are small and large.
fn sizes_differ(samples: &[Sample]) -> bool {
    let sizes = || samples.iter().filter(|it| it.is_usable()).map(|it| it.tokens / it.n_runs);
    sizes().fold(0.0, f64::max) >= LEAST_SPREAD * sizes().fold(f64::INFINITY, f64::min)
}

/// A sample divided by what it cost, so that a perfect explanation makes it 1.
struct Row {
    terms: [f64; N_TERMS],
    /// The mean of many runs is more exact than one; from some runs on it is the model that errs.
    weight: f64,
}

/// The terms' prices that minimise `sum of w ((launch × r + token × n + token_length × n l) / t - 1)²`.
///
/// Of the solutions for every subset of the allowed terms, the best without a negative price is taken, which is
/// the non-negative least-squares solution (Lawson and Hanson, *Solving Least Squares Problems*, 1974, chapter
/// 23; three terms have only seven subsets).
pub(super) fn least_squares(samples: &[Sample], allowed: usize) -> Option<[f64; N_TERMS]> {
    let row = |it: &Sample| Row {
        terms: it.terms().map(|term| term / it.cost),
        weight: it.n_runs / (it.n_runs + 1.0),
    };
    let rows: Vec<Row> = samples.iter().filter(|it| it.is_usable()).map(row).collect();
    let residual = |prices: &[f64; N_TERMS]| -> f64 {
        rows.iter().map(|row| row.weight * (dot(&row.terms, prices) - 1.0).powi(2)).sum()
    };
    let subsets = (1..=allowed).filter(|subset| subset & allowed == *subset);
    let solutions = subsets.filter_map(|subset| solve(&rows, subset));
    let valid = solutions.filter(|prices| prices.iter().all(|it| it.is_finite() && *it >= 0.0));
    valid.min_by(|a, b| residual(a).total_cmp(&residual(b)))
}

fn dot(a: &[f64; N_TERMS], b: &[f64; N_TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The normal equations of the terms in `subset`, by elimination; every right-hand side is 1. `None` where
/// the samples do not tell the terms apart.
fn solve(rows: &[Row], subset: usize) -> Option<[f64; N_TERMS]> {
    let terms: Vec<usize> = (0..N_TERMS).filter(|term| subset >> term & 1 == 1).collect();
    let sum = |of: &dyn Fn(&[f64; N_TERMS]) -> f64| -> f64 {
        rows.iter().map(|row| row.weight * of(&row.terms)).sum()
    };
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
            Sample::run(rows, length, seconds)
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
        assert_eq!(fit(&[Sample::run(1, 8, f64::NAN)]), None);
        let one = fit(&[Sample::run(2, 50, 1.0)]).unwrap();
        assert!(one.largest_error < 1e-9 && one.price.batch(2, 50) > 0.999);
    }

    #[test]
    fn batches_of_one_size_are_explained_by_their_tokens() {
        let noise = [1.02, 0.99, 1.01, 0.98];
        let shapes = [(1, 512), (2, 250), (4, 126), (8, 62)];
        let run = |((rows, length), noise)| Sample::run(rows, length, 42e-3 * noise);
        let samples: Vec<Sample> = shapes.into_iter().zip(noise).map(run).collect();
        let Price { launch, token, token_length, .. } = fit(&samples).unwrap().price;
        assert_eq!((launch, token_length), (0.0, 0.0));
        assert!((token * 500.0 / 42e-3 - 1.0).abs() < 0.05, "{token}");
    }

    proptest! {
        #[test]
        fn no_price_is_negative(
            seconds in proptest::collection::vec(1e-4_f64..1.0, 1..30),
        ) {
            let run = |(nth, &seconds): (usize, &f64)| {
                Sample::run(1 + nth % 5, 8 * (1 + nth % 7), seconds)
            };
            let samples: Vec<Sample> = seconds.iter().enumerate().map(run).collect();
            let Price { launch, token, token_length, .. } = fit(&samples).unwrap().price;
            prop_assert!(launch >= 0.0 && token >= 0.0 && token_length >= 0.0);
        }
    }
}
