//! Which programs stay: those that save more than they cost, within what may be spent.

use super::classes::{Candidates, Given, Program};
use super::route::{Routed, Ways};

/// What was chosen.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    /// How a batch of each class runs, in the classes' order.
    pub(super) routed: Vec<Routed>,
    /// Programs that were taken out although batches ran in them.
    pub(super) dropped: Vec<Dropped>,
    /// Seconds of a pass, loading counted, and compiling if it is weighed.
    pub(super) seconds: f64,
    /// Seconds until the CPU's first run.
    pub(super) cpu_load: f64,
    /// Set where programs would have cost more than the CPU alone: what they would have cost.
    pub(super) refused_seconds: Option<f64>,
}

/// A program that was taken out.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    pub(super) program: Program,
    pub(super) why: Why,
    /// Seconds that the plan costs more without it, loading counted; negative for one that did not pay.
    pub(super) lost_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It costs more than it saves.
    DoesNotPay,
    /// There may not be so many.
    TooMany,
    /// Compiling them takes too long.
    CompilesTooLong,
    /// They do not fit into the device's memory.
    TooLarge,
}

struct Search<'a> {
    found: &'a Candidates,
    given: &'a Given<'a>,
    cpu_load: f64,
    ways: Ways<'a>,
    routed: Vec<Routed>,
    dropped: Vec<Dropped>,
}

/// Chooses among the programs that are `allowed`; `dropped` are those that were taken out before.
pub(super) fn choose(
    found: &Candidates,
    given: &Given<'_>,
    allowed: Vec<bool>,
    dropped: Vec<Dropped>,
) -> Chosen {
    let cpu_load = if given.stock.cpu_is_loaded { 0.0 } else { given.prices.cpu.load };
    let ways = Ways::new(found, given, allowed);
    let routed = ways.route_all();
    let mut search = Search { found, given, cpu_load, ways, routed, dropped };
    search.prune();
    // A way that stayed the cheapest may have had others to choose from. Of ways that cost the same other programs may
    // be taken then, and more of them than are allowed.
    let again = search.ways.route_all();
    let pruned = std::mem::replace(&mut search.routed, again);
    if search.over().is_some() {
        search.routed = pruned;
    }
    let seconds = search.total();
    let on_cpu = search.on_cpu();
    let routed = std::mem::replace(&mut search.routed, on_cpu);
    let cpu_seconds = search.total();
    let refused_seconds = (seconds > cpu_seconds).then_some(seconds);
    let routed = if refused_seconds.is_some() { search.routed } else { routed };
    let seconds = seconds.min(cpu_seconds);
    Chosen { routed, dropped: search.dropped, seconds, cpu_load, refused_seconds }
}

impl Chosen {
    /// Of each of so many programs, whether batches run in it.
    pub(super) fn used(&self, n_programs: usize) -> Vec<bool> {
        used(&self.routed, n_programs)
    }

    /// The limit that took programs out, if one did.
    pub(super) fn limit(&self) -> Option<Why> {
        self.dropped.iter().map(|it| it.why).find(|why| *why != Why::DoesNotPay)
    }

    /// Whether anything runs on the CPU.
    pub(super) fn uses_cpu(&self) -> bool {
        uses_cpu(&self.routed)
    }
}

fn uses_cpu(routed: &[Routed]) -> bool {
    routed.iter().any(|it| it.way.cpu_rows > 0)
}

fn used(routed: &[Routed], n_programs: usize) -> Vec<bool> {
    let mut is_used = vec![false; n_programs];
    let pieces = routed.iter().flat_map(|it| &it.way.pieces);
    pieces.for_each(|&(program, _)| is_used[program] = true);
    is_used
}

impl Search<'_> {
    /// Takes programs out until none costs more than it saves and all limits hold.
    ///
    /// What a program is worth grows as others go, so what was computed before is a lower bound, and most
    /// need not be computed again.
    fn prune(&mut self) {
        let mut worths = vec![f64::NEG_INFINITY; self.found.programs.len()];
        let mut cpu_was_used = self.cpu_is_used();
        loop {
            let over = self.over();
            let relieves = |it: &usize| match over {
                Some(Why::CompilesTooLong) => self.found.programs[*it].compile > 0.0,
                Some(_) => true,
                // What costs nothing to have stays: it may be missed once others go.
                None => self.costs_to_have(*it),
            };
            let candidates: Vec<usize> = self.used().filter(relieves).collect();
            let Some(program) = self.least_worth(&candidates, &mut worths) else { return };
            let worth = worths[program];
            let why = match over {
                Some(over) if worth >= 0.0 => over,
                None if worth > 0.0 => return,
                _ => Why::DoesNotPay,
            };
            self.drop(program, why, worth);
            if self.cpu_is_used() != cpu_was_used {
                // Its load is paid by now, so that the others are worth less.
                cpu_was_used = !cpu_was_used;
                worths.fill(f64::NEG_INFINITY);
            }
        }
    }

    /// The program that is missed least; its worth is known then.
    fn least_worth(&self, candidates: &[usize], worths: &mut [f64]) -> Option<usize> {
        let mut is_known = vec![false; worths.len()];
        loop {
            let least = |a: &usize, b: &usize| worths[*a].total_cmp(&worths[*b]);
            let program = candidates.iter().copied().min_by(least)?;
            if std::mem::replace(&mut is_known[program], true) {
                return Some(program);
            }
            worths[program] = self.worth(program);
        }
    }

    /// Seconds that the plan would cost more without a program.
    fn worth(&self, program: usize) -> f64 {
        let without = self.ways.without(program);
        let (mut more, mut needs_cpu) = (0.0, false);
        for (class, now) in self.found.classes.iter().zip(&self.routed) {
            if uses(now, program) {
                let then = without.route(class);
                more += (then.way.seconds - now.way.seconds) * class.n_batches as f64;
                needs_cpu |= then.way.cpu_rows > 0;
            }
        }
        let cpu_load = if needs_cpu && !self.cpu_is_used() { self.cpu_load } else { 0.0 };
        more + cpu_load - self.fixed(program)
    }

    fn drop(&mut self, program: usize, why: Why, lost_seconds: f64) {
        self.ways = self.ways.without(program);
        for (class, now) in self.found.classes.iter().zip(&mut self.routed) {
            if uses(now, program) {
                *now = self.ways.route(class);
            }
        }
        let program = self.found.programs[program].clone();
        self.dropped.push(Dropped { program, why, lost_seconds });
    }

    /// Positions of the programs that batches run in.
    fn used(&self) -> impl Iterator<Item = usize> {
        let is_used = used(&self.routed, self.found.programs.len());
        is_used.into_iter().enumerate().filter_map(|(program, is_used)| is_used.then_some(program))
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        self.used().map(|program| &self.found.programs[program])
    }

    /// The first limit that does not hold.
    fn over(&self) -> Option<Why> {
        let compile: f64 = self.programs().map(|it| it.compile).sum();
        let n_bytes: u64 = self.programs().map(|it| it.n_bytes).fold(0, u64::saturating_add);
        let over = [
            (
                self.given.options.max_buckets.is_some_and(|most| self.used().count() > most),
                Why::TooMany,
            ),
            (
                self.given.options.compile_seconds.is_some_and(|most| compile > most),
                Why::CompilesTooLong,
            ),
            (self.given.options.device_bytes.is_some_and(|most| n_bytes > most), Why::TooLarge),
        ];
        over.into_iter().find_map(|(is_over, why)| is_over.then_some(why))
    }

    /// Seconds that a program costs however often it runs.
    fn fixed(&self, program: usize) -> f64 {
        let Program { load, compile, .. } = self.found.programs[program];
        load + self.given.options.n_runs.map_or(0.0, |n_runs| compile / n_runs.max(1) as f64)
    }

    fn costs_to_have(&self, program: usize) -> bool {
        let Program { load, compile, .. } = self.found.programs[program];
        load > 0.0 || compile > 0.0
    }

    fn cpu_is_used(&self) -> bool {
        uses_cpu(&self.routed)
    }

    fn total(&self) -> f64 {
        let classes = self.found.classes.iter().zip(&self.routed);
        let runs: f64 = classes.map(|(class, it)| it.way.seconds * class.n_batches as f64).sum();
        let fixed: f64 = self.used().map(|program| self.fixed(program)).sum();
        runs + fixed + if self.cpu_is_used() { self.cpu_load } else { 0.0 }
    }

    fn on_cpu(&self) -> Vec<Routed> {
        let none = Ways::new(self.found, self.given, vec![false; self.found.programs.len()]);
        let pairs = none.route_all().into_iter().zip(&self.routed);
        pairs.map(|(cpu, now)| Routed { device: now.device, ..cpu }).collect()
    }
}

fn uses(routed: &Routed, program: usize) -> bool {
    routed.way.pieces.iter().any(|(it, _)| *it == program)
}
