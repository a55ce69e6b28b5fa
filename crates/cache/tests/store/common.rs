//! What the suites share.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use shapeyard_cache::{Failure, Key, Produced, Store, StoreOptions};
use shapeyard_core::BackendId;
use shapeyard_core::model::Digest;
use tempfile::TempDir;

/// A key for each name.
pub(crate) fn key(name: &str) -> Key {
    Key::builder(Digest::of(name.as_bytes()), BackendId::new("test"), "1")
        .bucket([("batch", 4)].into_iter().collect())
        .compiler("compiler 1.0")
        .build()
}

/// What the artifact of a key contains: its own name, over and over.
pub(crate) fn content(key: &Key, n_bytes: usize) -> Vec<u8> {
    key.digest().to_string().into_bytes().into_iter().cycle().take(n_bytes).collect()
}

pub(crate) const SMALL: usize = 10_000;

/// Writes what belongs to the key.
pub(crate) fn produce(key: &Key, path: &Path) -> Result<Produced, Failure> {
    fs::write(path, content(key, SMALL))?;
    Ok(Produced::default())
}

/// For where no call may get that far.
pub(crate) fn never(_: &Path) -> Result<Produced, Failure> {
    panic!("nothing had to be made")
}

/// A root in a folder of its own.
pub(crate) struct Scene {
    folder: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// In memory where there is such a place: for tests of what is in the files and not of the disk,
    /// which would wait for thousands of syncs.
    pub(crate) fn in_memory() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { folder: folder.unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn options(&self) -> StoreOptions {
        // Little, so that a nearly full disk of some machine changes no test.
        StoreOptions::new().root(self.root()).reserve_bytes(1)
    }

    pub(crate) fn store(&self) -> Store {
        self.options().open().unwrap()
    }

    /// Where the entry of a key lies.
    pub(crate) fn entry(&self, key: &Key) -> PathBuf {
        let digest = key.digest().to_string();
        self.root().join("v1/entries").join(&digest[..2]).join(digest)
    }

    /// Every file and folder below the root.
    pub(crate) fn tree(&self) -> Vec<PathBuf> {
        tree(&self.root())
    }
}

pub(crate) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found
}

/// What is no whole entry and no lock: nothing of the kind may be left behind.
pub(crate) fn unfinished(root: &Path) -> Vec<PathBuf> {
    let is_unfinished = |path: &PathBuf| path.to_string_lossy().contains("/.tmp-");
    tree(root).into_iter().filter(is_unfinished).collect()
}

/// Says that a test could not run here.
pub(crate) fn skip(test: &str, reason: &str) {
    eprintln!("{test} is skipped: {reason}");
    if let Some(log) = std::env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        writeln!(log, "{test}: {reason}").unwrap();
    }
}
