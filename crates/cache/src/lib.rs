//! Artifacts on disk: compiled programs that nobody can tear, race or misread.
//!
//! A compile takes minutes, so its result is kept: under a [`Key`] of everything that decides what it
//! contains, shared by the threads of a process, by processes, and by machines on one volume. The store
//! knows no compiler. It hands a path to a producer and keeps the file that it writes there.
//!
//! # What is promised
//!
//! * **An artifact of another key is never handed out.** The whole key stands in the entry's manifest
//!   and is compared field by field. [`Store::explain`] names the field that made a miss.
//! * **A damaged artifact is never handed out.** Length and BLAKE3 checksum of the payload and a seal
//!   over the manifest are checked on every load. What does not fit is set aside, once, with the
//!   reason, and made again.
//! * **An entry is there as a whole or not at all**, whoever is killed at whatever moment. It is made
//!   in a folder of its own, synced, read back, and becomes an entry by one rename.
//! * **One makes it, everybody else loads it.** In a process by waiting for the leader, among processes
//!   by an advisory lock that the kernel frees when its holder dies. Waiting is bounded, can be
//!   cancelled, and says for whom. Where a file system has no locks, an artifact may be made twice,
//!   and all the rest still holds.
//! * **A failure is told to all who wait** and remembered for a while, with the compiler's words.
//! * **A cache that cannot be used is no error.** The artifact is then made in a private folder, for
//!   this process only, and one [`Warning`] says why.
//! * **Collection never takes what is in use**, by whatever process.
//!
//! It does not defend against its own user, who can write new entries: a root that *others* can write
//! to is refused. Unix only.
//!
//! # Layout
//!
//! ```text
//! <root>/v1/entries/<2 hex>/<digest>/payload         the artifact
//!                                   /manifest.json   what it is; stamped when it is used
//!          /entries/<2 hex>/.tmp-<random>/           unfinished work, locked by its maker
//!          /locks/<digest>.lock                      held by who makes that artifact
//!          /failures/<digest>.json                   what could not be made, for a while
//!          /quarantine/<digest>-<random>/            damaged entries, each with reason.json
//!          /digests/<digest>.json                    digests of files that have not changed since
//!          /prices/<digest>.json                     what was measured of a model on this machine
//! ```
//!
//! A bundle, as [`Store::export`] writes it, has the same layout and is used where it lies, as a
//! [base](StoreOptions::base): without a single write.
//!
//! # Locks
//!
//! In the order in which they are taken: the flight of a key in this process; `locks/<digest>.lock`;
//! the folder of unfinished work; the payload, shared by who uses it and exclusive for who removes it.
//! Nobody waits for one of the last two.
//!
//! # Example
//!
//! ```
//! use shapeyard_cache::{Ask, Key, Produced, Served, Store};
//! use shapeyard_core::{BackendId, model::Digest};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let store = Store::open(folder.path().join("cache"))?;
//! let key = Key::builder(Digest::of(b"the model"), BackendId::new("example"), "1").build();
//! let compile = |path: &std::path::Path| {
//!     std::fs::write(path, "a program")?;
//!     Ok(Produced::default())
//! };
//! assert_eq!(store.get_or_produce(&key, &Ask::new(), compile)?.served, Served::Produced);
//! assert_eq!(store.get_or_produce(&key, &Ask::new(), compile)?.served, Served::Hit);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod artifacts;
mod bundle;
mod checksum;
mod clock;
mod collect;
mod counters;
mod digests;
mod entry;
mod error;
mod explain;
mod failure;
mod flight;
mod folder;
mod inspect;
mod key;
mod layer;
mod lock;
mod manifest;
mod obtain;
mod patience;
mod prices;
mod private;
mod quarantine;
mod sealed;
mod staging;
mod store;
mod walk;
mod warning;

pub use artifacts::{ArtifactError, CachedArtifacts, Obtained};
pub use bundle::{BundleError, BundleReport};
pub use collect::{CollectReport, Collected, Limits};
pub use counters::Counters;
pub use digests::Digests;
pub use entry::{Entry, Place};
pub use error::{CacheError, FailureOrigin, OpenError, StorageError};
pub use explain::{Explanation, Near, Possible};
pub use failure::{Failure, FailureRecord, Produced};
pub use inspect::{DamagedEntry, EntryInfo, VerifyReport};
pub use key::{Difference, Field, KEY_VERSION, Key, KeyBuilder};
pub use layer::{LayerKind, Locking, SharedRoots};
pub use lock::Holder;
pub use manifest::{Damage, Manifest, Payload};
pub use patience::{Ask, Waiting};
pub use prices::{MeasuredOf, this_machine};
pub use quarantine::Quarantined;
pub use store::{Outcome, Served, Store, StoreOptions};
pub use warning::Warning;
