//! Finding the setting that this machine runs this model fastest with, by trying.
//!
//! What is best depends on caches, cores and the model: one session with all threads or several with
//! fewer, small batches or large ones. [`Search`] is the pure part: it says what to try next and
//! learns from what was measured. Every trial is real work of the caller's, so nothing runs for
//! nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How threads are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Split {
    /// Sessions that run side by side.
    pub n_sessions: usize,
    /// Threads of each.
    pub n_threads: usize,
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        let (sessions, threads) = (self.n_sessions, self.n_threads);
        write!(f, "{sessions} session{} of {threads} thread{}", plural(sessions), plural(threads))
    }
}

/// What a run of many batches can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Setting {
    /// Sessions and threads.
    #[serde(flatten)]
    pub split: Split,
    /// Tokens a batch may have, padding counted.
    pub token_budget: usize,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.token_budget {
            0 | 1 => write!(f, "{}, one item a batch", self.split),
            budget => write!(f, "{}, {budget} tokens a batch", self.split),
        }
    }
}

/// Budgets worth trying: from one item a batch to where larger batches leave the processor's caches.
pub const TOKEN_BUDGETS: [usize; 5] = [1, 256, 512, 1024, 2048];

/// Every way to share out `n_threads` evenly with none left over.
#[must_use]
pub fn splits(n_threads: usize) -> Vec<Split> {
    (1..=n_threads)
        .filter(|n_sessions| n_threads.is_multiple_of(*n_sessions))
        .map(|n_sessions| Split { n_sessions, n_threads: n_threads / n_sessions })
        .collect()
}

/// Every pair of a split and a budget.
#[must_use]
pub fn settings(splits: &[Split], token_budgets: &[usize]) -> Vec<Setting> {
    let pair = |split: &Split| {
        let split = *split;
        token_budgets.iter().map(move |&token_budget| Setting { split, token_budget })
    };
    splits.iter().flat_map(pair).collect()
}

/// A search by halving: all candidates are tried on a small share of the work, the faster half again on
/// twice as much, until one is left.
///
/// A round's trials are on equal work, so they may be compared; measurements of earlier rounds count on,
/// weighted by their work.
#[derive(Clone, Debug)]
pub struct Search {
    candidates: Vec<Candidate>,
    next: usize,
    n_trial_tokens: usize,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    setting: Setting,
    n_tokens: usize,
    elapsed: Duration,
}

impl Candidate {
    /// Infinite for a candidate that has done nothing.
    fn seconds_a_token(&self) -> f64 {
        match self.n_tokens {
            0 => f64::INFINITY,
            n_tokens => self.elapsed.as_secs_f64() / n_tokens as f64,
        }
    }
}

/// What to try next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The setting to run with.
    pub setting: Setting,
    /// How much to run, in real tokens.
    pub n_tokens: usize,
}

impl Search {
    /// A search among `candidates` whose first trials take `n_trial_tokens` real tokens each.
    #[must_use]
    pub fn new(candidates: Vec<Setting>, n_trial_tokens: usize) -> Self {
        let fresh = |setting| Candidate { setting, n_tokens: 0, elapsed: Duration::ZERO };
        Self { candidates: candidates.into_iter().map(fresh).collect(), next: 0, n_trial_tokens }
    }

    /// What to try next; `None` when one candidate is left.
    #[must_use]
    pub fn next_trial(&self) -> Option<Trial> {
        if self.candidates.len() < 2 {
            return None;
        }
        let setting = self.candidates.get(self.next)?.setting;
        Some(Trial { setting, n_tokens: self.n_trial_tokens })
    }

    /// Tells how long the last [`Self::next_trial`] took for how many real tokens.
    pub fn record(&mut self, n_tokens: usize, elapsed: Duration) {
        let Some(candidate) = self.candidates.get_mut(self.next) else { return };
        candidate.n_tokens += n_tokens;
        candidate.elapsed += elapsed;
        self.next += 1;
        if self.next == self.candidates.len() {
            self.halve();
        }
    }

    fn halve(&mut self) {
        self.candidates.sort_by(|a, b| a.seconds_a_token().total_cmp(&b.seconds_a_token()));
        self.candidates.truncate(self.candidates.len().div_ceil(2));
        self.next = 0;
        self.n_trial_tokens *= 2;
    }

    /// Whether a split may still win.
    #[must_use]
    pub fn may_use(&self, split: Split) -> bool {
        self.candidates.iter().any(|candidate| candidate.setting.split == split)
    }

    /// The real tokens that all trials of a search take together.
    #[must_use]
    pub fn n_tokens(n_candidates: usize, n_trial_tokens: usize) -> usize {
        let (mut left, mut trial, mut sum) = (n_candidates, n_trial_tokens, 0);
        while left > 1 {
            sum += left * trial;
            left = left.div_ceil(2);
            trial *= 2;
        }
        sum
    }

    /// The fastest so far of those that were tried; `None` before any trial.
    #[must_use]
    pub fn best(&self) -> Option<Setting> {
        let tried = self.candidates.iter().filter(|candidate| candidate.n_tokens > 0);
        tried
            .min_by(|a, b| a.seconds_a_token().total_cmp(&b.seconds_a_token()))
            .map(|candidate| candidate.setting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search in which a token takes `cost` nanoseconds; gives the winner and the tokens spent.
    fn search(candidates: &[Setting], cost: impl Fn(Setting) -> u64) -> (Option<Setting>, usize) {
        let mut search = Search::new(candidates.to_vec(), 100);
        let mut spent = 0;
        while let Some(Trial { setting, n_tokens }) = search.next_trial() {
            spent += n_tokens;
            search.record(n_tokens, Duration::from_nanos(cost(setting) * n_tokens as u64));
        }
        (search.best(), spent)
    }

    #[test]
    fn the_fastest_is_found_wherever_it_stands() {
        let candidates = settings(&splits(4), &TOKEN_BUDGETS);
        assert_eq!(candidates.len(), 15);
        for fastest in &candidates {
            let (best, spent) = search(&candidates, |it| if it == *fastest { 10 } else { 11 });
            assert_eq!(best, Some(*fastest));
            assert_eq!(spent, Search::n_tokens(15, 100));
        }
    }

    #[test]
    fn a_trial_without_work_never_wins() {
        let candidates = settings(&splits(2), &[512]);
        let mut search = Search::new(candidates.clone(), 100);
        search.record(100, Duration::from_secs(1));
        search.record(0, Duration::from_nanos(1));
        assert_eq!(search.best(), Some(candidates[0]));
        assert!(search.may_use(candidates[0].split) && !search.may_use(candidates[1].split));
    }

    #[test]
    fn few_candidates_need_no_trial() {
        assert_eq!(search(&[], |_| 1), (None, 0));
        let only = settings(&splits(1), &[512]);
        assert_eq!(search(&only, |_| 1), (None, 0));
    }

    #[test]
    fn threads_are_shared_out_whole() {
        let shares: Vec<_> = splits(6).iter().map(|s| (s.n_sessions, s.n_threads)).collect();
        assert_eq!(shares, [(1, 6), (2, 3), (3, 2), (6, 1)]);
    }
}
