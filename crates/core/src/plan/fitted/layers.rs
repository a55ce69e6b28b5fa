//! Programs added one at a time: each layer says, for every point, what programs up to it cost and where the
//! longest of them starts.

use std::ops::{Add, Div, Mul, Rem, Sub};

/// A distinct length, and how many items are no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) length: usize,
    pub(super) n_items: u64,
}

/// Whole numbers as wide as costs are.
pub(super) trait Cost:
    Copy
    + Ord
    + From<u64>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Rem<Output = Self>
{
}

impl Cost for u64 {}
impl Cost for u128 {}

/// No other program below: the same lengths as with one program fewer.
const KEEP: u32 = u32::MAX;

/// The best lengths for every number of programs from one up to `n`, as positions of points, the first of which
/// stands for "nothing yet"; those numbers are missing for which fewer programs cost no more. `C` has to hold the
/// product of the longest length and all items.
pub(super) fn by_envelope<C: Cost>(points: &[Point], n: usize) -> Vec<Vec<usize>> {
    let first = points.iter().map(|to| C::from(to.length as u64) * C::from(to.n_items)).collect();
    let mut envelope = Envelope::default();
    each(first, n, |best, next, choice| envelope.one_more(points, best, next, choice))
}

/// The same for any cost of a program that holds the items above one point up to another, by trying every pair.
pub(super) fn by_pairs(
    points: &[Point],
    n: usize,
    cost: impl Fn(&Point, &Point) -> u64,
) -> Vec<Vec<usize>> {
    let first = points.iter().map(|to| cost(&points[0], to)).collect();
    each(first, n, |best, next, choice| {
        for (to, point) in points.iter().enumerate().skip(1) {
            for (from, &before) in best.iter().enumerate().take(to).skip(1) {
                if before < next[to] {
                    let sum = before.saturating_add(cost(&points[from], point));
                    if sum < next[to] {
                        (next[to], choice[to]) = (sum, from as u32);
                    }
                }
            }
        }
    })
}

/// `first` is what one program costs up to each point; `one_more` lowers that, where another program below does,
/// and says where the program above it starts.
fn each<C: Copy + Ord>(
    first: Vec<C>,
    n: usize,
    mut one_more: impl FnMut(&[C], &mut [C], &mut [u32]),
) -> Vec<Vec<usize>> {
    let last = first.len() - 1;
    if n.min(last) == 0 {
        return Vec::new();
    }
    let (mut best, mut next) = (first.clone(), first);
    let mut choices: Vec<Vec<u32>> = Vec::new();
    let mut found = vec![vec![last]];
    for _ in 1..n.min(last) {
        next.copy_from_slice(&best);
        let mut choice = vec![KEEP; best.len()];
        one_more(&best, &mut next, &mut choice);
        choices.push(choice);
        if next[last] < best[last] {
            found.push(walk_back(&choices, last));
        }
        std::mem::swap(&mut best, &mut next);
    }
    found
}

/// The points that the choices stand for, shortest first.
fn walk_back(choices: &[Vec<u32>], last: usize) -> Vec<usize> {
    let (mut at, mut found) = (last, vec![last]);
    for choice in choices.iter().rev() {
        if choice[at] != KEEP {
            at = choice[at] as usize;
            found.push(at);
        }
    }
    found.reverse();
    found
}

/// Where the longest program starts best, for every length from the last one asked for on: a queue of points, each
/// with the first length from which it is better than all before it.
#[derive(Debug)]
struct Envelope<C> {
    queue: Vec<(u32, C)>,
    front: usize,
}

impl<C> Default for Envelope<C> {
    fn default() -> Self {
        Self { queue: Vec::new(), front: 0 }
    }
}

impl<C: Cost> Envelope<C> {
    fn one_more(&mut self, points: &[Point], best: &[C], next: &mut [C], choice: &mut [u32]) {
        self.queue.clear();
        self.front = 0;
        for (to, point) in points.iter().enumerate().skip(1) {
            let length = C::from(point.length as u64);
            if let Some(from) = self.best_at(length) {
                let n_items = point.n_items - points[from].n_items;
                let sum = best[from] + length * C::from(n_items);
                if sum < next[to] {
                    (next[to], choice[to]) = (sum, from as u32);
                }
            }
            self.push(points, best, to);
        }
    }

    /// The point to start from; lengths never fall from call to call.
    fn best_at(&mut self, length: C) -> Option<usize> {
        while self.queue.get(self.front + 1).is_some_and(|(_, first)| *first <= length) {
            self.front += 1;
        }
        self.queue.get(self.front).map(|(point, _)| *point as usize)
    }

    /// Adds a point above all before, and drops those that are never best any more.
    fn push(&mut self, points: &[Point], best: &[C], new: usize) {
        let mut first = C::from(0);
        while let Some(&(point, first_of_point)) =
            self.queue.get(self.front..).and_then(<[_]>::last)
        {
            let before = point as usize;
            let n_items = points[new].n_items - points[before].n_items;
            if n_items == 0 {
                // Counts that no number holds: it is no better for any length.
                return;
            }
            first = rounded_up(best[new] - best[before], C::from(n_items));
            if first > first_of_point {
                break;
            }
            self.queue.pop();
        }
        self.queue.push((new as u32, first));
    }
}

fn rounded_up<C: Cost>(of: C, by: C) -> C {
    let is_exact = of % by == C::from(0);
    of / by + C::from(u64::from(!is_exact))
}
