//! One call for one artifact: look, wait, look again, make, publish.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use shapeyard_core::model::Digest;

use crate::clock;
use crate::counters::count;
use crate::entry::{self, Entry, Look, Place};
use crate::error::{CacheError, FailureOrigin, StorageError};
use crate::failure::{self, Failure, FailureRecord, Produced};
use crate::flight::Ticket;
use crate::key::Key;
use crate::layer::{FAILURES, LOCKS, Layer};
use crate::lock::{KeyLock, Waited};
use crate::manifest::{Damage, Manifest, PAYLOAD};
use crate::patience::{Ask, Patience};
use crate::private::Room;
use crate::quarantine;
use crate::staging::{self, Complete, Staging};
use crate::store::{Outcome, Served, Store};
use crate::warning::Warning;

/// Without locks somebody else may publish, remove or damage an entry at any moment.
const MAX_PUBLISH_ATTEMPTS: usize = 20;

type Producer<'a> = &'a mut dyn FnMut(&Path) -> Result<Produced, Failure>;
type Answer = Result<(Entry, Served), CacheError>;

pub(crate) struct Call<'a> {
    store: &'a Store,
    key: &'a Key,
    digest: Digest,
    retry: bool,
    began_ms: u64,
    patience: Patience<'a>,
    heard: Vec<Warning>,
    producer: Producer<'a>,
}

/// Why a production ended without an artifact that is kept.
enum Trouble {
    Failed(Failure),
    /// The place is at fault. Holds what was made already, if it was.
    Storage(StorageError, Option<Box<Made>>),
}

/// What was made and only could not be published.
struct Made {
    /// Keeps the file until it is copied.
    _staging: Staging,
    complete: Complete,
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        Self::Storage(error, None)
    }
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        store: &'a Store,
        key: &'a Key,
        ask: &'a Ask<'a>,
        producer: Producer<'a>,
    ) -> Self {
        let digest = key.digest();
        let patience = Patience::new(ask, digest);
        let (retry, began_ms) = (ask.retry, clock::now_ms());
        Self { store, key, digest, retry, began_ms, patience, heard: Vec::new(), producer }
    }

    pub(crate) fn run(mut self) -> Result<Outcome, CacheError> {
        let tally = &self.store.tally;
        count(&tally.lookups);
        let answer = self.answer();
        tally.settle(answer.as_ref().map(|(_, served)| *served));
        let waited = self.patience.waited();
        if waited > Duration::ZERO {
            count(&tally.waits);
        }
        let (entry, served) = answer?;
        self.count_hit(&entry, served);
        Ok(Outcome { entry, served, waited, warnings: self.heard })
    }

    fn answer(&mut self) -> Answer {
        loop {
            if let Some(hit) = self.look(false) {
                return Ok(hit);
            }
            if let Some(record) = self.remembered() {
                return Err(CacheError::Failed { record, origin: FailureOrigin::Remembered });
            }
            match self.store.flights.join(self.digest) {
                Ticket::Follower(flight) => {
                    if let Some(landed) = flight.wait(&mut self.patience)? {
                        return landed.map(|entry| (entry, Served::Shared)).map_err(shared);
                    }
                }
                Ticket::Leader(leader) => {
                    let answer = self.lead();
                    match &answer {
                        // Dropped without landing, so that a follower who still wants it leads next.
                        Err(CacheError::WaitedTooLong { .. } | CacheError::Cancelled { .. }) => {}
                        Ok((entry, _)) => leader.land(Ok(entry.clone())),
                        Err(error) => leader.land(Err(error.clone())),
                    }
                    return answer;
                }
            }
        }
    }

    /// What is there already. Under the key's lock, what is damaged is set aside.
    fn look(&mut self, has_lock: bool) -> Option<(Entry, Served)> {
        if let Some(entry) = self.store.private.entries.get(&self.digest) {
            return Some((entry.clone(), Served::HitPrivate));
        }
        let layer = self.store.writable.as_ref();
        match layer.map(|layer| (layer, entry::look(layer, self.key, &self.digest))) {
            Some((_, Look::Found(entry))) => return Some((entry, Served::Hit)),
            // A base may have it, but then the damage would stay.
            Some((_, Look::Damaged(_))) if !has_lock => return None,
            Some((layer, Look::Damaged(damage))) => self.set_aside(layer, damage),
            Some((layer, Look::Unreadable(error))) => self.degraded(layer, &error),
            Some((_, Look::Absent)) | None => {}
        }
        self.look_into_bases().map(|entry| (entry, Served::Hit))
    }

    fn look_into_bases(&mut self) -> Option<Entry> {
        for layer in &self.store.bases {
            match entry::look(layer, self.key, &self.digest) {
                Look::Found(entry) => return Some(entry),
                Look::Damaged(damage) => {
                    let path = layer.entry_path(&self.digest);
                    self.warn(Warning::DamagedBase { path, damage });
                }
                Look::Unreadable(error) => {
                    let path = layer.entry_path(&self.digest);
                    self.warn(Warning::UnreadableBase { path, reason: error.line() });
                }
                Look::Absent => {}
            }
        }
        None
    }

    /// A failure that counts: not expired, and with `retry` none from before this call.
    fn remembered(&self) -> Option<Arc<FailureRecord>> {
        let known = |record: &FailureRecord| {
            record.counts_at(clock::now_ms())
                && record.key == *self.key
                && (!self.retry || record.failed_at_ms > self.began_ms)
        };
        if let Some(record) = self.store.private.failures.get(&self.digest)
            && known(&record)
        {
            return Some(Arc::clone(&record));
        }
        let folder = self.store.writable.as_ref()?.folder(FAILURES).ok()?;
        let record = failure::read(&folder, &self.digest).ok()??;
        known(&record).then(|| Arc::new(record))
    }

    /// Alone in this process; now alone among processes.
    fn lead(&mut self) -> Answer {
        let _lock = match self.lock(true)? {
            Waited::Locked(lock) => Some(lock),
            Waited::Unsupported => None,
            Waited::Appeared => match self.look(false) {
                Some(hit) => return Ok(hit),
                // It is damaged, or gone again.
                None => self.lock(false)?.lock(),
            },
        };
        if let Some(hit) = self.look(true) {
            return Ok(hit);
        }
        if let Some(record) = self.remembered() {
            return Err(CacheError::Failed { record, origin: FailureOrigin::Remembered });
        }
        self.produce()
    }

    /// The key's lock, where there are locks. With `or_entry`, an entry that appears meanwhile will do.
    fn lock(&mut self, or_entry: bool) -> Result<Waited, CacheError> {
        let Some(layer) = &self.store.writable else { return Ok(Waited::Unsupported) };
        let digest = self.digest;
        let appeared = || or_entry && entry::stands(layer, &digest);
        let folder = match layer.make_folder(LOCKS) {
            Ok(folder) => folder,
            Err(error) => {
                self.degraded(layer, &error);
                return Ok(Waited::Unsupported);
            }
        };
        if layer.may_lock(&folder) {
            match KeyLock::acquire(folder, &digest, &mut self.patience, appeared)? {
                Ok(Waited::Unsupported) => {}
                Ok(waited) => return Ok(waited),
                Err(error) => {
                    self.degraded(layer, &error);
                    return Ok(Waited::Unsupported);
                }
            }
        }
        self.warn(Warning::NoLocks { root: layer.root.clone() });
        Ok(Waited::Unsupported)
    }

    fn produce(&mut self) -> Answer {
        let Some(layer) = &self.store.writable else {
            return self.produce_privately(None).map(|entry| (entry, Served::ProducedPrivately));
        };
        match self.produce_into(layer) {
            Ok(entry) => {
                if let Ok(folder) = layer.folder(FAILURES) {
                    let _ = failure::forget(&folder, &self.digest);
                }
                Ok((entry, Served::Produced))
            }
            Err(Trouble::Failed(failure)) => Err(self.fail(failure)),
            Err(Trouble::Storage(error, made)) => {
                self.degraded(layer, &error);
                self.produce_privately(made.as_deref())
                    .map(|entry| (entry, Served::ProducedPrivately))
            }
        }
    }

    fn produce_into(&mut self, layer: &Layer) -> Result<Entry, Trouble> {
        let shard = layer.make_shard(&self.digest)?;
        staging::check_room(&shard, self.store.reserve_bytes)?;
        let may_lock = layer.may_lock(&shard);
        let _ = staging::sweep(&shard, may_lock);
        let staging = Staging::new(shard, layer.modes, may_lock)?;
        let produced = self.run_producer(&staging.payload_path());
        let Produced { n_bytes, notes } = match produced {
            Ok(produced) => produced,
            Err(Failure::Cancelled) => return Err(Trouble::Failed(Failure::Cancelled)),
            Err(Failure::Storage(error)) => {
                let path = staging.payload_path();
                return Err(StorageError::new("write", path, error).into());
            }
            Err(failure) => {
                staging.check_place(None)?;
                return Err(Trouble::Failed(failure));
            }
        };
        staging.check_place(n_bytes)?;
        let describe = |payload| Manifest::new(self.key, payload, notes);
        let Some(complete) = staging.complete(describe)? else {
            return Err(Trouble::Failed(nothing_written()));
        };
        self.publish(layer, staging, complete)
    }

    fn publish(
        &mut self,
        layer: &Layer,
        staging: Staging,
        complete: Complete,
    ) -> Result<Entry, Trouble> {
        for _ in 0..MAX_PUBLISH_ATTEMPTS {
            match staging.publish(&complete) {
                Ok(true) => {
                    let path = layer.entry_path(&self.digest).join(PAYLOAD);
                    let Complete { file, manifest, .. } = complete;
                    return Ok(Entry::new(file, path, manifest, Place::Writable, None));
                }
                Ok(false) => {}
                Err(error) => return Err(unpublished(error, staging, complete)),
            }
            match entry::look(layer, self.key, &self.digest) {
                Look::Found(entry) => return Ok(entry),
                Look::Damaged(damage) => self.set_aside(layer, damage),
                Look::Absent | Look::Unreadable(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        let error = StorageError::new("publish", layer.entry_path(&self.digest), taken);
        Err(unpublished(error, staging, complete))
    }

    /// For this process only, in the first place that can hold it.
    fn produce_privately(&mut self, made: Option<&Made>) -> Result<Entry, CacheError> {
        let none = std::io::Error::new(std::io::ErrorKind::NotFound, "no place was given");
        let mut last = StorageError::new("create a folder in", "", none);
        for place in &self.store.private_places {
            match self.produce_at(place, made) {
                Ok(entry) => {
                    count(&self.store.tally.private);
                    self.store.private.entries.insert(self.digest, entry.clone());
                    return Ok(entry);
                }
                Err(Trouble::Failed(failure)) => return Err(self.fail(failure)),
                Err(Trouble::Storage(error, _)) => last = error,
            }
        }
        Err(CacheError::Storage(Arc::new(last)))
    }

    fn produce_at(&mut self, place: &Path, made: Option<&Made>) -> Result<Entry, Trouble> {
        let room = Room::new(place, self.store.reserve_bytes)?;
        if let Some(made) = made {
            return Ok(room.copy(&made.complete)?);
        }
        match self.run_producer(&room.payload_path()) {
            Ok(produced) => {
                room.check_place(produced.n_bytes)?;
                let entry = room.adopt(self.key, produced.notes)?;
                entry.ok_or_else(|| Trouble::Failed(nothing_written()))
            }
            Err(Failure::Storage(error)) => {
                Err(StorageError::new("write", room.payload_path(), error).into())
            }
            Err(Failure::Cancelled) => Err(Trouble::Failed(Failure::Cancelled)),
            Err(failure) => {
                room.check_place(None)?;
                Err(Trouble::Failed(failure))
            }
        }
    }

    fn run_producer(&mut self, path: &Path) -> Result<Produced, Failure> {
        count(&self.store.tally.productions);
        (self.producer)(path)
    }

    fn fail(&mut self, failure: Failure) -> CacheError {
        let (text, remembered) = match failure {
            Failure::Permanent { text } => (text, self.store.remember_failures),
            Failure::Passing { text } => (text, Duration::ZERO),
            Failure::Cancelled => return CacheError::Cancelled { digest: self.digest },
            Failure::Storage(error) => {
                return CacheError::Storage(Arc::new(StorageError::new("write", "", error)));
            }
        };
        let record = Arc::new(FailureRecord::new(self.key, text, remembered));
        if remembered > Duration::ZERO {
            self.remember(&record);
        }
        CacheError::Failed { record, origin: FailureOrigin::Here }
    }

    fn remember(&mut self, record: &Arc<FailureRecord>) {
        let Some(layer) = &self.store.writable else {
            self.store.private.failures.insert(self.digest, Arc::clone(record));
            return;
        };
        let kept = layer.make_folder(FAILURES).and_then(|folder| failure::write(&folder, record));
        if let Err(error) = kept {
            self.store.private.failures.insert(self.digest, Arc::clone(record));
            self.warn(Warning::FailureNotKept { reason: error.line() });
        }
    }

    fn set_aside(&mut self, layer: &Layer, damage: Damage) {
        match quarantine::set_aside(layer, &self.digest, &damage) {
            Ok(Some(path)) => {
                count(&self.store.tally.quarantined);
                self.warn(Warning::Quarantined { path, damage });
            }
            Ok(None) => {}
            Err(error) => self.degraded(layer, &error),
        }
    }

    fn degraded(&mut self, layer: &Layer, error: &StorageError) {
        self.warn(Warning::Degraded { root: layer.root.clone(), reason: error.line() });
    }

    fn warn(&mut self, warning: Warning) {
        self.store.notices.give(warning, &mut self.heard);
    }

    fn count_hit(&self, entry: &Entry, served: Served) {
        let tally = &self.store.tally;
        match served {
            Served::Hit => {
                tally.verified_bytes.fetch_add(entry.n_bytes(), Relaxed);
                if entry.place() == Place::Base {
                    count(&tally.base_hits);
                }
            }
            Served::Shared => count(&tally.shared_hits),
            Served::HitPrivate | Served::Produced | Served::ProducedPrivately => {}
        }
    }
}

/// A failure of the leader is not this caller's own.
fn shared(error: CacheError) -> CacheError {
    match error {
        CacheError::Failed { record, origin: FailureOrigin::Here } => {
            CacheError::Failed { record, origin: FailureOrigin::Shared }
        }
        error => error,
    }
}

fn unpublished(error: StorageError, staging: Staging, complete: Complete) -> Trouble {
    Trouble::Storage(error, Some(Box::new(Made { _staging: staging, complete })))
}

fn nothing_written() -> Failure {
    Failure::passing("it reported success and wrote no file")
}
