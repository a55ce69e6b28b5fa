//! Covers of every request, computed before the first one comes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::Bucket;
use super::cover::{Freedom, Piece, Sizes, Weights};
use super::holding::Holding;

/// More cells would take more memory than a table is worth.
const MOST_CELLS: usize = 1 << 16;

/// More programs in more cells would take longer to look through than a table is worth: it is made anew for
/// every program that is admitted.
const MOST_HELD: usize = 1 << 22;

/// More ways to split rows would take longer to weigh.
const MOST_SPLITS: usize = 1 << 10;

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

/// The ready programs differ too much for a table; use [`cover`](super::cover::cover).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{n} {what} are more than a routing table has, {most}")]
pub struct TooManyShapes {
    /// What there is too much of.
    pub what: &'static str,
    /// How many there are, or at least are.
    pub n: usize,
    /// How many there may be.
    pub most: usize,
}

impl TooManyShapes {
    fn check(what: &'static str, n: usize, most: usize) -> Result<(), Self> {
        if n > most { Err(Self { what, n, most }) } else { Ok(()) }
    }
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

    /// For every cell, which programs take its requests, given the extent that each program has.
    fn holding(&self, programs: &[Option<usize>]) -> Vec<Holding> {
        let mut of_cells = vec![Holding::none(programs.len()); self.extents.len() + 1];
        for (program, extent) in programs.iter().enumerate() {
            let cell = match extent {
                // Who does not name the symbol takes anything, but is exact for nothing.
                None if self.is_rigid => continue,
                None => self.extents.len(),
                Some(extent) => self.extents.partition_point(|it| it < extent),
            };
            of_cells[cell].insert(program);
        }
        if !self.is_rigid {
            // Who takes longer requests takes shorter ones too.
            for cell in (0..self.extents.len()).rev() {
                let (shorter, longer) = of_cells.split_at_mut(cell + 1);
                shorter[cell].add(&longer[0]);
            }
        }
        of_cells
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
    /// As [`Sizes::largest_parts`]; of all splits that weigh alike, the same.
    largest: Arc<[u8]>,
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
        TooManyShapes::check("combinations of extents", n_cells, MOST_CELLS)?;
        let n_held = n_cells.saturating_mul(ready.len());
        TooManyShapes::check("programs in all combinations of extents", n_held, MOST_HELD)?;
        let rows = freedom.rows.and_then(|rows| symbols.iter().position(|symbol| *symbol == rows));
        let mut table = Self { axes, rows, cells: Vec::with_capacity(n_cells), groups: Vec::new() };
        table.fill(symbols, ready, free_rows)?;
        Ok(table)
    }

    fn fill(
        &mut self,
        symbols: &[&str],
        ready: &[Bucket],
        rows: Option<&str>,
    ) -> Result<(), TooManyShapes> {
        let mut groups = Groups::new(ready, rows);
        let holding = |(axis, symbol): (&Axis, &&str)| {
            let extents = groups.smallest_first.iter().map(|&it| ready[it].get(symbol));
            axis.holding(&extents.collect::<Vec<_>>())
        };
        let axes: Vec<Vec<Holding>> = self.axes.iter().zip(symbols).map(holding).collect();
        let mut known: HashMap<Holding, u32> = HashMap::new();
        // The last axis varies fastest, as in `route`.
        let mut cells = vec![Holding::all(ready.len())];
        for axis in &axes {
            cells = cells.iter().flat_map(|cell| axis.iter().map(|it| cell.and(it))).collect();
        }
        for holding in cells {
            let group = match known.get(&holding) {
                Some(group) => *group,
                None => {
                    self.groups.push(groups.of(&holding)?);
                    let group = (self.groups.len() - 1) as u32;
                    known.insert(holding, group);
                    group
                }
            };
            self.cells.push(group);
        }
        Ok(())
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

/// Makes groups, and knows what those before had to weigh.
struct Groups<'a> {
    ready: &'a [Bucket],
    rows: Option<&'a str>,
    /// Positions of the programs.
    smallest_first: Vec<usize>,
    weighed: HashMap<Weights, Arc<[u8]>>,
}

impl<'a> Groups<'a> {
    fn new(ready: &'a [Bucket], rows: Option<&'a str>) -> Self {
        let mut smallest_first: Vec<usize> = (0..ready.len()).collect();
        smallest_first.sort_by_cached_key(|&it| (ready[it].volume(), it));
        Self { ready, rows, smallest_first, weighed: HashMap::new() }
    }

    fn of(&mut self, holding: &Holding) -> Result<Group, TooManyShapes> {
        let positions = || holding.iter().map(|nth| self.smallest_first[nth]);
        let mut whole: Vec<(usize, usize)> = Vec::new();
        for bucket in positions() {
            // A program that does not name the rows takes any number of them.
            let n_rows = self.rows.and_then(|rows| self.ready[bucket].get(rows));
            let n_rows = n_rows.unwrap_or(usize::MAX);
            // Of those that come later, only what has more rows is ever the smallest.
            if whole.last().is_none_or(|(most, _)| *most < n_rows) {
                whole.push((n_rows, bucket));
            }
            if n_rows == usize::MAX {
                break;
            }
        }
        let sizes = self.rows.and_then(|rows| Sizes::of(self.ready, positions(), rows));
        let split = sizes.map(|sizes| self.split(sizes)).transpose()?;
        Ok(Group { whole, split })
    }

    fn split(&mut self, sizes: Sizes) -> Result<Split, TooManyShapes> {
        let n_weighed = self.weighed.len();
        let largest = match self.weighed.entry(sizes.weights()) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => {
                TooManyShapes::check("ways to split rows", n_weighed + 1, MOST_SPLITS)?;
                Arc::clone(new.insert(sizes.largest_parts().into()))
            }
        };
        Ok(Split { sizes, largest })
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
        assert_eq!(error.n, 300 * 300 * 300);
    }

    /// Nothing is timed here; what weighs every program for every request does not end.
    #[test]
    fn hundreds_of_programs_are_looked_through_at_once() {
        let freedom = Freedom { rows: Some("batch"), rigid: &[] };
        let uneven = |n: usize| bucket(&[Some(n), Some(n), None]);
        let one_row = |n: usize| bucket(&[Some(1), Some(n), None]);
        let opposed = |n: usize| bucket(&[Some(501 - n), Some(n), None]);
        for of in [uneven, one_row, opposed] {
            let ready: Vec<Bucket> = (1..=500).map(of).collect();
            let table = RoutingTable::new(&SYMBOLS, &ready, &freedom).unwrap();
            for wanted in [[1, 1, 1], [7, 300, 1], [600, 20, 1], [9000, 500, 1], [1, 501, 1]] {
                let reference = cover(&bucket(&wanted.map(Some)), &ready, &freedom);
                assert_eq!(routed(&table, &wanted), reference);
            }
        }
    }

    #[test]
    fn more_splits_than_can_be_weighed_are_told() {
        let pairs = (1..=40_usize).flat_map(|a| (1..=40).map(move |b| (a, b)));
        let ready: Vec<Bucket> =
            pairs.map(|(a, b)| bucket(&[Some(1 + a * 41 + b), Some(a), Some(b)])).collect();
        let freedom = Freedom { rows: Some("batch"), rigid: &[] };
        let error = RoutingTable::new(&SYMBOLS, &ready, &freedom).unwrap_err();
        assert_eq!(error.what, "ways to split rows");
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
            ready in proptest::collection::vec(extents(), 0..60),
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
