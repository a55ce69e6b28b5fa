//! What an encoding says about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Serialize, Serializer};
use shapeyard_core::backend::Waiting;
use shapeyard_core::plan::Totals;
use shapeyard_core::plan::calibrate::{Setting, Split};
use shapeyard_core::plan::prices::Measurements;
use shapeyard_core::{BackendId, FallbackReason, Route, RunReport, StageTimes, Tier};

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

/// Batches that were answered alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Routed {
    /// The backend that answered; of two, the preferred one.
    pub backend: BackendId,
    /// What happened to them.
    pub route: Route,
    /// Who answered, in whole or in part, instead of the preferred backend, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<(BackendId, FallbackReason)>,
    /// The words of the first of the preferred backend's errors, where it tried and failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many batches.
    pub n_batches: usize,
    /// Real tokens of all.
    pub n_real_tokens: usize,
}

/// Counts batches by what happened to them.
#[derive(Debug, Default)]
pub(crate) struct Routes(pub(crate) Vec<Routed>);

impl Routes {
    pub(crate) fn count(&mut self, report: &RunReport, n_real_tokens: usize) {
        let fallback = report.fallback.as_ref().map(|it| (it.backend.clone(), it.reason));
        let is_alike = |it: &&mut Routed| {
            it.backend == report.backend && it.route == report.route && it.fallback == fallback
        };
        if let Some(routed) = self.0.iter_mut().find(is_alike) {
            routed.n_batches += 1;
            routed.n_real_tokens += n_real_tokens;
            return;
        }
        let (backend, route) = (report.backend.clone(), report.route);
        let error = report.fallback.as_ref().and_then(|it| it.error.clone());
        self.0.push(Routed { backend, route, fallback, error, n_batches: 1, n_real_tokens });
    }

    /// The backend that answered everything, if one did.
    pub(crate) fn only_backend(&self) -> Option<BackendId> {
        let first = self.0.first()?;
        let is_alone = |it: &Routed| it.backend == first.backend && it.route != Route::Hybrid;
        self.0.iter().all(is_alone).then(|| first.backend.clone())
    }
}

/// What batches took, while all sessions were at work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured(Vec<Measurements>);

impl Measured {
    /// Adds a batch that one of the split's sessions ran, unless its time says nothing about the price.
    pub(crate) fn add(&mut self, split: Split, (rows, length): (usize, usize), report: &RunReport) {
        let backend = match (report.route, &report.fallback) {
            _ if report.disturbed => return,
            (Route::Exact, _) => &report.backend,
            (Route::Fallback, Some(fallback)) => &fallback.backend,
            // What ran then had other shapes, or took parts of the time in two places.
            _ => return,
        };
        let at = self.0.iter().position(|it| it.backend == *backend).unwrap_or_else(|| {
            self.0.push(Measurements::new(backend.clone()));
            self.0.len() - 1
        });
        let StageTimes { prepare, run, finish } = report.times;
        // The others got as much done meanwhile.
        let seconds = (prepare + run + finish).as_secs_f64() / split.n_sessions.max(1) as f64;
        self.0[at].of(split).runs.record(rows, length, seconds);
    }

    /// All of it, by backend.
    pub(crate) fn by_backend(self) -> Vec<Measurements> {
        self.0
    }
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
    /// Filling batches and pooling vectors.
    #[serde(rename = "pool_seconds", serialize_with = "seconds")]
    pub pool: Duration,
}

fn seconds<S: Serializer>(time: &Duration, into: S) -> Result<S::Ok, S::Error> {
    into.serialize_f64(time.as_secs_f64())
}

impl EncodeTimes {
    pub(crate) fn add(&mut self, spent: &Spent) {
        self.model += spent.model;
        self.transfer += spent.transfer;
        self.pool += spent.pool;
    }
}

/// Texts that equal others, and did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repeated {
    /// How many.
    pub n_items: usize,
    /// The tokens of all.
    pub n_tokens: usize,
}

/// What an encoding says about itself.
#[derive(Clone, Debug, Serialize)]
pub struct EncodeReport {
    /// The backend that answered; of two, the preferred one.
    pub backend: BackendId,
    /// Which batches ran where, and why.
    pub routes: Vec<Routed>,
    /// How many batches met the backend in which readiness.
    pub tiers: BTreeMap<Tier, usize>,
    /// The setting that the work ran with after calibration.
    pub setting: Setting,
    /// What its sessions' threads did while they waited for each other.
    pub waiting: Waiting,
    /// What a calibration tried, in order; empty where the setting was given or the work too small.
    pub tried: Vec<Tried>,
    /// Texts, batches and tokens that ran.
    pub totals: Totals,
    /// What got the vectors of an equal text.
    pub repeated: Repeated,
    /// Where the time went.
    pub times: EncodeTimes,
    /// Whether it was told to stop before all was done.
    pub interrupted: bool,
    /// What batches took that ran in the shape that they came in, by the backend that ran them, while neither another
    /// backend nor a compiler was at work: prices can be [refined](Measurements::refine) with it.
    #[serde(skip)]
    pub measured: Vec<Measurements>,
}

impl EncodeReport {
    /// Real tokens that ran a second, over calibration and run.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        rate(self.totals.n_real_tokens, self.times.calibrate + self.times.run)
    }

    /// Texts that got their vectors a second, over calibration and run.
    #[must_use]
    pub fn items_per_second(&self) -> f64 {
        rate(self.totals.n_items + self.repeated.n_items, self.times.calibrate + self.times.run)
    }
}

pub(crate) fn rate(n: usize, elapsed: Duration) -> f64 {
    n as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_beside_others_is_no_price() {
        const BACKEND: BackendId = BackendId::new("example");
        let times = StageTimes { run: Duration::from_millis(8), ..StageTimes::default() };
        let alone = RunReport::exact_on_host(BACKEND, Tier::Cached, times);
        let disturbed = RunReport { disturbed: true, ..alone.clone() };
        let split = Split { n_sessions: 2, n_threads: 1 };
        let mut measured = Measured::default();
        measured.add(split, (4, 16), &disturbed);
        assert!(measured.clone().by_backend().is_empty());
        measured.add(split, (4, 16), &alone);
        measured.add(split, (4, 16), &disturbed);
        let [of] = &mut measured.by_backend()[..] else { panic!("one backend ran") };
        assert_eq!(of.of(split).runs.n_runs(), 1.0);
        assert_eq!(of.of(split).runs.mean(), Some(4e-3));
    }
}
