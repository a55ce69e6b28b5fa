//! The cheapest way to run one batch.

use super::classes::{Candidates, Class, Given};
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

/// Routes one batch of a class over the programs that are allowed.
pub(super) fn route(
    class: &Class,
    found: &Candidates,
    allowed: &[bool],
    given: &Given<'_>,
) -> Routed {
    let cpu = Cpu::of(class, given.prices);
    let sizes = if class.may_pad { sizes(class, found, allowed) } else { Vec::new() };
    let mut routed = Routed {
        way: Way { cpu_rows: class.n_rows, seconds: cpu.seconds(class.n_rows), ..Way::default() },
        cpu: cpu.seconds(class.n_rows),
        device: None,
        is_held: sizes.iter().any(|size| size.rows >= class.n_rows),
        over_limit: !class.may_pad,
    };
    let Some(whole) = cheapest_a_row(&sizes) else { return routed };
    let n_whole = class.n_rows.saturating_sub(MOST_WEIGHED).div_ceil(whole.rows);
    let n_weighed = class.n_rows - (n_whole * whole.rows).min(class.n_rows);
    let best = cheapest(&sizes, n_weighed);
    let peeled = n_whole as f64;
    for on_device in 0..=n_weighed {
        let n_device = class.n_rows - n_weighed + on_device;
        if n_device == 0 {
            continue;
        }
        let seconds = best[on_device].seconds + peeled * whole.seconds;
        let tokens = best[on_device].tokens + peeled * whole.tokens;
        let real = n_device as f64 * class.row_tokens();
        if !given.options.padding.allows(real, tokens, n_device) {
            routed.over_limit |= n_device == class.n_rows;
            continue;
        }
        if n_device == class.n_rows {
            routed.device = Some(seconds);
        }
        let total = seconds + cpu.seconds(class.n_rows - n_device);
        // Of ways that cost the same, the one that leaves more to programs.
        if total <= routed.way.seconds {
            let pieces = pieces(&best, on_device, n_whole, whole, n_device);
            let cpu_rows = class.n_rows - n_device;
            routed.way = Way { pieces, cpu_rows, device_tokens: tokens, seconds: total };
        }
    }
    routed
}

/// What rows of a class cost on the CPU.
pub(super) struct Cpu {
    launch: f64,
    row: f64,
}

impl Cpu {
    pub(super) fn of(class: &Class, prices: &Prices) -> Self {
        let row = prices.cpu.tokens(class.row_tokens(), class.row_squares());
        Self { launch: prices.cpu.launch, row }
    }

    pub(super) fn seconds(&self, n_rows: usize) -> f64 {
        if n_rows == 0 { 0.0 } else { self.launch + self.row * n_rows as f64 }
    }
}

/// For each number of rows the cheapest program that holds the class's length; none that has fewer rows
/// than one that costs no more. Fewest rows first.
fn sizes(class: &Class, found: &Candidates, allowed: &[bool]) -> Vec<Size> {
    let mut sizes: Vec<Size> = Vec::new();
    for &program in &found.by_rows {
        let it = &found.programs[program];
        if !allowed[program] || it.length < class.length {
            continue;
        }
        let tokens = it.rows as f64 * it.length as f64;
        let size = Size { program, rows: it.rows, seconds: it.run, tokens };
        if sizes.last().is_none_or(|last| (size.seconds, tokens) < (last.seconds, last.tokens)) {
            sizes.push(size);
        }
    }
    sizes.reverse();
    sizes
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

/// The programs behind the best way, with the rows that each takes.
fn pieces(
    best: &[Best],
    on_device: usize,
    n_whole: usize,
    whole: Size,
    n_rows: usize,
) -> Vec<(usize, usize)> {
    let mut sizes = vec![whole; n_whole];
    let mut rows = on_device;
    while let Some(size) = best[rows].last {
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
