//! What an encoding says about itself.

use std::time::Duration;

use serde::{Serialize, Serializer};
use shapeyard_core::BackendId;
use shapeyard_core::plan::Totals;
use shapeyard_core::plan::calibrate::Setting;

use crate::lanes::Spent;

/// One try of a calibration.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Tried {
    /// What was tried.
    #[serde(flatten)]
    pub setting: Setting,
    /// On how many real tokens.
    pub n_tokens: usize,
    /// Real tokens a second.
    pub tokens_per_second: f64,
}

/// Where the time of an encoding went. `calibrate` and `run` are wall-clock time and do not overlap; the
/// others are parts of them, summed over sessions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct EncodeTimes {
    /// Trying settings, on real work.
    #[serde(rename = "calibrate_seconds", serialize_with = "seconds")]
    pub calibrate: Duration,
    /// The rest of the work, with the setting that was found or given.
    #[serde(rename = "run_seconds", serialize_with = "seconds")]
    pub run: Duration,
    /// Making sessions: a part of `calibrate` where that made them, else beside both.
    #[serde(rename = "sessions_seconds", serialize_with = "seconds")]
    pub sessions: Duration,
    /// Inside the model.
    #[serde(rename = "model_seconds", serialize_with = "seconds")]
    pub model: Duration,
    /// Moving inputs and outputs in and out of the backend.
    #[serde(rename = "transfer_seconds", serialize_with = "seconds")]
    pub transfer: Duration,
    /// Filling batches and pooling vectors, while sessions work.
    #[serde(rename = "pool_seconds", serialize_with = "seconds")]
    pub pool: Duration,
    /// Requests waiting for a session.
    #[serde(rename = "queued_seconds", serialize_with = "seconds")]
    pub queued: Duration,
}

fn seconds<S: Serializer>(time: &Duration, into: S) -> Result<S::Ok, S::Error> {
    into.serialize_f64(time.as_secs_f64())
}

impl EncodeTimes {
    pub(crate) fn add(&mut self, spent: &Spent) {
        self.model += spent.model;
        self.transfer += spent.transfer;
        self.pool += spent.pool;
        self.queued += spent.queued;
    }
}

/// What an encoding says about itself.
#[derive(Clone, Debug, Serialize)]
pub struct EncodeReport {
    /// The backend that answered.
    pub backend: BackendId,
    /// The setting that the work ran with after calibration.
    pub setting: Setting,
    /// What a calibration tried, in order; empty where the setting was given or the work too small.
    pub tried: Vec<Tried>,
    /// Texts, batches and tokens.
    pub totals: Totals,
    /// Where the time went.
    pub times: EncodeTimes,
    /// Whether it was told to stop before all was done.
    pub interrupted: bool,
}

impl EncodeReport {
    /// Real tokens a second, over calibration and run.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        rate(self.totals.n_real_tokens, self.times.calibrate + self.times.run)
    }

    /// Texts a second, over calibration and run.
    #[must_use]
    pub fn items_per_second(&self) -> f64 {
        rate(self.totals.n_items, self.times.calibrate + self.times.run)
    }
}

pub(crate) fn rate(n: usize, elapsed: Duration) -> f64 {
    n as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}
