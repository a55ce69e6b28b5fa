//! What a run says about itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::BackendId;

/// What happened to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Route {
    /// It ran in the shape that it came in.
    Exact,
    /// It was padded to a larger shape.
    Padded,
    /// It ran in several pieces.
    Split,
    /// It ran on another backend than the preferred one.
    Fallback,
    /// It ran in part on the preferred backend and in part on another.
    Hybrid,
}

/// How ready the backend was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Tier {
    /// Shape and binding were those of the session's last run.
    Rebind,
    /// The program was in memory; bindings were made anew.
    Cached,
    /// The program was loaded or compiled first.
    Standard,
}

/// Where inputs and outputs were while the program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BindingMode {
    /// In host memory, as a CPU backend takes them.
    Host,
    /// At the caller's own device pointers.
    DirectBind,
    /// In the session's own buffers, which keep their place from run to run.
    Staged,
}

/// Where a run's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTimes {
    /// Getting inputs to where the program reads them: conversion, padding, copies.
    pub prepare: Duration,
    /// The program itself.
    pub run: Duration,
    /// Getting outputs to the caller: slicing, copies.
    pub finish: Duration,
}

/// What a run says about itself. Making one allocates nothing.
///
/// Why a preferred backend did not serve is known before any run: see [`crate::registry::Opened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The backend that answered.
    pub backend: BackendId,
    /// What happened to the request.
    pub route: Route,
    /// How ready the backend was.
    pub tier: Tier,
    /// Where inputs and outputs were.
    pub binding: BindingMode,
    /// Whether a captured graph was replayed.
    pub replayed: bool,
    /// Programs that ran one after the other to answer: more than one for a request that was split.
    pub n_pieces: usize,
    /// Rows that were padding.
    pub n_padded_rows: usize,
    /// Where the time went.
    pub times: StageTimes,
}

impl RunReport {
    /// The report of a CPU backend that took the request as it came.
    #[must_use]
    pub const fn exact_on_host(backend: BackendId, tier: Tier, times: StageTimes) -> Self {
        Self {
            backend,
            route: Route::Exact,
            tier,
            binding: BindingMode::Host,
            replayed: false,
            n_pieces: 1,
            n_padded_rows: 0,
            times,
        }
    }
}
