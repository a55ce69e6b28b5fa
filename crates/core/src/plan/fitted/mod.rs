//! Lengths that are optimal for what was observed, by dynamic programming over the distinct lengths.
//!
//! Let `x[1] < ... < x[d]` be the distinct lengths and `N[j]` the items no longer than `x[j]`. One program
//! of length `x[j]` that serves the items above `x[i]` runs `x[j] × (N[j] - N[i])` tokens, so that the
//! least cost of `k` programs up to `j` is
//!
//! `best[k][j] = min over i < j of (best[k-1][i] + x[j] × (N[j] - N[i]))`
//!
//! For a fixed `i` the term is a line in `x[j]`, but for a part that all `i` have in common; its slope is `-N[i]`.
//! Slopes fall with `i` and `x[j]` grows with `j`, so the lower envelope of the lines is kept in a queue and read from
//! its front: O(d) a program, after one sort. (The technique is known as the convex hull trick; Brucker, *Efficient
//! algorithms for some path partitioning problems*, Discrete Applied Mathematics 62, 1995, has this recurrence.)
//!
//! Under a token budget a program's rows are fixed as well and its last batch is only partly filled. Then
//! the cost has steps, the lines are gone, and every pair `(i, j)` is tried, of candidates where lengths are many.

mod layers;

use super::{Histogram, Tail};

use self::layers::Point;

/// More candidates for lengths are thinned out where every pair is tried: 16 programs over so many take
/// some 40 ms.
const MOST_CANDIDATES: usize = 1024;

/// How programs of one length take many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Tokens a batch may have, padding counted: a program of length `x` has `token_budget / x` rows, at
    /// least one.
    pub token_budget: usize,
    /// What becomes of the rows that do not fill a batch.
    pub tail: Tail,
    /// What starting one batch costs, in tokens that could run in that time.
    pub launch_tokens: u64,
}

impl Filling {
    /// The rows of a program of that length.
    #[must_use]
    pub fn rows(&self, length: usize) -> usize {
        (self.token_budget / length.max(1)).max(1)
    }

    /// The tokens that run, padding counted, for `n` items padded to `length`.
    #[must_use]
    pub fn padded_tokens(&self, n: u64, length: usize) -> u64 {
        let rows = self.rows(length) as u64;
        let tail_rows = self.tail.padded_rows(n % rows, rows);
        (n - n % rows).saturating_add(tail_rows).saturating_mul(length as u64)
    }

    /// [`Self::padded_tokens`] and the starts of the batches, in tokens.
    #[must_use]
    pub fn cost(&self, n: u64, length: usize) -> u64 {
        let rows = self.rows(length) as u64;
        let launches = (n / rows).saturating_add(self.tail.n_launches(n % rows));
        let launches = launches.saturating_mul(self.launch_tokens);
        self.padded_tokens(n, length).saturating_add(launches)
    }

    /// [`Self::padded_tokens`] of a whole histogram over programs of these lengths, ascending; `None` when
    /// an item is longer than all.
    #[must_use]
    pub fn padded_to(&self, histogram: &Histogram, lengths: &[usize]) -> Option<u64> {
        let mut n_items = vec![0_u64; lengths.len()];
        for &(length, count) in histogram.entries() {
            let n = n_items.get_mut(lengths.partition_point(|&it| it < length))?;
            *n = n.saturating_add(count);
        }
        let padded = n_items.iter().zip(lengths).map(|(&n, &length)| self.padded_tokens(n, length));
        Some(padded.fold(0, u64::saturating_add))
    }
}

/// At most `n_lengths` lengths that hold every item of a histogram with the fewest padded tokens, each
/// item a row; shortest first. No other choice of equally many lengths pads less.
#[must_use]
pub fn lengths(histogram: &Histogram, n_lengths: usize) -> Vec<usize> {
    each(histogram, n_lengths, None).pop().unwrap_or_default()
}

/// As [`lengths`], for programs whose rows are fixed by a token budget too: partly filled batches and
/// their starts count. Fewer lengths are given where more would cost more.
///
/// Of more than 1,024 distinct lengths not all are tried: those that [`lengths`] chooses for any number of
/// programs, and others with about equally many items in between. Where starting a batch costs nothing, the result is
/// within one batch for each length of the optimum.
#[must_use]
pub fn lengths_filled(histogram: &Histogram, n_lengths: usize, filling: &Filling) -> Vec<usize> {
    each(histogram, n_lengths, Some(filling)).pop().unwrap_or_default()
}

/// The best lengths for every number of them, from one up to `n_lengths`; those numbers are missing for
/// which fewer lengths cost no more.
pub(super) fn each(
    histogram: &Histogram,
    n_lengths: usize,
    filling: Option<&Filling>,
) -> Vec<Vec<usize>> {
    let all = points(histogram);
    let (points, found) = match filling {
        None => {
            let found = unfilled(&all, n_lengths);
            (all, found)
        }
        Some(filling) => {
            let points = candidates(all, n_lengths);
            let cost = |from: &Point, to: &Point| match to.n_items - from.n_items {
                0 => 0,
                n_items => filling.cost(n_items, to.length),
            };
            let found = layers::by_pairs(&points, n_lengths, cost);
            (points, found)
        }
    };
    let lengths = |chosen: Vec<usize>| chosen.into_iter().map(|at| points[at].length).collect();
    found.into_iter().map(lengths).collect()
}

/// The best points for every number of them, each item a row.
fn unfilled(points: &[Point], n_lengths: usize) -> Vec<Vec<usize>> {
    let last = points.last().map_or((0, 0), |it| (it.length as u64, it.n_items));
    match last.0.checked_mul(last.1) {
        Some(_) => layers::by_envelope::<u64>(points, n_lengths),
        None => layers::by_envelope::<u128>(points, n_lengths),
    }
}

/// The distinct lengths, after one for "nothing yet".
fn points(histogram: &Histogram) -> Vec<Point> {
    let mut n_items = 0_u64;
    let counted = histogram.entries().iter().map(|&(length, count)| {
        n_items = n_items.saturating_add(count);
        Point { length, n_items }
    });
    std::iter::once(Point { length: 0, n_items: 0 }).chain(counted).collect()
}

/// Few enough of the points to try every pair: those that are best where each item is a row, and others with about
/// equally many items between any two.
fn candidates(points: Vec<Point>, n_lengths: usize) -> Vec<Point> {
    if points.len() <= MOST_CANDIDATES {
        return points;
    }
    let n_items = points.last().map_or(1, |last| last.n_items.max(1));
    let share =
        |point: &Point| u128::from(point.n_items) * MOST_CANDIDATES as u128 / u128::from(n_items);
    // Of each share the longest, which holds the others.
    let is_longest = |&at: &usize| share(&points[at]) < share(&points[at + 1]);
    let spread = (1..points.len() - 1).filter(is_longest);
    let mut kept: Vec<usize> = unfilled(&points, n_lengths).concat();
    kept.extend(spread.chain([0]));
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|at| points[at]).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The least padded tokens of any `k` of the distinct lengths, by trying all.
    fn exhaustive(histogram: &Histogram, k: usize, cost: &dyn Fn(&[usize]) -> Option<u64>) -> u64 {
        let distinct: Vec<usize> = histogram.entries().iter().map(|(length, _)| *length).collect();
        let subsets = (0_u32..1 << distinct.len()).filter(|it| it.count_ones() as usize <= k);
        let chosen = |subset: u32| -> Vec<usize> {
            (0..distinct.len()).filter(|n| subset >> n & 1 == 1).map(|n| distinct[n]).collect()
        };
        subsets.filter_map(|subset| cost(&chosen(subset))).min().unwrap()
    }

    /// Lengths that split the items into equally many.
    fn quantiles(histogram: &Histogram, k: usize) -> Vec<usize> {
        let n_items = histogram.n_items();
        let at = |share: u64| {
            let mut seen = 0;
            let found = histogram.entries().iter().find(|(_, count)| {
                seen += count;
                seen * k as u64 >= share * n_items
            });
            found.unwrap().0
        };
        (1..=k as u64).map(at).collect()
    }

    fn histograms() -> impl Strategy<Value = Histogram> {
        proptest::collection::vec((1_usize..300, 1_u64..50), 1..9).prop_map(Histogram::from)
    }

    #[test]
    fn nothing_needs_no_length() {
        assert_eq!(lengths(&Histogram::default(), 8), [0; 0]);
        assert_eq!(lengths(&Histogram::of(&[4, 9]), 0), [0; 0]);
        assert_eq!(lengths(&Histogram::of(&[4, 9]), 8), [4, 9]);
        let filling = Filling { token_budget: 64, tail: Tail::Full, launch_tokens: 0 };
        assert_eq!(lengths_filled(&Histogram::default(), 8, &filling), [0; 0]);
    }

    #[test]
    fn a_start_that_costs_much_makes_lengths_few() {
        let histogram = Histogram::of(&[10, 11, 12]);
        let of = |launch_tokens| {
            let filling = Filling { token_budget: 64, tail: Tail::PowerOfTwo, launch_tokens };
            lengths_filled(&histogram, 3, &filling)
        };
        assert_eq!(of(0), [10, 11, 12]);
        assert_eq!(of(100), [12]);
    }

    #[test]
    fn counts_may_be_as_large_as_weights_are() {
        let histogram = Histogram::from(vec![(1, 1 << 50), (1000, 1), (2000, 1 << 50)]);
        assert_eq!(lengths(&histogram, 2), [1, 2000]);
    }

    #[test]
    fn counts_and_lengths_may_be_as_large_as_numbers_are() {
        let (longest, most) = (usize::MAX, u64::MAX);
        let histogram = Histogram::from(vec![(1, 1 << 62), (longest / 2, 1 << 63), (longest, 7)]);
        assert_eq!(lengths(&histogram, 1), [longest]);
        assert_eq!(lengths(&histogram, 2), [longest / 2, longest]);
        // More items than a number holds: what is counted by then is what is fitted to.
        let histogram = Histogram::from(vec![(1, most), (2, most), (3, 1), (longest, most)]);
        assert_eq!(lengths(&histogram, 2).last(), Some(&longest));
        let filling = Filling { token_budget: 9, tail: Tail::Split, launch_tokens: most };
        assert_eq!(lengths_filled(&histogram, 3, &filling).last(), Some(&longest));
    }

    #[test]
    fn of_many_distinct_lengths_those_that_are_best_without_a_budget_are_tried() {
        let all: Vec<usize> = (0..40_000_usize).map(|n| 1 + n * n / 40_000).collect();
        let histogram = Histogram::of(&all);
        let exact = histogram.padded_to(&lengths(&histogram, 8)).unwrap();
        for (token_budget, tail) in [(1, Tail::Full), (4096, Tail::PowerOfTwo)] {
            let filling = Filling { token_budget, tail, launch_tokens: 0 };
            let found = lengths_filled(&histogram, 8, &filling);
            let padded = filling.padded_to(&histogram, &found).unwrap();
            let most = exact + if token_budget == 1 { 0 } else { 8 * token_budget as u64 };
            assert!((exact..=most).contains(&padded), "{token_budget}: {padded}, {exact}");
        }
    }

    proptest! {
        #[test]
        fn no_choice_of_lengths_pads_less(histogram in histograms(), k in 1_usize..6) {
            let found = lengths(&histogram, k);
            prop_assert!(found.len() <= k && found.is_sorted());
            let padded = histogram.padded_to(&found).unwrap();
            prop_assert_eq!(padded, exhaustive(&histogram, k, &|it| histogram.padded_to(it)));
        }

        #[test]
        fn the_envelope_is_as_good_as_trying_every_pair(
            entries in proptest::collection::vec((0_usize..100_000, 1_u64..1_000_000), 1..200),
            n in 1_usize..12,
        ) {
            let points = points(&Histogram::from(entries));
            let cost = |from: &Point, to: &Point| to.length as u64 * (to.n_items - from.n_items);
            let costs = |found: Vec<Vec<usize>>| -> Vec<u64> {
                let of = |chosen: &Vec<usize>| -> u64 {
                    let from = std::iter::once(0).chain(chosen.iter().copied());
                    from.zip(chosen).map(|(from, &to)| cost(&points[from], &points[to])).sum()
                };
                found.iter().map(of).collect()
            };
            let wanted = costs(layers::by_pairs(&points, n, cost));
            prop_assert_eq!(&costs(layers::by_envelope::<u64>(&points, n)), &wanted);
            prop_assert_eq!(&costs(layers::by_envelope::<u128>(&points, n)), &wanted);
        }

        #[test]
        fn no_choice_of_filled_lengths_costs_less(
            histogram in histograms(), k in 1_usize..5, token_budget in 1_usize..2000,
            launch_tokens in 0_u64..200,
            tail in prop_oneof![Just(Tail::Full), Just(Tail::PowerOfTwo), Just(Tail::Split)],
        ) {
            let filling = Filling { token_budget, tail, launch_tokens };
            let cost = |lengths: &[usize]| {
                let mut n = vec![0; lengths.len()];
                for &(length, count) in histogram.entries() {
                    *n.get_mut(lengths.partition_point(|&it| it < length))? += count;
                }
                Some(n.iter().zip(lengths).map(|(&n, &length)| filling.cost(n, length)).sum())
            };
            let found = lengths_filled(&histogram, k, &filling);
            prop_assert_eq!(cost(&found).unwrap(), exhaustive(&histogram, k, &cost));
        }

        #[test]
        fn powers_of_two_and_quantiles_never_pad_less(
            entries in proptest::collection::vec((1_usize..2000, 1_u64..50), 1..200),
            k in 1_usize..20,
        ) {
            let histogram = Histogram::from(entries);
            let padded = |lengths: &[usize]| histogram.padded_to(lengths).unwrap();
            let longest = histogram.longest();
            let powers = super::super::Steps::PowersOfTwo { max: longest }.extents().unwrap();
            prop_assert!(padded(&lengths(&histogram, powers.len())) <= padded(&powers));
            let quantiles = quantiles(&histogram, k);
            prop_assert!(padded(&lengths(&histogram, k)) <= padded(&quantiles));
        }
    }
}
