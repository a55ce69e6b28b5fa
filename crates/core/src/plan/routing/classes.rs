//! What is to be routed: batches that are alike, and programs that could take them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::items::{self, Ranked};
use super::requests::Asked;
use crate::plan::{
    Bucket, Histogram, InvalidSteps, Objective, PlanOptions, Prices, Stock, Work, Workload,
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
    /// What the CPU runs of them.
    pub(super) cpu: CpuWork,
    /// Whether programs may take it: its rows are not padded beyond the limit.
    pub(super) may_pad: bool,
}

/// What a backend of any shape runs: every row as long as the longest of its batch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuWork {
    pub(super) tokens: f64,
    /// The rows' squared lengths.
    pub(super) squares: f64,
}

impl Class {
    pub(super) fn rows_in_all(&self) -> u64 {
        self.n_batches.saturating_mul(self.n_rows as u64)
    }

    /// Real tokens of a row, on average.
    pub(super) fn row_tokens(&self) -> f64 {
        self.n_tokens as f64 / (self.rows_in_all() as f64).max(1.0)
    }

    /// What the CPU runs of a row, on average.
    pub(super) fn cpu_row(&self) -> CpuWork {
        let n_rows = (self.rows_in_all() as f64).max(1.0);
        CpuWork { tokens: self.cpu.tokens / n_rows, squares: self.cpu.squares / n_rows }
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
    /// For every number of programs that hold a class's rows, the most rows of such a class.
    pub(super) most_rows: Vec<usize>,
}

impl Candidates {
    fn new(classes: Vec<Class>, mut programs: Vec<Program>) -> Self {
        // Of a program that is wanted and there, the one that is wanted: it may be for a tail.
        programs.sort_by(|a, b| (b.length, b.rows, &a.bucket).cmp(&(a.length, a.rows, &b.bucket)));
        programs.dedup_by(|a, b| a.bucket == b.bucket);
        let mut by_rows: Vec<usize> = (0..programs.len()).collect();
        by_rows.sort_by(|&a, &b| {
            let (a, b) = (&programs[a], &programs[b]);
            b.rows.cmp(&a.rows).then(a.run.total_cmp(&b.run)).then(a.length.cmp(&b.length))
        });
        let found = Self { classes: Vec::new(), most_rows: Vec::new(), programs, by_rows };
        found.with_classes(classes)
    }

    /// The same programs for other batches.
    pub(super) fn with_classes(self, classes: Vec<Class>) -> Self {
        let mut most_rows = vec![0; self.programs.len() + 1];
        for class in &classes {
            let most = &mut most_rows[self.n_holding(class.length)];
            *most = class.n_rows.max(*most);
        }
        Self { classes, most_rows, ..self }
    }

    /// How many programs hold rows of that length: the first so many.
    pub(super) fn n_holding(&self, length: usize) -> usize {
        self.programs.partition_point(|program| program.length >= length)
    }
}

/// Rows and lengths, and whether a program of that shape is only for what does not fill a batch.
pub(super) type Shapes = BTreeMap<(usize, usize), bool>;

/// What a plan is made for, and by.
#[derive(Debug)]
pub(super) struct Given<'a> {
    pub(super) workload: &'a Workload,
    pub(super) options: &'a PlanOptions,
    pub(super) prices: &'a Prices,
    pub(super) stock: &'a Stock,
    histogram: Cow<'a, Histogram>,
    work: Counted,
    resident: HashSet<&'a Bucket>,
    compiled: HashSet<&'a Bucket>,
    /// Rows that batches of some lengths fill.
    filled: BTreeMap<usize, usize>,
}

/// The work, so that batches are made of it without looking at all of it again.
#[derive(Debug)]
enum Counted {
    Items(Ranked),
    Requests(Asked),
}

impl<'a> Given<'a> {
    pub(super) fn new(
        workload: &'a Workload,
        options: &'a PlanOptions,
        prices: &'a Prices,
        stock: &'a Stock,
    ) -> Self {
        let histogram = workload.work.histogram();
        let work = match &workload.work {
            Work::Requests(requests) => Counted::Requests(Asked::of(requests)),
            _ => Counted::Items(Ranked::of(&histogram)),
        };
        let resident: HashSet<&Bucket> = stock.resident.iter().collect();
        let compiled = stock.compiled.iter().chain(resident.iter().copied()).collect();
        let filled = filled(workload, options, stock);
        Self { workload, options, prices, stock, histogram, work, resident, compiled, filled }
    }

    /// The lists of lengths to choose from, each ascending; at least one, which may be empty.
    pub(super) fn proposals(&self) -> Result<Vec<Vec<usize>>, InvalidSteps> {
        let filling = match self.work {
            Counted::Items(_) => Some(items::filling(self.options, self.prices)),
            Counted::Requests(_) => None,
        };
        let mut proposals = self.options.lengths.proposals(&self.histogram, filling.as_ref())?;
        if proposals.is_empty() {
            proposals.push(Vec::new());
        }
        Ok(proposals)
    }

    /// What is to be routed when programs have these lengths, ascending.
    pub(super) fn candidates(&self, lengths: &[usize]) -> Result<Candidates, InvalidSteps> {
        let (classes, shapes) = match &self.work {
            Counted::Requests(asked) => asked.roughly(lengths, self.options)?,
            Counted::Items(items) => {
                items::stacked(items, (lengths, &self.filled), self.options, self.prices)
            }
        };
        let wanted = shapes.into_iter().map(|((rows, length), is_for_tail)| {
            self.program(self.bucket(rows, length), (rows, length), is_for_tail)
        });
        let ready = self.compiled.iter().filter_map(|bucket| {
            Some(self.program((*bucket).clone(), shape(bucket, self.workload)?, false))
        });
        let found = Candidates::new(classes, wanted.chain(ready).collect());
        if found.programs.len() > MOST_PROGRAMS {
            let reason = format!("with the rows these are more than {MOST_PROGRAMS} shapes");
            return Err(InvalidSteps { text: self.options.lengths.to_string(), reason });
        }
        Ok(found)
    }

    /// The batches as they are, where those in `found` only stand for them.
    pub(super) fn exactly(&self, found: &Candidates) -> Option<Vec<Class>> {
        match &self.work {
            Counted::Requests(asked) => asked.exactly(found, self.options.padding),
            Counted::Items(_) => None,
        }
    }

    fn bucket(&self, rows: usize, length: usize) -> Bucket {
        let named = [(&self.workload.rows, rows), (&self.workload.length, length)];
        let named = named.into_iter().filter(|(symbol, _)| !symbol.is_empty());
        named.map(|(symbol, extent)| (symbol.clone(), extent)).collect()
    }

    fn program(
        &self,
        bucket: Bucket,
        (rows, length): (usize, usize),
        is_for_tail: bool,
    ) -> Program {
        let Prices { device, compile, memory, .. } = self.prices;
        Program {
            rows,
            length,
            run: device.batch(rows, length),
            load: if self.resident.contains(&bucket) { 0.0 } else { device.load },
            compile: if self.compiled.contains(&bucket) { 0.0 } else { compile.of(rows, length) },
            is_for_tail,
            n_bytes: memory.of(rows, length).round() as u64,
            bucket,
        }
    }
}

/// Rows and length of a program; `None` of one that has no such symbols.
fn shape(bucket: &Bucket, workload: &Workload) -> Option<(usize, usize)> {
    let extent = |symbol: &String| if symbol.is_empty() { Some(1) } else { bucket.get(symbol) };
    Some((extent(&workload.rows)?, extent(&workload.length)?))
}

/// Where only what is resident runs, the most rows that programs of a length have: one runs as long with fewer of them.
fn filled(workload: &Workload, options: &PlanOptions, stock: &Stock) -> BTreeMap<usize, usize> {
    let mut filled = BTreeMap::new();
    let is_stacked = options.objective == Objective::Throughput && options.token_budget > 1;
    if is_stacked && options.compile_seconds == Some(0.0) {
        for (rows, length) in stock.resident.iter().filter_map(|it| shape(it, workload)) {
            let most = filled.entry(length).or_insert(1);
            *most = rows.max(*most);
        }
    }
    filled
}
