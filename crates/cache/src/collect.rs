//! Making room: by age and by size, least recently used first, never an entry in use.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::StorageError;
use crate::failure;
use crate::folder::{Folder, TEMPORARY, last_name};
use crate::layer::{DIGESTS, FAILURES, LOCKS, Layer, PRICES, QUARANTINE};
use crate::lock::{self, Tried};
use crate::manifest::PAYLOAD;
use crate::staging;
use crate::store::Store;
use crate::walk;

/// Damaged entries and digests of files that nobody asks for are kept for so long.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Where no lock tells whether an entry is in use, one used so recently counts as in use.
const IN_USE_FOR: Duration = Duration::from_secs(3600);

/// How much may stay. Without a limit nothing but rubbish is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes that all entries together may have.
    pub max_bytes: Option<u64>,
    /// How long an entry may stay unused.
    pub max_age: Option<Duration>,
}

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectReport {
    /// Entries that were removed, longest unused first.
    pub removed: Vec<Collected>,
    /// Entries that are over the limits and in use.
    pub in_use: Vec<Collected>,
    /// Entries that stay, those in use included.
    pub n_kept: usize,
    /// Bytes that these have.
    pub kept_bytes: u64,
    /// Bytes that removed entries had.
    pub removed_bytes: u64,
    /// Left-overs that were removed: unfinished work, expired failures, lock files without a holder,
    /// old damaged entries.
    pub n_rubbish: usize,
}

/// An entry that a collection looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Its name, the key's digest.
    pub name: String,
    /// Where it lies or lay.
    pub path: PathBuf,
    /// Its bytes.
    pub n_bytes: u64,
    /// When it was last used, in milliseconds since 1970.
    pub last_used_ms: u64,
}

impl Store {
    /// Removes what is over the limits, and rubbish. Others may load and publish meanwhile.
    ///
    /// # Errors
    ///
    /// The entries cannot be listed, or one cannot be removed.
    pub fn collect(&self, limits: &Limits) -> Result<CollectReport, StorageError> {
        let Some(layer) = &self.writable else { return Ok(CollectReport::default()) };
        let n_rubbish = remove_rubbish(layer)?;
        let report = sort_out(layer, limits, |entry, age| remove(layer, entry, age))?;
        Ok(CollectReport { n_rubbish, ..report })
    }

    /// What [`Store::collect`] would remove if nothing were in use. Nothing is touched, not even to
    /// find out what is in use; rubbish is not counted.
    ///
    /// # Errors
    ///
    /// The entries cannot be listed.
    pub fn would_collect(&self, limits: &Limits) -> Result<CollectReport, StorageError> {
        let Some(layer) = &self.writable else { return Ok(CollectReport::default()) };
        sort_out(layer, limits, |_, _| Ok(true))
    }
}

/// Gives what is over the limits to `remove`, which says whether it did.
fn sort_out(
    layer: &Layer,
    limits: &Limits,
    remove: impl Fn(&Collected, Duration) -> Result<bool, StorageError>,
) -> Result<CollectReport, StorageError> {
    let mut report = CollectReport::default();
    let entries = entries_by_use(layer)?;
    let now_ms = clock::now_ms();
    let mut total: u64 = entries.iter().map(|entry| entry.n_bytes).sum();
    for entry in entries {
        let age = Duration::from_millis(now_ms.saturating_sub(entry.last_used_ms));
        let is_old = limits.max_age.is_some_and(|max_age| age > max_age);
        let is_too_much = limits.max_bytes.is_some_and(|max_bytes| total > max_bytes);
        let is_over = is_old || is_too_much;
        if is_over && remove(&entry, age)? {
            total -= entry.n_bytes;
            report.removed_bytes += entry.n_bytes;
            report.removed.push(entry);
            continue;
        }
        report.n_kept += 1;
        report.kept_bytes += entry.n_bytes;
        if is_over {
            report.in_use.push(entry);
        }
    }
    Ok(report)
}

fn entries_by_use(layer: &Layer) -> Result<Vec<Collected>, StorageError> {
    let mut entries = Vec::new();
    for (_, shard) in walk::shards(layer)? {
        for name in shard.names()?.into_iter().filter(|name| !name.starts_with(TEMPORARY)) {
            if let Some((n_bytes, last_used_ms)) = walk::size_and_use(&shard, &name) {
                let path = shard.path().join(&name);
                entries.push(Collected { name, path, n_bytes, last_used_ms });
            }
        }
    }
    entries.sort_by(|one, other| {
        (one.last_used_ms, &one.name).cmp(&(other.last_used_ms, &other.name))
    });
    Ok(entries)
}

/// Removes an entry unless it is in use. The exclusive lock is held until its files are gone, so that
/// whoever opened one meanwhile finds it gone once it has its own lock.
fn remove(layer: &Layer, entry: &Collected, age: Duration) -> Result<bool, StorageError> {
    let Some(shard) = entry.path.parent() else { return Ok(false) };
    let shard = layer.folder(crate::layer::ENTRIES)?.folder(&last_name(shard))?;
    let Some(_lock) = not_in_use(layer, &shard, entry, age)? else { return Ok(false) };
    let leaving = shard.make_temporary(TEMPORARY)?;
    match shard.rename(&entry.name, &shard, &last_name(leaving.path())) {
        Ok(()) => {}
        // Another collection was faster.
        Err(error) if error.is_not_found() => return Ok(true),
        Err(error) => return Err(error),
    }
    let path = leaving.path().to_owned();
    match leaving.close() {
        // Whoever publishes beside it may have swept it away first.
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(StorageError::new("remove", path, error))
        }
        _ => Ok(true),
    }
}

/// The right to remove an entry: its lock, where it has a file that can be locked.
fn not_in_use(
    layer: &Layer,
    shard: &Folder,
    entry: &Collected,
    age: Duration,
) -> Result<Option<Option<std::fs::File>>, StorageError> {
    let payload = match shard.folder(&entry.name).and_then(|folder| folder.file(PAYLOAD)) {
        Ok(payload) => payload,
        // Damaged or gone: nobody can be using it.
        Err(error) if error.is_not_found() || error.is_wrong_kind() => return Ok(Some(None)),
        Err(error) => return Err(error),
    };
    let tried = if layer.may_lock(shard) {
        let tried = lock::try_exclusive(&payload);
        tried.map_err(|error| StorageError::new("lock", &entry.path, error))?
    } else {
        Tried::Unsupported
    };
    Ok(match tried {
        Tried::Taken => Some(Some(payload)),
        Tried::Busy => None,
        Tried::Unsupported => (age > IN_USE_FOR).then_some(None),
    })
}

fn remove_rubbish(layer: &Layer) -> Result<usize, StorageError> {
    let mut n_removed = 0;
    for (_, shard) in walk::shards(layer)? {
        n_removed += staging::sweep(&shard, layer.may_lock(&shard))?;
    }
    let now_ms = clock::now_ms();
    n_removed += remove_where(layer, FAILURES, |folder, name| {
        let record = failure::digest_of(name).map(|digest| failure::read(folder, &digest));
        !matches!(record, Some(Ok(Some(record))) if record.counts_at(now_ms))
    })?;
    n_removed += remove_where(layer, QUARANTINE, is_forgotten)?;
    n_removed += remove_where(layer, DIGESTS, is_forgotten)?;
    // A calibration is small, and asked for again long after.
    n_removed += remove_where(layer, PRICES, |_, name| name.starts_with(TEMPORARY))?;
    match layer.folder(LOCKS) {
        Ok(locks) if layer.may_lock(&locks) => n_removed += lock::remove_unheld(&locks)?,
        _ => {}
    }
    Ok(n_removed)
}

fn is_forgotten(folder: &Folder, name: &str) -> bool {
    folder.metadata(name).is_ok_and(|metadata| {
        let age_ms = clock::now_ms().saturating_sub(clock::modified_ms(&metadata));
        age_ms > clock::millis(FORGOTTEN_AFTER)
    })
}

fn remove_where(
    layer: &Layer,
    name: &str,
    is_rubbish: impl Fn(&Folder, &str) -> bool,
) -> Result<usize, StorageError> {
    let folder = match layer.folder(name) {
        Ok(folder) => folder,
        Err(error) if error.is_not_found() => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut n_removed = 0;
    for name in folder.names()? {
        let is_fresh_work = name.starts_with(TEMPORARY) && !is_forgotten(&folder, &name);
        if !is_fresh_work && is_rubbish(&folder, &name) {
            let removed = match folder.remove_file(&name) {
                Err(error) if !error.is_not_found() => folder.remove_tree(&name),
                removed => removed,
            };
            n_removed += usize::from(removed.is_ok());
        }
    }
    Ok(n_removed)
}
