//! Compiled programs on disk.

mod checksum;
mod clock;
mod counters;
mod entry;
mod error;
mod failure;
mod flight;
mod folder;
mod key;
mod layer;
mod lock;
mod manifest;
mod obtain;
mod patience;
mod private;
mod quarantine;
mod sealed;
mod staging;
mod store;
mod warning;

pub use counters::Counters;
pub use entry::{Entry, Place};
pub use error::{CacheError, FailureOrigin, OpenError, StorageError};
pub use failure::{Failure, FailureRecord, Produced};
pub use key::{Difference, Environment, EnvironmentRule, KEY_VERSION, Key, KeyBuilder};
pub use layer::{LayerKind, Locking, SharedRoots};
pub use lock::Holder;
pub use manifest::{Damage, Manifest, Payload};
pub use patience::{Ask, Waiting};
pub use quarantine::Quarantined;
pub use store::{Outcome, Served, Store, StoreOptions};
pub use warning::Warning;
