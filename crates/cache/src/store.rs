//! The store: its options, and the one way to an artifact.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::counters::{Counters, Tally};
use crate::entry::{self, Entry, Look};
use crate::error::{CacheError, OpenError, StorageError};
use crate::failure::{Failure, Produced};
use crate::flight::Flights;
use crate::key::Key;
use crate::layer::{self, Layer, LayerKind, Locking, SharedRoots};
use crate::obtain::Call;
use crate::patience::Ask;
use crate::private::{self, Private};
use crate::staging::Modes;
use crate::warning::{Notices, OnWarning, Warning};

/// Where a store keeps things, and how.
#[derive(Clone)]
#[must_use]
pub struct StoreOptions {
    root: Option<PathBuf>,
    bases: Vec<PathBuf>,
    private: Vec<PathBuf>,
    shared_roots: SharedRoots,
    locking: Locking,
    reserve_bytes: u64,
    remember_failures: Duration,
    on_warning: Option<OnWarning>,
}

impl std::fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreOptions")
            .field("root", &self.root)
            .field("bases", &self.bases)
            .finish_non_exhaustive()
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl StoreOptions {
    /// No root and no base: artifacts are kept for this process only.
    pub fn new() -> Self {
        Self {
            root: None,
            bases: Vec::new(),
            private: private::usual_places(),
            shared_roots: SharedRoots::default(),
            locking: Locking::default(),
            reserve_bytes: 64 << 20,
            remember_failures: Duration::from_secs(24 * 3600),
            on_warning: None,
        }
    }

    /// The folder in which artifacts are kept; it is made when something is to be kept.
    pub fn root(mut self, root: impl Into<PathBuf>) -> Self {
        self.root = Some(root.into());
        self
    }

    /// A folder with artifacts that is only read, such as one shipped beside a model. Those given
    /// first are looked into first.
    pub fn base(mut self, base: impl Into<PathBuf>) -> Self {
        self.bases.push(base.into());
        self
    }

    /// Folders for what cannot be kept, best first; by default that for temporary files, and memory.
    pub fn private_places(mut self, places: impl IntoIterator<Item = PathBuf>) -> Self {
        self.private = places.into_iter().collect();
        self
    }

    /// What to do with a root that others can write to.
    pub const fn shared_roots(mut self, shared_roots: SharedRoots) -> Self {
        self.shared_roots = shared_roots;
        self
    }

    /// Whether locks are asked for.
    pub const fn locking(mut self, locking: Locking) -> Self {
        self.locking = locking;
        self
    }

    /// How much of the disk is left to others; with less room than this, nothing is kept. 64 MiB
    /// unless set.
    pub const fn reserve_bytes(mut self, reserve_bytes: u64) -> Self {
        self.reserve_bytes = reserve_bytes;
        self
    }

    /// For how long failures are remembered; a day unless set.
    pub const fn remember_failures(mut self, remember_failures: Duration) -> Self {
        self.remember_failures = remember_failures;
        self
    }

    /// Hears each warning once.
    pub fn on_warning(mut self, on_warning: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        self.on_warning = Some(Arc::new(on_warning));
        self
    }

    /// Opens the store. Writes nothing.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: a root is no folder, or others can write there.
    pub fn open(self) -> Result<Store, OpenError> {
        let notices = Notices::new(self.on_warning);
        let layer = |path: PathBuf, kind| -> Result<Layer, OpenError> {
            // A link to the root is the user's; what it points to now stays the root.
            let root = path.canonicalize().or_else(|_| std::path::absolute(&path)).unwrap_or(path);
            if let Some(why) = layer::who_else_writes(&root, kind)? {
                match self.shared_roots {
                    SharedRoots::Refuse => return Err(OpenError::Shared { path: root, why }),
                    SharedRoots::Warn => notices
                        .give(Warning::SharedRoot { path: root.clone(), why }, &mut Vec::new()),
                }
            }
            let (locking, shared_roots) = (self.locking, self.shared_roots);
            Ok(Layer { root, kind, locking, modes: Modes::OWN, shared_roots })
        };
        let writable = self.root.map(|root| layer(root, LayerKind::Writable)).transpose()?;
        let mut bases = Vec::with_capacity(self.bases.len());
        for base in self.bases {
            std::fs::read_dir(&base)
                .map_err(|error| OpenError::Base(StorageError::new("list", &base, error)))?;
            bases.push(layer(base, LayerKind::Base)?);
        }
        Ok(Store {
            writable,
            bases,
            shared_roots: self.shared_roots,
            locking: self.locking,
            private_places: self.private,
            reserve_bytes: self.reserve_bytes,
            remember_failures: self.remember_failures,
            private: Private::default(),
            flights: Flights::default(),
            notices,
            tally: Tally::default(),
        })
    }
}

/// Compiled programs on disk, shared by threads, processes and machines on one volume.
///
/// Threads share one store; processes open their own on the same root.
#[derive(Debug)]
pub struct Store {
    pub(crate) writable: Option<Layer>,
    pub(crate) bases: Vec<Layer>,
    pub(crate) shared_roots: SharedRoots,
    pub(crate) locking: Locking,
    pub(crate) private_places: Vec<PathBuf>,
    pub(crate) reserve_bytes: u64,
    pub(crate) remember_failures: Duration,
    pub(crate) private: Private,
    pub(crate) flights: Flights<Result<Entry, CacheError>>,
    pub(crate) notices: Notices,
    pub(crate) tally: Tally,
}

/// An artifact, and how it came.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The artifact.
    pub entry: Entry,
    /// How it came.
    pub served: Served,
    /// How long this call waited for others.
    pub waited: Duration,
    /// Warnings that no call had given before.
    pub warnings: Vec<Warning>,
}

/// How an artifact came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Served {
    /// It was there.
    Hit,
    /// It was there, in a private folder of this process.
    HitPrivate,
    /// Another thread made it while this call waited.
    Shared,
    /// This call made it.
    Produced,
    /// This call made it and could not keep it in the cache.
    ProducedPrivately,
}

impl Store {
    /// Opens a store with one root and no base. Writes nothing.
    ///
    /// # Errors
    ///
    /// As [`StoreOptions::open`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, OpenError> {
        StoreOptions::new().root(root).open()
    }

    /// The folder in which artifacts are kept, if there is one.
    #[must_use]
    pub fn root(&self) -> Option<&Path> {
        self.writable.as_ref().map(|layer| layer.root.as_path())
    }

    /// The artifact of a key: verified from disk, or made by `producer`, once however many ask.
    ///
    /// `producer` gets the path of a file to write, which does not exist yet, in a folder of its own,
    /// of which only that file is kept. It runs again, with another path, when the file could not be
    /// written or kept there. Everybody else who wants the key meanwhile, in this process or another,
    /// waits for it.
    ///
    /// # Errors
    ///
    /// [`CacheError`]. A cache that cannot be read or written is no error: the artifact is then made
    /// for this process alone, and a [`Warning`] says so.
    pub fn get_or_produce(
        &self,
        key: &Key,
        ask: &Ask<'_>,
        mut producer: impl FnMut(&Path) -> Result<Produced, Failure>,
    ) -> Result<Outcome, CacheError> {
        Call::new(self, key, ask, &mut producer).run()
    }

    /// The artifact of a key if it is there: verified, and marked as in use. Waits for nobody.
    ///
    /// A damaged entry counts as none; it is left for whoever makes it again.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<Entry> {
        let digest = key.digest();
        if let Some(entry) = self.private.entries.get(&digest) {
            return Some(entry.clone());
        }
        self.layers().find_map(|layer| match entry::look(layer, key, &digest) {
            Look::Found(entry) => Some(entry),
            Look::Absent | Look::Damaged(_) | Look::Unreadable(_) => None,
        })
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.read()
    }

    /// The layers in the order in which they are looked into.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.writable.iter().chain(&self.bases)
    }
}
