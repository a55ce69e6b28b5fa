//! What a run says about itself.

use std::fmt;
use std::ops::AddAssign;
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

/// How ready the backend was; the readiest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// What crossed from the host to a device for a request. Nothing does where programs run on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Copies that were made.
    pub n_copies: usize,
    /// Bytes of them, with the gaps between inputs.
    pub n_bytes: usize,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.n_copies += other.n_copies;
        self.n_bytes += other.n_bytes;
    }
}

/// Why a request, or a part of it, ran on another backend than the preferred one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FallbackReason {
    /// No program that is ready holds it.
    NotReady,
    /// No program that is ready holds it; one is queued or compiled in the background.
    Compiling,
    /// No program that is ready holds it; the compile of one failed.
    CompileFailed,
    /// Programs would run more padding than is allowed.
    Padding,
    /// By the prices it costs less there.
    Cheaper,
    /// Its program could not be loaded again, or not be made: [`Fallback::error`] says why.
    NotLoaded,
    /// The device had no room for it: [`Fallback::error`] says how much was wanted.
    DeviceMemory,
}

impl fmt::Display for FallbackReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "no program was ready",
            Self::Compiling => "its program was being compiled",
            Self::CompileFailed => "its program could not be compiled",
            Self::Padding => "programs would have run too much padding",
            Self::Cheaper => "that was cheaper",
            Self::NotLoaded => "its program could not be loaded",
            Self::DeviceMemory => "the device had no room for it",
        })
    }
}

/// The part of another backend than the preferred one in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// The backend.
    pub backend: BackendId,
    /// Why it answered.
    pub reason: FallbackReason,
    /// Rows that it answered; of a request without rows, 1.
    pub n_rows: usize,
    /// The words of the preferred backend's error, where it tried and failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a run says about itself. Making one allocates nothing, unless it tells an error in words.
///
/// Why a preferred backend never serves is known before any run: see [`crate::registry::Opened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// The backend that answered; of two, the preferred one.
    pub backend: BackendId,
    /// The part of another backend than the preferred one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
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
    /// What crossed to a device.
    #[serde(default)]
    pub sent: Sent,
    /// Where the time went.
    pub times: StageTimes,
    /// Whether another backend ran for others meanwhile, or a program was compiled: then the time is not what the run
    /// costs.
    #[serde(default)]
    pub disturbed: bool,
}

impl RunReport {
    /// The report of a CPU backend that took the request as it came.
    #[must_use]
    pub const fn exact_on_host(backend: BackendId, tier: Tier, times: StageTimes) -> Self {
        Self {
            backend,
            fallback: None,
            route: Route::Exact,
            tier,
            binding: BindingMode::Host,
            replayed: false,
            n_pieces: 1,
            n_padded_rows: 0,
            sent: Sent { n_copies: 0, n_bytes: 0 },
            times,
            disturbed: false,
        }
    }
}
