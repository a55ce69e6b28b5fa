//! What a backend compiles, kept in a store: where a backend and the store meet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shapeyard_core::Model;
use shapeyard_core::backend::{
    Artifact, ArtifactSource, Backend, BackendError, BackendId, Cancellation, CompileJob, InUse,
    Optimisation, Recipe,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;

use crate::entry::Entry;
use crate::error::{CacheError, FailureOrigin, StorageError};
use crate::failure::{Failure, Produced};
use crate::key::Key;
use crate::patience::Ask;
use crate::store::{Served, Store};

/// The artifacts that one backend makes of one model, kept in a store.
///
/// Those that are handed out are in use, and not collected, as long as a copy of them lives.
pub struct CachedArtifacts {
    store: Arc<Store>,
    backend: Arc<dyn Backend>,
    model: Arc<Model>,
    digest: Digest,
    optimisation: Optimisation,
    recipe: Recipe,
}

impl std::fmt::Debug for CachedArtifacts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedArtifacts")
            .field("backend", &self.backend.id())
            .field("model", &self.model.path())
            .finish_non_exhaustive()
    }
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// The backend has none to give.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// It was not made here and now: it failed elsewhere or earlier, or waiting for it ended.
    #[error(transparent)]
    Cache(CacheError),
}

impl ArtifactError {
    /// The same as an error of the backend, for callers that know no cache.
    #[must_use]
    pub fn into_backend(self, backend: BackendId, model: &Model) -> BackendError {
        match self {
            Self::Backend(error) => error,
            Self::Cache(CacheError::Cancelled { digest }) => {
                BackendError::Cancelled { what: format!("the wait for {digest}") }
            }
            // Only what would fail again is remembered.
            Self::Cache(CacheError::Failed { record, origin })
                if record.expires_at_ms > record.failed_at_ms =>
            {
                let reason = format!("{} ({origin})", record.text);
                BackendError::Model { backend, model: model.path().to_owned(), reason }
            }
            Self::Cache(error) => {
                BackendError::Library { backend, what: "compile", message: error.to_string() }
            }
        }
    }
}

/// An artifact, and how it came.
#[derive(Clone, Debug)]
pub struct Obtained {
    /// The artifact.
    pub artifact: Artifact,
    /// How it came.
    pub served: Served,
    /// How long this call waited for others. A hit after a wait is what another process compiled.
    pub waited: Duration,
}

impl CachedArtifacts {
    /// The artifacts of `backend` for `model` in `store`. The model's content is read once, or not at all
    /// when the store remembers its digest.
    ///
    /// # Errors
    ///
    /// The model cannot be read, or the backend makes no artifacts.
    pub fn new(
        store: Arc<Store>,
        backend: Arc<dyn Backend>,
        model: Arc<Model>,
        optimisation: Optimisation,
    ) -> Result<Self, BackendError> {
        let digest = store.digests().of_model(&model)?;
        model.assume_digest(digest);
        let recipe = backend.recipe(optimisation)?;
        Ok(Self { store, backend, model, digest, optimisation, recipe })
    }

    /// The model.
    #[must_use]
    pub const fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The key of the artifact for a shape.
    #[must_use]
    pub fn key(&self, bucket: &Bucket) -> Key {
        Key::of(self.digest, self.model.signature(), bucket, &self.recipe)
    }

    /// The shapes whose artifacts are there, smallest names first. Payloads are not read: [`Self::get`] says
    /// whether one is sound.
    ///
    /// # Errors
    ///
    /// The store cannot be listed.
    pub fn buckets(&self) -> Result<Vec<Bucket>, StorageError> {
        let manifests = self.store.list()?.into_iter().filter_map(|entry| entry.manifest);
        let keys = manifests.map(|manifest| manifest.key);
        // Cheap to compare, and most entries of a large store belong to other models.
        let likely = keys.filter(|key| key.model() == self.digest);
        let ours = likely.filter(|key| self.key(key.bucket()) == *key);
        let buckets: BTreeSet<Bucket> = ours.map(|key| key.bucket().clone()).collect();
        Ok(buckets.into_iter().collect())
    }

    /// The artifact for a shape if it is there: verified, and in use from now on.
    #[must_use]
    pub fn get(&self, bucket: &Bucket) -> Option<Artifact> {
        let entry = self.store.get(&self.key(bucket))?;
        Some(self.of_entry(bucket, entry))
    }

    /// The artifact for a shape: from the store, or compiled and kept there. Whoever else wants it
    /// meanwhile waits for this compile.
    ///
    /// # Errors
    ///
    /// [`ArtifactError`]: the compile's own error when it failed in this call.
    pub fn get_or_compile(
        &self,
        bucket: &Bucket,
        ask: &Ask<'_>,
        cancellation: Cancellation<'_>,
    ) -> Result<Obtained, ArtifactError> {
        let mut error = None;
        let outcome = self.store.get_or_produce(&self.key(bucket), ask, |path| {
            let optimisation = self.optimisation;
            let job = CompileJob {
                optimisation,
                cancellation,
                ..CompileJob::new(&self.model, bucket.clone(), path)
            };
            match self.backend.compile(&job) {
                // Something that decides what is compiled changed after the key was made, such as a file of
                // calibration data.
                Ok(artifact) if artifact.fingerprint != self.recipe.fingerprint() => {
                    Err(failure(self.drifted(), &mut error))
                }
                Ok(artifact) => {
                    Ok(Produced { n_bytes: Some(artifact.n_bytes), notes: artifact.notes })
                }
                Err(failed) => Err(failure(failed, &mut error)),
            }
        });
        match (outcome, error) {
            (Ok(outcome), _) => {
                let artifact = self.of_entry(bucket, outcome.entry);
                Ok(Obtained { artifact, served: outcome.served, waited: outcome.waited })
            }
            (Err(CacheError::Failed { origin: FailureOrigin::Here, .. }), Some(error)) => {
                Err(error.into())
            }
            (Err(CacheError::Cancelled { .. }), Some(error)) => Err(error.into()),
            (Err(error), _) => Err(ArtifactError::Cache(error)),
        }
    }

    fn drifted(&self) -> BackendError {
        BackendError::Library {
            backend: self.backend.id(),
            what: "compile",
            message: "what decides the artifact changed meanwhile; start again".to_owned(),
        }
    }

    fn of_entry(&self, bucket: &Bucket, entry: Entry) -> Artifact {
        let payload = entry.manifest().payload;
        Artifact {
            backend: self.backend.id(),
            model: self.digest,
            bucket: bucket.clone(),
            optimisation: self.optimisation,
            fingerprint: self.recipe.fingerprint(),
            payload: entry.path().to_owned(),
            n_bytes: payload.n_bytes,
            checksum: payload.checksum,
            notes: entry.manifest().notes.clone(),
            in_use: InUse::by(entry),
        }
    }
}

impl ArtifactSource for CachedArtifacts {
    fn artifact(
        &self,
        bucket: &Bucket,
        cancellation: Cancellation<'_>,
    ) -> Result<Artifact, BackendError> {
        let cancelled = || cancellation.is_cancelled();
        let obtained = self.get_or_compile(bucket, &Ask::new().cancelled(&cancelled), cancellation);
        let failed = |error: ArtifactError| error.into_backend(self.backend.id(), &self.model);
        obtained.map(|it| it.artifact).map_err(failed)
    }
}

/// What the store is told of a compile that failed; the error itself is kept for the caller.
fn failure(error: BackendError, kept: &mut Option<BackendError>) -> Failure {
    let failure = match error {
        // The store asks again with another place.
        BackendError::Write { source, .. } => return Failure::Storage(source),
        BackendError::Cancelled { .. } => Failure::Cancelled,
        BackendError::Model { ref reason, .. } => Failure::permanent(reason.clone()),
        _ => Failure::passing(error.to_string()),
    };
    *kept = Some(error);
    failure
}
