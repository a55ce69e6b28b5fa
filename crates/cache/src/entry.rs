//! Finding an entry, and believing it.

use std::fs::{File, FileTimes};
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;
use tempfile::TempDir;

use crate::checksum;
use crate::error::StorageError;
use crate::folder::Folder;
use crate::key::Key;
use crate::layer::{Layer, LayerKind};
use crate::lock::{self, Tried};
use crate::manifest::{self, Damage, MANIFEST, Manifest, PAYLOAD};

/// A verified artifact, open and marked as in use for as long as this or a clone of it lives.
///
/// Collection, by whatever process, leaves it where it is. The file stays readable through
/// [`Entry::file`] even if somebody removes it by hand. A child that is forked without `exec` shares
/// the mark and keeps it until it ends.
#[derive(Clone, Debug)]
pub struct Entry(Arc<Held>);

#[derive(Debug)]
struct Held {
    /// Holds the shared lock that marks the entry as in use.
    file: File,
    path: PathBuf,
    manifest: Manifest,
    place: Place,
    /// Removed with the last clone.
    _private: Option<TempDir>,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the layer that new entries go to.
    Writable,
    /// In a layer that is only read.
    Base,
    /// In a folder of this process, which goes with the store.
    Private,
}

impl From<LayerKind> for Place {
    fn from(kind: LayerKind) -> Self {
        match kind {
            LayerKind::Writable => Self::Writable,
            LayerKind::Base => Self::Base,
        }
    }
}

impl Entry {
    pub(crate) fn new(
        file: File,
        path: PathBuf,
        manifest: Manifest,
        place: Place,
        private: Option<TempDir>,
    ) -> Self {
        Self(Arc::new(Held { file, path, manifest, place, _private: private }))
    }

    /// The artifact's file, for libraries that open files by name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The open file. Its position is shared by all who use it; read at offsets.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.0.file
    }

    /// What the entry says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The payload's length in bytes.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.0.manifest.payload.n_bytes
    }

    /// Where it lies.
    #[must_use]
    pub fn place(&self) -> Place {
        self.0.place
    }

    /// The artifact's bytes.
    ///
    /// # Errors
    ///
    /// The system's reason.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt as _;
        let n_bytes = usize::try_from(self.n_bytes()).map_err(io::Error::other)?;
        let mut bytes = vec![0; n_bytes];
        self.0.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// What stands under a key in one layer.
#[derive(Debug)]
pub(crate) enum Look {
    Found(Entry),
    Absent,
    Damaged(Damage),
    Unreadable(StorageError),
}

/// Looks for the entry of a key, verifies it and marks it as in use.
pub(crate) fn look(layer: &Layer, key: &Key, digest: &Digest) -> Look {
    match find(layer, digest) {
        Ok(Some(found)) => match found.check_key(key).and_then(|()| found.check_payload()) {
            Ok(()) => found.hold(layer),
            Err(wrong) => wrong.into(),
        },
        Ok(None) => Look::Absent,
        Err(wrong) => wrong.into(),
    }
}

/// Verifies an entry whatever its key. Nothing is marked.
pub(crate) fn verify(layer: &Layer, digest: &Digest) -> Result<Option<Found>, Wrong> {
    let Some(mut found) = find(layer, digest)? else { return Ok(None) };
    found.check_payload()?;
    found.file.rewind().map_err(|error| found.unreadable(error))?;
    Ok(Some(found))
}

/// Whether something stands in the place of an entry. Cheap, and no promise.
pub(crate) fn stands(layer: &Layer, digest: &Digest) -> bool {
    !matches!(open(layer, digest), Ok(None))
}

/// The manifest of an entry; its payload is not read.
pub(crate) fn read_manifest(layer: &Layer, digest: &Digest) -> Result<Option<Manifest>, Wrong> {
    let Some(folder) = open(layer, digest)? else { return Ok(None) };
    manifest_in(&folder, digest).map(Some)
}

/// An entry with a manifest that can be believed and a payload of the right length.
#[derive(Debug)]
pub(crate) struct Found {
    folder: Folder,
    pub(crate) file: File,
    pub(crate) manifest: Manifest,
}

/// Why an entry is not handed out.
#[derive(Debug)]
pub(crate) enum Wrong {
    Damaged(Damage),
    Unreadable(StorageError),
    /// It is being removed.
    Leaving,
}

impl From<Wrong> for Look {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Damaged(damage) => Self::Damaged(damage),
            Wrong::Unreadable(error) => Self::Unreadable(error),
            Wrong::Leaving => Self::Absent,
        }
    }
}

fn find(layer: &Layer, digest: &Digest) -> Result<Option<Found>, Wrong> {
    let Some(folder) = open(layer, digest)? else { return Ok(None) };
    let manifest = manifest_in(&folder, digest)?;
    let file = folder.file(PAYLOAD).map_err(|error| lacks(error, Damage::NoPayload))?;
    let found = Found { folder, file, manifest };
    found.mark_in_use(layer)?;
    found.check_length()?;
    Ok(Some(found))
}

fn open(layer: &Layer, digest: &Digest) -> Result<Option<Folder>, Wrong> {
    match layer.shard(digest).and_then(|shard| shard.folder(&digest.to_string())) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) if error.is_wrong_kind() && error.path == layer.entry_path(digest) => {
            Err(Wrong::Damaged(Damage::NotAFolder))
        }
        Err(error) => Err(Wrong::Unreadable(error)),
    }
}

fn manifest_in(folder: &Folder, digest: &Digest) -> Result<Manifest, Wrong> {
    let bytes = folder
        .read(MANIFEST, manifest::MAX_BYTES)
        .map_err(|error| lacks(error, Damage::NoManifest))?;
    Manifest::from_bytes(&bytes, digest).map_err(Wrong::Damaged)
}

fn lacks(error: StorageError, damage: Damage) -> Wrong {
    if error.is_not_found() || error.is_wrong_kind() {
        Wrong::Damaged(damage)
    } else {
        Wrong::Unreadable(error)
    }
}

impl Found {
    /// Marked before it is read, so that nobody removes what is being verified.
    fn mark_in_use(&self, layer: &Layer) -> Result<(), Wrong> {
        if layer.kind == LayerKind::Base || !layer.may_lock(&self.folder) {
            return Ok(());
        }
        match lock::try_shared(&self.file) {
            Ok(Tried::Taken | Tried::Unsupported) => Ok(()),
            Ok(Tried::Busy) => Err(Wrong::Leaving),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn check_length(&self) -> Result<(), Wrong> {
        let wanted = self.manifest.payload.n_bytes;
        let found = self.file.metadata().map_err(|error| self.unreadable(error))?.len();
        if found == wanted { Ok(()) } else { Err(Wrong::Damaged(Damage::Length { wanted, found })) }
    }

    fn check_key(&self, key: &Key) -> Result<(), Wrong> {
        let differences = key.differences(&self.manifest.key);
        if differences.is_empty() {
            return Ok(());
        }
        let fields = differences.into_iter().map(|difference| difference.field).collect();
        Err(Wrong::Damaged(Damage::Key { fields }))
    }

    fn check_payload(&self) -> Result<(), Wrong> {
        // One byte more than there should be tells a file that grew meanwhile.
        let reader = (&self.file).take(self.manifest.payload.n_bytes.saturating_add(1));
        let read = checksum::of_reader(reader);
        let (found, n_bytes) = read.map_err(|error| self.unreadable(error))?;
        let manifest::Payload { n_bytes: length, checksum: wanted } = self.manifest.payload;
        if n_bytes != length {
            Err(Wrong::Damaged(Damage::Length { wanted: length, found: n_bytes }))
        } else if found != wanted {
            Err(Wrong::Damaged(Damage::Checksum { wanted, found }))
        } else {
            Ok(())
        }
    }

    /// Hands it out, unless it was removed between the opening and the marking.
    fn hold(mut self, layer: &Layer) -> Look {
        let path = layer.entry_path(&self.manifest.digest).join(PAYLOAD);
        let named = std::fs::symlink_metadata(&path);
        let opened = self.file.metadata();
        let is_there = matches!((&named, &opened), (Ok(named), Ok(opened))
            if crate::folder::same_file(named, opened));
        if !is_there {
            return Look::Absent;
        }
        if layer.kind == LayerKind::Writable {
            stamp(&self.folder);
        }
        if let Err(error) = self.file.rewind() {
            return Look::Unreadable(self.folder.error("read", PAYLOAD, error));
        }
        Look::Found(Entry::new(self.file, path, self.manifest, layer.kind.into(), None))
    }

    fn unreadable(&self, error: io::Error) -> Wrong {
        Wrong::Unreadable(self.folder.error("read", PAYLOAD, error))
    }
}

/// Writes down that an entry was used just now. Where that cannot be written, the entry is as good.
fn stamp(folder: &Folder) {
    if let Ok(file) = folder.file(MANIFEST) {
        let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
    }
}
