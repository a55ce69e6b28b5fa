//! Contests of short calls, timed one by one in interleaved rounds.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::contest::{Contest, Facts, Measured, Role};
use crate::measure::{Percentiles, median, order};

/// Unmeasured calls before each round: another contender's memory is in the caches then.
const N_WARM: usize = 20;

/// What a call adds to that of the contender beside it, over all rounds.
pub const ADDS: &str = "adds µs";

/// Makes so many calls and puts what each took, in seconds, into the list, which is empty.
type Round<'a> = Box<dyn FnMut(usize, &mut Vec<f64>) -> Result<()> + 'a>;

/// One way to make a call.
pub struct Caller<'a> {
    name: String,
    role: Role,
    /// The contender that it is compared with.
    beside: Option<usize>,
    round: Round<'a>,
}

impl std::fmt::Debug for Caller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Caller<'a> {
    /// One that ours are compared with.
    pub fn rival(name: impl Into<String>, call: impl FnMut() -> Result<()> + 'a) -> Self {
        Self::of_rounds(name, Role::Rival, None, in_process(call))
    }

    /// One of ours, compared with the one at `beside`.
    pub fn ours(
        name: impl Into<String>,
        beside: usize,
        call: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self::of_rounds(name, Role::Ours, Some(beside), in_process(call))
    }

    /// One that says by how much equal calls differ.
    pub fn control(
        name: impl Into<String>,
        beside: usize,
        call: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self::of_rounds(name, Role::Yardstick, Some(beside), in_process(call))
    }

    /// One whose calls are made and timed elsewhere: `round` makes so many and adds what each took, in
    /// seconds, to the list.
    pub fn of_rounds(
        name: impl Into<String>,
        role: Role,
        beside: Option<usize>,
        round: impl FnMut(usize, &mut Vec<f64>) -> Result<()> + 'a,
    ) -> Self {
        Self { name: name.into(), role, beside, round: Box::new(round) }
    }

    /// Makes so many calls, and [`n_warm`] before that do not count.
    ///
    /// # Errors
    ///
    /// A call's own, with the caller's name.
    pub fn round(&mut self, n_calls: usize, times: &mut Vec<f64>) -> Result<()> {
        times.clear();
        (self.round)(n_calls, times).with_context(|| format!("`{}` failed", self.name))?;
        ensure!(times.len() == n_calls, "`{}` made {} calls", self.name, times.len());
        Ok(())
    }
}

/// Calls that are made before each round and do not count.
#[must_use]
pub fn n_warm(n_calls: usize) -> usize {
    N_WARM.min(n_calls)
}

/// Makes calls in this process and times each.
pub fn in_process(
    mut call: impl FnMut() -> Result<()>,
) -> impl FnMut(usize, &mut Vec<f64>) -> Result<()> {
    move |n_calls, times| {
        (0..n_warm(n_calls)).try_for_each(|_| call())?;
        for _ in 0..n_calls {
            let start = Instant::now();
            call()?;
            times.push(start.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Times every call; a round's time is the median of its calls.
///
/// # Errors
///
/// The first of a caller's.
pub fn run(
    name: &str,
    title: &str,
    (n_rounds, n_calls): (usize, usize),
    callers: &mut [Caller<'_>],
) -> Result<Contest> {
    eprintln!("{name}: {n_rounds} rounds of {n_calls} calls, {} contenders", callers.len());
    let mut all = vec![Vec::with_capacity(n_rounds * n_calls); callers.len()];
    let mut medians = vec![Vec::with_capacity(n_rounds); callers.len()];
    let mut times = Vec::with_capacity(n_calls);
    for round in 0..n_rounds {
        for at in order(round, callers.len()) {
            callers[at].round(n_calls, &mut times)?;
            all[at].extend_from_slice(&times);
            medians[at].push(median(&times));
        }
    }
    let measured = |(at, caller): (usize, &Caller<'_>)| {
        let beside = caller.beside.and_then(|at| Some((callers.get(at)?, medians.get(at)?)));
        let more = beside.map(|(_, beside)| adds(&medians[at], beside)).unwrap_or_default();
        Measured {
            calls: Some(Percentiles::of(&all[at])),
            facts: Facts { more, ..Facts::default() },
            beside: beside.map(|(beside, _)| beside.name.clone()),
            ..Measured::new(&caller.name, caller.role, medians[at].clone())
        }
    };
    let contenders = callers.iter().enumerate().map(measured).collect();
    let n_warm = n_warm(n_calls);
    let title = format!(
        "{title}; {n_calls} calls a round, each timed by itself, after {n_warm} that do not count"
    );
    Ok(Contest { name: name.to_owned(), title, n_rounds, contenders, ..Contest::default() })
}

fn adds(own: &[f64], beside: &[f64]) -> std::collections::BTreeMap<String, f64> {
    let differences = own.iter().zip(beside).map(|(own, beside)| 1e6 * (own - beside));
    let spread = Percentiles::of(&differences.collect::<Vec<f64>>());
    let names = [ADDS, "adds p10", "adds p90"].map(str::to_owned);
    names.into_iter().zip([spread.median, spread.p10, spread.p90]).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn every_caller_is_called_as_often_and_compared_with_whom_it_names() {
        let counts = [const { Cell::new(0) }; 2];
        let count = |at: usize| {
            let counts = &counts;
            move || {
                counts[at].set(counts[at].get() + 1);
                Ok(())
            }
        };
        let mut callers = [Caller::rival("theirs", count(0)), Caller::ours("ours", 0, count(1))];
        let contest = run("test", "", (3, 2), &mut callers).unwrap();
        assert_eq!(counts.each_ref().map(Cell::get), [3 * (2 + 2); 2]);
        assert_eq!(contest.contenders[1].beside.as_deref(), Some("theirs"));
        assert_eq!(contest.contenders[1].seconds.len(), 3);
        assert_eq!(contest.contenders[1].calls.unwrap().n, 6);
        assert!(contest.contenders[1].facts.more.contains_key(ADDS));
    }
}
