//! The cheapest way to run one batch.

use std::cell::OnceCell;

use super::classes::{Candidates, Class, CpuWork, Given};
use crate::plan::Prices;

/// Of a larger batch, what is over this runs in the program that is cheapest a row.
const MOST_WEIGHED: usize = 1 << 12;

/// How one batch of a class runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Way {
    /// Programs and the rows that each takes, most first.
    pub(super) pieces: Vec<(usize, usize)>,
    /// Rows that the CPU takes after them.
    pub(super) cpu_rows: usize,
    /// Tokens that the programs run, padding counted.
    pub(super) device_tokens: f64,
    /// Seconds, no loading counted.
    pub(super) seconds: f64,
}

/// The cheapest way, and what there was to choose from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Routed {
    pub(super) way: Way,
    /// Seconds on the CPU alone.
    pub(super) cpu: f64,
    /// Seconds in programs alone, if any hold the batch.
    pub(super) device: Option<f64>,
    /// Whether one program could take all of it.
    pub(super) is_held: bool,
    /// Whether it was the limit on padding that kept it from programs.
    pub(super) over_limit: bool,
}

/// What rows of a class cost on the CPU.
pub(super) struct Cpu {
    launch: f64,
    row: f64,
}

impl Cpu {
    pub(super) fn of(class: &Class, prices: &Prices) -> Self {
        let CpuWork { tokens, squares } = class.cpu_row();
        let row = prices.cpu.tokens(tokens, squares);
        Self { launch: prices.cpu.launch, row }
    }

    pub(super) fn seconds(&self, n_rows: usize) -> f64 {
        if n_rows == 0 { 0.0 } else { self.launch + self.row * n_rows as f64 }
    }
}

/// The ways over the programs that are allowed: those of classes that the same programs hold are weighed together,
/// when the first of them is routed.
#[derive(Clone, Debug)]
pub(super) struct Ways<'a> {
    found: &'a Candidates,
    given: &'a Given<'a>,
    allowed: Vec<bool>,
    /// By how many programs are long enough: the longest come first.
    ladders: Vec<OnceCell<Ladder>>,
}

impl<'a> Ways<'a> {
    pub(super) fn new(found: &'a Candidates, given: &'a Given<'a>, allowed: Vec<bool>) -> Self {
        let ladders = vec![OnceCell::new(); found.programs.len() + 1];
        Self { found, given, allowed, ladders }
    }

    /// The ways that are left without a program.
    pub(super) fn without(&self, program: usize) -> Self {
        let mut allowed = self.allowed.clone();
        allowed[program] = false;
        Self::new(self.found, self.given, allowed)
    }

    /// The cheapest way of every class, in their order.
    pub(super) fn route_all(&self) -> Vec<Routed> {
        self.found.classes.iter().map(|class| self.route(class)).collect()
    }

    /// The cheapest way of a class.
    pub(super) fn route(&self, class: &Class) -> Routed {
        let n_holding = self.found.n_holding(class.length);
        let ladder = || Ladder::of(self.found, &self.allowed, n_holding);
        self.ladders[n_holding].get_or_init(ladder).route(class, self.given)
    }
}

/// A number of rows that a program takes, and what they cost.
#[derive(Clone, Copy, Debug)]
struct Size {
    program: usize,
    rows: usize,
    seconds: f64,
    tokens: f64,
}

/// The cheapest device-only way for so many rows.
#[derive(Clone, Copy, Debug)]
struct Best {
    seconds: f64,
    tokens: f64,
    last: Option<Size>,
}

/// The programs that hold rows of a length, and the cheapest way to run any number of such rows in them.
#[derive(Clone, Debug)]
struct Ladder {
    /// For each number of rows the cheapest; none that has fewer rows than one that costs no more. Fewest rows
    /// first.
    sizes: Vec<Size>,
    best: Vec<Best>,
    /// Numbers of rows that cost less than one more: what is left is left there.
    steps: Vec<usize>,
}

impl Ladder {
    fn of(found: &Candidates, allowed: &[bool], n_holding: usize) -> Self {
        let mut sizes: Vec<Size> = Vec::new();
        for &program in found.by_rows.iter().filter(|&&it| it < n_holding && allowed[it]) {
            let it = &found.programs[program];
            let tokens = it.rows as f64 * it.length as f64;
            let size = Size { program, rows: it.rows, seconds: it.run, tokens };
            let costs_less = |last: &Size| (size.seconds, tokens) < (last.seconds, last.tokens);
            if sizes.last().is_none_or(costs_less) {
                sizes.push(size);
            }
        }
        sizes.reverse();
        let most_rows = if sizes.is_empty() { 0 } else { found.most_rows[n_holding] };
        let best = cheapest(&sizes, most_rows.min(MOST_WEIGHED));
        let cost = |n: usize| (best[n].seconds, best[n].tokens);
        let steps = (0..best.len() - 1).filter(|&n| cost(n) < cost(n + 1)).collect();
        Self { sizes, best, steps }
    }

    fn route(&self, class: &Class, given: &Given<'_>) -> Routed {
        let cpu = Cpu::of(class, given.prices);
        let n_rows = class.n_rows;
        let way = Way { cpu_rows: n_rows, seconds: cpu.seconds(n_rows), ..Way::default() };
        let sizes = if class.may_pad { self.sizes.as_slice() } else { &[] };
        let mut routed = Routed {
            cpu: way.seconds,
            way,
            device: None,
            is_held: sizes.iter().any(|size| size.rows >= n_rows),
            over_limit: !class.may_pad,
        };
        let Some(whole) = cheapest_a_row(sizes) else { return routed };
        let n_whole = n_rows.saturating_sub(MOST_WEIGHED).div_ceil(whole.rows);
        let n_weighed = n_rows - (n_whole * whole.rows).min(n_rows);
        let steps = self.steps.iter().copied().take_while(|&step| step < n_weighed);
        let mut on_device = None;
        for weighed in steps.chain([n_weighed]) {
            let n_device = n_rows - n_weighed + weighed;
            if n_device == 0 {
                continue;
            }
            let seconds = self.best[weighed].seconds + n_whole as f64 * whole.seconds;
            let tokens = self.best[weighed].tokens + n_whole as f64 * whole.tokens;
            let real = n_device as f64 * class.row_tokens();
            if !given.options.padding.allows(real, tokens, n_device) {
                routed.over_limit |= n_device == n_rows;
                continue;
            }
            if n_device == n_rows {
                routed.device = Some(seconds);
            }
            let total = seconds + cpu.seconds(n_rows - n_device);
            // Of ways that cost the same, the one that leaves more to programs.
            if total <= routed.way.seconds {
                (routed.way.seconds, routed.way.device_tokens) = (total, tokens);
                routed.way.cpu_rows = n_rows - n_device;
                on_device = Some(weighed);
            }
        }
        if let Some(weighed) = on_device {
            let n_device = n_rows - routed.way.cpu_rows;
            routed.way.pieces = self.pieces(weighed, vec![whole; n_whole], n_device);
        }
        routed
    }

    /// The programs behind the best way for the weighed rows, and those beside them, with the rows that each takes.
    fn pieces(&self, weighed: usize, beside: Vec<Size>, n_rows: usize) -> Vec<(usize, usize)> {
        let (mut sizes, mut rows) = (beside, weighed);
        while let Some(size) = self.best[rows].last {
            sizes.push(size);
            rows = rows.saturating_sub(size.rows);
        }
        sizes.sort_by_key(|size| std::cmp::Reverse(size.rows));
        let mut left = n_rows;
        let taken = sizes.into_iter().map(|size| {
            let rows = size.rows.min(left);
            left -= rows;
            (size.program, rows)
        });
        taken.filter(|(_, rows)| *rows > 0).collect()
    }
}

fn cheapest_a_row(sizes: &[Size]) -> Option<Size> {
    let a_row = |size: &Size| size.seconds / size.rows as f64;
    sizes.iter().copied().min_by(|a, b| a_row(a).total_cmp(&a_row(b)))
}

/// For every number of rows up to `n_rows` the programs that hold them at the least cost.
fn cheapest(sizes: &[Size], n_rows: usize) -> Vec<Best> {
    let mut best: Vec<Best> = Vec::with_capacity(n_rows + 1);
    best.push(Best { seconds: 0.0, tokens: 0.0, last: None });
    for rows in 1..=n_rows {
        let mut found = Best { seconds: f64::INFINITY, tokens: f64::INFINITY, last: None };
        for &size in sizes {
            let before = best[rows.saturating_sub(size.rows)];
            let (seconds, tokens) = (before.seconds + size.seconds, before.tokens + size.tokens);
            if (seconds, tokens) < (found.seconds, found.tokens) {
                found = Best { seconds, tokens, last: Some(size) };
            }
        }
        best.push(found);
    }
    best
}
