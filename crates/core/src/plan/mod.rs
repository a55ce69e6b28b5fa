//! Plans: what will run where, in which shapes, as data.
//!
//! A plan is pure: the same workload and options give the same plan. It holds no handle, so it can be
//! written down, compared and read by a person.

mod bucket;
pub mod calibrate;
pub mod cover;
pub mod fitted;
mod histogram;
mod holding;
mod options;
mod policy;
pub mod prices;
mod ready;
pub mod routing;
pub mod steps;
mod table;
pub mod token_budget;
mod traffic;
mod workload;

use serde::{Deserialize, Serialize};

pub use bucket::Bucket;
pub use histogram::Histogram;
pub use options::{Objective, PaddingLimit, PlanOptions};
pub use policy::{InvalidPolicy, Policy, Tail};
pub use prices::Prices;
pub use ready::{OverReady, ReadyBatch, over_allowed, over_ready};
pub use routing::{RoutingPlan, Stock, plan};
pub use steps::{InvalidSteps, Steps, grid};
pub use table::{Routed, RoutingTable, TooManyShapes};
pub use traffic::Traffic;
pub use workload::{InvalidWork, Requests, Work, Workload};

use crate::backend::BackendId;

/// Items that run together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Positions in [`Workload::lengths()`], one a row: where each row's result belongs.
    pub items: Vec<usize>,
    /// The length that all rows are padded to, in tokens.
    pub length: usize,
}

impl Batch {
    /// Tokens that run, padding counted.
    #[must_use]
    pub const fn n_tokens(&self) -> usize {
        self.items.len() * self.length
    }
}

/// What a plan holds in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Items served.
    pub n_items: usize,
    /// Batches run.
    pub n_batches: usize,
    /// Tokens of items.
    pub n_real_tokens: usize,
    /// Tokens run, padding counted.
    pub n_padded_tokens: usize,
}

impl Totals {
    /// The share of tokens run that are padding, 0 to 1.
    #[must_use]
    pub fn padding_share(&self) -> f64 {
        match self.n_padded_tokens {
            0 => 0.0,
            padded => (padded - self.n_real_tokens) as f64 / padded as f64,
        }
    }
}

/// What will run where, in which shapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The backend that the plan is for.
    pub backend: BackendId,
    /// The static programs that the plan wants; none where the backend takes any shape.
    pub buckets: Vec<Bucket>,
    /// What runs, in order.
    pub batches: Vec<Batch>,
    /// Sums over the batches.
    pub totals: Totals,
}

impl Plan {
    /// A plan for a backend that takes any shape: batches under the token budget, no bucket.
    #[must_use]
    pub fn dynamic(backend: BackendId, workload: &Workload, options: &PlanOptions) -> Self {
        let lengths = workload.lengths();
        let batches = token_budget::pack(&lengths, options.token_budget);
        let totals = token_budget::totals(&lengths, &batches);
        Self { backend, buckets: Vec::new(), batches, totals }
    }
}
