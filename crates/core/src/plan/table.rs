//! Covers of every request, computed before the first one comes.

use std::collections::HashMap;

use super::Bucket;
use super::cover::{Freedom, MOST_WEIGHED, Piece, Sizes};

/// More cells would take more memory than a table is worth.
const MOST_CELLS: usize = 1 << 16;

/// Which programs answer which request, for a fixed list of ready ones: what [`cover`](super::cover::cover)
/// says, found by a few comparisons and without allocating.
///
/// The ready extents of each symbol cut the requests into cells: all requests of a cell are held by the same
/// programs. What rows are split into depends on these alone, so that it is computed once a cell.
#[derive(Clone, Debug)]
pub struct RoutingTable {
    axes: Vec<Axis>,
    /// The position of the rows' symbol.
    rows: Option<usize>,
    /// For every cell, the position of its group.
    cells: Vec<u32>,
    groups: Vec<Group>,
}

/// The ready programs name too many different extents for a table; use [`cover`](super::cover::cover).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{n_cells} combinations of extents are more than a routing table has, {MOST_CELLS}")]
pub struct TooManyShapes {
    /// Combinations that would have to be told apart.
    pub n_cells: usize,
}

/// The extents of one symbol that programs have.
#[derive(Clone, Debug)]
struct Axis {
    /// Ascending. Empty for the rows that may be split: their number is looked up in the group.
    extents: Vec<usize>,
    is_rigid: bool,
}

impl Axis {
    /// The position of the extent that takes a request; one past the last where none does.
    fn cell(&self, wanted: usize) -> usize {
        let at = self.extents.partition_point(|&extent| extent < wanted);
        let is_exact = self.extents.get(at) == Some(&wanted);
        if self.is_rigid && !is_exact { self.extents.len() } else { at }
    }

    /// Whether a program with this extent takes the requests of a cell.
    fn holds(&self, extent: Option<usize>, cell: usize) -> bool {
        match (extent, self.extents.get(cell)) {
            (None, _) => !self.is_rigid,
            (Some(_), None) => self.extents.is_empty(),
            (Some(extent), Some(&wanted)) if self.is_rigid => extent == wanted,
            (Some(extent), Some(&wanted)) => extent >= wanted,
        }
    }
}

/// The programs that hold one row of a request.
#[derive(Clone, Debug)]
struct Group {
    /// Numbers of rows, ascending, and the smallest program that has at least so many.
    whole: Vec<(usize, usize)>,
    /// What larger requests are split into.
    split: Option<Split>,
}

#[derive(Clone, Debug)]
struct Split {
    sizes: Sizes,
    /// As [`Sizes::largest_parts`].
    largest: Vec<u16>,
}

impl RoutingTable {
    /// A table for requests that give `symbols` extents in this order. Symbols that programs name and that
    /// are missing here hold anything.
    ///
    /// # Errors
    ///
    /// [`TooManyShapes`].
    pub fn new(
        symbols: &[&str],
        ready: &[Bucket],
        freedom: &Freedom<'_>,
    ) -> Result<Self, TooManyShapes> {
        let is_rigid = |symbol: &str| freedom.rigid.iter().any(|rigid| rigid == symbol);
        let free_rows = freedom.rows.filter(|rows| !is_rigid(rows) && symbols.contains(rows));
        let axis = |symbol: &&str| {
            let mut extents: Vec<usize> = match free_rows {
                Some(rows) if rows == *symbol => Vec::new(),
                _ => ready.iter().filter_map(|bucket| bucket.get(symbol)).collect(),
            };
            extents.sort_unstable();
            extents.dedup();
            Axis { extents, is_rigid: is_rigid(symbol) }
        };
        let axes: Vec<Axis> = symbols.iter().map(axis).collect();
        let n_cells = axes.iter().fold(1, |n: usize, it| n.saturating_mul(it.extents.len() + 1));
        if n_cells > MOST_CELLS {
            return Err(TooManyShapes { n_cells });
        }
        let rows = freedom.rows.and_then(|rows| symbols.iter().position(|symbol| *symbol == rows));
        let mut table = Self { axes, rows, cells: Vec::with_capacity(n_cells), groups: Vec::new() };
        table.fill(n_cells, symbols, ready, free_rows);
        Ok(table)
    }

    fn fill(&mut self, n_cells: usize, symbols: &[&str], ready: &[Bucket], rows: Option<&str>) {
        let mut known: HashMap<Vec<usize>, u32> = HashMap::new();
        for cell in 0..n_cells {
            let holds = |bucket: &usize| self.holds(cell, symbols, &ready[*bucket]);
            let holding: Vec<usize> = (0..ready.len()).filter(holds).collect();
            let group = *known.entry(holding).or_insert_with_key(|holding| {
                self.groups.push(Group::of(ready, holding, rows));
                (self.groups.len() - 1) as u32
            });
            self.cells.push(group);
        }
    }

    fn holds(&self, mut cell: usize, symbols: &[&str], bucket: &Bucket) -> bool {
        // The last axis varies fastest, as in `route`.
        self.axes.iter().zip(symbols).rev().all(|(axis, symbol)| {
            let n = axis.extents.len() + 1;
            let at = cell % n;
            cell /= n;
            axis.holds(bucket.get(symbol), at)
        })
    }

    /// The pieces of a request with these extents, in the order of the table's symbols; `None` when no ready
    /// program can answer, with or without others. Allocates nothing.
    ///
    /// Extents that are missing count as 0, which every program holds.
    #[must_use]
    pub fn route(&self, extents: &[usize]) -> Option<Routed<'_>> {
        let extent = |at: usize| extents.get(at).copied().unwrap_or(0);
        let cell =
            self.axes.iter().enumerate().fold(0, |cell, (at, axis)| {
                cell * (axis.extents.len() + 1) + axis.cell(extent(at))
            });
        let group = &self.groups[*self.cells.get(cell)? as usize];
        let n_rows = self.rows.map(extent);
        let wanted = n_rows.unwrap_or(0);
        let at = group.whole.partition_point(|(rows, _)| *rows < wanted);
        if let Some(&(_, bucket)) = group.whole.get(at) {
            let piece = Piece { bucket, first_row: 0, n_rows: n_rows.unwrap_or(1) };
            return Some(Routed::Whole(Some(piece)));
        }
        let split = group.split.as_ref()?;
        let (n_bulk, rest) = split.sizes.bulk(wanted);
        Some(Routed::Split(Parts { split, n_bulk, rest, first_row: 0, n_rows: wanted }))
    }
}

impl Group {
    fn of(ready: &[Bucket], holding: &[usize], rows: Option<&str>) -> Self {
        let n_rows = |bucket: usize| rows.and_then(|rows| ready[bucket].get(rows));
        // A program that does not name the rows takes any number of them.
        let mut whole: Vec<(usize, usize)> =
            holding.iter().map(|&it| (n_rows(it).unwrap_or(usize::MAX), it)).collect();
        whole.sort_unstable();
        let mut smallest: Option<usize> = None;
        for (_, bucket) in whole.iter_mut().rev() {
            let rank = |it: usize| (ready[it].volume(), it);
            smallest = smallest.into_iter().chain([*bucket]).min_by_key(|&it| rank(it));
            *bucket = smallest.unwrap_or(*bucket);
        }
        // Of equally many rows the first entry has seen all of them.
        whole.dedup_by_key(|(rows, _)| *rows);
        let split = rows.and_then(|rows| Sizes::of(ready, holding, rows)).map(|sizes| {
            let largest = sizes.largest_parts(MOST_WEIGHED);
            Split { sizes, largest }
        });
        Self { whole, split }
    }
}

/// The pieces of one request, in the order of its rows.
#[derive(Clone, Debug)]
pub enum Routed<'a> {
    /// One program holds it.
    Whole(Option<Piece>),
    /// Several do together.
    Split(Parts<'a>),
}

/// What is left of a request that is split.
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    split: &'a Split,
    /// Runs of the program that is cheapest a row.
    n_bulk: usize,
    /// Rows beside those.
    rest: usize,
    first_row: usize,
    n_rows: usize,
}

impl Iterator for Routed<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        match self {
            Self::Whole(piece) => piece.take(),
            Self::Split(parts) => parts.next(),
        }
    }
}

impl Parts<'_> {
    /// Most rows first.
    fn next(&mut self) -> Option<Piece> {
        let Sizes { all, bulk } = &self.split.sizes;
        let weighed = (self.rest > 0).then(|| all[usize::from(self.split.largest[self.rest])]);
        let size = match weighed {
            Some(size) if self.n_bulk == 0 || size.rows > bulk.rows => {
                self.rest = self.rest.saturating_sub(size.rows);
                size
            }
            _ if self.n_bulk > 0 => {
                self.n_bulk -= 1;
                *bulk
            }
            _ => return None,
        };
        let n_rows = size.rows.min(self.n_rows - self.first_row);
        let piece = Piece { bucket: size.bucket, first_row: self.first_row, n_rows };
        self.first_row += n_rows;
        (n_rows > 0).then_some(piece)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cover::cover;
    use super::*;

    const SYMBOLS: [&str; 3] = ["batch", "sequence", "width"];

    fn bucket(extents: &[Option<usize>]) -> Bucket {
        let named = SYMBOLS.iter().zip(extents);
        named.filter_map(|(symbol, extent)| Some((*symbol, (*extent)?))).collect()
    }

    fn routed(table: &RoutingTable, extents: &[usize]) -> Option<Vec<Piece>> {
        table.route(extents).map(Iterator::collect)
    }

    #[test]
    fn too_many_extents_are_told() {
        let ready: Vec<Bucket> = (1..300).map(|n| bucket(&[Some(n), Some(n), Some(n)])).collect();
        let error = RoutingTable::new(&SYMBOLS, &ready, &Freedom::default()).unwrap_err();
        assert_eq!(error.n_cells, 300 * 300 * 300);
    }

    #[test]
    fn nothing_ready_answers_nothing() {
        let table = RoutingTable::new(&SYMBOLS, &[], &Freedom::default()).unwrap();
        assert_eq!(routed(&table, &[1, 1, 1]), None);
        assert_eq!(routed(&table, &[]), None);
    }

    fn extents() -> impl Strategy<Value = Vec<Option<usize>>> {
        let named = |most| prop_oneof![9 => (1..most).prop_map(Some), 1 => Just(None)];
        (named(40_usize), named(9), named(5)).prop_map(|(a, b, c)| vec![a, b, c])
    }

    proptest! {
        #[test]
        fn a_table_says_what_cover_says(
            ready in proptest::collection::vec(extents(), 0..12),
            wanted in (0_usize..200, 0_usize..10, 0_usize..6),
            rows in prop_oneof![Just(None), Just(Some("batch")), Just(Some("sequence"))],
            rigid in proptest::sample::subsequence(&SYMBOLS[..], 0..2),
            far in prop_oneof![4 => Just(1_usize), 1 => Just(1000)],
        ) {
            let ready: Vec<Bucket> = ready.iter().map(|it| bucket(it)).collect();
            let rigid: Vec<String> = rigid.into_iter().map(str::to_owned).collect();
            let freedom = Freedom { rows, rigid: &rigid };
            let table = RoutingTable::new(&SYMBOLS, &ready, &freedom).unwrap();
            let wanted = [wanted.0 * far, wanted.1, wanted.2];
            let reference = cover(&bucket(&wanted.map(Some)), &ready, &freedom);
            prop_assert_eq!(routed(&table, &wanted), reference);
        }
    }
}
