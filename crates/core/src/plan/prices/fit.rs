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
    /// The median of the samples' errors, as a share of what was measured; by weight, where they have one.
    pub median_error: f64,
    /// The largest of them.
    pub largest_error: f64,
}

pub(super) const N_TERMS: usize = 3;

/// Subsets of the terms that may be used, as bits: for each run, each token, each token times its length.
pub(super) const ALL: usize = 0b111;
pub(super) const WITHOUT_LENGTHS: usize = 0b011;
const WITHOUT_RUNS: usize = 0b110;
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
    let prices = least_squares(samples, terms)?;
    told(samples, prices, |_| 1.0)
}

/// The same for work in batches of so many tokens.
///
/// A batch that leaves the processor's caches costs more a token than one that does not, so that no prices are right
/// for all. What starting a batch costs shows in small ones and is taken from all; for the tokens' prices a sample
/// counts less by the square of how many times its batches are smaller or larger than the work's.
#[must_use]
pub fn fit_for(samples: &[Sample], batch_tokens: f64) -> Option<Fit> {
    let launch = fit(samples)?.price.launch;
    let weight = |it: &Sample| {
        let ratio = it.tokens / it.n_runs / batch_tokens;
        ratio.min(ratio.recip()).powi(2)
    };
    let rest = Problem::new(samples, |it| (1.0 - launch * it.n_runs / it.cost, weight(it)));
    let [_, token, token_length] = rest.solve(WITHOUT_RUNS)?;
    told(samples, [launch, token, token_length], weight)
}

/// Prices with their errors, which count by weight.
fn told(
    samples: &[Sample],
    prices: [f64; N_TERMS],
    weight: impl Fn(&Sample) -> f64,
) -> Option<Fit> {
    let [launch, token, token_length] = prices;
    let price = Price { load: 0.0, launch, token, token_length };
    let usable = samples.iter().filter(|it| it.is_usable());
    let error = |it: &Sample| ((dot(&it.terms(), &prices) / it.cost - 1.0).abs(), weight(it));
    let mut errors: Vec<(f64, f64)> = usable.map(error).collect();
    errors.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (median_error, largest_error) = (median(&errors)?, errors.last()?.0);
    Some(Fit { price, n_samples: errors.len(), median_error, largest_error })
}

/// Of values in rising order, with their weights, the first that half of the weight does not exceed.
fn median(values: &[(f64, f64)]) -> Option<f64> {
    let half = values.iter().map(|(_, weight)| weight).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    let found = values.iter().find(|(_, weight)| {
        sum += weight;
        sum > half
    });
    found.or(values.last()).map(|(value, _)| *value)
}

/// Whether batches are small and large.
fn sizes_differ(samples: &[Sample]) -> bool {
    let sizes = || samples.iter().filter(|it| it.is_usable()).map(|it| it.tokens / it.n_runs);
    sizes().fold(0.0, f64::max) >= LEAST_SPREAD * sizes().fold(f64::INFINITY, f64::min)
}

/// The terms' prices that minimise `sum of w ((launch × r + token × n + token_length × n l) / t - 1)²`.
pub(super) fn least_squares(samples: &[Sample], allowed: usize) -> Option<[f64; N_TERMS]> {
    Problem::new(samples, |_| (1.0, 1.0)).solve(allowed)
}

/// What terms are to explain, each sample divided by what it cost.
struct Problem(Vec<Row>);

struct Row {
    terms: [f64; N_TERMS],
    /// What they should make together: 1, where nothing else explains a part of it.
    target: f64,
    weight: f64,
}

impl Problem {
    /// `of` gives a sample's target and weight.
    fn new(samples: &[Sample], of: impl Fn(&Sample) -> (f64, f64)) -> Self {
        let row = |it: &Sample| {
            let (target, weight) = of(it);
            let terms = it.terms().map(|term| term / it.cost);
            // The mean of many runs is more exact than one; from some runs on it is the model that errs.
            Row { terms, target, weight: weight * it.n_runs / (it.n_runs + 1.0) }
        };
        Self(samples.iter().filter(|it| it.is_usable()).map(row).collect())
    }

    /// Of the solutions for every subset of the allowed terms, the best without a negative price, which is the
    /// non-negative least-squares solution (Lawson and Hanson, *Solving Least Squares Problems*, 1974, chapter 23;
    /// three terms have only eight subsets). `None` without a sample.
    fn solve(&self, allowed: usize) -> Option<[f64; N_TERMS]> {
        self.0.first()?;
        let residual = |prices: &[f64; N_TERMS]| -> f64 {
            let error = |row: &Row| row.weight * (dot(&row.terms, prices) - row.target).powi(2);
            self.0.iter().map(error).sum()
        };
        let subsets = (0..=allowed).filter(|subset| subset & allowed == *subset);
        let solutions = subsets.filter_map(|subset| self.solve_with(subset));
        let valid = solutions.filter(|prices| prices.iter().all(|it| it.is_finite() && *it >= 0.0));
        valid.min_by(|a, b| residual(a).total_cmp(&residual(b)))
    }

    /// The normal equations of the terms in `subset`, by elimination. `None` where the samples do not tell the terms
    /// apart.
    fn solve_with(&self, subset: usize) -> Option<[f64; N_TERMS]> {
        let terms: Vec<usize> = (0..N_TERMS).filter(|term| subset >> term & 1 == 1).collect();
        let sum = |of: &dyn Fn(&Row) -> f64| -> f64 {
            self.0.iter().map(|row| row.weight * of(row)).sum()
        };
        // The terms differ by many orders of magnitude; scaled to length 1 they may be compared with a bound.
        let scale: Vec<f64> =
            terms.iter().map(|&i| sum(&|row| row.terms[i].powi(2)).sqrt()).collect();
        let entry = |a: usize, b: usize| {
            sum(&|row| row.terms[terms[a]] * row.terms[terms[b]]) / (scale[a] * scale[b])
        };
        let n = terms.len();
        let mut system: Vec<Vec<f64>> = (0..n)
            .map(|a| {
                let right = sum(&|row| row.terms[terms[a]] * row.target) / scale[a];
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
}

fn dot(a: &[f64; N_TERMS], b: &[f64; N_TERMS]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
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
    fn prices_are_those_of_batches_like_the_works() {
        // From 1,000 tokens on a token costs a fifth more.
        let run = |&(rows, length): &(usize, usize)| {
            let slower = if rows * length >= 1000 { 1.2 } else { 1.0 };
            Sample::run(rows, length, RUNTIME.batch(rows, length) * slower)
        };
        let lengths = [16, 64, 256, 512];
        let shapes = lengths.iter().flat_map(|&length| {
            let rows = [1, 2, 4, 8, 16, 32, 64].into_iter();
            rows.filter(move |rows| rows * length <= 1024).map(move |rows| (rows, length))
        });
        let slow: Vec<Sample> = shapes.map(|it| run(&it)).collect();
        let error = |fit: &Fit, (rows, length)| {
            let taken = run(&(rows, length));
            (fit.price.batch(rows, length) / taken.cost - 1.0).abs()
        };
        let (all, full) = (fit(&slow).unwrap(), fit_for(&slow, 1024.0).unwrap());
        for shape in [(64, 16), (4, 256)] {
            assert!(error(&full, shape) < error(&all, shape) / 2.0, "{all:?} {full:?}");
            assert!(error(&full, shape) < 0.06, "{full:?}");
        }
        assert!((full.price.launch / RUNTIME.launch - 1.0).abs() < 0.2, "{full:?}");
        let exact: Vec<Sample> = samples(&RUNTIME, |_| 1.0);
        let found = fit_for(&exact, 100.0).unwrap().price;
        assert!((found.batch(7, 99) / RUNTIME.batch(7, 99) - 1.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn where_starting_a_batch_explains_all_tokens_are_free() {
        let run = |(nth, rows): (usize, usize)| {
            Sample::run(rows, 16, 30e-6 * if nth.is_multiple_of(2) { 1.02 } else { 0.98 })
        };
        let samples: Vec<Sample> = [1, 4, 16, 64].into_iter().enumerate().map(run).collect();
        for batch_tokens in [1.0, 16.0, 1024.0] {
            let price = fit_for(&samples, batch_tokens).unwrap().price;
            assert!((price.batch(8, 16) / 30e-6 - 1.0).abs() < 0.05, "{price:?}");
        }
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
