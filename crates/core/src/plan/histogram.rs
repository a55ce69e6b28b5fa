//! Lengths, counted.

use serde::{Deserialize, Serialize};

/// How many items there are of each length, shortest first. A count may also be a weight: only ratios
/// decide what is fitted to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(usize, u64)>", into = "Vec<(usize, u64)>")]
pub struct Histogram {
    /// Lengths and counts: lengths grow, no count is 0.
    entries: Vec<(usize, u64)>,
}

impl Histogram {
    /// Counts lengths, in tokens.
    #[must_use]
    pub fn of(lengths: &[usize]) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // An array is faster than a sort wherever it is not much larger than what it counts.
        if longest > 8 * lengths.len() + (1 << 16) {
            return lengths.iter().map(|&length| (length, 1)).collect();
        }
        let mut counts = vec![0_u64; longest + 1];
        for &length in lengths {
            counts[length] += 1;
        }
        let counted = counts.into_iter().enumerate().filter(|(_, count)| *count > 0);
        Self { entries: counted.collect() }
    }

    /// Lengths and counts, shortest first.
    #[must_use]
    pub fn entries(&self) -> &[(usize, u64)] {
        &self.entries
    }

    /// The same with every length above `longest` counted as `longest`, as truncation makes it.
    #[must_use]
    pub fn capped(&self, longest: usize) -> Self {
        self.entries.iter().map(|&(length, count)| (length.min(longest), count)).collect()
    }

    /// Items.
    #[must_use]
    pub fn n_items(&self) -> u64 {
        self.entries.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count))
    }

    /// Tokens of all items.
    #[must_use]
    pub fn n_tokens(&self) -> u64 {
        let tokens = |&(length, count): &(usize, u64)| (length as u64).saturating_mul(count);
        self.entries.iter().map(tokens).fold(0, u64::saturating_add)
    }

    /// The longest length; 0 where there is no item.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.entries.last().map_or(0, |(length, _)| *length)
    }

    /// The tokens that run, padding counted, when every item is padded to the smallest of `lengths` that
    /// holds it, each item a row; `None` when an item is longer than all.
    #[must_use]
    pub fn padded_to(&self, lengths: &[usize]) -> Option<u64> {
        self.entries.iter().try_fold(0_u64, |sum, &(length, count)| {
            let held = lengths.iter().copied().filter(|&it| it >= length).min()?;
            Some(sum.saturating_add(count.saturating_mul(held as u64)))
        })
    }
}

impl FromIterator<(usize, u64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (usize, u64)>>(entries: I) -> Self {
        entries.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<(usize, u64)>> for Histogram {
    fn from(mut entries: Vec<(usize, u64)>) -> Self {
        entries.retain(|(_, count)| *count > 0);
        entries.sort_unstable_by_key(|(length, _)| *length);
        entries.dedup_by(|next, kept| {
            let is_alike = next.0 == kept.0;
            if is_alike {
                kept.1 = kept.1.saturating_add(next.1);
            }
            is_alike
        });
        Self { entries }
    }
}

impl From<Histogram> for Vec<(usize, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_counted_by_array_and_by_sorting_alike() {
        let few = [3, 1, 3, 1_000_000_000];
        let wanted = [(1, 1), (3, 2), (1_000_000_000, 1)];
        assert_eq!(Histogram::of(&few).entries(), wanted);
        assert_eq!(Histogram::of(&[3, 1, 3]).entries(), [(1, 1), (3, 2)]);
        assert_eq!(Histogram::of(&few).capped(3).entries(), [(1, 1), (3, 3)]);
        assert_eq!(Histogram::of(&[]), Histogram::default());
    }

    #[test]
    fn sums_are_of_items_and_tokens() {
        let histogram = Histogram::from(vec![(4, 2), (1, 3), (4, 1), (9, 0)]);
        assert_eq!((histogram.n_items(), histogram.n_tokens(), histogram.longest()), (6, 15, 4));
        assert_eq!(histogram.padded_to(&[2, 4]), Some(18));
        assert_eq!(histogram.padded_to(&[2]), None);
    }
}
