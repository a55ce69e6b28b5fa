//! Artifacts and failures of this process only: where there is no cache, or none that can be written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dashmap::DashMap;
use shapeyard_core::model::Digest;
use tempfile::TempDir;

use crate::checksum;
use crate::entry::{Entry, Place};
use crate::error::StorageError;
use crate::failure::FailureRecord;
use crate::folder::Folder;
use crate::key::Key;
use crate::manifest::{Manifest, PAYLOAD, Payload};
use crate::staging::{self, Complete};

/// What only this process knows.
#[derive(Debug, Default)]
pub(crate) struct Private {
    pub(crate) entries: DashMap<Digest, Entry>,
    pub(crate) failures: DashMap<Digest, Arc<FailureRecord>>,
}

/// A private folder for one artifact.
#[derive(Debug)]
pub(crate) struct Room(TempDir);

impl Room {
    /// A folder in one that has room.
    pub(crate) fn new(place: &Path, reserve_bytes: u64) -> Result<Self, StorageError> {
        staging::check_room(&Folder::open_root(place)?, reserve_bytes)?;
        let folder = tempfile::Builder::new()
            .prefix("shapeyard-")
            .rand_bytes(12)
            .tempdir_in(place)
            .map_err(|error| StorageError::new("create a folder in", place, error))?;
        Ok(Self(folder))
    }

    pub(crate) fn payload_path(&self) -> PathBuf {
        self.0.path().join(PAYLOAD)
    }

    /// Whether the place still has room, now that a producer has come back.
    pub(crate) fn check_place(&self, n_bytes: Option<u64>) -> Result<(), StorageError> {
        staging::check_written(&Folder::open_root(self.0.path())?, n_bytes)
    }

    /// Takes over what the producer wrote; `Ok(None)` when there is nothing.
    pub(crate) fn adopt(
        self,
        key: &Key,
        notes: BTreeMap<String, String>,
    ) -> Result<Option<Entry>, StorageError> {
        let path = self.payload_path();
        let file = match Folder::open_root(self.0.path())?.file(PAYLOAD) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let payload =
            staging::read_whole(&file).map_err(|error| StorageError::new("read", &path, error))?;
        let manifest = Manifest::new(key, payload, notes);
        Ok(Some(Entry::new(file, path, manifest, Place::Private, Some(self.0))))
    }

    /// Copies what was made already and only could not be published.
    pub(crate) fn copy(self, complete: &Complete) -> Result<Entry, StorageError> {
        let path = self.payload_path();
        let error = |error| StorageError::new("copy to", &path, error);
        let Payload { n_bytes, checksum } = complete.manifest.payload;
        let to = File::create_new(&path).map_err(error)?;
        let copied = checksum::of_copy(&complete.file, to).map_err(error)?;
        if copied != (checksum, n_bytes) {
            return Err(error(io::Error::other("the copy is not like the original")));
        }
        let file = File::open(&path).map_err(error)?;
        let manifest = complete.manifest.clone();
        Ok(Entry::new(file, path, manifest, Place::Private, Some(self.0)))
    }
}

/// Where private folders may be made, best first. The second is memory.
pub(crate) fn usual_places() -> Vec<PathBuf> {
    vec![std::env::temp_dir(), PathBuf::from("/dev/shm")]
}
