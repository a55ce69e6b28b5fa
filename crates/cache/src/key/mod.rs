//! What an artifact was made from, as a record of named fields, and the digest of that record.
//!
//! Two artifacts share a key only when every field is equal. A field that a backend does not set is
//! written down as unset, so that "no calibration" and "an empty calibration" are two things.
//! The digest names the entry on disk; the record itself stands in the entry's manifest and is
//! compared field by field when the entry is loaded.

mod build;
mod compare;
mod encode;
mod read;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shapeyard_core::backend::{Environment, Recipe};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{BackendId, DataType, Signature};

pub use build::KeyBuilder;
pub use compare::Difference;
pub(crate) use compare::{Compared, distance};
pub use read::Field;

/// The version of the record and of its encoding.
///
/// Whoever adds, removes or renames a field, or changes how one is encoded, counts this up, and the
/// number in the context of the hash with it. A test holds the digests of fixed keys still.
pub const KEY_VERSION: u32 = 2;

/// Sets this digest apart from every other use of the same hash.
const CONTEXT: &str = "shapeyard cache key 2";

/// Everything that decides what an artifact contains.
///
/// Built by [`Key::builder`]. Names and orders that do not change the artifact (the model's file name,
/// the order of its inputs) are no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    version: u32,
    model: Digest,
    bucket: Bucket,
    inputs: BTreeMap<String, ValueKey>,
    outputs: BTreeMap<String, ValueKey>,
    precision: Option<String>,
    calibration: Option<Digest>,
    options: BTreeMap<String, String>,
    backend: BackendId,
    backend_version: String,
    compiler: Option<String>,
    library: Option<Digest>,
    driver: Option<String>,
    architecture: Option<String>,
    environment: Option<Environment>,
    extra: BTreeMap<String, String>,
}

/// One declared input or output of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ValueKey {
    dtype: DataType,
    /// `None` where the model does not say how many axes there are.
    axes: Option<Vec<AxisKey>>,
}

/// One axis of an input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AxisKey {
    Fixed(u64),
    Symbol(String),
    Unnamed,
}

impl Key {
    /// A key of a model's content for a backend; `backend_version` is that of the backend's own code
    /// that decides what is compiled.
    pub fn builder(
        model: Digest,
        backend: BackendId,
        backend_version: impl Into<String>,
    ) -> KeyBuilder {
        KeyBuilder::new(model, backend, backend_version.into())
    }

    /// The key of what `recipe` makes of a model for a shape.
    #[must_use]
    pub fn of(model: Digest, signature: &Signature, bucket: &Bucket, recipe: &Recipe) -> Self {
        let version = recipe.backend_version.clone();
        let builder = Self::builder(model, recipe.backend.clone(), version);
        builder.signature(signature).bucket(bucket.clone()).recipe(recipe).build()
    }

    /// The digest under which the entry stands.
    #[must_use]
    pub fn digest(&self) -> Digest {
        encode::digest(self, CONTEXT, |_| true)
    }

    /// The digest of the model's content.
    #[must_use]
    pub const fn model(&self) -> Digest {
        self.model
    }

    /// The shape that the artifact serves.
    #[must_use]
    pub const fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// The backend that makes the artifact.
    #[must_use]
    pub const fn backend(&self) -> &BackendId {
        &self.backend
    }

    /// The fields in which two keys differ, in the order of the record.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        compare::differences(self, other)
    }

    /// Those of the differences that count.
    pub(crate) fn differs(&self, other: &Self, compared: Compared) -> Vec<Difference> {
        let mut differences = self.differences(other);
        differences.retain(|difference| compared.counts(difference));
        differences
    }
}

#[cfg(test)]
mod tests;
