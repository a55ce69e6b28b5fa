//! Work not yet done, from which samples of the same mix of lengths can be taken.

use std::cmp::Reverse;

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

    /// Tokens of what is left.
    pub(crate) fn n_tokens(&self) -> usize {
        self.items.iter().map(|(_, length)| length).sum()
    }

    /// Takes items of about `n_tokens` tokens together, evenly over all lengths.
    pub(crate) fn sample(&mut self, n_tokens: usize) -> Vec<usize> {
        let share = n_tokens as f64 / self.n_tokens().max(1) as f64;
        // An item is taken where the running sum of shares passes a half: the sample's longest item is
        // then neither always nor never the longest of all.
        let mut sum = 0.5;
        self.take_where(|_| {
            sum += share;
            let taken = sum >= 1.0;
            sum -= f64::from(taken);
            taken
        })
    }

    /// Takes up to `n` items, the shortest first.
    pub(crate) fn take(&mut self, n: usize) -> Vec<usize> {
        let from = self.items.len().saturating_sub(n);
        self.items.split_off(from).into_iter().map(|(item, _)| item).collect()
    }

    fn take_where(&mut self, mut taken: impl FnMut(usize) -> bool) -> Vec<usize> {
        let mut sample = Vec::new();
        self.items.retain(|&(item, _)| {
            let take = taken(item);
            if take {
                sample.push(item);
            }
            !take
        });
        sample
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_have_the_mix_of_the_whole() {
        let lengths: Vec<usize> = (1..=1000).collect();
        let mut remaining = Remaining::new(&lengths, (0..1000).collect());
        for _ in 0..5 {
            let sample = remaining.sample(5000);
            let n_tokens: usize = sample.iter().map(|&item| lengths[item]).sum();
            assert!((4500..=5500).contains(&n_tokens), "{n_tokens}");
            let mean = n_tokens / sample.len();
            assert!((450..=550).contains(&mean), "{mean}");
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
                taken.extend(remaining.sample(n_tokens));
            }
            taken.extend(remaining.take(usize::MAX));
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert_eq!(remaining.n_tokens(), 0);
        }
    }
}
