//! Work not yet done, from which samples of the same mix of lengths can be taken.

use std::cmp::Reverse;

/// Runs of neighbours in a sample.
pub(crate) const N_RUNS: usize = 4;

/// Items not yet taken, the longest first.
#[derive(Clone, Debug)]
pub(crate) struct Remaining {
    /// Items with their lengths.
    items: Vec<(usize, usize)>,
}

impl Remaining {
    pub(crate) fn new(lengths: &[usize], todo: Vec<usize>) -> Self {
        let mut items: Vec<_> = todo.into_iter().map(|item| (item, lengths[item])).collect();
        items.sort_by_key(|&(_, length)| Reverse(length));
        Self { items }
    }

    /// Items that are left.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Tokens of what is left.
    pub(crate) fn n_tokens(&self) -> usize {
        self.items.iter().map(|(_, length)| length).sum()
    }

    /// Takes items of about `n_tokens` tokens together: runs of neighbours in length, spread evenly over
    /// the tokens that are left. Packed each for itself, they need about the padding that the whole would.
    pub(crate) fn sample(&mut self, n_tokens: usize) -> Vec<Vec<usize>> {
        let share = n_tokens as f64 / self.n_tokens().max(1) as f64;
        let n_run_tokens = n_tokens.div_ceil(N_RUNS).max(1);
        let mut runs = vec![Vec::new()];
        let (mut n_taken, mut due) = (0, 0.5 * n_run_tokens as f64);
        self.items.retain(|&(item, length)| {
            // A run begins when its tokens are due and ends when it has them.
            let taken = n_taken > 0 || due >= n_run_tokens as f64;
            due += share * length as f64;
            if taken {
                if n_taken == 0 {
                    due -= n_run_tokens as f64;
                    runs.push(Vec::new());
                }
                runs.last_mut().into_iter().for_each(|run| run.push(item));
                n_taken += length.max(1);
                if n_taken >= n_run_tokens {
                    n_taken = 0;
                }
            }
            !taken
        });
        runs.retain(|run| !run.is_empty());
        runs
    }

    /// Takes up to `n` items, the shortest first.
    pub(crate) fn take(&mut self, n: usize) -> Vec<usize> {
        let from = self.items.len().saturating_sub(n);
        self.items.split_off(from).into_iter().map(|(item, _)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_have_the_mix_of_the_whole_in_runs_of_like_lengths() {
        let lengths: Vec<usize> = (1..=1000).collect();
        let mut remaining = Remaining::new(&lengths, (0..1000).collect());
        for _ in 0..5 {
            let runs = remaining.sample(8000);
            assert!((3..=5).contains(&runs.len()), "{runs:?}");
            for run in &runs {
                let of_run: Vec<usize> = run.iter().map(|&item| lengths[item]).collect();
                let n_tokens: usize = of_run.iter().sum();
                assert!((2000..3000).contains(&n_tokens), "{n_tokens}");
                assert!(of_run[0] - of_run[of_run.len() - 1] < 60, "{of_run:?}");
            }
            let first = |run: &[usize]| lengths[run[0]];
            assert!(first(&runs[0]) > 850 && first(&runs[runs.len() - 1]) < 550, "{runs:?}");
        }
    }

    proptest! {
        #[test]
        fn every_item_is_taken_once(
            lengths in proptest::collection::vec(0usize..500, 0..100),
            samples in proptest::collection::vec(0usize..5000, 0..5),
            n in 0usize..10,
        ) {
            let mut remaining = Remaining::new(&lengths, (0..lengths.len()).collect());
            let mut taken = remaining.take(n);
            for n_tokens in samples {
                taken.extend(remaining.sample(n_tokens).concat());
            }
            taken.extend(remaining.take(usize::MAX));
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert_eq!(remaining.n_tokens(), 0);
        }
    }
}
