//! Where a model's prices are kept.

use anyhow::Result;
use shapeyard_cache::{MeasuredOf, Store};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, Status};

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
