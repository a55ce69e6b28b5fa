//! What is to be routed: batches that are alike, and programs that could take them.

use std::collections::BTreeMap;

use crate::plan::fitted::Filling;
use crate::plan::{
    Bucket, Histogram, InvalidSteps, Objective, PaddingLimit, PlanOptions, Prices, Requests, Stock,
    Tail, Work, Workload,
};

/// More candidates than anybody compiles.
const MOST_PROGRAMS: usize = 4096;

/// Batches that are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) n_batches: u64,
    pub(super) n_rows: usize,
    /// The longest row.
    pub(super) length: usize,
    /// Real tokens of all batches.
    pub(super) n_tokens: u64,
    /// The sum of all rows' squared lengths.
    pub(super) squares: f64,
    /// Whether programs may take it: its rows are not padded beyond the limit.
    pub(super) may_pad: bool,
}

impl Class {
    pub(super) fn rows_in_all(&self) -> u64 {
        self.n_batches.saturating_mul(self.n_rows as u64)
    }

    /// Real tokens of a row, on average.
    pub(super) fn row_tokens(&self) -> f64 {
        self.n_tokens as f64 / (self.rows_in_all() as f64).max(1.0)
    }

    /// The square of a row's length, on average.
    pub(super) fn row_squares(&self) -> f64 {
        self.squares / (self.rows_in_all() as f64).max(1.0)
    }
}

/// A program that exists or could be made.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) rows: usize,
    pub(super) length: usize,
    pub(super) bucket: Bucket,
    /// Seconds of a run.
    pub(super) run: f64,
    /// Seconds to load it; 0 where it is resident.
    pub(super) load: f64,
    /// Seconds to compile it; 0 where it is compiled.
    pub(super) compile: f64,
    /// Whether it is there for the few rows that do not fill a batch.
    pub(super) is_for_tail: bool,
    pub(super) n_bytes: u64,
}

/// What is to be routed, and over what.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    pub(super) classes: Vec<Class>,
    /// Longest first, and of one length most rows first.
    pub(super) programs: Vec<Program>,
    /// Positions of the programs: most rows first, and of equally many the cheapest first.
    pub(super) by_rows: Vec<usize>,
}

/// The lists of lengths to choose from; at least one, which may be empty.
pub(super) fn proposals(
    workload: &Workload,
    options: &PlanOptions,
    prices: &Prices,
) -> Result<Vec<Vec<usize>>, InvalidSteps> {
    let filling = filling(options, prices);
    let filling = (!matches!(workload.work, Work::Requests(_))).then_some(&filling);
    let mut proposals = options.lengths.proposals(&workload.work.histogram(), filling)?;
    if proposals.is_empty() {
        proposals.push(Vec::new());
    }
    Ok(proposals)
}

/// What is to be routed when programs have these lengths, ascending.
pub(super) fn classes(
    workload: &Workload,
    lengths: &[usize],
    options: &PlanOptions,
    prices: &Prices,
    stock: &Stock,
) -> Result<Candidates, InvalidSteps> {
    let (classes, shapes) = match &workload.work {
        Work::Requests(requests) => of_requests(requests, lengths, options)?,
        items => of_items(&items.histogram(), lengths, options, prices),
    };
    let of_shape =
        |((rows, length), for_tail)| (bucket(workload, rows, length), rows, length, for_tail);
    let wanted = shapes.into_iter().map(of_shape);
    let ready = stock.compiled.iter().chain(&stock.resident).filter_map(|bucket| {
        let extent = |symbol: &str| if symbol.is_empty() { Some(1) } else { bucket.get(symbol) };
        Some((bucket.clone(), extent(&workload.rows)?, extent(&workload.length)?, false))
    });
    let mut programs: Vec<Program> =
        wanted.chain(ready).map(|shape| program(shape, prices, stock)).collect();
    programs.sort_by(|a, b| (b.length, b.rows, &a.bucket).cmp(&(a.length, a.rows, &b.bucket)));
    programs.dedup_by(|a, b| a.bucket == b.bucket);
    if programs.len() > MOST_PROGRAMS {
        let reason = format!("with the rows these are more than {MOST_PROGRAMS} shapes");
        return Err(InvalidSteps { text: options.lengths.to_string(), reason });
    }
    let mut by_rows: Vec<usize> = (0..programs.len()).collect();
    by_rows.sort_by(|&a, &b| {
        let (a, b) = (&programs[a], &programs[b]);
        b.rows.cmp(&a.rows).then(a.run.total_cmp(&b.run)).then(a.length.cmp(&b.length))
    });
    Ok(Candidates { classes, programs, by_rows })
}

fn bucket(workload: &Workload, rows: usize, length: usize) -> Bucket {
    let named = [(&workload.rows, rows), (&workload.length, length)];
    let named = named.into_iter().filter(|(symbol, _)| !symbol.is_empty());
    named.map(|(symbol, extent)| (symbol.clone(), extent)).collect()
}

fn program(
    (bucket, rows, length, is_for_tail): (Bucket, usize, usize, bool),
    prices: &Prices,
    stock: &Stock,
) -> Program {
    let is_resident = stock.resident.contains(&bucket);
    let is_compiled = is_resident || stock.compiled.contains(&bucket);
    Program {
        rows,
        length,
        run: prices.device.batch(rows, length),
        load: if is_resident { 0.0 } else { prices.device.load },
        compile: if is_compiled { 0.0 } else { prices.compile.of(rows, length) },
        is_for_tail,
        n_bytes: prices.memory.of(rows, length).round() as u64,
        bucket,
    }
}

/// Rows and lengths, and whether a program of that shape is only for what does not fill a batch.
type Shapes = BTreeMap<(usize, usize), bool>;

/// One class a shape, in the requests' order; of each length, rows as their policy says.
fn of_requests(
    requests: &[Requests],
    lengths: &[usize],
    options: &PlanOptions,
) -> Result<(Vec<Class>, Shapes), InvalidSteps> {
    let mut shapes = Shapes::new();
    for (nth, &length) in lengths.iter().enumerate() {
        let shorter = nth.checked_sub(1).map(|before| lengths[before]);
        let is_served = |it: &&Requests| {
            it.length <= length && shorter.is_none_or(|shorter| it.length > shorter)
        };
        let served = requests.iter().filter(is_served);
        let rows: Histogram = served.map(|it| (it.rows, it.count)).collect();
        if rows.n_items() > 0 {
            let extents = options.rows.extents(&rows, None)?;
            shapes.extend(extents.into_iter().map(|rows| ((rows, length), false)));
        }
    }
    let class = |it: &Requests| {
        let n_tokens = it.n_tokens().saturating_mul(it.count);
        let held = lengths.iter().copied().find(|&length| length >= it.length);
        Class {
            n_batches: it.count,
            n_rows: it.rows,
            length: it.length,
            n_tokens,
            squares: n_tokens as f64 * it.length as f64,
            may_pad: held.is_none_or(|held| it.length >= options.padding.shortest(held)),
        }
    };
    let real = requests.iter().filter(|it| it.count > 0 && it.rows > 0);
    Ok((real.map(class).collect(), shapes))
}

/// For every length full batches under the token budget and what is left of them, longest rows first.
fn of_items(
    histogram: &Histogram,
    lengths: &[usize],
    options: &PlanOptions,
    prices: &Prices,
) -> (Vec<Class>, Shapes) {
    let mut made = Made {
        filling: filling(options, prices),
        padding: options.padding,
        classes: Vec::new(),
        shapes: Shapes::new(),
    };
    let mut rest = histogram.entries();
    // Descending: what is longer than every program comes first.
    let bounds = lengths.iter().rev().map(|&length| Some(length));
    let shorter = lengths.iter().rev().copied().chain([0]);
    for (length, shorter) in std::iter::once(None).chain(bounds).zip(shorter) {
        // Items of length 0 are held by the shortest program, or by none.
        let first = if shorter == 0 { 0 } else { rest.partition_point(|(it, _)| *it <= shorter) };
        let (later, mine) = rest.split_at(first);
        match length {
            Some(length) => made.group(mine, length),
            None => made.unheld(mine, true),
        }
        rest = later;
    }
    (made.classes, made.shapes)
}

/// How items are stacked.
fn filling(options: &PlanOptions, prices: &Prices) -> Filling {
    let token_budget = match options.objective {
        Objective::Throughput => options.token_budget,
        Objective::Latency => 1,
    };
    Filling { token_budget, tail: options.tail, launch_tokens: prices.device.launch_tokens() }
}

#[derive(Debug)]
struct Made {
    filling: Filling,
    padding: PaddingLimit,
    classes: Vec<Class>,
    shapes: Shapes,
}

impl Made {
    /// Items that programs of one length hold, shortest first.
    fn group(&mut self, items: &[(usize, u64)], length: usize) {
        let shortest = self.padding.shortest(length);
        let (refused, taken) = items.split_at(items.partition_point(|(it, _)| *it < shortest));
        let (n, rows) = (count(taken), self.filling.rows(length) as u64);
        // Rows that need no padding come first, so that they fill batches of their own.
        let n_exact = taken.last().filter(|(it, _)| *it == length).map_or(0, |(_, n)| n / rows);
        let n_mixed = n / rows - n_exact;
        let tail = n % rows;
        let (tail_items, full) = split(taken, tail);
        let (mixed, exact) = split(&full, n_mixed * rows);
        self.push(&exact, n_exact, rows, true);
        self.push(&mixed, n_mixed, rows, true);
        self.push(&tail_items, 1, tail, true);
        if n >= rows {
            self.shape(rows, length, false);
        }
        if tail > 0 {
            self.tail_shapes(tail, rows, n >= rows, length);
        }
        self.unheld(refused, false);
    }

    /// Programs that could take what is left: one that holds it, and one that leaves a few rows to the CPU.
    fn tail_shapes(&mut self, tail: u64, rows: u64, has_full: bool, length: usize) {
        let held = tail.next_power_of_two().min(rows);
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
    fn unheld(&mut self, items: &[(usize, u64)], may_pad: bool) {
        let mut rest = items;
        while let Some(&(longest, _)) = rest.last() {
            let (shorter, mine) = rest.split_at(rest.partition_point(|(it, _)| *it <= longest / 2));
            // A length of 0 is not more than half of itself.
            let (shorter, mine) = if mine.is_empty() { (mine, rest) } else { (shorter, mine) };
            let (n, rows) = (count(mine), self.filling.rows(longest) as u64);
            let (tail, full) = split(mine, n % rows);
            self.push(&full, n / rows, rows, may_pad);
            self.push(&tail, 1, n % rows, may_pad);
            rest = shorter;
        }
    }

    fn push(&mut self, items: &[(usize, u64)], n_batches: u64, n_rows: u64, may_pad: bool) {
        let Some(&(length, _)) = items.last().filter(|_| n_batches > 0 && n_rows > 0) else {
            return;
        };
        let square = |&(length, n): &(usize, u64)| (length as f64).powi(2) * n as f64;
        let tokens = |&(length, n): &(usize, u64)| (length as u64).saturating_mul(n);
        self.classes.push(Class {
            n_batches,
            n_rows: usize::try_from(n_rows).unwrap_or(usize::MAX),
            length,
            n_tokens: items.iter().map(tokens).fold(0, u64::saturating_add),
            squares: items.iter().map(square).sum(),
            may_pad,
        });
    }
}

fn count(items: &[(usize, u64)]) -> u64 {
    items.iter().fold(0, |sum: u64, (_, n)| sum.saturating_add(*n))
}

/// Lengths and how many items have them, shortest first.
type Entries = Vec<(usize, u64)>;

/// The `n` shortest items and the others.
fn split(items: &[(usize, u64)], n: u64) -> (Entries, Entries) {
    let (mut short, mut long, mut left) = (Vec::new(), Vec::new(), n);
    for &(length, count) in items {
        let taken = count.min(left);
        left -= taken;
        short.extend((taken > 0).then_some((length, taken)));
        long.extend((count > taken).then_some((length, count - taken)));
    }
    (short, long)
}
