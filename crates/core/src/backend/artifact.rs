//! What a compile makes.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BackendError, BackendId, Cancellation, Fingerprint, Optimisation};
use crate::model::{Digest, Model};
use crate::plan::Bucket;

/// What a compile made, as data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The backend that made it and can load it.
    pub backend: BackendId,
    /// The model that it was made from.
    pub model: Digest,
    /// The shape that it serves; empty for any.
    pub bucket: Bucket,
    /// How much was rewritten.
    pub optimisation: Optimisation,
    /// The fingerprint of the [recipe](super::Recipe) that made it: one of another recipe is not loaded.
    pub fingerprint: Fingerprint,
    /// Its file.
    pub payload: PathBuf,
    /// The file's length in bytes.
    pub n_bytes: u64,
    /// The BLAKE3 digest of the file's bytes.
    pub checksum: Digest,
    /// What the backend found out while it compiled and wants to know when it loads.
    pub notes: BTreeMap<String, String>,
    /// Keeps the file where it is. Whoever loads an artifact and may read its file again keeps a copy.
    #[serde(skip)]
    pub in_use: InUse,
}

/// A store's mark that an artifact's file is in use, which holds as long as a copy of the mark lives; empty
/// for a file that nobody collects. It is no part of what an artifact is, so all marks are equal.
#[derive(Clone, Default)]
pub struct InUse(Option<Arc<dyn Any + Send + Sync>>);

impl InUse {
    /// A mark that `held` makes, such as a lock, for as long as it lives.
    #[must_use]
    pub fn by(held: impl Any + Send + Sync) -> Self {
        Self(Some(Arc::new(held)))
    }

    /// Whether a store holds the file, which then neither changes nor goes away.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InUse").field(&self.0.is_some()).finish()
    }
}

impl PartialEq for InUse {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for InUse {}

impl Artifact {
    /// How long its compile took, where its notes say so: the sum of the stages, `parse_ms` and the like.
    #[must_use]
    pub fn compile_time(&self) -> Option<Duration> {
        let stages = self.notes.iter().filter(|(name, _)| name.ends_with("_ms"));
        let times: Vec<u64> = stages.filter_map(|(_, time)| time.parse().ok()).collect();
        (!times.is_empty()).then(|| Duration::from_millis(times.iter().sum()))
    }

    /// Checks that this artifact may be loaded for `model` by what `fingerprint` names.
    ///
    /// # Errors
    ///
    /// [`BackendError::Artifact`], naming what differs; and what keeps the model from being read.
    pub fn check(&self, model: &Model, fingerprint: &Fingerprint) -> Result<(), BackendError> {
        let digest = model.digest()?;
        if self.model != digest {
            return self.differs("model", &self.model, &digest);
        }
        if self.fingerprint != *fingerprint {
            return self.differs("fingerprint", &self.fingerprint, fingerprint);
        }
        Ok(())
    }

    /// Checks that the file is, byte for byte, what the compile wrote. Reads it once.
    ///
    /// # Errors
    ///
    /// [`BackendError::Artifact`].
    pub fn verify(&self) -> Result<(), BackendError> {
        let unreadable = |error: std::io::Error| BackendError::Artifact {
            path: self.payload.clone(),
            reason: error.to_string(),
        };
        let found = fs::metadata(&self.payload).map_err(unreadable)?.len();
        if found != self.n_bytes {
            return self.differs("length in bytes", &found, &self.n_bytes);
        }
        let found = Digest::of_file(&self.payload).map_err(unreadable)?;
        if found != self.checksum {
            return self.differs("checksum", &found, &self.checksum);
        }
        Ok(())
    }

    /// The artifact's file.
    #[must_use]
    pub fn payload(&self) -> &Path {
        &self.payload
    }

    fn differs(
        &self,
        what: &str,
        found: &dyn fmt::Display,
        wanted: &dyn fmt::Display,
    ) -> Result<(), BackendError> {
        let reason = format!("its {what} is {found}, wanted is {wanted}");
        Err(BackendError::Artifact { path: self.payload.clone(), reason })
    }
}

/// Where artifacts come from that a request wants and that are not loaded yet: compiled on demand, or
/// fetched.
pub trait ArtifactSource: fmt::Debug + Send + Sync {
    /// The artifact for a shape. May take minutes; whoever asks at the same time gets the same one.
    ///
    /// # Errors
    ///
    /// [`BackendError`], as from a compile; [`BackendError::Cancelled`] soon after it is no longer wanted.
    fn artifact(
        &self,
        bucket: &Bucket,
        cancellation: Cancellation<'_>,
    ) -> Result<Artifact, BackendError>;
}
