//! What could not be made, remembered for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::clock;
use crate::error::StorageError;
use crate::folder::{FILE_MODE, Folder};
use crate::key::Key;
use crate::lock::Holder;
use crate::sealed;

const KIND: &str = "failure";
const MAX_BYTES: u64 = 16 << 20;
/// A compiler's last words say why it failed; the rest of a long log does not.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// What a producer made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Produced {
    /// How long the file is, for producers that know: a file of another length was cut off.
    pub n_bytes: Option<u64>,
    /// What to keep in the manifest, such as the compiler's log.
    pub notes: BTreeMap<String, String>,
}

/// Why a producer made nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The compiler refuses this input, and would again. Remembered, and shared with whoever waits.
    Permanent {
        /// Its own words.
        text: String,
    },
    /// It might work another time: a timeout, a crash, no memory. Shared with whoever waits in this
    /// process, and not remembered.
    Passing {
        /// What happened.
        text: String,
    },
    /// The file could not be written. The producer is asked again with another place.
    Storage(std::io::Error),
    /// The caller no longer wants it. Whoever waits starts again.
    Cancelled,
}

impl Failure {
    /// The compiler refuses this input.
    #[must_use]
    pub fn permanent(text: impl Into<String>) -> Self {
        Self::Permanent { text: text.into() }
    }

    /// It might work another time.
    #[must_use]
    pub fn passing(text: impl Into<String>) -> Self {
        Self::Passing { text: text.into() }
    }
}

/// An error while writing the artifact's file is an error of the place, and not of the model.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Storage(error)
    }
}

/// A failure, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// The key's digest.
    pub digest: Digest,
    /// What was to be made.
    pub key: Key,
    /// The compiler's words.
    pub text: String,
    /// When it failed, in milliseconds since 1970.
    pub failed_at_ms: u64,
    /// Until when it is remembered.
    pub expires_at_ms: u64,
    /// Which process tried.
    pub by: Holder,
}

impl FailureRecord {
    pub(crate) fn new(key: &Key, mut text: String, remembered: Duration) -> Self {
        let from = text.len().saturating_sub(MAX_TEXT_BYTES);
        text.drain(..text.ceil_char_boundary(from));
        let failed_at_ms = clock::now_ms();
        Self {
            digest: key.digest(),
            key: key.clone(),
            text,
            failed_at_ms,
            expires_at_ms: failed_at_ms.saturating_add(clock::millis(remembered)),
            by: Holder::this_process(),
        }
    }

    /// Whether it still counts. One from the future comes from a clock that was set back.
    pub(crate) fn counts_at(&self, now_ms: u64) -> bool {
        const SKEW_MS: u64 = 60_000;
        now_ms < self.expires_at_ms && self.failed_at_ms <= now_ms.saturating_add(SKEW_MS)
    }
}

/// The failure that is remembered under a digest; damaged ones are as good as none.
pub(crate) fn read(
    folder: &Folder,
    digest: &Digest,
) -> Result<Option<FailureRecord>, StorageError> {
    let bytes = match folder.read(&file_name(digest), MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() || error.is_wrong_kind() => return Ok(None),
        Err(error) => return Err(error),
    };
    let record = sealed::from_bytes::<FailureRecord>(KIND, &bytes).ok();
    Ok(record.filter(|record| record.digest == *digest && record.key.digest() == *digest))
}

pub(crate) fn write(folder: &Folder, record: &FailureRecord) -> Result<(), StorageError> {
    folder.put(&file_name(&record.digest), &sealed::to_bytes(KIND, record), FILE_MODE)
}

pub(crate) fn forget(folder: &Folder, digest: &Digest) -> Result<(), StorageError> {
    folder.remove_file(&file_name(digest))
}

pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    name.strip_suffix(".json")?.parse().ok()
}

fn file_name(digest: &Digest) -> String {
    format!("{digest}.json")
}
