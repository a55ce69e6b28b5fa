//! What was chosen, as data and in words.

use std::fmt;

use super::choose::{Chosen, Dropped, Why};
use super::classes::{Candidates, Class, Given};
use super::route::{Cpu, Routed};
use super::{PlannedBatches, PlannedBucket, PlannedPiece, RoutingPlan, RoutingTotals, Tried};
use crate::Route;
use crate::plan::{PlanOptions, Prices, prices::break_even};

/// The plan of what was chosen.
pub(super) fn written(found: &Candidates, chosen: &Chosen, given: &Given<'_>) -> RoutingPlan {
    let (options, prices) = (given.options, given.prices);
    let mut used: Vec<usize> = chosen.routed.iter().flat_map(programs).collect();
    used.sort_unstable();
    used.dedup();
    let pairs = || found.classes.iter().zip(&chosen.routed);
    let left_out = chosen.dropped.iter().map(|it| it.program.length).max().unwrap_or(0);
    let written = |(class, routed)| batches(class, routed, &used, left_out);
    let batches: Vec<PlannedBatches> = pairs().map(written).collect();
    let n_tokens = sum(found.classes.iter().map(|class| class.n_tokens));
    let buckets: Vec<PlannedBucket> =
        used.iter().map(|&program| bucket(program, found, chosen, prices, n_tokens)).collect();
    let totals = totals(found, chosen, prices, &batches, &buckets);
    let reasons = reasons(found, chosen, options, &totals);
    RoutingPlan { buckets, batches, totals, reasons }
}

fn programs(routed: &Routed) -> impl Iterator<Item = usize> {
    routed.way.pieces.iter().map(|(program, _)| *program)
}

/// `left_out` is the longest length whose programs were left out.
fn batches(class: &Class, routed: &Routed, used: &[usize], left_out: usize) -> PlannedBatches {
    let way = &routed.way;
    let n_batches = class.n_batches as f64;
    let device = way.pieces.iter().map(|&(program, n_rows)| PlannedPiece {
        bucket: used.binary_search(&program).ok(),
        n_rows,
    });
    let cpu = (way.cpu_rows > 0).then_some(PlannedPiece { bucket: None, n_rows: way.cpu_rows });
    let on_cpu = class.cpu_row().tokens * way.cpu_rows as f64;
    let n_padded_tokens = ((way.device_tokens + on_cpu) * n_batches).round() as u64;
    let route = match (way.pieces.len(), way.cpu_rows) {
        (0, _) => Route::Fallback,
        (1, 0) if n_padded_tokens == class.n_tokens => Route::Exact,
        (1, 0) => Route::Padded,
        (_, 0) => Route::Split,
        _ => Route::Hybrid,
    };
    PlannedBatches {
        n_batches: class.n_batches,
        n_rows: class.n_rows,
        length: class.length,
        route,
        pieces: device.chain(cpu).collect(),
        n_real_tokens: class.n_tokens,
        n_padded_tokens,
        seconds: way.seconds * n_batches,
        reason: reason(class, routed, route, left_out),
    }
}

/// Why a batch runs as it does.
fn reason(class: &Class, routed: &Routed, route: Route, left_out: usize) -> String {
    let (seconds, cpu) = (Seconds(routed.way.seconds), Seconds(routed.cpu));
    let beside = format!("{seconds}, {cpu} on the CPU");
    match (route, routed.device) {
        (Route::Exact, _) => format!("it has the shape of a program: {beside}"),
        (Route::Padded, _) => {
            let real = class.row_tokens() * class.n_rows as f64;
            let share = 100.0 * (1.0 - real / routed.way.device_tokens.max(1.0));
            format!("{share:.1}% padding, and no program of the plan costs less: {beside}")
        }
        (Route::Split, _) if routed.is_held => {
            format!("parts cost less than one program that holds it: {beside}")
        }
        (Route::Split, _) => format!("no program holds it whole: {beside}"),
        (Route::Hybrid, Some(device)) => {
            format!(
                "the last rows are cheaper on the CPU: {beside}, {} in programs",
                Seconds(device)
            )
        }
        (Route::Hybrid, None) => format!("the last rows would be padded over the limit: {beside}"),
        (_, Some(device)) => format!("the CPU is cheaper: {cpu}, {} in programs", Seconds(device)),
        (_, None) if routed.over_limit => "it would be padded over the limit".to_owned(),
        (_, None) if class.length <= left_out => "its program is left out".to_owned(),
        (_, None) => "no program holds it".to_owned(),
    }
}

fn bucket(
    program: usize,
    found: &Candidates,
    chosen: &Chosen,
    prices: &Prices,
    n_tokens: u64,
) -> PlannedBucket {
    let it = &found.programs[program];
    let (mut n_runs, mut real, mut cpu_seconds) = (0, 0.0, 0.0);
    for (class, routed) in found.classes.iter().zip(&chosen.routed) {
        let cpu = Cpu::of(class, prices);
        for &(_, n_rows) in routed.way.pieces.iter().filter(|(used, _)| *used == program) {
            let n_batches = class.n_batches as f64;
            n_runs = class.n_batches.saturating_add(n_runs);
            real += n_batches * n_rows as f64 * class.row_tokens();
            // Of a batch in pieces, each has its share of what the batch costs on the CPU.
            let share = n_rows as f64 / class.n_rows as f64;
            cpu_seconds += n_batches * share * cpu.seconds(class.n_rows);
        }
    }
    let share = real / (n_tokens as f64).max(1.0);
    if !chosen.uses_cpu() {
        // Nobody waits for the CPU's load, thanks to all of them.
        cpu_seconds += share * chosen.cpu_load;
    }
    let seconds = it.load + it.run * n_runs as f64;
    let saved_seconds = cpu_seconds - seconds;
    let break_even_runs = break_even(it.compile, saved_seconds);
    let shape = (it.rows as u64).saturating_mul(it.length as u64);
    PlannedBucket {
        bucket: it.bucket.clone(),
        n_runs,
        n_real_tokens: real.round() as u64,
        n_padded_tokens: shape.saturating_mul(n_runs),
        share,
        seconds,
        load_seconds: it.load,
        compile_seconds: it.compile,
        n_bytes: it.n_bytes,
        saved_seconds,
        break_even_runs,
        reason: format!(
            "{} with it, {} on the CPU; {}",
            Seconds(seconds),
            Seconds(cpu_seconds),
            pays(it.compile, break_even_runs)
        ),
    }
}

fn pays(compile_seconds: f64, runs: Option<u64>) -> String {
    match runs {
        Some(0) => "it is compiled".to_owned(),
        Some(1) => format!("its {} of compiling pay in the first pass", Seconds(compile_seconds)),
        Some(n) => {
            format!("its {} of compiling have paid after {n} passes", Seconds(compile_seconds))
        }
        None => format!("its {} of compiling never pay", Seconds(compile_seconds)),
    }
}

fn totals(
    found: &Candidates,
    chosen: &Chosen,
    prices: &Prices,
    batches: &[PlannedBatches],
    buckets: &[PlannedBucket],
) -> RoutingTotals {
    let runs = seconds(batches.iter().map(|it| it.seconds));
    let loads = seconds(buckets.iter().map(|it| it.load_seconds));
    let on_cpu =
        |class: &Class| class.n_batches as f64 * Cpu::of(class, prices).seconds(class.n_rows);
    let cpu_seconds = match found.classes.len() {
        0 => 0.0,
        _ => chosen.cpu_load + seconds(found.classes.iter().map(on_cpu)),
    };
    let all_seconds = runs + loads + if chosen.uses_cpu() { chosen.cpu_load } else { 0.0 };
    let compile_seconds = seconds(buckets.iter().map(|it| it.compile_seconds));
    let n_real_tokens = sum(batches.iter().map(|it| it.n_real_tokens));
    let on_device = sum(buckets.iter().map(|it| it.n_real_tokens));
    RoutingTotals {
        n_rows: sum(found.classes.iter().map(Class::rows_in_all)),
        n_batches: sum(batches.iter().map(|it| it.n_batches)),
        n_real_tokens,
        n_padded_tokens: sum(batches.iter().map(|it| it.n_padded_tokens)),
        n_cpu_tokens: n_real_tokens.saturating_sub(on_device),
        seconds: all_seconds,
        cpu_seconds,
        compile_seconds,
        n_bytes: sum(buckets.iter().map(|it| it.n_bytes)),
        break_even_runs: break_even(compile_seconds, cpu_seconds - all_seconds),
    }
}

/// As large as a number can be, where there is more.
fn sum(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

/// Not below zero, as the sum of no floats is.
fn seconds(parts: impl Iterator<Item = f64>) -> f64 {
    parts.fold(0.0, std::ops::Add::add)
}

fn reasons(
    found: &Candidates,
    chosen: &Chosen,
    options: &PlanOptions,
    totals: &RoutingTotals,
) -> Vec<String> {
    if found.classes.is_empty() {
        return vec!["there is no work".to_owned()];
    }
    let mut reasons: Vec<String> =
        chosen.dropped.iter().filter(says_something).map(|it| left_out(it, options)).collect();
    if let Some(seconds) = chosen.refused_seconds {
        let cpu = Seconds(totals.cpu_seconds);
        reasons.push(format!("all runs on the CPU: {cpu}, {} with programs", Seconds(seconds)));
    }
    if found.programs.is_empty() && chosen.dropped.is_empty() {
        reasons.push("no length has a program, and none is compiled".to_owned());
    }
    if let (Some(runs @ 1..), true) = (totals.break_even_runs, totals.compile_seconds > 0.0) {
        let saved = Seconds(totals.cpu_seconds - totals.seconds);
        let compile = Seconds(totals.compile_seconds);
        let passes = if runs == 1 { "the first pass".to_owned() } else { format!("{runs} passes") };
        reasons
            .push(format!("a pass saves {saved}; {compile} of compiling have paid after {passes}"));
    }
    reasons
}

/// Why there are so many lengths, where several numbers of them were tried.
pub(super) fn number_of_lengths(tried: &[Tried], options: &PlanOptions) -> Option<String> {
    let best = tried.iter().map(|it| it.seconds).fold(f64::INFINITY, f64::min);
    let at = tried.iter().position(|it| it.seconds == best)?;
    let around = [at.checked_sub(1), Some(at + 1)].into_iter().flatten();
    let around = around.filter_map(|near| tried.get(near));
    let other = |it: &Tried| {
        let limit = it.limit.and_then(|why| limit(why, options));
        let limit = limit.map_or_else(String::new, |limit| format!(", since {limit}"));
        format!("{} with {}{limit}", Seconds(it.seconds), it.n_lengths)
    };
    let others: Vec<String> = around.map(other).collect();
    let n = tried[at].n_lengths;
    let what = if n == 1 {
        "1 fitted length costs".to_owned()
    } else {
        format!("{n} fitted lengths cost")
    };
    let why = format!("{what} least, {} a pass", Seconds(best));
    (!others.is_empty()).then(|| format!("{why}; {}", others.join(", ")))
}

/// That rows which fill no batch need no program of their own is said of their batch.
fn says_something(dropped: &&Dropped) -> bool {
    !(dropped.program.is_for_tail && dropped.why == Why::DoesNotPay)
}

/// Why a program is not there.
fn left_out(dropped: &Dropped, options: &PlanOptions) -> String {
    let it = &dropped.program;
    let lost = Seconds(dropped.lost_seconds.abs());
    let Some(why) = limit(dropped.why, options) else {
        let compile = match options.n_runs {
            Some(n_runs) => it.compile / n_runs.max(1) as f64,
            None => 0.0,
        };
        let part = match it.load + compile {
            fixed if fixed > 0.0 => format!(" ({} a pass for load and compiling)", Seconds(fixed)),
            _ => String::new(),
        };
        return format!("{} is left out: without it a pass costs {lost} less{part}", it.bucket);
    };
    format!("{} is left out: {why}; it would have saved {lost} a pass", it.bucket)
}

/// A limit in words; `None` where there is none.
fn limit(why: Why, options: &PlanOptions) -> Option<String> {
    Some(match why {
        Why::DoesNotPay => return None,
        Why::TooMany => {
            format!("at most {} programs are allowed", options.max_buckets.unwrap_or_default())
        }
        Why::CompilesTooLong => format!(
            "compiling may take {} in all",
            Seconds(options.compile_seconds.unwrap_or_default())
        ),
        Why::TooLarge => format!(
            "programs may take {:.0} MB in all",
            options.device_bytes.unwrap_or_default() as f64 / 1e6
        ),
    })
}

/// A time with three digits.
#[derive(Clone, Copy, Debug)]
struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = match self.0.abs() {
            0.0 => return f.write_str("0 s"),
            s if s >= 0.9995 => (self.0, "s"),
            s if s >= 0.9995e-3 => (self.0 * 1e3, "ms"),
            _ => (self.0 * 1e6, "µs"),
        };
        let digits = match value.abs() {
            v if v >= 99.95 => 0,
            v if v >= 9.995 => 1,
            _ => 2,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "es" }
}

impl fmt::Display for RoutingPlan {
    /// As a person reads it: programs, batches, sums, reasons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in &self.buckets {
            let padding =
                100.0 * (1.0 - it.n_real_tokens as f64 / it.n_padded_tokens.max(1) as f64);
            let share = 100.0 * it.share;
            writeln!(
                f,
                "program {}: {} run{}, {share:.1}% of the tokens, {padding:.1}% padding; {}",
                it.bucket,
                it.n_runs,
                if it.n_runs == 1 { "" } else { "s" },
                it.reason
            )?;
        }
        for it in &self.batches {
            let (n, s) = (it.n_batches, plural(it.n_batches));
            write!(f, "{n} batch{s} of {} x {}: ", it.n_rows, it.length)?;
            writeln!(f, "{} {}; {}", name(it.route), self.parts(&it.pieces), it.reason)?;
        }
        let RoutingTotals { n_rows, n_batches, seconds, cpu_seconds, .. } = self.totals;
        writeln!(
            f,
            "{n_rows} row{} in {n_batches} batch{}, padded/real {:.3}, {}; {} on the CPU alone",
            if n_rows == 1 { "" } else { "s" },
            plural(n_batches),
            self.totals.padded_over_real(),
            Seconds(seconds),
            Seconds(cpu_seconds)
        )?;
        self.reasons.iter().try_for_each(|reason| writeln!(f, "because {reason}"))
    }
}

impl RoutingPlan {
    fn parts(&self, pieces: &[PlannedPiece]) -> String {
        let part = |it: &PlannedPiece| {
            let program = it.bucket.and_then(|nth| self.buckets.get(nth));
            let whole = program.map_or_else(|| "the CPU".to_owned(), |it| it.bucket.to_string());
            let place = if program.is_some() { "in" } else { "on" };
            if pieces.len() == 1 { whole } else { format!("{} {place} {whole}", it.n_rows) }
        };
        pieces.iter().map(part).collect::<Vec<_>>().join(" + ")
    }
}

fn name(route: Route) -> &'static str {
    match route {
        Route::Exact => "exact in",
        Route::Padded => "padded to",
        Route::Split => "split:",
        Route::Fallback => "on",
        Route::Hybrid => "hybrid:",
    }
}
