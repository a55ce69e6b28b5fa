//! What was measured, in bounded memory.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::PerProgram;
use super::fit::{self, N_TERMS};

/// Runs of one kind that count at most: of more, older ones give way to newer ones.
const MOST_RUNS: f64 = 256.0;

/// Measured runs, added up.
///
/// What a run costs is linear in its batches, its tokens and its tokens times their rows' length, so that sums
/// of runs are explained by the same prices as each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// How many runs.
    pub n_runs: f64,
    /// Their tokens, padding counted.
    pub tokens: f64,
    /// The same, each times the length of its row.
    pub token_lengths: f64,
    /// What they took together, in seconds; of sizes, in bytes.
    pub cost: f64,
}

impl Sample {
    /// One run of `rows` rows of `length` tokens.
    #[must_use]
    pub fn run(rows: usize, length: usize, cost: f64) -> Self {
        let (tokens, length) = (rows as f64 * length as f64, length as f64);
        Self { n_runs: 1.0, tokens, token_lengths: tokens * length, cost }
    }

    /// So many such runs.
    #[must_use]
    pub fn times(self, n: f64) -> Self {
        Self {
            n_runs: self.n_runs * n,
            tokens: self.tokens * n,
            token_lengths: self.token_lengths * n,
            cost: self.cost * n,
        }
    }

    /// Whether it can be learnt from.
    pub(super) fn is_usable(&self) -> bool {
        let all = [self.n_runs, self.tokens, self.token_lengths, self.cost];
        all.iter().all(|it| it.is_finite() && *it >= 0.0) && self.n_runs > 0.0 && self.cost > 0.0
    }

    pub(super) const fn terms(&self) -> [f64; N_TERMS] {
        [self.n_runs, self.tokens, self.token_lengths]
    }

    /// Of `self` as much as leaves room for `newer`.
    fn giving_way(self, newer: &Self) -> Self {
        let room = (MOST_RUNS - newer.n_runs).max(0.0);
        if self.n_runs > room { self.times(room / self.n_runs) } else { self }
    }
}

impl AddAssign for Sample {
    fn add_assign(&mut self, other: Self) {
        self.n_runs += other.n_runs;
        self.tokens += other.tokens;
        self.token_lengths += other.token_lengths;
        self.cost += other.cost;
    }
}

/// Measured runs, those of like shape added up.
///
/// Shapes are alike whose rows and whose lengths are in the same half octave, so that there are never more
/// sums than pairs of half octaves. Of runs that are alike, the last 256 count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Cell>", into = "Vec<Cell>")]
pub struct Samples(BTreeMap<(u8, u8), Sample>);

/// A sum as it is written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Cell {
    rows: u8,
    length: u8,
    #[serde(flatten)]
    sample: Sample,
}

impl Samples {
    /// Adds one run; what is no cost, such as NaN, is left out.
    pub fn record(&mut self, rows: usize, length: usize, cost: f64) {
        self.add((half_octave(rows), half_octave(length)), Sample::run(rows, length, cost));
    }

    /// Adds `n` runs that took `cost` each.
    pub fn record_times(&mut self, rows: usize, length: usize, cost: f64, n: usize) {
        let sample = Sample::run(rows, length, cost).times(n as f64);
        self.add((half_octave(rows), half_octave(length)), sample);
    }

    /// Adds what was measured later.
    pub fn refine(&mut self, newer: &Self) {
        newer.0.iter().for_each(|(&kind, &sample)| self.add(kind, sample));
    }

    fn add(&mut self, kind: (u8, u8), newer: Sample) {
        if newer.is_usable() {
            let newer = newer.times((MOST_RUNS / newer.n_runs).min(1.0));
            let sum = self.0.entry(kind).or_default();
            *sum = sum.giving_way(&newer);
            *sum += newer;
        }
    }

    /// The sums.
    #[must_use]
    pub fn sums(&self) -> Vec<Sample> {
        self.0.values().copied().collect()
    }

    /// How many sums there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs that count.
    #[must_use]
    pub fn n_runs(&self) -> f64 {
        self.0.values().map(|it| it.n_runs).sum()
    }

    /// What a run took on average.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let cost: f64 = self.0.values().map(|it| it.cost).sum();
        (!self.is_empty()).then(|| cost / self.n_runs())
    }

    /// What they cost as a fixed part and a part for each token, neither of them negative.
    #[must_use]
    pub fn per_program(&self) -> Option<PerProgram> {
        let [fixed, token, _] = fit::least_squares(&self.sums(), fit::WITHOUT_LENGTHS)?;
        Some(PerProgram { fixed, token })
    }
}

impl From<Vec<Cell>> for Samples {
    fn from(cells: Vec<Cell>) -> Self {
        let mut samples = Self::default();
        cells.into_iter().for_each(|it| samples.add((it.rows, it.length), it.sample));
        samples
    }
}

impl From<Samples> for Vec<Cell> {
    fn from(samples: Samples) -> Self {
        let cell = |((rows, length), sample)| Cell { rows, length, sample };
        samples.0.into_iter().map(cell).collect()
    }
}

/// Twice the binary logarithm, rounded down; 0 counts as 1.
fn half_octave(extent: usize) -> u8 {
    let extent = extent.max(1);
    let octave = extent.ilog2();
    let is_upper = extent as f64 >= 2_f64.powi(octave.cast_signed()) * std::f64::consts::SQRT_2;
    // At most twice the bits of an extent.
    u8::try_from(2 * octave + u32::from(is_upper)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::prices::{Price, fit};

    const OLD: Price = Price { load: 0.0, launch: 2e-3, token: 50e-6, token_length: 30e-9 };
    const NEW: Price = Price { load: 0.0, launch: 1e-3, token: 90e-6, token_length: 10e-9 };

    fn production(price: &Price, n: usize) -> Samples {
        let mut samples = Samples::default();
        for nth in 0..n {
            let (rows, length) = (1 + nth % 17, 5 + (nth * 37) % 500);
            samples.record(rows, length, price.batch(rows, length));
        }
        samples
    }

    #[test]
    fn what_changed_is_learnt() {
        let mut samples = production(&OLD, 1000);
        samples.refine(&production(&NEW, 100_000));
        let found = fit(&samples.sums()).unwrap();
        assert!((found.price.token / NEW.token - 1.0).abs() < 0.02, "{found:?}");
        assert!(found.largest_error < 0.1, "{found:?}");
    }

    #[test]
    fn what_is_no_cost_is_left_out() {
        let mut samples = Samples::default();
        for cost in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            samples.record(1, 8, cost);
        }
        assert!(samples.is_empty() && samples.mean().is_none() && samples.per_program().is_none());
    }

    #[test]
    fn half_octaves_are_exact_at_powers_of_two() {
        let kinds = [0, 1, 2, 3, 4, 5, 6, 8, 11, 12, 512].map(half_octave);
        assert_eq!(kinds, [0, 0, 2, 3, 4, 4, 5, 6, 6, 7, 18]);
        assert_eq!(half_octave(usize::MAX), 127);
    }

    #[test]
    fn compiles_have_a_fixed_part() {
        let mut samples = Samples::default();
        for (rows, length) in [(1, 64), (8, 64), (8, 512)] {
            samples.record(rows, length, 8.0 + 1e-3 * (rows * length) as f64);
        }
        let found = samples.per_program().unwrap();
        assert!((found.fixed - 8.0).abs() < 1e-6 && (found.token - 1e-3).abs() < 1e-9, "{found:?}");
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_few_runs_are_all_kept(
            runs in proptest::collection::vec((0_usize..100_000, 0_usize..100_000, 1e-6_f64..10.0), 0..200),
        ) {
            let (mut one, mut halves) = (Samples::default(), [Samples::default(), Samples::default()]);
            for (nth, &(rows, length, seconds)) in runs.iter().enumerate() {
                one.record(rows, length, seconds);
                halves[nth % 2].record(rows, length, seconds);
            }
            prop_assert!(one.len() <= 34 * 34);
            prop_assert!((one.n_runs() - runs.len() as f64).abs() < 1e-6);
            let [mut sum, other] = halves;
            sum.refine(&other);
            let cost = |samples: &Samples| samples.sums().iter().map(|it| it.cost).sum::<f64>();
            prop_assert!((cost(&sum) - cost(&one)).abs() <= 1e-9 * cost(&one));
            let json = serde_json::to_string(&one).unwrap();
            let read: Samples = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, one);
        }

        #[test]
        fn what_is_as_predicted_changes_no_price(n in 20_usize..400, more in 1_usize..2000) {
            let mut samples = production(&OLD, n);
            let before = fit(&samples.sums()).unwrap().price;
            samples.refine(&production(&before, more));
            let after = fit(&samples.sums()).unwrap();
            for rows in [1, 8] {
                let (before, after) = (before.batch(rows, 100), after.price.batch(rows, 100));
                prop_assert!((after / before - 1.0).abs() < 1e-6);
            }
        }
    }
}
