//! Everything that lies in a layer.

use std::fs::Metadata;
use std::path::PathBuf;

use shapeyard_core::model::Digest;

use crate::clock;
use crate::error::StorageError;
use crate::folder::{Folder, TEMPORARY};
use crate::layer::{ENTRIES, Layer, shard_name};
use crate::manifest::MANIFEST;

/// What stands where entries stand.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) shard: String,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

impl Standing {
    /// The entry that this can be, going by its name and place.
    pub(crate) fn digest(&self) -> Option<Digest> {
        let digest: Digest = self.name.parse().ok()?;
        (shard_name(&digest) == self.shard && digest.to_string() == self.name).then_some(digest)
    }
}

/// All that stands where entries stand, but unfinished work; nothing where there is no layer yet.
pub(crate) fn standing(layer: &Layer) -> Result<Vec<Standing>, StorageError> {
    let mut found = Vec::new();
    for (shard, folder) in shards(layer)? {
        let names = match folder.names() {
            Err(error) if error.is_not_found() => continue,
            names => names?,
        };
        for name in names.into_iter().filter(|name| !name.starts_with(TEMPORARY)) {
            let (shard, path) = (shard.clone(), folder.path().join(&name));
            found.push(Standing { shard, name, path });
        }
    }
    Ok(found)
}

/// The folders in which entries lie.
pub(crate) fn shards(layer: &Layer) -> Result<Vec<(String, Folder)>, StorageError> {
    let entries = match layer.folder(ENTRIES) {
        Ok(entries) => entries,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let open = |name: String| {
        let folder = entries.folder(&name);
        // What cannot be opened here holds no entry that could be found.
        folder.ok().map(|folder| (name, folder))
    };
    Ok(entries.names()?.into_iter().filter_map(open).collect())
}

/// Bytes that an entry takes, and when it was last used; nothing when it is no folder or gone.
pub(crate) fn size_and_use(shard: &Folder, name: &str) -> Option<(u64, u64)> {
    let folder = shard.folder(name).ok()?;
    let files = folder.names().ok()?;
    let n_bytes = files.iter().filter_map(|file| Some(folder.metadata(file).ok()?.len())).sum();
    let stamp: Option<Metadata> = folder.metadata(MANIFEST).or_else(|_| folder.metadata("")).ok();
    Some((n_bytes, stamp.map(|stamp| clock::modified_ms(&stamp)).unwrap_or_default()))
}
