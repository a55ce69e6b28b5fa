//! Which programs a workload is worth, and where every batch of it runs.
//!
//! 1. The policies name lengths and rows (`classes`); a program for each is a candidate, beside those
//!    that are there already. Fitted lengths are tried in every number up to the one allowed.
//! 2. Every batch is routed as cheaply as the prices say (`route`): whole, padded, in pieces, on the CPU, or
//!    part here and part there.
//! 3. Programs that cost more than they save, or more than may be spent, are taken out one at a time, the
//!    one that is missed least first, and its batches routed anew (`choose`). Items are then stacked anew
//!    for the lengths that stayed, while that makes the plan cheaper.
//!
//! The result never costs more than running everything on the CPU would.

mod choose;
mod classes;
mod explain;
mod items;
mod requests;
mod route;

use std::cmp::Reverse;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use choose::{Chosen, Why};
use classes::{Candidates, Given};

use super::{Bucket, InvalidSteps, PlanOptions, Prices, Work, Workload};
use crate::Route;

/// What is there before a plan is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stock {
    /// Programs that are compiled.
    pub compiled: Vec<Bucket>,
    /// Programs that are loaded, whether or not they are named among the compiled ones.
    pub resident: Vec<Bucket>,
    /// Whether the CPU has loaded the model.
    pub cpu_is_loaded: bool,
}

/// Where every batch of a workload runs, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoutingPlan {
    /// Programs that batches run in, longest rows first.
    pub buckets: Vec<PlannedBucket>,
    /// What runs, longest rows first; of requests, those of most rows first, and of equally many the longest. The
    /// rows of all batches, one after the other, are the workload's rows in this order.
    pub batches: Vec<PlannedBatches>,
    /// Sums over the batches.
    pub totals: RoutingTotals,
    /// What was decided about the plan as a whole, in words.
    pub reasons: Vec<String>,
}

/// A program, what it serves and what it costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedBucket {
    /// Its shape.
    pub bucket: Bucket,
    /// How often it runs.
    pub n_runs: u64,
    /// Real tokens that it serves.
    pub n_real_tokens: u64,
    /// Tokens that it runs, padding counted.
    pub n_padded_tokens: u64,
    /// Real tokens that it serves, as a share of all, 0 to 1.
    pub share: f64,
    /// Seconds that its runs take, loading counted.
    pub seconds: f64,
    /// Of these, loading; 0 where it is resident.
    pub load_seconds: f64,
    /// Seconds that compiling takes; 0 where it is compiled.
    pub compile_seconds: f64,
    /// Bytes of device memory.
    pub n_bytes: u64,
    /// Seconds that one pass over the workload saves by it beside the CPU, whose load counts where it is saved;
    /// negative where others had to be kept.
    pub saved_seconds: f64,
    /// After how many passes its compilation has paid; `None` is never.
    pub break_even_runs: Option<u64>,
    /// Why it is there, in words.
    pub reason: String,
}

/// Batches that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedBatches {
    /// How many.
    pub n_batches: u64,
    /// Rows of each.
    pub n_rows: usize,
    /// The longest row, in tokens.
    pub length: usize,
    /// What happens to each.
    pub route: Route,
    /// What each runs as; rows are taken in order.
    pub pieces: Vec<PlannedPiece>,
    /// Real tokens of all.
    pub n_real_tokens: u64,
    /// Tokens that run for all, padding counted.
    pub n_padded_tokens: u64,
    /// Seconds for all, no loading counted.
    pub seconds: f64,
    /// Why, in words.
    pub reason: String,
}

/// A part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPiece {
    /// The position of its program in [`RoutingPlan::buckets`]; `None` runs on the CPU, without padding.
    pub bucket: Option<usize>,
    /// Rows that it takes.
    pub n_rows: usize,
}

/// What a routing plan holds in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoutingTotals {
    /// Rows served.
    pub n_rows: u64,
    /// Batches run.
    pub n_batches: u64,
    /// Real tokens.
    pub n_real_tokens: u64,
    /// Tokens run, padding counted.
    pub n_padded_tokens: u64,
    /// Real tokens that run on the CPU.
    pub n_cpu_tokens: u64,
    /// Seconds, loading counted.
    pub seconds: f64,
    /// Seconds if everything ran on the CPU, loading counted.
    pub cpu_seconds: f64,
    /// Seconds of compiling.
    pub compile_seconds: f64,
    /// Bytes of device memory.
    pub n_bytes: u64,
    /// After how many passes over the workload all compiling has paid; `None` is never.
    pub break_even_runs: Option<u64>,
}

impl RoutingTotals {
    /// Tokens that run for every real one; 1 for no work.
    #[must_use]
    pub fn padded_over_real(&self) -> f64 {
        match self.n_real_tokens {
            0 => 1.0,
            real => self.n_padded_tokens as f64 / real as f64,
        }
    }
}

/// Plans a workload: which programs it is worth, and where every batch runs. Pure.
///
/// # Errors
///
/// [`InvalidSteps`] when a policy names no extents, or more shapes than anybody compiles for.
pub fn plan(
    workload: &Workload,
    options: &PlanOptions,
    prices: &Prices,
    stock: &Stock,
) -> Result<RoutingPlan, InvalidSteps> {
    let given = Given::new(workload, options, prices, stock);
    let mut best: Option<(Candidates, Chosen)> = None;
    let mut tried: Vec<Tried> = Vec::new();
    for mut lengths in given.proposals()? {
        let (mut n_lengths, mut dropped) = (usize::MAX, Vec::new());
        tried.push(Tried { n_lengths: lengths.len(), seconds: f64::INFINITY, limit: None });
        while lengths.len() < n_lengths {
            let found = given.candidates(&lengths)?;
            let all = vec![true; found.programs.len()];
            let chosen = choose::choose(&found, &given, all, dropped);
            n_lengths = lengths.len();
            lengths = used_lengths(&found, &chosen, &lengths);
            dropped = chosen.dropped.clone();
            if let Some(tried) = tried.last_mut() {
                tried.seconds = tried.seconds.min(chosen.seconds);
                tried.limit = tried.limit.or(chosen.limit());
            }
            if best.as_ref().is_none_or(|(_, best)| chosen.seconds < best.seconds) {
                best = Some((found, chosen));
            }
            if lengths.is_empty() {
                break;
            }
        }
    }
    let (mut found, mut chosen) = best.unwrap_or_default();
    if let Some(classes) = given.exactly(&found) {
        let used = chosen.used(found.programs.len());
        found = found.with_classes(classes);
        chosen = choose::choose(&found, &given, used, chosen.dropped);
    }
    let mut plan = explain::written(&found, &chosen, &given);
    if !plan.buckets.is_empty() {
        plan.reasons.extend(explain::number_of_lengths(&tried, options));
    }
    Ok(plan)
}

/// Lengths to choose from, so many that they were tried.
#[derive(Debug)]
struct Tried {
    n_lengths: usize,
    /// Seconds of the best plan.
    seconds: f64,
    /// Why not all of them got programs, if a limit kept some from it.
    limit: Option<Why>,
}

/// Of these lengths, those of programs that batches run in.
fn used_lengths(found: &Candidates, chosen: &Chosen, lengths: &[usize]) -> Vec<usize> {
    let is_used = chosen.used(found.programs.len());
    let used = found.programs.iter().zip(is_used).filter(|(_, is_used)| *is_used);
    let used: HashSet<usize> = used.map(|(program, _)| program.length).collect();
    lengths.iter().copied().filter(|length| used.contains(length)).collect()
}

impl RoutingPlan {
    /// The rows of every batch, as positions in [`Workload::lengths()`]; batches in the plan's order.
    #[must_use]
    pub fn rows(&self, workload: &Workload) -> Vec<(usize, Vec<usize>)> {
        let lengths = workload.lengths();
        let order = match &workload.work {
            Work::Requests(requests) => requests::order(requests),
            _ => {
                let mut order: Vec<usize> = (0..lengths.len()).collect();
                order.sort_by_key(|&item| Reverse(lengths[item]));
                order
            }
        };
        let mut rest = order.as_slice();
        let mut rows = Vec::new();
        for (nth, batches) in self.batches.iter().enumerate() {
            for _ in 0..batches.n_batches {
                let (taken, later) = rest.split_at(batches.n_rows.min(rest.len()));
                rows.push((nth, taken.to_vec()));
                rest = later;
            }
        }
        rows
    }
}
