//! What a plan may spend.

use serde::{Deserialize, Serialize};

use super::{Policy, Tail};

/// What a plan may spend, and what it is to be good at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanOptions {
    /// Tokens a batch may have, padding counted. 1 gives every item a batch of its own. Where nothing may be compiled,
    /// batches fill resident programs that have more: these run as many tokens in any case.
    pub token_budget: usize,
    /// Which lengths get programs.
    pub lengths: Policy,
    /// Which rows get programs, where requests come as batches. Items are stacked as the token budget
    /// allows instead.
    pub rows: Policy,
    /// What becomes of items that do not fill a batch.
    pub tail: Tail,
    /// Programs there may be.
    pub max_buckets: Option<usize>,
    /// Seconds that compiling may take in all; what is compiled already takes none.
    pub compile_seconds: Option<f64>,
    /// Bytes of device memory that programs may take in all.
    pub device_bytes: Option<u64>,
    /// How much padding a batch may have.
    pub padding: PaddingLimit,
    /// What the plan is to be good at.
    pub objective: Objective,
    /// How often the workload will run. Given, a program has to pay for its compilation in so many runs;
    /// otherwise compilations are counted and not weighed.
    pub n_runs: Option<u64>,
}

/// How much padding a batch may have: as a share, or so few tokens that it does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaddingLimit {
    /// The most of what runs that may be padding, 0 to 1.
    pub share: f64,
    /// Padding that is allowed in any case, in tokens a row.
    pub tokens: usize,
}

/// What a plan is to be good at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// That all work is done soon: items are stacked.
    #[default]
    Throughput,
    /// That each item is answered soon: it runs as it comes, alone.
    Latency,
}

impl PlanOptions {
    /// Batches of so many tokens; all else as by default.
    #[must_use]
    pub fn tokens(token_budget: usize) -> Self {
        Self { token_budget, ..Self::default() }
    }
}

impl Default for PlanOptions {
    /// Batches of 4,096 tokens, eight fitted lengths, four fitted numbers of rows, no limit.
    fn default() -> Self {
        Self {
            token_budget: 4096,
            lengths: Policy::default(),
            rows: Policy::fitted(4),
            tail: Tail::default(),
            max_buckets: None,
            compile_seconds: None,
            device_bytes: None,
            padding: PaddingLimit::NONE,
            objective: Objective::default(),
            n_runs: None,
        }
    }
}

impl PaddingLimit {
    /// Any padding is allowed.
    pub const NONE: Self = Self { share: 1.0, tokens: 0 };

    /// Whether `n_padded` tokens may run for `n_real`, in so many rows.
    #[must_use]
    pub fn allows(&self, n_real: f64, n_padded: f64, n_rows: usize) -> bool {
        // Averages of integers are off by less than this.
        let padding = n_padded - n_real - 1e-6;
        padding <= self.share * n_padded || padding <= (self.tokens * n_rows) as f64
    }

    /// The shortest item that may be padded to `length`, in tokens.
    #[must_use]
    pub fn shortest(&self, length: usize) -> usize {
        let share = (self.share.clamp(0.0, 1.0) * length as f64).floor() as usize;
        length.saturating_sub(share.max(self.tokens))
    }
}

impl Default for PaddingLimit {
    fn default() -> Self {
        Self::NONE
    }
}
