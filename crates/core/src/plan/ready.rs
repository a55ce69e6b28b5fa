//! Batches over programs that are ready.

use super::prices::PerProgram;
use super::{Bucket, InvalidSteps, PlanOptions, Policy, Prices, Steps, Stock, Workload, plan};

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
/// that is not ready is used.
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
    let lengths = ready.iter().filter_map(|bucket| match workload.length.as_str() {
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
    let stock = Stock { compiled: Vec::new(), resident: ready.to_vec(), cpu_is_loaded: true };
    let routed = plan(workload, &options, &prices, &stock)?;
    let mut batches = Vec::new();
    for (nth, rows) in routed.rows(workload) {
        let mut rest = rows.as_slice();
        for piece in &routed.batches[nth].pieces {
            let (items, later) = rest.split_at(piece.n_rows.min(rest.len()));
            if !items.is_empty() {
                batches.push(ReadyBatch { items: items.to_vec(), bucket: piece.bucket });
            }
            rest = later;
        }
    }
    Ok(OverReady { buckets: routed.buckets.into_iter().map(|it| it.bucket).collect(), batches })
}
