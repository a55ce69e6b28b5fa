//! What a store has done, as numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::error::CacheError;
use crate::error::FailureOrigin;
use crate::store::Served;

/// What a store has done since it was opened.
///
/// `lookups` = `hits` + `misses` + `negative` + `abandoned`, whenever no call is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Calls of [`Store::get_or_produce`](crate::Store::get_or_produce).
    pub lookups: u64,
    /// Calls that were answered without producing: from disk, from a private folder, or by sharing
    /// what another thread produced.
    pub hits: u64,
    /// Calls that ran their producer, whatever came of it, or could not because nothing could be
    /// stored.
    pub misses: u64,
    /// Calls that were answered by a failure of somebody else.
    pub negative: u64,
    /// Calls that gave up waiting.
    pub abandoned: u64,
    /// Hits in a base.
    pub base_hits: u64,
    /// Hits that shared another thread's production.
    pub shared_hits: u64,
    /// Runs of producers.
    pub productions: u64,
    /// Artifacts kept for this process only.
    pub private: u64,
    /// Entries that were set aside.
    pub quarantined: u64,
    /// Calls that waited for somebody.
    pub waits: u64,
    /// Bytes that were read to verify entries that were then handed out.
    pub verified_bytes: u64,
}

/// The same, counted by many threads.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) lookups: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) negative: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) base_hits: AtomicU64,
    pub(crate) shared_hits: AtomicU64,
    pub(crate) productions: AtomicU64,
    pub(crate) private: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) verified_bytes: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Tally {
    /// Puts a call into exactly one class.
    pub(crate) fn settle(&self, served: Result<Served, &CacheError>) {
        count(match served {
            Ok(Served::Produced | Served::ProducedPrivately) => &self.misses,
            Ok(Served::Hit | Served::Shared | Served::HitPrivate) => &self.hits,
            Err(CacheError::Failed { origin: FailureOrigin::Here, .. }) => &self.misses,
            Err(CacheError::Failed { .. }) => &self.negative,
            Err(CacheError::Storage(_)) => &self.misses,
            Err(CacheError::WaitedTooLong { .. } | CacheError::Cancelled { .. }) => &self.abandoned,
        });
    }

    pub(crate) fn read(&self) -> Counters {
        Counters {
            lookups: self.lookups.load(Relaxed),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
            negative: self.negative.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            base_hits: self.base_hits.load(Relaxed),
            shared_hits: self.shared_hits.load(Relaxed),
            productions: self.productions.load(Relaxed),
            private: self.private.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            waits: self.waits.load(Relaxed),
            verified_bytes: self.verified_bytes.load(Relaxed),
        }
    }
}
