//! Batches over programs that are ready.

use super::prices::PerProgram;
use super::{
    Bucket, InvalidSteps, PlanOptions, Policy, Prices, Steps, Stock, Work, Workload, plan,
};

/// A workload as programs that are ready run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverReady {
    /// The programs that run, each of them ready.
    pub buckets: Vec<Bucket>,
    /// What runs, in order.
    pub batches: Vec<ReadyBatch>,
}

/// What one run takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyBatch {
    /// Positions in [`Workload::lengths()`], one a row; at least one.
    pub items: Vec<usize>,
    /// The position of its program in [`OverReady::buckets`]; `None` where no program takes it as cheaply as
    /// the CPU, or at all.
    pub bucket: Option<usize>,
}

/// Packs a workload into batches for programs that are ready, and for the CPU where these do not pay. Nothing
/// that is not ready is used. A program runs all its rows in any case, so that batches have as many also where that is
/// more than the token budget, unless that gives every item a batch of its own.
///
/// # Errors
///
/// [`InvalidSteps`] when more programs are ready than a plan looks at.
pub fn over_ready(
    ready: &[Bucket],
    workload: &Workload,
    options: &PlanOptions,
    prices: &Prices,
) -> Result<OverReady, InvalidSteps> {
    let resident = ready.to_vec();
    over(&Stock { resident, ..Stock::default() }, workload, options, prices)
}

/// As [`over_ready`], for programs that may be made when they are met: batches keep to the token budget, however many
/// rows these could have.
///
/// # Errors
///
/// As [`over_ready`].
pub fn over_allowed(
    allowed: &[Bucket],
    workload: &Workload,
    options: &PlanOptions,
    prices: &Prices,
) -> Result<OverReady, InvalidSteps> {
    let compiled = allowed.to_vec();
    over(&Stock { compiled, ..Stock::default() }, workload, options, prices)
}

fn over(
    stock: &Stock,
    workload: &Workload,
    options: &PlanOptions,
    prices: &Prices,
) -> Result<OverReady, InvalidSteps> {
    let shapes = stock.resident.iter().chain(&stock.compiled);
    let lengths = shapes.filter_map(|bucket| match workload.length.as_str() {
        "" => Some(1),
        length => bucket.get(length),
    });
    let options = PlanOptions {
        lengths: Policy::Steps(Steps::List(lengths.collect())),
        compile_seconds: Some(0.0),
        ..options.clone()
    };
    // What compiles at no cost would count as ready.
    let prices = Prices { compile: PerProgram { fixed: 1.0, token: 0.0 }, ..*prices };
    let stock = Stock { cpu_is_loaded: true, ..stock.clone() };
    let routed = plan(workload, &options, &prices, &stock)?;
    let lengths = workload.lengths();
    let mut batches = Vec::new();
    for (nth, rows) in routed.rows(workload) {
        let mut rest = rows.as_slice();
        for piece in &routed.batches[nth].pieces {
            let (items, later) = rest.split_at(piece.n_rows.min(rest.len()));
            let n_rows = match (piece.bucket, &workload.work) {
                (Some(_), _) | (None, Work::Requests(_)) => items.len(),
                // It was stacked for a program that did not pay.
                (None, _) => {
                    let longest = items.first().map_or(1, |&item| lengths[item].max(1));
                    options.token_budget / longest
                }
            };
            batches.extend(items.chunks(n_rows.max(1)).map(|items| {
                let items = items.to_vec();
                ReadyBatch { items, bucket: piece.bucket }
            }));
            rest = later;
        }
    }
    Ok(OverReady { buckets: routed.buckets.into_iter().map(|it| it.bucket).collect(), batches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::calibrate::TOKEN_BUDGETS;

    fn shape(rows: usize, length: usize) -> Bucket {
        Bucket::from_iter([("batch", rows), ("sequence", length)])
    }

    /// Rows of each batch, fewest first, and whether all run in programs.
    fn rows(over: &OverReady) -> (Vec<usize>, bool) {
        let mut rows: Vec<usize> = over.batches.iter().map(|it| it.items.len()).collect();
        rows.sort_unstable();
        (rows, over.batches.iter().all(|it| it.bucket.is_some()))
    }

    #[test]
    fn a_program_that_is_ready_is_filled_under_every_budget() {
        let workload = Workload::items("batch", "sequence", vec![90; 100]);
        let over = |ready: &[Bucket], token_budget| {
            let options = PlanOptions::tokens(token_budget);
            rows(&over_ready(ready, &workload, &options, &Prices::PROGRAMS_FIRST).unwrap())
        };
        for token_budget in TOKEN_BUDGETS[1..].iter().copied().chain([4096, 10_000]) {
            let filled = (vec![20, 40, 40], true);
            assert_eq!(over(&[shape(40, 100)], token_budget), filled, "{token_budget}");
            assert_eq!(over(&[shape(40, 100), shape(7, 300)], token_budget).0.last(), Some(&40));
        }
        assert_eq!(over(&[shape(40, 100)], 1), (vec![1; 100], true), "each alone");
    }

    #[test]
    fn what_the_cpu_takes_keeps_to_the_budget() {
        let workload = Workload::items("batch", "sequence", vec![90; 100]);
        let Prices { device, cpu, .. } = Prices::PROGRAMS_FIRST;
        let cpu_first = Prices { device: cpu, cpu: device, ..Prices::PROGRAMS_FIRST };
        let options = PlanOptions::tokens(512);
        let over = over_ready(&[shape(40, 100)], &workload, &options, &cpu_first).unwrap();
        let (rows, _) = rows(&over);
        assert!(over.batches.iter().all(|it| it.bucket.is_none()));
        assert_eq!((rows.iter().sum::<usize>(), rows.last()), (100, Some(&5)));
    }

    #[test]
    fn what_is_only_allowed_keeps_to_the_budget() {
        let workload = Workload::items("batch", "sequence", vec![90; 100]);
        let (options, prices) = (PlanOptions::tokens(512), Prices::PROGRAMS_FIRST);
        let over = over_allowed(&[shape(40, 100)], &workload, &options, &prices).unwrap();
        assert_eq!(rows(&over), (vec![5; 20], true));
    }
}
