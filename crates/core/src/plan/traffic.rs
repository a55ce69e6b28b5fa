//! Counts of the shapes that were served, to plan the next programs by.

use std::collections::BTreeMap;

use super::{Requests, Work, Workload};

/// Shapes that are kept apart by default.
const CAPACITY: usize = 4096;

/// The widest step: no extent is larger.
const WIDEST: usize = 1 << (usize::BITS - 2);

/// Counts requests by shape, in bounded memory.
///
/// When there are more shapes than it keeps apart, rows and lengths are counted in steps twice as wide, and
/// rounded up, so that every request would fit into the shape that it is counted as. One count is one look-up;
/// who records from several threads gives each its own and [merges](Self::merge) them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    counts: BTreeMap<(usize, usize), u64>,
    capacity: usize,
    step: usize,
}

impl Traffic {
    /// Keeps at most so many shapes apart; 0 counts as 1.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { counts: BTreeMap::new(), capacity: capacity.max(1), step: 1 }
    }

    /// Counts a request of `rows` rows of `length` tokens.
    pub fn record(&mut self, rows: usize, length: usize) {
        self.add(rows, length, 1);
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (&(rows, length), &count) in &other.counts {
            self.add(rows, length, count);
        }
    }

    fn add(&mut self, rows: usize, length: usize, count: u64) {
        let shape = (rounded(rows, self.step), rounded(length, self.step));
        let counted = self.counts.entry(shape).or_default();
        *counted = counted.saturating_add(count);
        while self.counts.len() > self.capacity && self.step < WIDEST {
            self.step *= 2;
            let step = self.step;
            let mut wider: BTreeMap<_, u64> = BTreeMap::new();
            for ((rows, length), count) in std::mem::take(&mut self.counts) {
                let sum = wider.entry((rounded(rows, step), rounded(length, step))).or_default();
                *sum = sum.saturating_add(count);
            }
            self.counts = wider;
        }
    }

    /// Shapes that are kept apart so far.
    #[must_use]
    pub fn n_shapes(&self) -> usize {
        self.counts.len()
    }

    /// Rows and lengths are counted in steps of so many; 1 is exactly.
    #[must_use]
    pub const fn step(&self) -> usize {
        self.step
    }

    /// What was counted, as a workload of requests along these symbols.
    #[must_use]
    pub fn workload(&self, rows: impl Into<String>, length: impl Into<String>) -> Workload {
        let requests =
            self.counts.iter().map(|(&(rows, length), &count)| Requests { rows, length, count });
        let work = Work::Requests(requests.collect());
        Workload { rows: rows.into(), length: length.into(), work }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

/// The next multiple of `step`.
fn rounded(extent: usize, step: usize) -> usize {
    extent.clamp(1, WIDEST).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_served_is_a_workload_that_can_be_written() {
        let mut traffic = Traffic::default();
        for (rows, length) in [(4, 48), (1, 7), (4, 48)] {
            traffic.record(rows, length);
        }
        let workload = traffic.workload("batch", "sequence");
        assert_eq!(workload.work.to_string(), "1x7 1\n4x48 2\n");
        assert_eq!(workload.work.to_string().parse::<Work>().unwrap(), workload.work);
    }

    #[test]
    fn lanes_are_added_up() {
        let (mut one, mut other) = (Traffic::new(8), Traffic::new(8));
        one.record(2, 3);
        other.record(2, 3);
        other.record(1, 1);
        one.merge(&other);
        assert_eq!(one.workload("", "").work.to_string(), "1x1 1\n2x3 2\n");
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_no_request_is_lost_or_made_smaller(
            shapes in proptest::collection::vec((1_usize..40, 1_usize..3000), 1..200),
            capacity in 1_usize..20,
        ) {
            let mut traffic = Traffic::new(capacity);
            for &(rows, length) in &shapes {
                traffic.record(rows, length);
            }
            let Work::Requests(requests) = traffic.workload("", "").work else { unreachable!() };
            prop_assert!(requests.len() <= capacity);
            prop_assert_eq!(requests.iter().map(|it| it.count).sum::<u64>(), shapes.len() as u64);
            for (rows, length) in shapes {
                let held = requests.iter().any(|it| {
                    it.rows >= rows && it.rows - rows < traffic.step()
                        && it.length >= length && it.length - length < traffic.step()
                });
                prop_assert!(held);
            }
        }
    }
}
