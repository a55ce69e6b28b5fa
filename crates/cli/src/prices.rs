//! Prices of a model: measured here, and kept in the cache.

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{MeasuredOf, Store};
use shapeyard_core::backend::{Backend, Status};
use shapeyard_core::plan::Histogram;
use shapeyard_core::plan::prices::{Choice, Measurements};
use shapeyard_core::registry::Registry;
use shapeyard_core::{BackendId, Model};

use crate::backends;
use crate::human;

/// What was measured of a model on one backend, for work of some lengths.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) backend: BackendId,
    /// When, in milliseconds since 1970.
    pub(crate) measured_at_ms: u64,
    /// How threads are shared out, the prices, and how far they are from what was measured.
    #[serde(flatten)]
    pub(crate) choice: Choice,
    #[serde(skip)]
    pub(crate) all: Measurements,
}

/// What measurements of a model on a backend are kept under here; `None` where the backend cannot be used.
pub(crate) fn measured_of(
    store: &Store,
    model: &Model,
    backend: &dyn Backend,
) -> Result<Option<MeasuredOf>> {
    let Status::Usable { fingerprint, .. } = backend.probe().status else { return Ok(None) };
    let digest = store.digests().of_model(model)?;
    Ok(Some(MeasuredOf::here(digest, backend.id(), fingerprint)))
}

/// What `shapeyard calibrate` found of a model on a backend; `None` where nothing was measured here.
pub(crate) fn measured(
    store: &Store,
    model: &Model,
    backend: &dyn Backend,
    (lengths, token_budget): (&Histogram, usize),
) -> Result<Option<Measured>> {
    let Some(of) = measured_of(store, model, backend)? else { return Ok(None) };
    Ok(store.measurements(&of).and_then(|all| {
        let choice = all.cheapest(lengths, token_budget)?;
        let (backend, measured_at_ms) = (backend.id(), all.measured_at_ms);
        Some(Measured { backend, measured_at_ms, choice, all })
    }))
}

/// Adds what production runs took to what `shapeyard calibrate` found. Where nobody calibrated, nothing is kept.
pub(crate) fn refine(
    store: &Store,
    registry: &Registry,
    model: &Model,
    newer: &[Measurements],
) -> Result<()> {
    for newer in newer {
        let backend = backends::named(registry, &newer.backend)?;
        if let Some(of) = measured_of(store, model, backend.as_ref())? {
            let newer = Measurements { measured_at_ms: human::now_ms(), ..newer.clone() };
            store.refine_measurements(&of, &newer)?;
        }
    }
    Ok(())
}
