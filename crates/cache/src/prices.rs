//! What was measured of models on this machine, kept beside the artifacts.
//!
//! A file is believed only as it was written and only for what it was written for: the content of the model,
//! the backend with everything that decides what it runs, and the machine.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shapeyard_core::BackendId;
use shapeyard_core::backend::Fingerprint;
use shapeyard_core::model::Digest;
use shapeyard_core::plan::prices::Measurements;

use crate::checksum;
use crate::error::StorageError;
use crate::folder::{FILE_MODE, Folder};
use crate::layer::PRICES;
use crate::lock::FolderLock;
use crate::sealed;
use crate::store::Store;

const KIND: &str = "prices";
const MAX_BYTES: u64 = 4 << 20;

/// What measurements hold for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredOf {
    /// The model's content.
    pub model: Digest,
    /// The backend.
    pub backend: BackendId,
    /// What the backend runs: its version, its options, its device.
    pub fingerprint: Fingerprint,
    /// The machine, as [`this_machine`] names it.
    pub machine: String,
}

/// A file of measurements.
#[derive(Serialize, Deserialize)]
struct Kept {
    of: MeasuredOf,
    measurements: Measurements,
}

impl MeasuredOf {
    /// What is measured here and now.
    #[must_use]
    pub fn here(model: Digest, backend: BackendId, fingerprint: Fingerprint) -> Self {
        Self { model, backend, fingerprint, machine: this_machine() }
    }

    fn file_name(&self) -> String {
        // A record of texts always has a JSON form.
        let record = serde_json::to_vec(self).unwrap_or_default();
        format!("{}.json", checksum::derived("shapeyard cache prices of 1", &record))
    }
}

/// The processor's name and the processors that this process may use: other measurements are another
/// machine's.
#[must_use]
pub fn this_machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let name = name.and_then(|line| line.split_once(':')).map_or("unknown processor", |it| it.1);
    let n_processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {} x {n_processors}", std::env::consts::ARCH, name.trim())
}

impl Store {
    /// What was measured before. What is damaged, or was measured of something else, counts as nothing.
    #[must_use]
    pub fn measurements(&self, of: &MeasuredOf) -> Option<Measurements> {
        kept_in(&self.writable.as_ref()?.folder(PRICES).ok()?, of)
    }

    /// Keeps what was measured, in the place of what was kept before; says where.
    ///
    /// # Errors
    ///
    /// The cache cannot be written.
    pub fn keep_measurements(
        &self,
        of: &MeasuredOf,
        measurements: &Measurements,
    ) -> Result<PathBuf, StorageError> {
        let layer = self.writable.as_ref().ok_or_else(|| {
            let none = std::io::Error::other("there is no folder for artifacts");
            StorageError::new("keep prices in", Path::new(""), none)
        })?;
        let folder = layer.make_folder(PRICES)?;
        let _alone = FolderLock::acquire(&folder, layer.may_lock(&folder))?;
        keep_in(&folder, of, measurements)?;
        Ok(folder.path().join(of.file_name()))
    }

    /// Adds what production runs showed to what is kept; says whether anything was. Of two processes that do so
    /// at one moment, the first one's runs are lost only where the file system has no locks.
    ///
    /// # Errors
    ///
    /// The cache cannot be written.
    pub fn refine_measurements(
        &self,
        of: &MeasuredOf,
        newer: &Measurements,
    ) -> Result<bool, StorageError> {
        // Where nobody calibrated, nothing is made.
        let Some((layer, _)) = self.writable.as_ref().zip(self.measurements(of)) else {
            return Ok(false);
        };
        let folder = layer.folder(PRICES)?;
        let _alone = FolderLock::acquire(&folder, layer.may_lock(&folder))?;
        let Some(mut kept) = kept_in(&folder, of) else { return Ok(false) };
        kept.refine(newer);
        keep_in(&folder, of, &kept).map(|()| true)
    }
}

fn kept_in(folder: &Folder, of: &MeasuredOf) -> Option<Measurements> {
    let bytes = folder.read(&of.file_name(), MAX_BYTES).ok()?;
    let kept: Kept = sealed::from_bytes(KIND, &bytes).ok()?;
    let is_ours = kept.of == *of && kept.measurements.backend == of.backend;
    is_ours.then_some(kept.measurements)
}

fn keep_in(
    folder: &Folder,
    of: &MeasuredOf,
    measurements: &Measurements,
) -> Result<(), StorageError> {
    let kept = Kept { of: of.clone(), measurements: measurements.clone() };
    folder.put(&of.file_name(), &sealed::to_bytes(KIND, &kept), FILE_MODE)
}
