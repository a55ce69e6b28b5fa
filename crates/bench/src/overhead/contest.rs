//! Calls of microseconds, timed one by one in interleaved rounds.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::allocations;
use crate::measure::{median, order, quantile};

/// Unmeasured calls before each round: another contender's memory is in the caches then.
const N_WARM: usize = 20;
/// Calls whose requests for memory are counted.
const N_COUNTED: usize = 100;

/// One way to make a call.
pub(super) struct Contender<'a> {
    name: &'static str,
    /// The contender that it is compared with.
    beside: usize,
    call: Box<dyn FnMut() -> Result<()> + 'a>,
}

impl<'a> Contender<'a> {
    /// One that others are compared with, or that is compared with the one at `beside`.
    pub(super) fn new(
        name: &'static str,
        beside: usize,
        call: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self { name, beside, call: Box::new(call) }
    }

    /// The times of so many calls, in microseconds.
    fn round(&mut self, n_calls: usize, times: &mut Vec<f64>) -> Result<()> {
        times.clear();
        for _ in 0..N_WARM.min(n_calls) {
            (self.call)()?;
        }
        for _ in 0..n_calls {
            let start = Instant::now();
            (self.call)()?;
            times.push(1e6 * start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn allocations_per_call(&mut self) -> Result<f64> {
        let (calls, n) = allocations::during(|| (0..N_COUNTED).try_for_each(|_| (self.call)()));
        calls.map(|()| n as f64 / N_COUNTED as f64)
    }
}

/// What many measurements say together.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) p10: f64,
    pub(super) p90: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let [median, p10, p90] = [0.5, 0.1, 0.9].map(|share| quantile(&values, share));
        Self { median, p10, p90 }
    }
}

/// What one contender took.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) name: &'static str,
    beside: &'static str,
    /// Over all calls.
    microseconds: Spread,
    /// The medians of the rounds less those of the contender beside, over all rounds.
    pub(super) added_microseconds: Spread,
    /// The same as a ratio.
    pub(super) ratio: Spread,
    pub(super) allocations_per_call: f64,
    round_medians_microseconds: Vec<f64>,
}

/// All contenders for one model.
#[derive(Debug, Serialize)]
pub(super) struct Contest {
    model: &'static str,
    n_rounds: usize,
    n_calls: usize,
    pub(super) contenders: Vec<Measured>,
}

impl Contest {
    pub(super) fn run(
        model: &'static str,
        (n_rounds, n_calls): (usize, usize),
        mut contenders: Vec<Contender<'_>>,
    ) -> Result<Self> {
        eprintln!("{model}: {n_rounds} rounds of {n_calls} calls, {} contenders", contenders.len());
        let mut all = vec![Vec::with_capacity(n_rounds * n_calls); contenders.len()];
        let mut medians = vec![Vec::with_capacity(n_rounds); contenders.len()];
        let mut times = Vec::with_capacity(n_calls);
        for round in 0..n_rounds {
            for at in order(round, contenders.len()) {
                let contender = &mut contenders[at];
                let run = contender.round(n_calls, &mut times);
                run.with_context(|| format!("`{}` failed", contender.name))?;
                all[at].extend_from_slice(&times);
                medians[at].push(median(&times));
            }
        }
        let mut counts = Vec::with_capacity(contenders.len());
        for contender in &mut contenders {
            counts.push(contender.allocations_per_call()?);
        }
        let measured = contenders.iter().zip(all).zip(counts).enumerate();
        let measured = measured.map(|(at, ((contender, all), allocations_per_call))| {
            let beside = contender.beside;
            let pairs = || medians[at].iter().zip(&medians[beside]);
            Measured {
                name: contender.name,
                beside: contenders[beside].name,
                microseconds: Spread::of(all),
                added_microseconds: Spread::of(pairs().map(|(own, other)| own - other).collect()),
                ratio: Spread::of(pairs().map(|(own, other)| own / other).collect()),
                allocations_per_call,
                round_medians_microseconds: medians[at].clone(),
            }
        });
        let contenders = measured.collect();
        Ok(Self { model, n_rounds, n_calls, contenders })
    }

    /// Prints the table that a person reads.
    pub(super) fn print(&self) {
        println!("\n{}: {} rounds of {} calls each", self.model, self.n_rounds, self.n_calls);
        println!(
            "{:>9} {:>8} {:>8}  {:>8} {:>8} {:>8}  {:>6}  {:>6}",
            "median us", "p10", "p90", "adds us", "p10", "p90", "times", "allocs"
        );
        for it in &self.contenders {
            let (own, added) = (it.microseconds, it.added_microseconds);
            let is_rival = it.name == it.beside;
            print!("{:9.2} {:8.2} {:8.2}  ", own.median, own.p10, own.p90);
            if is_rival {
                print!("{:26}  {:6}  ", "", "");
            } else {
                print!("{:8.2} {:8.2} {:8.2}  ", added.median, added.p10, added.p90);
                print!("{:6.3}  ", it.ratio.median);
            }
            let beside = if is_rival { String::new() } else { format!(" (beside: {})", it.beside) };
            println!("{:6.2}  {}{beside}", it.allocations_per_call, it.name);
        }
    }
}
