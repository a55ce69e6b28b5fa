//! Which programs answer a request: the smallest that holds it, or several that hold it together.

use super::Bucket;

/// Starting one more program is taken to cost as much as so many rows of the smallest program.
///
/// With it, 3 rows over programs of 1, 2 and 4 run padded in one, and 100 rows over powers of two up to
/// 64 run as 64 + 32 + 4.
const LAUNCH_ROWS: u128 = 2;

/// Of a larger request, what is over this runs in the program that is cheapest a row, without weighing
/// alternatives; or over the rows of that program, where it has more.
const MOST_WEIGHED: usize = 1 << 10;

/// The longest that rows are weighed, however many the program that is cheapest a row has.
const LONGEST_WEIGHED: usize = 1 << 12;

/// Of more programs than these only the cheapest a row of each power of two takes part in splits.
const MOST_SIZES: usize = 16;

/// A part of a request and the program that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The position of its bucket in the list of those that are ready.
    pub bucket: usize,
    /// The first row of the request that it takes; 0 for a request that is not split.
    pub first_row: usize,
    /// How many rows it takes; of a request without rows, 1.
    pub n_rows: usize,
}

/// What may be done to a request to make it fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freedom<'a> {
    /// The symbol whose rows do not depend on each other, along which a request may be split.
    pub rows: Option<&'a str>,
    /// Symbols along which nothing may be padded or split.
    pub rigid: &'a [String],
}

/// Covers a request with programs that are ready, as cheaply as can be: the smallest program that holds
/// it whole; or else, where rows may be split, the parts whose padded rows and starts cost least.
///
/// Pure: equal lists give equal covers. `None` when no ready program can answer, with or without others.
#[must_use]
pub fn cover(wanted: &Bucket, ready: &[Bucket], freedom: &Freedom<'_>) -> Option<Vec<Piece>> {
    let n_rows = freedom.rows.and_then(|rows| wanted.get(rows));
    let fits = |bucket: &Bucket| holds(bucket, wanted, freedom.rigid);
    if let Some(bucket) = smallest(ready, fits) {
        return Some(vec![Piece { bucket, first_row: 0, n_rows: n_rows.unwrap_or(1) }]);
    }
    let rows = freedom.rows.filter(|rows| !freedom.rigid.iter().any(|rigid| rigid == rows))?;
    split(wanted, ready, rows, n_rows?, freedom.rigid)
}

/// The buckets that come nearest to holding a request, best first: those that hold more of its symbols,
/// then the smaller ones.
#[must_use]
pub fn nearest(wanted: &Bucket, ready: &[Bucket], n: usize) -> Vec<Bucket> {
    let too_small = |bucket: &Bucket| {
        wanted.iter().filter(|(symbol, extent)| bucket.get(symbol).unwrap_or(0) < *extent).count()
    };
    let distance = |bucket: &Bucket| bucket.volume().abs_diff(wanted.volume());
    let mut near: Vec<&Bucket> = ready.iter().collect();
    near.sort_by_key(|bucket| (too_small(bucket), distance(bucket)));
    near.into_iter().take(n).cloned().collect()
}

fn holds(bucket: &Bucket, wanted: &Bucket, rigid: &[String]) -> bool {
    bucket.holds(wanted)
        && rigid
            .iter()
            .all(|symbol| wanted.get(symbol).is_none() || bucket.get(symbol) == wanted.get(symbol))
}

/// The position of the smallest bucket; of several, the first.
fn smallest(ready: &[Bucket], fits: impl Fn(&Bucket) -> bool) -> Option<usize> {
    let fitting = ready.iter().enumerate().filter(|(_, bucket)| fits(bucket));
    fitting.min_by_key(|(_, bucket)| bucket.volume()).map(|(position, _)| position)
}

/// A program that takes some rows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) bucket: usize,
    pub(super) rows: usize,
    /// In a unit of its own for each list of sizes.
    cost: u128,
}

/// The programs that may take parts of a request: those that hold one row of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// For each number of rows the cheapest; fewest rows first.
    pub(super) all: Vec<Size>,
    /// The one that is cheapest a row.
    pub(super) bulk: Size,
}

/// What [`Sizes::largest_parts`] depends on: how far is weighed, and rows and cost of each size.
pub(super) type Weights = (usize, Vec<(usize, u128)>);

impl Sizes {
    /// Of the buckets at these positions, those that name the rows; `None` where none does.
    pub(super) fn of(
        ready: &[Bucket],
        holding: impl Iterator<Item = usize>,
        rows: &str,
    ) -> Option<Self> {
        let named = holding.filter_map(|bucket| {
            let rows = ready[bucket].get(rows).filter(|rows| *rows > 0)?;
            Some(Size { bucket, rows, cost: ready[bucket].volume() })
        });
        let mut all: Vec<Size> = named.collect();
        let row = all.iter().map(|size| size.cost.div_ceil(size.rows as u128)).min()?;
        for size in &mut all {
            size.cost = size.cost.saturating_add(LAUNCH_ROWS.saturating_mul(row));
        }
        all.sort_by_key(|size| (size.rows, size.cost, size.bucket));
        all.dedup_by_key(|size| size.rows);
        if all.len() > MOST_SIZES {
            all = all.chunk_by(|a, b| a.rows.ilog2() == b.rows.ilog2()).filter_map(bulk).collect();
        }
        // Programs of one length make the same parts as those of another: only the unit differs.
        let unit = all.iter().map(|size| size.cost).fold(0, gcd).max(1);
        all.iter_mut().for_each(|size| size.cost /= unit);
        Some(Self { bulk: bulk(&all)?, all })
    }

    /// Rows up to which splits are weighed: no fewer than the cheapest program a row has, so that what it
    /// leaves is less than a run of it.
    fn most_weighed(&self) -> usize {
        self.bulk.rows.clamp(MOST_WEIGHED, LONGEST_WEIGHED)
    }

    /// How often the cheapest a row runs before anything is weighed, and the rows that are left.
    pub(super) fn bulk(&self, n_rows: usize) -> (usize, usize) {
        let n_bulk = n_rows.saturating_sub(self.most_weighed()).div_ceil(self.bulk.rows);
        (n_bulk, n_rows.saturating_sub(n_bulk.saturating_mul(self.bulk.rows)))
    }

    pub(super) fn weights(&self) -> Weights {
        let weights = self.all.iter().map(|size| (size.rows, size.cost));
        (self.most_weighed(), weights.collect())
    }

    /// For every number of rows that is weighed, the position of the largest part of the cheapest cover.
    pub(super) fn largest_parts(&self) -> Vec<u8> {
        self.largest_parts_up_to(self.most_weighed())
    }

    /// For every number of rows up to `most`, the position of the largest part of the cheapest cover, by
    /// dynamic programming over the rows that are left. After it comes that of the rows still left.
    fn largest_parts_up_to(&self, most: usize) -> Vec<u8> {
        let mut cost = vec![0_u128; most + 1];
        // A byte holds a position: there are fewer sizes than bits of a number of rows.
        let mut parts = vec![0; most + 1];
        for rows in 1..=most {
            let mut least = u128::MAX;
            for (part, size) in (0..).zip(&self.all) {
                let rest = cost[rows.saturating_sub(size.rows)];
                let with_it = rest.saturating_add(size.cost);
                if with_it <= least {
                    (least, parts[rows]) = (with_it, part);
                }
            }
            cost[rows] = least;
        }
        parts
    }
}

/// The size that is cheapest a row; of several, the largest.
fn bulk(sizes: &[Size]) -> Option<Size> {
    let a_row = |size: &Size| size.cost as f64 / size.rows as f64;
    sizes.iter().rev().min_by(|a, b| a_row(a).total_cmp(&a_row(b))).copied()
}

fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn split(
    wanted: &Bucket,
    ready: &[Bucket],
    rows: &str,
    n_rows: usize,
    rigid: &[String],
) -> Option<Vec<Piece>> {
    let row = wanted.clone().with(rows, 1);
    let holding = (0..ready.len()).filter(|&bucket| holds(&ready[bucket], &row, rigid));
    let sizes = Sizes::of(ready, holding, rows)?;
    let (n_bulk, mut rest) = sizes.bulk(n_rows);
    let mut parts = vec![sizes.bulk; n_bulk];
    let largest = sizes.largest_parts_up_to(rest);
    while rest > 0 {
        let size = sizes.all[usize::from(largest[rest])];
        parts.push(size);
        rest = rest.saturating_sub(size.rows);
    }
    parts.sort_by_key(|size| std::cmp::Reverse(size.rows));
    let mut first_row = 0;
    let pieces = parts.into_iter().map(|size| {
        let piece =
            Piece { bucket: size.bucket, first_row, n_rows: size.rows.min(n_rows - first_row) };
        first_row += piece.n_rows;
        piece
    });
    Some(pieces.filter(|piece| piece.n_rows > 0).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batches(sizes: &[usize]) -> Vec<Bucket> {
        sizes.iter().map(|&size| Bucket::from_iter([("batch", size)])).collect()
    }

    /// Rows of the programs that run, in order.
    fn parts(sizes: &[usize], n_rows: usize) -> Vec<usize> {
        let freedom = Freedom { rows: Some("batch"), rigid: &[] };
        let pieces = cover(&Bucket::from_iter([("batch", n_rows)]), &batches(sizes), &freedom);
        pieces.unwrap_or_default().iter().map(|piece| sizes[piece.bucket]).collect()
    }

    #[test]
    fn what_one_program_holds_runs_in_the_smallest() {
        assert_eq!(parts(&[1, 2, 4, 8], 3), [4]);
        assert_eq!(parts(&[8, 4, 2, 1], 4), [4]);
        assert_eq!(parts(&[1, 128], 100), [128]);
    }

    #[test]
    fn what_is_too_large_is_split() {
        assert_eq!(parts(&[1, 2, 4, 8, 16, 32, 64], 100), [64, 32, 4]);
        assert_eq!(parts(&[1, 2, 4, 8, 16, 32, 64], 1000)[..10], [64; 10]);
        assert_eq!(parts(&[4], 9), [4, 4, 4]);
        assert_eq!(parts(&[], 9), [0; 0]);
        assert_eq!(parts(&[1, 3], 100_000).len(), 33_334);
    }

    #[test]
    fn rigid_symbols_take_what_is_exact() {
        let shape = |batch, width| Bucket::from_iter([("batch", batch), ("width", width)]);
        let ready = [shape(4, 8), shape(4, 9)];
        let rigid = ["width".to_owned()];
        let freedom = Freedom { rows: Some("batch"), rigid: &rigid };
        assert_eq!(cover(&shape(3, 9), &ready, &freedom).unwrap()[0].bucket, 1);
        assert_eq!(cover(&shape(3, 7), &ready, &freedom), None);
        assert_eq!(cover(&shape(6, 9), &ready, &freedom).unwrap().len(), 2);
        let rigid = ["batch".to_owned()];
        let freedom = Freedom { rows: Some("batch"), rigid: &rigid };
        assert_eq!(cover(&shape(8, 9), &ready, &freedom), None);
    }

    #[test]
    fn the_nearest_hold_most_and_waste_least() {
        let near = nearest(&Bucket::from_iter([("batch", 5)]), &batches(&[1, 4, 8, 16]), 3);
        assert_eq!(near, batches(&[8, 16, 4]));
    }

    proptest! {
        #[test]
        fn a_cover_has_every_row_once_and_no_cheaper_one_exists(
            sizes in proptest::collection::btree_set(1usize..20, 1..5),
            n_rows in 1usize..60,
        ) {
            let sizes: Vec<usize> = sizes.into_iter().collect();
            let freedom = Freedom { rows: Some("batch"), rigid: &[] };
            let wanted = Bucket::from_iter([("batch", n_rows)]);
            let pieces = cover(&wanted, &batches(&sizes), &freedom).unwrap();
            let mut next = 0;
            for piece in &pieces {
                prop_assert_eq!(piece.first_row, next);
                prop_assert!(piece.n_rows >= 1 && piece.n_rows <= sizes[piece.bucket]);
                next += piece.n_rows;
            }
            prop_assert_eq!(next, n_rows);
            if n_rows > *sizes.last().unwrap() {
                let cost: usize = pieces.iter().map(|piece| sizes[piece.bucket] + 2).sum();
                prop_assert_eq!(cost, exhaustive(&sizes, n_rows));
            }
        }
    }

    /// The least cost by trying everything, over all rows at once.
    fn exhaustive(sizes: &[usize], n_rows: usize) -> usize {
        let mut best = vec![0; n_rows + 1];
        for rows in 1..=n_rows {
            let costs = sizes.iter().map(|&size| size + 2 + best[rows.saturating_sub(size)]);
            best[rows] = costs.min().unwrap();
        }
        best[n_rows]
    }
}
