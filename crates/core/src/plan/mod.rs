//! Plans: what will run where, in which shapes, as data.
//!
//! A plan is pure: the same workload and options give the same plan. It holds no handle, so it can be
//! written down, compared and read by a person.

mod bucket;
pub mod calibrate;
pub mod cover;
mod steps;
pub mod token_budget;

use serde::{Deserialize, Serialize};

pub use bucket::Bucket;
pub use steps::{InvalidSteps, Steps, grid};

use crate::backend::BackendId;

/// Work of varying length: items that are stacked along one symbol and vary along another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The symbol along which items are stacked, such as `batch`.
    pub rows: String,
    /// The symbol along which items vary, such as `sequence`.
    pub length: String,
    /// The items' lengths in tokens, in the caller's order.
    pub lengths: Vec<usize>,
}

/// What a plan may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOptions {
    /// Tokens a batch may have, padding counted. 1 gives every item a batch of its own.
    pub token_budget: usize,
}

/// Items that run together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Positions in [`Workload::lengths`], one a row: where each row's result belongs.
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
        let batches = token_budget::pack(&workload.lengths, options.token_budget);
        let totals = token_budget::totals(&workload.lengths, &batches);
        Self { backend, buckets: Vec::new(), batches, totals }
    }
}
