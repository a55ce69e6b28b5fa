//! Lengths that are optimal for what was observed, by dynamic programming over the distinct lengths.
//!
//! Let `x[1] < ... < x[d]` be the distinct lengths and `N[j]` the items no longer than `x[j]`. One program
//! of length `x[j]` that serves the items above `x[i]` runs `x[j] × (N[j] - N[i])` tokens, so that the
//! least cost of `k` programs up to `j` is
//!
//! `best[k][j] = x[j] × N[j] + min over i < j of (best[k-1][i] - x[j] × N[i])`
//!
//! For a fixed `i` the term is a line in `x[j]`, of slope `-N[i]`. Slopes fall with `i` and `x[j]` grows with
//! `j`, so the lower envelope of the lines is kept in a queue and read from its front: O(d) a program,
//! after one sort. (The technique is known as the convex hull trick; Brucker, *Efficient algorithms for some
//! path partitioning problems*, Discrete Applied Mathematics 62, 1995, has this recurrence.)
//!
//! Under a token budget a program's rows are fixed as well and its last batch is only partly filled. Then
//! the cost has steps, the lines are gone, and every pair `(i, j)` is tried.

use super::{Histogram, Tail};

/// More candidates for lengths are thinned out where every pair is tried: 16 programs over so many take
/// some 60 ms, and the loss is below a part in a thousand.
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
        ((n / rows).saturating_mul(rows) + tail_rows).saturating_mul(length as u64)
    }

    /// [`Self::padded_tokens`] and the starts of the batches, in tokens.
    #[must_use]
    pub fn cost(&self, n: u64, length: usize) -> u64 {
        let rows = self.rows(length) as u64;
        let launches = n / rows + self.tail.n_launches(n % rows);
        let launches = launches.saturating_mul(self.launch_tokens);
        self.padded_tokens(n, length).saturating_add(launches)
    }

    /// [`Self::padded_tokens`] of a whole histogram over programs of these lengths, ascending; `None` when
    /// an item is longer than all.
    #[must_use]
    pub fn padded_to(&self, histogram: &Histogram, lengths: &[usize]) -> Option<u64> {
        let mut n_items = vec![0_u64; lengths.len()];
        for &(length, count) in histogram.entries() {
            *n_items.get_mut(lengths.partition_point(|&it| it < length))? += count;
        }
        Some(n_items.iter().zip(lengths).map(|(&n, &length)| self.padded_tokens(n, length)).sum())
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
    let points = if filling.is_some() { thinned(all) } else { all };
    let last = points.len() - 1;
    if n_lengths.min(last) == 0 {
        return Vec::new();
    }
    let mut best: Vec<i128> = points.iter().map(|to| cost(&points[0], to, filling)).collect();
    let mut choices: Vec<Vec<u32>> = Vec::with_capacity(n_lengths);
    let mut found = vec![walk_back(&points, &choices, last)];
    for _ in 1..n_lengths.min(last) {
        let (next, choice) = match filling {
            None => one_more(&points, &best),
            Some(filling) => one_more_filled(&points, &best, filling),
        };
        choices.push(choice);
        if next[last] < best[last] {
            found.push(walk_back(&points, &choices, last));
        }
        best = next;
    }
    found
}

/// What a program costs that holds the items above one point up to another.
fn cost(from: &Point, to: &Point, filling: Option<&Filling>) -> i128 {
    let n_items = to.n_items - from.n_items;
    match filling {
        None => to.length * i128::from(n_items),
        Some(_) if n_items == 0 => 0,
        Some(filling) => {
            filling.cost(n_items, usize::try_from(to.length).unwrap_or(usize::MAX)).into()
        }
    }
}

/// As [`one_more`], by trying every pair.
fn one_more_filled(points: &[Point], best: &[i128], filling: &Filling) -> (Vec<i128>, Vec<u32>) {
    let (mut next, mut choice) = (best.to_vec(), vec![KEEP; points.len()]);
    for to in 1..points.len() {
        for from in 1..to {
            if best[from] < next[to] {
                let sum = best[from] + cost(&points[from], &points[to], Some(filling));
                if sum < next[to] {
                    (next[to], choice[to]) = (sum, from as u32);
                }
            }
        }
    }
    (next, choice)
}

/// A distinct length, and how many items are no longer.
#[derive(Clone, Copy, Debug)]
struct Point {
    length: i128,
    n_items: u64,
}

/// No other program below: the same lengths as with one program fewer.
const KEEP: u32 = u32::MAX;

/// The distinct lengths, after one for "nothing yet".
fn points(histogram: &Histogram) -> Vec<Point> {
    let mut n_items = 0_u64;
    let counted = histogram.entries().iter().map(|&(length, count)| {
        n_items = n_items.saturating_add(count);
        Point { length: length as i128, n_items }
    });
    std::iter::once(Point { length: 0, n_items: 0 }).chain(counted).collect()
}

/// At most [`MOST_CANDIDATES`] of the points, about equally many items between any two; the last stays.
fn thinned(points: Vec<Point>) -> Vec<Point> {
    let Some(last) = points.last().copied() else { return points };
    if points.len() <= MOST_CANDIDATES {
        return points;
    }
    let share = |point: &Point| {
        u128::from(point.n_items) * (MOST_CANDIDATES as u128 - 2) / u128::from(last.n_items.max(1))
    };
    let mut kept: Vec<Point> = vec![points[0]];
    let mut taken = 0;
    // Of each share the longest, which holds the others.
    for pair in points.windows(2).skip(1) {
        if share(&pair[1]) > taken {
            taken = share(&pair[1]);
            kept.push(pair[0]);
        }
    }
    kept.push(last);
    kept.dedup_by_key(|point| point.length);
    kept
}

/// A line over lengths: what a program costs that starts above the point `from`.
#[derive(Clone, Copy, Debug)]
struct Line {
    slope: i128,
    offset: i128,
    from: u32,
}

impl Line {
    const fn at(&self, length: i128) -> i128 {
        self.slope * length + self.offset
    }
}

/// The least cost up to every point with one program more, and the point where the last one starts.
fn one_more(points: &[Point], best: &[i128]) -> (Vec<i128>, Vec<u32>) {
    let (mut next, mut choice) = (best.to_vec(), vec![KEEP; points.len()]);
    let mut envelope: Vec<Line> = Vec::with_capacity(points.len());
    let mut front = 0;
    for to in 1..points.len() {
        let Point { length, n_items } = points[to];
        while front + 1 < envelope.len()
            && envelope[front + 1].at(length) <= envelope[front].at(length)
        {
            front += 1;
        }
        if let Some(line) = envelope.get(front) {
            let sum = length * i128::from(n_items) + line.at(length);
            if sum < next[to] {
                (next[to], choice[to]) = (sum, line.from);
            }
        }
        push(
            &mut envelope,
            front,
            Line { slope: -i128::from(n_items), offset: best[to], from: to as u32 },
        );
    }
    (next, choice)
}

/// Adds a line that falls more steeply than all before, and drops those that are never least any more.
fn push(envelope: &mut Vec<Line>, front: usize, line: Line) {
    while envelope.len() >= front + 2 {
        let [.., before, middle] = envelope.as_slice() else { break };
        let meets_before = (line.offset - before.offset) * (before.slope - middle.slope);
        let meets_middle = (middle.offset - before.offset) * (before.slope - line.slope);
        if meets_before > meets_middle {
            break;
        }
        envelope.pop();
    }
    envelope.push(line);
}

/// The lengths that the choices stand for, shortest first.
fn walk_back(points: &[Point], choices: &[Vec<u32>], last: usize) -> Vec<usize> {
    let length = |at: usize| usize::try_from(points[at].length).unwrap_or(usize::MAX);
    let (mut at, mut found) = (last, vec![length(last)]);
    for choice in choices.iter().rev() {
        if choice[at] != KEEP {
            at = choice[at] as usize;
            found.push(length(at));
        }
    }
    found.reverse();
    found
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
    fn many_distinct_lengths_are_thinned_out_with_little_loss() {
        let lengths: Vec<usize> = (0..40_000_usize).map(|n| 1 + n * n / 40_000).collect();
        let histogram = Histogram::of(&lengths);
        let filling = Filling { token_budget: 1, tail: Tail::Full, launch_tokens: 0 };
        let thin = histogram.padded_to(&lengths_filled(&histogram, 8, &filling)).unwrap();
        let exact = histogram.padded_to(&super::lengths(&histogram, 8)).unwrap();
        assert!(thin >= exact && thin as f64 <= 1.001 * exact as f64, "{thin} {exact}");
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
