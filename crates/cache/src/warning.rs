//! What a caller should know although it has its answer. Said once a store for each kind.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::manifest::Damage;

/// What a caller should know although it has its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "warning")]
#[non_exhaustive]
pub enum Warning {
    /// The cache cannot be read or written: artifacts are made in a private folder, for this process
    /// only.
    Degraded {
        /// The cache's root.
        root: PathBuf,
        /// What cannot be done there, and why.
        reason: String,
    },
    /// An entry of a read-only base cannot be read; it is passed over.
    UnreadableBase {
        /// The entry.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file system has no locks: two processes may make the same artifact.
    NoLocks {
        /// The cache's root.
        root: PathBuf,
    },
    /// An entry of a read-only base is damaged; it is passed over.
    DamagedBase {
        /// The entry.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A damaged entry was set aside and is made again.
    Quarantined {
        /// Where it lies now.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Others can write to a root; the caller allowed it.
    SharedRoot {
        /// The root.
        path: PathBuf,
        /// Who can write there.
        why: String,
    },
    /// A failure could not be written down for other processes.
    FailureNotKept {
        /// Why.
        reason: String,
    },
}

impl Warning {
    /// Those that say the same for the whole store are told apart by kind only.
    fn kind(&self) -> String {
        match self {
            Self::Degraded { .. } => "degraded".to_owned(),
            Self::UnreadableBase { .. } => "unreadable".to_owned(),
            Self::NoLocks { .. } => "no locks".to_owned(),
            Self::FailureNotKept { .. } => "failure".to_owned(),
            Self::DamagedBase { path, .. }
            | Self::Quarantined { path, .. }
            | Self::SharedRoot { path, .. } => path.display().to_string(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Degraded { root, reason } => {
                write!(f, "the cache `{}` is done without: {reason}", root.display())
            }
            Self::UnreadableBase { path, reason } => {
                write!(f, "the shipped entry `{}` is passed over: {reason}", path.display())
            }
            Self::NoLocks { root } => write!(
                f,
                "the file system of the cache `{}` has no locks; work may be done twice",
                root.display()
            ),
            Self::DamagedBase { path, damage } => {
                write!(f, "the shipped entry `{}` is passed over: {damage}", path.display())
            }
            Self::Quarantined { path, damage } => {
                write!(f, "a damaged entry was set aside in `{}`: {damage}", path.display())
            }
            Self::SharedRoot { path, why } => {
                write!(f, "`{}` can be written by others than its owner ({why})", path.display())
            }
            Self::FailureNotKept { reason } => {
                write!(f, "a failure is not kept for other processes: {reason}")
            }
        }
    }
}

/// Hears every warning once.
pub(crate) type OnWarning = Arc<dyn Fn(&Warning) + Send + Sync>;

/// Which warnings were given already.
#[derive(Default)]
pub(crate) struct Notices {
    given: Mutex<BTreeSet<String>>,
    on_warning: Option<OnWarning>,
}

impl Notices {
    pub(crate) fn new(on_warning: Option<OnWarning>) -> Self {
        Self { given: Mutex::default(), on_warning }
    }

    /// Tells the store's owner, and adds to what the call reports, unless it was said before.
    pub(crate) fn give(&self, warning: Warning, heard: &mut Vec<Warning>) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = given.insert(warning.kind());
        drop(given);
        if is_new {
            if let Some(on_warning) = &self.on_warning {
                on_warning(&warning);
            }
            heard.push(warning);
        }
    }
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notices").field("given", &self.given).finish_non_exhaustive()
    }
}
