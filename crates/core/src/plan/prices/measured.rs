//! What was measured of one model on one backend, and the prices that follow from it.

use serde::{Deserialize, Serialize};

use super::{Fit, PerProgram, Price, Samples, fit, fit_for};
use crate::BackendId;
use crate::plan::Histogram;
use crate::plan::calibrate::Split;

/// What was measured of one model on one backend of one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// The backend.
    pub backend: BackendId,
    /// When the last of it was measured, in milliseconds since 1970.
    pub measured_at_ms: u64,
    /// Loads and runs, by how threads were shared out.
    pub splits: Vec<OfSplit>,
    /// Compiles of programs, in seconds; none where there is none.
    pub compiles: Samples,
    /// Artifacts of programs, in bytes; none where there is none.
    pub sizes: Samples,
}

/// What was measured with threads shared out in one way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfSplit {
    /// Sessions and threads.
    pub split: Split,
    /// Seconds from the file to sessions that can run; of programs, of each.
    pub loads: Samples,
    /// Seconds in which all sessions, side by side, get a batch done: what one session takes, divided by
    /// their number.
    pub runs: Samples,
}

/// The way to share out threads that suits a workload best, with its prices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Sessions and threads.
    pub split: Split,
    /// The prices, load included, and how well they explain what was measured.
    #[serde(flatten)]
    pub fit: Fit,
}

impl Measurements {
    /// Nothing yet.
    #[must_use]
    pub fn new(backend: BackendId) -> Self {
        let (compiles, sizes) = (Samples::default(), Samples::default());
        Self { backend, measured_at_ms: 0, splits: Vec::new(), compiles, sizes }
    }

    /// What was measured with threads shared out so; made where it is missing.
    pub fn of(&mut self, split: Split) -> &mut OfSplit {
        let at = self.splits.iter().position(|it| it.split == split).unwrap_or_else(|| {
            let (loads, runs) = (Samples::default(), Samples::default());
            self.splits.push(OfSplit { split, loads, runs });
            self.splits.len() - 1
        });
        &mut self.splits[at]
    }

    /// Adds what was measured later: where it is more than is kept, older runs give way. Splits that are not
    /// here yet stay out: production runs have no load, and only the shapes that came.
    pub fn refine(&mut self, newer: &Self) {
        for ours in &mut self.splits {
            let same = newer.splits.iter().filter(|it| it.split == ours.split);
            for OfSplit { loads, runs, .. } in same {
                ours.loads.refine(loads);
                ours.runs.refine(runs);
            }
        }
        self.compiles.refine(&newer.compiles);
        self.sizes.refine(&newer.sizes);
        self.measured_at_ms = self.measured_at_ms.max(newer.measured_at_ms);
    }

    /// The split that runs work of these lengths soonest, stacked under a token budget, one load included;
    /// `None` where of no split both a load and a run were measured.
    #[must_use]
    pub fn cheapest(&self, lengths: &Histogram, token_budget: usize) -> Option<Choice> {
        let batch_tokens = usual_batch(lengths, token_budget);
        let choices = self.splits.iter().filter_map(|it| it.choice_for(batch_tokens));
        let seconds = |it: &Choice| it.fit.price.work(lengths, token_budget);
        choices.min_by(|a, b| seconds(a).total_cmp(&seconds(b)))
    }

    /// Seconds to compile a program; `None` where no compile was measured.
    #[must_use]
    pub fn compile(&self) -> Option<PerProgram> {
        self.compiles.per_program()
    }

    /// Bytes of a program; `None` where there is none.
    #[must_use]
    pub fn memory(&self) -> Option<PerProgram> {
        self.sizes.per_program()
    }
}

impl OfSplit {
    /// Its prices; `None` without a load, which is not free where nobody measured it, or without a run.
    #[must_use]
    pub fn choice(&self) -> Option<Choice> {
        self.choice_of(fit(&self.runs.sums())?)
    }

    /// Its prices for work in batches of so many tokens; `None` as above.
    #[must_use]
    pub fn choice_for(&self, batch_tokens: f64) -> Option<Choice> {
        self.choice_of(fit_for(&self.runs.sums(), batch_tokens)?)
    }

    fn choice_of(&self, fit: Fit) -> Option<Choice> {
        let price = Price { load: self.loads.mean()?, ..fit.price };
        Some(Choice { split: self.split, fit: Fit { price, ..fit } })
    }
}

/// Tokens of the batches that most tokens of the work run in; 1 for no work.
fn usual_batch(lengths: &Histogram, token_budget: usize) -> f64 {
    let n_items = lengths.n_items();
    let in_batch = |&(length, n): &(usize, u64)| {
        let n_rows = (token_budget / length.max(1)).max(1) as u64;
        let batch = n_rows.min(n_items) as f64 * length as f64;
        (n as f64 * length as f64, batch)
    };
    let all = || lengths.entries().iter().map(in_batch);
    let n_tokens: f64 = all().map(|(tokens, _)| tokens).sum();
    let mean = all().map(|(tokens, batch)| tokens * batch).sum::<f64>() / n_tokens;
    if mean.is_finite() { mean.max(1.0) } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKEND: BackendId = BackendId::new("example");

    fn split(n_sessions: usize) -> Split {
        Split { n_sessions, n_threads: 4 / n_sessions }
    }

    /// Two sessions are faster a token, and slower to load.
    fn measured() -> Measurements {
        let mut all = Measurements::new(BACKEND);
        for (n_sessions, load, token) in [(1, 0.1, 10e-6), (2, 0.3, 6e-6)] {
            let of = all.of(split(n_sessions));
            of.loads.record(1, 1, load);
            for (rows, length) in [(1, 16), (8, 16), (1, 256), (8, 256)] {
                of.runs.record(rows, length, 1e-3 + token * (rows * length) as f64);
            }
        }
        all
    }

    #[test]
    fn the_split_follows_the_work() {
        let all = measured();
        let chosen = |n| all.cheapest(&Histogram::from(vec![(100, n)]), 512).unwrap();
        assert_eq!(chosen(10).split, split(1), "little work: the cheaper load");
        assert_eq!(chosen(10_000).split, split(2));
        assert!((chosen(10_000).fit.price.load - 0.3).abs() < 1e-12);
        assert_eq!(Measurements::new(BACKEND).cheapest(&Histogram::default(), 512), None);
    }

    #[test]
    fn batches_of_the_work_fill_the_budget_as_far_as_there_are_rows() {
        let of = |entries: &[(usize, u64)]| usual_batch(&Histogram::from(entries.to_vec()), 512);
        assert_eq!(of(&[(100, 1000)]), 500.0);
        assert_eq!(of(&[(100, 2)]), 200.0);
        assert_eq!(of(&[(600, 5)]), 600.0);
        assert_eq!(of(&[(64, 8), (600, 1)]), (512.0 * 512.0 + 600.0 * 600.0) / 1112.0);
        assert_eq!([of(&[]), of(&[(0, 3)])], [1.0, 1.0]);
    }

    #[test]
    fn what_is_measured_later_is_added() {
        let (mut all, mut more) = (measured(), Measurements::new(BACKEND));
        more.measured_at_ms = 7;
        more.of(split(4)).runs.record(1, 8, 1e-3);
        more.of(split(1)).runs.record(1, 16, 1e-3);
        more.compiles.record(8, 64, 12.0);
        more.sizes.record(8, 64, 1e6);
        all.refine(&more);
        assert_eq!(all.splits.len(), 2, "nobody calibrated the third");
        assert_eq!(all.of(split(1)).runs.n_runs(), 5.0);
        assert_eq!(all.measured_at_ms, 7);
        assert!((all.compile().unwrap().of(8, 64) - 12.0).abs() < 1e-9);
        assert!((all.memory().unwrap().of(8, 64) - 1e6).abs() < 1e-3);
    }

    #[test]
    fn a_split_without_a_load_is_not_chosen() {
        let mut all = measured();
        all.of(split(4)).runs.record(8, 256, 1e-6);
        assert_eq!(all.of(split(4)).choice(), None);
        let chosen = all.cheapest(&Histogram::from(vec![(100, 10)]), 512).unwrap();
        assert_eq!(chosen.split, split(1));
    }
}
