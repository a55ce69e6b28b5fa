//! Calls of microseconds, timed one by one in interleaved rounds.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::allocations;
use crate::contest::{Contest, Facts, Measured, Role};
use crate::measure::{Percentiles, median, order};

/// Unmeasured calls before each round: another contender's memory is in the caches then.
const N_WARM: usize = 20;
/// Calls whose requests for memory are counted.
const N_COUNTED: usize = 100;

/// What a call adds to that of the contender beside it, over all rounds.
pub(super) const ADDS: &str = "adds µs";

/// One way to make a call.
pub(super) struct Contender<'a> {
    name: &'static str,
    role: Role,
    /// The contender that it is compared with; a rival's own place.
    beside: usize,
    call: Box<dyn FnMut() -> Result<()> + 'a>,
}

impl<'a> Contender<'a> {
    /// One that ours are compared with.
    pub(super) fn rival(name: &'static str, call: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { name, role: Role::Rival, beside: usize::MAX, call: Box::new(call) }
    }

    /// One of ours, compared with the one at `beside`.
    pub(super) fn ours(
        name: &'static str,
        beside: usize,
        call: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self { name, role: Role::Ours, beside, call: Box::new(call) }
    }

    /// One that says by how much equal calls differ.
    pub(super) fn control(
        name: &'static str,
        beside: usize,
        call: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self { name, role: Role::Yardstick, beside, call: Box::new(call) }
    }

    /// The times of so many calls, in seconds.
    fn round(&mut self, n_calls: usize, times: &mut Vec<f64>) -> Result<()> {
        times.clear();
        for _ in 0..N_WARM.min(n_calls) {
            (self.call)()?;
        }
        for _ in 0..n_calls {
            let start = Instant::now();
            (self.call)()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn allocations_per_call(&mut self) -> Result<f64> {
        let (calls, n) = allocations::during(|| (0..N_COUNTED).try_for_each(|_| (self.call)()));
        calls.map(|()| n as f64 / N_COUNTED as f64)
    }
}

/// Times every call; a round's time is the median of its calls.
pub(super) fn run(
    model: &'static str,
    (n_rounds, n_calls): (usize, usize),
    mut contenders: Vec<Contender<'_>>,
) -> Result<Contest> {
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
    let mut measured = Vec::with_capacity(contenders.len());
    for (at, contender) in contenders.iter_mut().enumerate() {
        let beside = medians.get(contender.beside);
        let adds = beside.map(|beside| adds(&medians[at], beside));
        let more = adds.map_or_else(Default::default, |adds| {
            let names = [ADDS, "adds p10", "adds p90"].map(str::to_owned);
            names.into_iter().zip([adds.median, adds.p10, adds.p90]).collect()
        });
        let allocations = Some(contender.allocations_per_call()?);
        measured.push(Measured {
            calls: Some(Percentiles::of(&all[at])),
            facts: Facts { allocations, more, ..Facts::default() },
            ..Measured::new(contender.name, contender.role, medians[at].clone())
        });
    }
    for (at, contender) in contenders.iter().enumerate() {
        measured[at].beside = contenders.get(contender.beside).map(|it| it.name.to_owned());
    }
    let (name, title) =
        (model.to_owned(), format!("{n_calls} calls a round, each timed by itself"));
    Ok(Contest { name, title, n_rounds, contenders: measured, ..Contest::default() })
}

/// In microseconds.
fn adds(own: &[f64], beside: &[f64]) -> Percentiles {
    let differences = own.iter().zip(beside).map(|(own, beside)| 1e6 * (own - beside));
    Percentiles::of(&differences.collect::<Vec<f64>>())
}
