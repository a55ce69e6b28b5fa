//! The programs that are there beside those that a plan proposes.

use serde::Serialize;
use shapeyard_core::plan::prices::{PerProgram, break_even};
use shapeyard_core::plan::routing::RoutingTotals;
use shapeyard_core::plan::{
    Bucket, InvalidSteps, PlanOptions, Prices, RoutingPlan, Stock, Workload, plan,
};

/// What a pass takes with the programs that are there, and what the plan would save.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Present {
    /// The programs that are there.
    pub(super) buckets: Vec<Bucket>,
    /// How many of them the work would use.
    pub(super) n_used: usize,
    /// What a pass takes with them.
    pub(super) totals: RoutingTotals,
    /// Seconds that the plan saves a pass beside them.
    pub(super) saved_seconds: f64,
    /// After how many passes the plan's compiles have paid; `None` is never.
    pub(super) break_even_runs: Option<u64>,
}

impl Present {
    /// Plans the same work without a compile.
    pub(super) fn beside(
        planned: &RoutingPlan,
        workload: &Workload,
        options: &PlanOptions,
        prices: &Prices,
        stock: &Stock,
    ) -> Result<Self, InvalidSteps> {
        let options =
            PlanOptions { compile_seconds: Some(0.0), max_buckets: None, ..options.clone() };
        // Where compiling is free, all that is not there would be.
        let compile = PerProgram { fixed: prices.compile.fixed.max(1.0), ..prices.compile };
        let now = plan(workload, &options, &Prices { compile, ..*prices }, stock)?;
        let saved_seconds = now.totals.seconds - planned.totals.seconds;
        Ok(Self {
            buckets: stock.compiled.clone(),
            n_used: now.buckets.len(),
            break_even_runs: break_even(planned.totals.compile_seconds, saved_seconds),
            totals: now.totals,
            saved_seconds,
        })
    }
}
