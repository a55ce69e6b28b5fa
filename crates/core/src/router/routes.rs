//! Where requests go, over what is ready at one moment.

use smallvec::SmallVec;

use super::rows::RowLayout;
use crate::backend::{Domain, Executable, ReadyShapes};
use crate::plan::cover::{Piece, cover};
use crate::plan::{Bucket, PaddingLimit, Prices, RoutingTable};
use crate::{Extents, FallbackReason, Signature, SymbolId};

/// The prices to weigh by.
pub(super) fn prices_or_preferred(prices: Option<Prices>) -> Prices {
    prices.unwrap_or(Prices::PROGRAMS_FIRST)
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// All of it to the preferred executable.
    Preferred,
    /// All of it to the fallback.
    Fallback(FallbackReason),
    /// So many rows to the preferred executable, the others to the fallback.
    Hybrid { n_preferred: usize, reason: FallbackReason },
}

/// Extents in the order of [`Routes::symbols`].
type Values = SmallVec<[usize; 6]>;

/// What a part of a request costs in programs.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    seconds: f64,
    /// Tokens, padding counted.
    tokens: f64,
}

/// Routes of every request over the programs of one moment.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) generation: u64,
    prices: Prices,
    padding: PaddingLimit,
    /// The symbols that requests bind, with their names.
    symbols: Vec<(SymbolId, String)>,
    /// The position of the rows among the symbols.
    rows: Option<usize>,
    /// `None` where the preferred executable takes every shape as well.
    programs: Option<Programs>,
    /// How requests are cut between two backends, where their rows do not depend on each other.
    pub(super) layout: Option<RowLayout>,
}

#[derive(Debug)]
struct Programs {
    ready: ReadyShapes,
    /// `None` where there are too many shapes for one.
    table: Option<RoutingTable>,
    /// What a run of each costs.
    runs: Vec<Run>,
    /// Rows that programs have, most first, each number once.
    sizes: Vec<usize>,
}

impl Routes {
    pub(super) fn new(
        preferred: &dyn Executable,
        prices: Option<Prices>,
        padding: PaddingLimit,
        generation: u64,
    ) -> Self {
        let signature = preferred.signature();
        let named = |id| (id, signature.symbol_name(id).to_owned());
        let symbols: Vec<(SymbolId, String)> = signature.bound_symbols().map(named).collect();
        let prices = prices_or_preferred(prices);
        let mut routes =
            Self { generation, prices, padding, symbols, rows: None, programs: None, layout: None };
        if let Domain::Buckets(ready) = preferred.domain() {
            let rows = |name: &String| routes.symbols.iter().position(|(_, it)| it == name);
            routes.rows = ready.rows.as_ref().and_then(rows);
            routes.layout = routes.layout(signature, &ready);
            routes.programs = Some(routes.programs(ready));
        }
        routes
    }

    fn layout(&self, signature: &Signature, ready: &ReadyShapes) -> Option<RowLayout> {
        let rows = ready.freedom().rows?;
        let is_rigid = ready.rigid.iter().any(|rigid| rigid == rows);
        RowLayout::of(signature, self.symbols[self.rows?].0).filter(|_| !is_rigid)
    }

    fn programs(&self, ready: ReadyShapes) -> Programs {
        let names: Vec<&str> = self.symbols.iter().map(|(_, name)| name.as_str()).collect();
        let runs = ready.buckets.iter().map(|bucket| self.run_of(bucket)).collect();
        let rows = |bucket: &Bucket| Some(self.extents(bucket)[self.rows?]);
        let mut sizes: Vec<usize> = ready.buckets.iter().filter_map(rows).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.dedup();
        let table = RoutingTable::new(&names, &ready.buckets, &ready.freedom()).ok();
        Programs { table, runs, sizes, ready }
    }

    /// A symbol that a program does not name counts as 1.
    fn extents(&self, bucket: &Bucket) -> Values {
        self.symbols.iter().map(|(_, name)| bucket.get(name).unwrap_or(1)).collect()
    }

    fn run_of(&self, bucket: &Bucket) -> Run {
        let (rows, length) = self.rows_and_length(&self.extents(bucket));
        let tokens = rows as f64 * length as f64;
        Run { seconds: self.prices.device.batch(rows, length), tokens }
    }

    /// Rows, and the length of each: the product of all other extents, in tokens.
    fn rows_and_length(&self, extents: &[usize]) -> (usize, usize) {
        let others = extents.iter().enumerate().filter(|(at, _)| Some(*at) != self.rows);
        let length = others.fold(1, |length: usize, (_, extent)| length.saturating_mul(*extent));
        (self.rows.map_or(1, |rows| extents[rows]), length)
    }

    fn values(&self, extents: &Extents) -> Values {
        self.symbols.iter().map(|(id, _)| extents.get(*id).unwrap_or(0)).collect()
    }

    /// Rows of a request.
    pub(super) fn n_rows(&self, extents: &Extents) -> usize {
        self.rows_and_length(&self.values(extents)).0
    }

    /// The shapes that are ready, where shapes count.
    pub(super) fn ready(&self) -> Option<&ReadyShapes> {
        self.programs.as_ref().map(|programs| &programs.ready)
    }

    /// The shape of a request.
    pub(super) fn bucket(&self, request: &Extents) -> Bucket {
        let value = |(id, name): &(SymbolId, String)| Some((name.clone(), request.get(*id)?));
        self.symbols.iter().filter_map(value).collect()
    }

    /// Seconds that a program takes to compile, by the prices; 0 where they do not say.
    pub(super) fn compile_seconds(&self, bucket: &Bucket) -> f64 {
        let (rows, length) = self.rows_and_length(&self.extents(bucket));
        self.prices.compile.of(rows, length)
    }

    /// Seconds that a request takes in one program, as often as it has to run; `None` where the program may not take
    /// it.
    pub(super) fn seconds_in(&self, request: &Extents, bucket: &Bucket) -> Option<f64> {
        let (mut extents, program) = (self.values(request), self.extents(bucket));
        let (n_rows, length) = self.rows_and_length(&extents);
        let can_split = self.ready().is_some_and(|ready| ready.freedom().rows.is_some());
        let n_taken = self.rows.filter(|_| can_split).map_or(n_rows, |rows| {
            extents[rows] = n_rows.min(program[rows]);
            extents[rows]
        });
        let run = self.run_of(bucket);
        let is_held = extents.iter().zip(&program).all(|(wanted, has)| wanted <= has);
        // What is left of larger requests goes the ways of smaller ones.
        let is_allowed = self.padding.allows(n_taken as f64 * length as f64, run.tokens, n_taken);
        let n_runs = n_rows as f64 / n_taken as f64;
        (is_held && is_allowed && n_taken > 0).then_some(run.seconds * n_runs)
    }

    /// Where a request goes: where it costs least, and of equals where most of it runs in programs; and the seconds
    /// that it costs there. Allocates nothing.
    pub(super) fn decide(&self, request: &Extents) -> (Decision, f64) {
        let mut extents = self.values(request);
        let (n_rows, length) = self.rows_and_length(&extents);
        let cpu = |rows: usize| match rows {
            0 => 0.0,
            rows => self.prices.cpu.batch(rows, length),
        };
        let mut best: Option<(usize, f64)> = None;
        let mut reason = FallbackReason::NotReady;
        for n_preferred in self.cuts(n_rows) {
            if let Some(rows) = self.rows {
                extents[rows] = n_preferred;
            }
            let Some(run) = self.run(&extents, n_preferred, length) else { continue };
            let real = n_preferred as f64 * length as f64;
            if !self.padding.allows(real, run.tokens, n_preferred) {
                reason = FallbackReason::Padding;
                continue;
            }
            let seconds = run.seconds + cpu(n_rows - n_preferred);
            if best.is_none_or(|(_, least)| seconds < least) {
                best = Some((n_preferred, seconds));
            }
        }
        let on_fallback = cpu(n_rows);
        let Some((n_preferred, seconds)) = best else {
            return (Decision::Fallback(reason), on_fallback);
        };
        if on_fallback < seconds {
            return (Decision::Fallback(FallbackReason::Cheaper), on_fallback);
        }
        if n_preferred == n_rows {
            return (Decision::Preferred, seconds);
        }
        let reason =
            if reason == FallbackReason::Padding { reason } else { FallbackReason::Cheaper };
        (Decision::Hybrid { n_preferred, reason }, seconds)
    }

    /// Numbers of rows that programs may take of a request: all, or as many as fill programs of one size.
    fn cuts(&self, n_rows: usize) -> impl Iterator<Item = usize> {
        let sizes = match (&self.programs, &self.layout) {
            (Some(programs), Some(_)) => programs.sizes.as_slice(),
            _ => &[],
        };
        let full = sizes.iter().filter_map(move |&size| {
            let n = n_rows - n_rows.checked_rem(size)?;
            (n > 0 && n < n_rows).then_some(n)
        });
        std::iter::once(n_rows).chain(full)
    }

    /// Whether a program has exactly the shape of a request.
    pub(super) fn is_shape(&self, request: &Extents, program: &Bucket) -> bool {
        self.symbols.iter().all(|(id, name)| request.get(*id) == program.get(name))
    }

    /// Whether a program would run so many rows of a request, or some of them.
    pub(super) fn uses(&self, request: &Extents, n_rows: usize, program: &Bucket) -> bool {
        let Some(programs) = &self.programs else { return false };
        let mut extents = self.values(request);
        if let Some(rows) = self.rows {
            extents[rows] = n_rows;
        }
        let is_it = |piece: Piece| programs.ready.buckets[piece.bucket] == *program;
        if let Some(table) = &programs.table {
            return table.route(&extents).is_some_and(|mut pieces| pieces.any(is_it));
        }
        let pieces =
            cover(&self.named(&extents), &programs.ready.buckets, &programs.ready.freedom());
        pieces.is_some_and(|pieces| pieces.into_iter().any(is_it))
    }

    fn named(&self, extents: &[usize]) -> Bucket {
        let named = self.symbols.iter().zip(extents);
        named.map(|((_, name), extent)| (name.clone(), *extent)).collect()
    }

    /// What the programs cost that take all of a request with these extents; `None` where none can.
    fn run(&self, extents: &[usize], n_rows: usize, length: usize) -> Option<Run> {
        let Some(programs) = &self.programs else {
            let tokens = n_rows as f64 * length as f64;
            return Some(Run { seconds: self.prices.device.batch(n_rows, length), tokens });
        };
        let add = |sum: Run, piece: Piece| {
            let run = programs.runs[piece.bucket];
            Run { seconds: sum.seconds + run.seconds, tokens: sum.tokens + run.tokens }
        };
        if let Some(table) = &programs.table {
            return Some(table.route(extents)?.fold(Run::default(), add));
        }
        let pieces =
            cover(&self.named(extents), &programs.ready.buckets, &programs.ready.freedom())?;
        Some(pieces.into_iter().fold(Run::default(), add))
    }
}
