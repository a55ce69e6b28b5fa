//! Counts of the shapes that were served, to plan the next programs by.

use std::collections::HashMap;

use super::{Requests, Work, Workload};

/// Shapes that are kept apart by default.
const CAPACITY: usize = 4096;

/// No extent is counted as larger.
const LARGEST: usize = 1 << (usize::BITS - 2);

/// Counts requests by shape, in bounded memory.
///
/// When there are more shapes than it keeps apart, rows and lengths are rounded up to fewer binary digits, so that
/// every request would fit into the shape that it is counted as, and few rows are told apart for longer than many.
/// One count is one look-up; who records from several threads gives each its own and [merges](Self::merge) them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    counts: HashMap<(usize, usize), u64>,
    capacity: usize,
    rounding: Rounding,
}

impl Traffic {
    /// Keeps at most so many shapes apart; 0 counts as 1.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { counts: HashMap::new(), capacity: capacity.max(1), rounding: Rounding(0) }
    }

    /// Counts a request of `rows` rows of `length` tokens.
    pub fn record(&mut self, rows: usize, length: usize) {
        self.add(Requests { rows, length, count: 1 });
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        other.requests().into_iter().for_each(|it| self.add(it));
    }

    pub(super) fn add(&mut self, Requests { rows, length, count }: Requests) {
        let counted = self.counts.entry(self.counted_as(rows, length)).or_default();
        *counted = counted.saturating_add(count);
        while self.counts.len() > self.capacity && self.rounding < Rounding::MOST {
            self.rounding.0 += 1;
            for ((rows, length), count) in std::mem::take(&mut self.counts) {
                self.add(Requests { rows, length, count });
            }
        }
    }

    /// The rows and the length that a request is counted as so far.
    #[must_use]
    pub fn counted_as(&self, rows: usize, length: usize) -> (usize, usize) {
        (self.rounding.up(rows), self.rounding.up(length))
    }

    /// Shapes that are kept apart so far.
    #[must_use]
    pub fn n_shapes(&self) -> usize {
        self.counts.len()
    }

    /// What was counted, by rows and length.
    pub(super) fn requests(&self) -> Vec<Requests> {
        let counted =
            self.counts.iter().map(|(&(rows, length), &count)| Requests { rows, length, count });
        let mut requests: Vec<Requests> = counted.collect();
        requests.sort_unstable();
        requests
    }

    /// What was counted, as a workload of requests along these symbols.
    #[must_use]
    pub fn workload(&self, rows: impl Into<String>, length: impl Into<String>) -> Workload {
        let work = Work::Requests(self.requests());
        Workload { rows: rows.into(), length: length.into(), work }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

/// How far extents are rounded: by so many binary digits fewer than a number has. Beyond the last digit exponents
/// are rounded, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rounding(u32);

impl Rounding {
    /// All extents are alike.
    const MOST: Self = Self(usize::BITS + 5);

    fn up(self, extent: usize) -> usize {
        let extent = extent.clamp(1, LARGEST);
        let n_bits = usize::BITS - extent.leading_zeros();
        match usize::BITS.checked_sub(self.0) {
            Some(n_digits @ 1..) => extent.next_multiple_of(1 << n_bits.saturating_sub(n_digits)),
            _ => {
                let exponent = extent.next_power_of_two().trailing_zeros();
                let step = 2 << (self.0 - usize::BITS);
                1 << (exponent | (step - 1)).min(LARGEST.trailing_zeros())
            }
        }
    }
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

    #[test]
    fn few_rows_stay_apart_where_lengths_are_many() {
        let mut traffic = Traffic::default();
        for rows in 1..=16 {
            (1..=512).for_each(|length| traffic.record(rows, length));
        }
        assert!(traffic.n_shapes() <= 4096 && traffic.n_shapes() > 2048);
        assert_eq!(traffic.counted_as(15, 127), (15, 127));
        assert_eq!(traffic.counted_as(16, 509), (16, 512));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_no_request_is_lost_or_made_smaller(
            shapes in proptest::collection::vec(
                (1_usize..40, prop_oneof![1_usize..3000, 1_usize..LARGEST]), 1..200,
            ),
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
                let counted = traffic.counted_as(rows, length);
                prop_assert!(counted.0 >= rows && counted.1 >= length);
                prop_assert!(requests.iter().any(|it| (it.rows, it.length) == counted));
            }
        }
    }
}
