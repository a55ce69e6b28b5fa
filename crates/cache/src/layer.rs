//! A root, and what lies where below it; the crate's documentation shows the whole.

use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::error::{OpenError, StorageError};
use crate::folder::Folder;
use crate::lock;
use crate::staging::Modes;

/// The version of the layout. It changes together with that of the manifest.
const VERSION: &str = "v1";
pub(crate) const ENTRIES: &str = "entries";
pub(crate) const LOCKS: &str = "locks";
pub(crate) const FAILURES: &str = "failures";
pub(crate) const QUARANTINE: &str = "quarantine";
pub(crate) const DIGESTS: &str = "digests";
pub(crate) const PRICES: &str = "prices";

/// What to do with a root that others than its owner can write to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SharedRoots {
    /// Do not open it: whoever writes there decides what this process runs.
    #[default]
    Refuse,
    /// Open it and warn.
    Warn,
}

/// Whether locks are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locking {
    /// Where the file system has them; not on NFS, where asking may hang.
    #[default]
    Auto,
    /// On NFS too, for those who know that its lock service runs.
    Always,
    /// Nowhere.
    Never,
}

/// Which layer an entry lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// The one that new entries go to.
    Writable,
    /// One that is only read.
    Base,
}

/// A root.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) root: PathBuf,
    pub(crate) kind: LayerKind,
    pub(crate) locking: Locking,
    pub(crate) modes: Modes,
    pub(crate) shared_roots: SharedRoots,
}

impl Layer {
    /// `<root>/v1`, where it is there.
    fn top(&self) -> Result<Folder, StorageError> {
        self.open_root()?.folder(VERSION)
    }

    /// A folder of the layout, where it is there.
    pub(crate) fn folder(&self, name: &str) -> Result<Folder, StorageError> {
        self.top()?.folder(name)
    }

    /// The folder with the entries whose digests start alike, where it is there.
    pub(crate) fn shard(&self, digest: &Digest) -> Result<Folder, StorageError> {
        self.folder(ENTRIES)?.folder(&shard_name(digest))
    }

    /// A folder of the layout, made where it is missing.
    pub(crate) fn make_folder(&self, name: &str) -> Result<Folder, StorageError> {
        let mode = self.modes.folder;
        self.make_root()?.make_folder(VERSION, mode)?.make_folder(name, mode)
    }

    /// The folder with the entries whose digests start alike, made where it is missing.
    pub(crate) fn make_shard(&self, digest: &Digest) -> Result<Folder, StorageError> {
        self.make_folder(ENTRIES)?.make_folder(&shard_name(digest), self.modes.folder)
    }

    /// Whether locks may be asked for on the file system of a folder.
    pub(crate) fn may_lock(&self, folder: &Folder) -> bool {
        match self.locking {
            Locking::Always => true,
            Locking::Never => false,
            Locking::Auto => lock::may_lock(folder),
        }
    }

    /// Where an entry stands.
    pub(crate) fn entry_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(VERSION).join(ENTRIES).join(shard_name(digest)).join(digest.to_string())
    }

    fn make_root(&self) -> Result<Folder, StorageError> {
        match self.open_root() {
            Err(error) if error.is_not_found() => {}
            opened => return opened,
        }
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(self.modes.folder);
        builder
            .create(&self.root)
            .map_err(|error| StorageError::new("create", &self.root, error))?;
        self.open_root()
    }

    /// Looked at every time: it may have been made by somebody else since the store was opened.
    fn open_root(&self) -> Result<Folder, StorageError> {
        let root = Folder::open_root(&self.root)?;
        if self.shared_roots == SharedRoots::Refuse {
            let metadata = root.handle().metadata();
            let metadata = metadata.map_err(|error| root.error("look at", "", error))?;
            if let Some(why) = others_who_write(&metadata, self.kind) {
                return Err(root.error("trust", "", io::Error::other(why)));
            }
        }
        Ok(root)
    }
}

/// Entries are spread over folders by the start of their digests.
pub(crate) fn shard_name(digest: &Digest) -> String {
    let digest = digest.to_string();
    digest.get(..2).unwrap_or_default().to_owned()
}

/// Whether others than its owner can write to a root; `None` where nothing stands there yet.
///
/// The owner of a base is whoever shipped it, and the user chose to trust that.
pub(crate) fn who_else_writes(root: &Path, kind: LayerKind) -> Result<Option<String>, OpenError> {
    let metadata = match std::fs::metadata(root) {
        Ok(metadata) => metadata,
        // What cannot be looked at cannot be used either, which is said when it is tried.
        Err(_) => return Ok(None),
    };
    if !metadata.is_dir() {
        return Err(OpenError::NotAFolder { path: root.to_owned() });
    }
    Ok(others_who_write(&metadata, kind))
}

fn others_who_write(metadata: &Metadata, kind: LayerKind) -> Option<String> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Some(format!("its mode is {mode:03o}"));
    }
    let (owner, me) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let is_foreign = kind == LayerKind::Writable && owner != me && owner != 0;
    is_foreign.then(|| format!("it belongs to user {owner}, and this is user {me}"))
}
