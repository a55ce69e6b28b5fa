//! Items stacked into batches for programs of some lengths.

use std::collections::BTreeMap;
use std::ops::Range;

use super::classes::{Class, CpuWork, Shapes};
use crate::plan::fitted::Filling;
use crate::plan::{Histogram, Objective, PaddingLimit, PlanOptions, Prices, Tail};

/// Of more batches, what the CPU pads is not looked at one by one.
const MOST_LOOKED_AT: u64 = 256;

/// Items by rank, the shortest first: what any run of them holds is two look-ups.
#[derive(Debug)]
pub(super) struct Ranked {
    /// Lengths, ascending, with all items that are no longer.
    upto: Vec<(usize, Sums)>,
}

/// What items hold in sum.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    n_items: u64,
    n_tokens: u64,
    /// The lengths' squares.
    squares: f64,
}

impl Sums {
    /// With `n` items more.
    fn with(self, length: usize, n: u64) -> Self {
        let tokens = (length as u64).saturating_mul(n);
        Self {
            n_items: self.n_items.saturating_add(n),
            n_tokens: self.n_tokens.saturating_add(tokens),
            squares: self.squares + (length as f64).powi(2) * n as f64,
        }
    }
}

impl Ranked {
    pub(super) fn of(histogram: &Histogram) -> Self {
        let mut sums = Sums::default();
        let upto = histogram.entries().iter().map(|&(length, n)| {
            sums = sums.with(length, n);
            (length, sums)
        });
        Self { upto: upto.collect() }
    }

    fn n_items(&self) -> u64 {
        self.upto.last().map_or(0, |(_, sums)| sums.n_items)
    }

    /// Items that are no longer than `length`.
    fn n_upto(&self, length: usize) -> u64 {
        let at = self.upto.partition_point(|(it, _)| *it <= length);
        at.checked_sub(1).map_or(0, |last| self.upto[last].1.n_items)
    }

    /// What the `n` shortest items hold.
    fn shortest(&self, n: u64) -> Sums {
        let at = self.upto.partition_point(|(_, sums)| sums.n_items <= n);
        let before = at.checked_sub(1).map_or_else(Sums::default, |last| self.upto[last].1);
        let length = self.upto.get(at).map_or(0, |(length, _)| *length);
        before.with(length, n - before.n_items)
    }

    /// The longest of the `n` shortest items.
    fn longest(&self, n: u64) -> usize {
        let at = self.upto.partition_point(|(_, sums)| sums.n_items < n);
        self.upto.get(at).map_or(0, |(length, _)| *length)
    }
}

impl Ranked {
    /// What the CPU runs of items that are stacked `n_rows` at a time.
    fn on_cpu(&self, items: Range<u64>, n_rows: u64) -> CpuWork {
        let (below, upto) = (self.shortest(items.start), self.shortest(items.end));
        let (longest, shortest) = (self.longest(items.end), self.longest(items.start + 1));
        let rows = n_rows as f64;
        if n_rows > 1 && longest > shortest && (items.end - items.start) / n_rows <= MOST_LOOKED_AT
        {
            let ends = (0..).map(|nth| items.end - nth * n_rows).take_while(|it| *it > items.start);
            return ends.fold(CpuWork::default(), |sum, end| {
                let length = self.longest(end) as f64;
                CpuWork {
                    tokens: sum.tokens + rows * length,
                    squares: sum.squares + rows * length.powi(2),
                }
            });
        }
        // Where one batch ends the next begins, so that all of them together are padded by less than the range of
        // lengths a row, and by about half of it.
        let padding = |power| {
            let range = (longest as f64).powi(power) - (shortest as f64).powi(power);
            if n_rows > 1 { rows * range / 2.0 } else { 0.0 }
        };
        CpuWork {
            tokens: (upto.n_tokens - below.n_tokens) as f64 + padding(1),
            squares: upto.squares - below.squares + padding(2),
        }
    }
}

/// How items are stacked.
pub(super) fn filling(options: &PlanOptions, prices: &Prices) -> Filling {
    let token_budget = match options.objective {
        Objective::Throughput => options.token_budget,
        Objective::Latency => 1,
    };
    Filling { token_budget, tail: options.tail, launch_tokens: prices.device.launch_tokens() }
}

/// For every length full batches under the token budget, or of the rows that are to be `filled`, and what is left of
/// them, longest rows first.
pub(super) fn stacked(
    items: &Ranked,
    (lengths, filled): (&[usize], &BTreeMap<usize, usize>),
    options: &PlanOptions,
    prices: &Prices,
) -> (Vec<Class>, Shapes) {
    let mut stack = Stack {
        items,
        filling: filling(options, prices),
        filled,
        padding: options.padding,
        classes: Vec::new(),
        shapes: Shapes::new(),
    };
    // What is longer than every program comes first, and items of length 0 are held by the shortest.
    let held = lengths.last().map_or(0, |&longest| items.n_upto(longest));
    stack.unheld(held..items.n_items(), true);
    let mut end = held;
    for (nth, &length) in lengths.iter().enumerate().rev() {
        let shorter = nth.checked_sub(1).map(|before| lengths[before]);
        let first = shorter.map_or(0, |shorter| items.n_upto(shorter));
        stack.group(first..end, length);
        end = first;
    }
    (stack.classes, stack.shapes)
}

#[derive(Debug)]
struct Stack<'a> {
    items: &'a Ranked,
    filling: Filling,
    filled: &'a BTreeMap<usize, usize>,
    padding: PaddingLimit,
    classes: Vec<Class>,
    shapes: Shapes,
}

impl Stack<'_> {
    /// Rows of a full batch: what the token budget allows, in whole runs of what is to be filled, one at least.
    fn rows(&self, length: usize) -> u64 {
        let rows = self.filling.rows(length);
        let rows = match self.filled.get(&length) {
            Some(&filled) => (rows - rows % filled).max(filled),
            None => rows,
        };
        rows as u64
    }

    /// Items, by rank, that programs of one length hold.
    fn group(&mut self, mine: Range<u64>, length: usize) {
        let before = |length: usize| length.checked_sub(1).map_or(0, |it| self.items.n_upto(it));
        let within = |rank: u64| rank.clamp(mine.start, mine.end);
        // What would be padded too much.
        let first = within(before(self.padding.shortest(length)));
        let n_exact_rows = mine.end - within(before(length));
        let (n, rows) = (mine.end - first, self.rows(length));
        let tail = n % rows;
        // Rows that need no padding come first, so that they fill batches of their own.
        let n_exact = n_exact_rows / rows;
        let exact = mine.end - n_exact * rows;
        self.push(exact..mine.end, rows, true);
        self.push(first + tail..exact, rows, true);
        self.push(first..first + tail, tail, true);
        if n >= rows {
            self.shape(rows, length, false);
        }
        if tail > 0 {
            self.tail_shapes(tail, rows, n >= rows, length);
        }
        self.unheld(mine.start..first, false);
    }

    /// Programs that could take what is left: one that holds it, and one that leaves a few rows to the CPU.
    fn tail_shapes(&mut self, tail: u64, rows: u64, has_full: bool, length: usize) {
        let held = Tail::PowerOfTwo.padded_rows(tail, rows);
        match self.filling.tail {
            Tail::Full if has_full => {}
            Tail::Full => self.shape(held, length, has_full),
            Tail::PowerOfTwo => {
                self.shape(held, length, has_full);
                self.shape(1 << tail.ilog2(), length, true);
            }
            Tail::Split => {
                let powers = (0..u64::BITS).map(|bit| 1 << bit).filter(|power| tail & power != 0);
                powers.for_each(|power| self.shape(power, length, has_full));
            }
        }
    }

    fn shape(&mut self, rows: u64, length: usize, is_for_tail: bool) {
        let rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let only_for_tail = self.shapes.entry((rows, length)).or_insert(is_for_tail);
        *only_for_tail &= is_for_tail;
    }

    /// Items that no program of this plan takes: batches of lengths that differ by less than half.
    fn unheld(&mut self, mine: Range<u64>, may_pad: bool) {
        let mut end = mine.end;
        while end > mine.start {
            let longest = self.items.longest(end);
            // A length of 0 is not more than half of itself.
            let first = if longest == 0 { 0 } else { self.items.n_upto(longest / 2) };
            let first = first.max(mine.start);
            let rows = self.filling.rows(longest) as u64;
            let tail = (end - first) % rows;
            self.push(first + tail..end, rows, may_pad);
            self.push(first..first + tail, tail, may_pad);
            end = first;
        }
    }

    /// Adds items, as many batches of so many rows as they fill.
    fn push(&mut self, items: Range<u64>, n_rows: u64, may_pad: bool) {
        let n_batches = (items.end - items.start).checked_div(n_rows).unwrap_or(0);
        if n_batches == 0 {
            return;
        }
        let (below, upto) = (self.items.shortest(items.start), self.items.shortest(items.end));
        self.classes.push(Class {
            n_batches,
            n_rows: usize::try_from(n_rows).unwrap_or(usize::MAX),
            length: self.items.longest(items.end),
            n_tokens: upto.n_tokens - below.n_tokens,
            cpu: self.items.on_cpu(items, n_rows),
            may_pad,
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_cpu_pads_every_row_to_the_longest_of_its_batch(
            lengths in proptest::collection::vec(1_usize..200, 1..2000),
            n_rows in 1_usize..40, first in 0_usize..20,
        ) {
            let mut sorted = lengths;
            sorted.sort_unstable();
            let n_batches = sorted.len().saturating_sub(first) / n_rows;
            prop_assume!(n_batches > 0);
            let last = first + n_batches * n_rows;
            let items = Ranked::of(&Histogram::of(&sorted));
            let found = items.on_cpu(first as u64..last as u64, n_rows as u64);
            let batches = sorted[first..last].chunks(n_rows).map(|it| it[n_rows - 1]);
            let tokens: usize = batches.clone().map(|longest| n_rows * longest).sum();
            let squares: usize = batches.map(|longest| n_rows * longest * longest).sum();
            let most = if n_batches as u64 > MOST_LOOKED_AT { 0.05 } else { 1e-9 };
            prop_assert!((found.tokens / tokens as f64 - 1.0).abs() <= most, "{found:?} {tokens}");
            prop_assert!((found.squares / squares as f64 - 1.0).abs() <= most, "{found:?} {squares}");
        }
    }
}
