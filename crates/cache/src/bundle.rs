//! Bundles: entries in a folder that is shipped, beside a model for example.
//!
//! A bundle has the layout of a store. It can be imported, and it can be used as a base where it lies.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::checksum;
use crate::entry::{self, Found, Wrong};
use crate::error::{OpenError, StorageError};
use crate::inspect::{self, DamagedEntry};
use crate::layer::{self, Layer, LayerKind, SharedRoots};
use crate::manifest::Damage;
use crate::staging::{Modes, Staging};
use crate::store::Store;
use crate::walk;
use crate::warning::Warning;

/// Why nothing is exported or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The store has no folder to import into.
    #[error("a store without a root has no place for a bundle's entries")]
    NoRoot,
    /// The bundle cannot be trusted or is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file could not be read or written.
    #[error("the bundle is not whole")]
    Storage(#[from] StorageError),
}

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleReport {
    /// Entries that were copied.
    pub copied: Vec<Digest>,
    /// Bytes of their payloads.
    pub n_bytes: u64,
    /// Entries that were there already.
    pub already_there: Vec<Digest>,
    /// Entries that were asked for and are not there.
    pub missing: Vec<Digest>,
    /// Entries that were not copied because they are damaged.
    pub damaged: Vec<DamagedEntry>,
}

impl Store {
    /// Copies entries into a bundle at `folder`, which others may read. A bundle that is there gains
    /// what it lacks.
    ///
    /// # Errors
    ///
    /// [`BundleError`]. Entries that are missing or damaged are no error; the report names them.
    pub fn export(&self, digests: &[Digest], folder: &Path) -> Result<BundleReport, BundleError> {
        let bundle = self.bundle(folder.to_owned(), LayerKind::Writable)?;
        let mut report = BundleReport::default();
        for digest in digests {
            let mut is_known = false;
            for layer in self.layers() {
                is_known = transfer(layer, &bundle, digest, &mut report)?;
                if is_known {
                    break;
                }
            }
            if !is_known {
                report.missing.push(*digest);
            }
        }
        Ok(report)
    }

    /// Copies every entry of a bundle into this store.
    ///
    /// # Errors
    ///
    /// [`BundleError`]. Damaged entries are no error; the report names them.
    pub fn import(&self, folder: &Path) -> Result<BundleReport, BundleError> {
        let layer = self.writable.as_ref().ok_or(BundleError::NoRoot)?;
        let root = folder
            .canonicalize()
            .map_err(|error| OpenError::Base(StorageError::new("open", folder, error)))?;
        let bundle = self.bundle(root, LayerKind::Base)?;
        let mut report = BundleReport::default();
        for standing in walk::standing(&bundle)? {
            match standing.digest() {
                Some(digest) => {
                    transfer(&bundle, layer, &digest, &mut report)?;
                }
                None => refuse(&bundle, standing.path, Damage::Name, &mut report),
            }
        }
        Ok(report)
    }

    /// A bundle that others can write to is treated like such a root.
    fn bundle(&self, root: PathBuf, kind: LayerKind) -> Result<Layer, OpenError> {
        if let Some(why) = layer::who_else_writes(&root, kind)? {
            let path = root.clone();
            match self.shared_roots {
                SharedRoots::Refuse => return Err(OpenError::Shared { path, why }),
                SharedRoots::Warn => {
                    self.notices.give(Warning::SharedRoot { path, why }, &mut Vec::new());
                }
            }
        }
        let (locking, shared_roots) = (self.locking, self.shared_roots);
        Ok(Layer { root, kind, locking, modes: Modes::SHIPPED, shared_roots })
    }
}

/// Copies one entry; says whether it was found, sound or not.
fn transfer(
    from: &Layer,
    to: &Layer,
    digest: &Digest,
    report: &mut BundleReport,
) -> Result<bool, StorageError> {
    let found = match entry::verify(from, digest) {
        Ok(Some(found)) => found,
        Ok(None) | Err(Wrong::Leaving) => return Ok(false),
        Err(Wrong::Unreadable(error)) => return Err(error),
        Err(Wrong::Damaged(damage)) => {
            refuse(from, from.entry_path(digest), damage, report);
            return Ok(true);
        }
    };
    match entry::verify(to, digest) {
        Ok(Some(_)) => {
            report.already_there.push(*digest);
            return Ok(true);
        }
        Err(Wrong::Damaged(_)) => {
            inspect::set_digest_aside(to, digest)?;
        }
        _ => {}
    }
    if copy(&found, to, digest)? {
        report.copied.push(*digest);
        report.n_bytes += found.manifest.payload.n_bytes;
    } else {
        report.already_there.push(*digest);
    }
    Ok(true)
}

/// Publishes a copy; `false` when somebody else was faster.
fn copy(found: &Found, to: &Layer, digest: &Digest) -> Result<bool, StorageError> {
    let shard = to.make_shard(digest)?;
    let may_lock = to.may_lock(&shard);
    let staging = Staging::new(shard, to.modes, may_lock)?;
    let path = staging.payload_path();
    let error = |error| StorageError::new("copy to", &path, error);
    let file = File::create_new(&path).map_err(error)?;
    checksum::of_copy(&found.file, file).map_err(error)?;
    let complete = staging.complete(|_| found.manifest.clone())?;
    match complete {
        Some(complete) if complete.payload == found.manifest.payload => staging.publish(&complete),
        _ => Err(error(io::Error::other("the copy is not like the original"))),
    }
}

fn refuse(layer: &Layer, path: PathBuf, damage: Damage, report: &mut BundleReport) {
    report.damaged.push(DamagedEntry { path, layer: layer.kind, damage, quarantined: None });
}
