//! Looking at a store without using it: what is there and what is wrong.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::clock;
use crate::entry::{self, Wrong};
use crate::error::StorageError;
use crate::failure::{self, FailureRecord};
use crate::layer::{FAILURES, LOCKS, Layer, LayerKind};
use crate::lock::{KeyLock, TryKeyLock};
use crate::manifest::{Damage, Manifest};
use crate::quarantine::{self, Quarantined};
use crate::store::Store;
use crate::walk::{self, Standing};

/// An entry as it lies there. Its payload was not read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryInfo {
    /// The name under which it stands: the key's digest.
    pub name: String,
    /// The layer that it lies in.
    pub layer: LayerKind,
    /// Its folder.
    pub path: PathBuf,
    /// Bytes that its files have.
    pub n_bytes: u64,
    /// When it was last handed out, in milliseconds since 1970; in a base, when it was put there.
    pub last_used_ms: u64,
    /// What it says about itself, if that can be believed.
    pub manifest: Option<Manifest>,
    /// What is wrong with it, as far as that shows without reading the payload.
    pub damage: Option<Damage>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Entries that are as they were published.
    pub n_sound: usize,
    /// Bytes of their payloads.
    pub n_bytes: u64,
    /// Entries that are not.
    pub damaged: Vec<DamagedEntry>,
    /// Entries that could not be read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// A damaged entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedEntry {
    /// Where it stood.
    pub path: PathBuf,
    /// The layer that it lay in.
    pub layer: LayerKind,
    /// What is wrong with it.
    pub damage: Damage,
    /// Where it was put by the repair, if it was.
    pub quarantined: Option<PathBuf>,
}

impl Store {
    /// Every entry of every layer, in the order of layers and names.
    ///
    /// # Errors
    ///
    /// A layer cannot be listed. An entry that cannot be believed is no error: it says so itself.
    pub fn list(&self) -> Result<Vec<EntryInfo>, StorageError> {
        let mut entries = Vec::new();
        for layer in self.layers() {
            entries.extend(walk::standing(layer)?.into_iter().map(|found| info(layer, found)));
        }
        Ok(entries)
    }

    /// The entries whose names start with `start`: one, if that is long enough.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub fn find(&self, start: &str) -> Result<Vec<EntryInfo>, StorageError> {
        let mut entries = Vec::new();
        for layer in self.layers() {
            let standing = walk::standing(layer)?.into_iter();
            let wanted = standing.filter(|found| found.name.starts_with(start));
            entries.extend(wanted.map(|found| info(layer, found)));
        }
        Ok(entries)
    }

    /// The failures that are remembered now.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn failures(&self) -> Result<Vec<FailureRecord>, StorageError> {
        let own = self.private.failures.iter().map(|record| (**record).clone());
        let mut records: Vec<FailureRecord> = own.collect();
        if let Some(layer) = &self.writable {
            records.extend(failures_in(layer)?);
        }
        let now_ms = clock::now_ms();
        records.retain(|record| record.counts_at(now_ms));
        Ok(records)
    }

    /// The damaged entries that were set aside: each one's folder, and why, where that was kept.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub fn quarantined(&self) -> Result<Vec<(String, Option<Quarantined>)>, StorageError> {
        self.writable.as_ref().map_or(Ok(Vec::new()), quarantine::list)
    }

    /// Reads every payload of every layer. With `repair`, damaged entries of the writable layer are
    /// set aside.
    ///
    /// # Errors
    ///
    /// A layer cannot be listed, or a damaged entry cannot be moved.
    pub fn verify(&self, repair: bool) -> Result<VerifyReport, StorageError> {
        self.verify_watched(repair, &mut |_, _| {})
    }

    /// Like [`Store::verify`]; `see` hears how many entries were read and how many there are in all,
    /// once before the first and once after each.
    ///
    /// # Errors
    ///
    /// As [`Store::verify`].
    pub fn verify_watched(
        &self,
        repair: bool,
        see: &mut dyn FnMut(usize, usize),
    ) -> Result<VerifyReport, StorageError> {
        let mut all = Vec::new();
        for layer in self.layers() {
            all.extend(walk::standing(layer)?.into_iter().map(|found| (layer, found)));
        }
        let mut report = VerifyReport::default();
        see(0, all.len());
        for (n, (layer, found)) in all.iter().enumerate() {
            verify_one(layer, found, repair, &mut report)?;
            see(n + 1, all.len());
        }
        Ok(report)
    }
}

fn info(layer: &Layer, found: Standing) -> EntryInfo {
    let manifest = match found.digest() {
        Some(digest) => entry::read_manifest(layer, &digest),
        None => Err(Wrong::Damaged(Damage::Name)),
    };
    let (manifest, damage) = match manifest {
        Ok(manifest) => (manifest, None),
        Err(Wrong::Damaged(damage)) => (None, Some(damage)),
        Err(Wrong::Unreadable(_) | Wrong::Leaving) => (None, None),
    };
    let size_and_use =
        shard_of(layer, &found).ok().and_then(|shard| walk::size_and_use(&shard, &found.name));
    let (n_bytes, last_used_ms) = size_and_use.unwrap_or_default();
    let (name, path) = (found.name, found.path);
    EntryInfo { name, layer: layer.kind, path, n_bytes, last_used_ms, manifest, damage }
}

fn shard_of(layer: &Layer, found: &Standing) -> Result<crate::folder::Folder, StorageError> {
    layer.folder(crate::layer::ENTRIES)?.folder(&found.shard)
}

fn failures_in(layer: &Layer) -> Result<Vec<FailureRecord>, StorageError> {
    let folder = match layer.folder(FAILURES) {
        Ok(folder) => folder,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let digests = folder.names()?.into_iter().filter_map(|name| failure::digest_of(&name));
    Ok(digests.filter_map(|digest| failure::read(&folder, &digest).ok().flatten()).collect())
}

fn verify_one(
    layer: &Layer,
    found: &Standing,
    repair: bool,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let damage = match check(layer, found) {
        Ok(n_bytes) => {
            report.n_sound += usize::from(n_bytes.is_some());
            report.n_bytes += n_bytes.unwrap_or_default();
            return Ok(());
        }
        Err(Wrong::Leaving) => return Ok(()),
        Err(Wrong::Unreadable(error)) => {
            report.unreadable.push((found.path.clone(), error.line()));
            return Ok(());
        }
        Err(Wrong::Damaged(damage)) => damage,
    };
    let is_ours = layer.kind == LayerKind::Writable;
    let quarantined = if repair && is_ours { set_aside(layer, found, &damage)? } else { None };
    let (path, layer) = (found.path.clone(), layer.kind);
    report.damaged.push(DamagedEntry { path, layer, damage, quarantined });
    Ok(())
}

/// The length of a sound payload; `None` when the entry is gone.
fn check(layer: &Layer, found: &Standing) -> Result<Option<u64>, Wrong> {
    let digest = found.digest().ok_or(Wrong::Damaged(Damage::Name))?;
    Ok(entry::verify(layer, &digest)?.map(|found| found.manifest.payload.n_bytes))
}

/// Sets an entry aside, unless somebody is at work on it, who will do so.
fn set_aside(
    layer: &Layer,
    found: &Standing,
    damage: &Damage,
) -> Result<Option<PathBuf>, StorageError> {
    let Some(digest) = found.digest() else {
        return quarantine::set_name_aside(layer, &shard_of(layer, found)?, &found.name, damage);
    };
    set_digest_aside(layer, &digest)
}

/// Sets an entry aside that still is damaged, unless somebody is at work on it.
pub(crate) fn set_digest_aside(
    layer: &Layer,
    digest: &Digest,
) -> Result<Option<PathBuf>, StorageError> {
    let locks = layer.make_folder(LOCKS)?;
    let _lock = if layer.may_lock(&locks) {
        match KeyLock::try_acquire(locks, digest)? {
            TryKeyLock::Taken(lock) => Some(lock),
            TryKeyLock::Busy => return Ok(None),
            TryKeyLock::Unsupported => None,
        }
    } else {
        None
    };
    // Somebody may have made it again meanwhile.
    match entry::verify(layer, digest) {
        Err(Wrong::Damaged(damage)) => quarantine::set_aside(layer, digest, &damage),
        _ => Ok(None),
    }
}
