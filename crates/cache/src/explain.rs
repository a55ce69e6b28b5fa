//! Why something is, or is not, answered from a store.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shapeyard_core::backend::Machine;
use shapeyard_core::model::Digest;

use crate::entry::{self, Wrong};
use crate::error::StorageError;
use crate::failure::FailureRecord;
use crate::key::{self, Compared, Difference, Key};
use crate::layer::{Layer, LayerKind};
use crate::manifest::{Damage, Manifest};
use crate::store::Store;
use crate::walk::{self, Standing};

/// So many entries near a missing one are told of.
const N_NEAREST: usize = 3;

/// Why a key is, or is not, answered from the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer")]
#[non_exhaustive]
pub enum Explanation {
    /// Its entry is there and sound.
    Hit {
        /// The layer that it lies in.
        layer: LayerKind,
        /// Its folder.
        path: PathBuf,
    },
    /// Entries are there that differ in nothing that can be compared here, for
    /// [`Store::explain_elsewhere`].
    Possible {
        /// Each of them, in the order of layers and names.
        entries: Vec<Possible>,
    },
    /// Its entry is there and damaged; it will be set aside and made again.
    Damaged {
        /// The layer that it lies in.
        layer: LayerKind,
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Its entry is there and cannot be read.
    Unreadable {
        /// Its folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// It could not be made, and that is remembered.
    Failed {
        /// What failed and when.
        record: Box<FailureRecord>,
    },
    /// There is none.
    Miss {
        /// The entries that are most like it, most alike first.
        nearest: Vec<Near>,
    },
}

/// An entry that is like a missing one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Near {
    /// Its key's digest.
    pub digest: Digest,
    /// The layer that it lies in.
    pub layer: LayerKind,
    /// In what it differs: `ours` is what was asked for, `theirs` is what is there.
    pub differences: Vec<Difference>,
}

/// An entry that is the one asked for if its machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possible {
    /// Its key's digest.
    pub digest: Digest,
    /// The layer that it lies in.
    pub layer: LayerKind,
    /// Its folder.
    pub path: PathBuf,
    /// What made it, and for what; `None` where its key names no compiler.
    pub machine: Option<Machine>,
}

impl Store {
    /// Why a key is, or is not, answered from the store. Nothing is marked or moved.
    ///
    /// # Errors
    ///
    /// A layer cannot be listed.
    pub fn explain(&self, key: &Key) -> Result<Explanation, StorageError> {
        let digest = key.digest();
        for layer in self.layers() {
            let path = layer.entry_path(&digest);
            let layer_kind = layer.kind;
            match entry::verify(layer, &digest) {
                Ok(Some(found)) => {
                    let fields: Vec<String> = key
                        .differences(&found.manifest.key)
                        .into_iter()
                        .map(|difference| difference.field)
                        .collect();
                    if fields.is_empty() {
                        return Ok(Explanation::Hit { layer: layer_kind, path });
                    }
                    let damage = Damage::Key { fields };
                    return Ok(Explanation::Damaged { layer: layer_kind, path, damage });
                }
                Err(Wrong::Damaged(damage)) => {
                    return Ok(Explanation::Damaged { layer: layer_kind, path, damage });
                }
                Err(Wrong::Unreadable(error)) => {
                    return Ok(Explanation::Unreadable { path, reason: error.line() });
                }
                Ok(None) | Err(Wrong::Leaving) => {}
            }
        }
        let failed = self.failures()?.into_iter().find(|record| record.key == *key);
        Ok(match failed {
            Some(record) => Explanation::Failed { record: Box::new(record) },
            None => Explanation::Miss { nearest: self.nearest(key, Compared::Everything)? },
        })
    }

    /// Like [`Store::explain`] for a key without compiler, library, driver, architecture and
    /// environment: on a machine where nobody can say what they will be. All other fields are compared.
    ///
    /// # Errors
    ///
    /// As [`Store::explain`].
    pub fn explain_elsewhere(&self, key: &Key) -> Result<Explanation, StorageError> {
        let (mut entries, mut wrong) = (Vec::new(), None);
        for (layer, manifest) in self.manifests()? {
            if !key.differs(&manifest.key, Compared::ButMachine).is_empty() {
                continue;
            }
            let (path, digest) = (layer.entry_path(&manifest.digest), manifest.digest);
            match entry::verify(layer, &digest) {
                Ok(Some(found)) => {
                    let machine = found.manifest.key.machine();
                    entries.push(Possible { digest, layer: layer.kind, path, machine });
                }
                Ok(None) | Err(Wrong::Leaving) => {}
                Err(Wrong::Damaged(damage)) => {
                    wrong = Some(Explanation::Damaged { layer: layer.kind, path, damage });
                }
                Err(Wrong::Unreadable(error)) => {
                    wrong = Some(Explanation::Unreadable { path, reason: error.line() });
                }
            }
        }
        if !entries.is_empty() {
            return Ok(Explanation::Possible { entries });
        }
        if let Some(wrong) = wrong {
            return Ok(wrong);
        }
        let is_like =
            |record: &FailureRecord| key.differs(&record.key, Compared::ButMachine).is_empty();
        let failed = self.failures()?.into_iter().find(is_like);
        Ok(match failed {
            Some(record) => Explanation::Failed { record: Box::new(record) },
            None => Explanation::Miss { nearest: self.nearest(key, Compared::ButMachine)? },
        })
    }

    fn nearest(&self, key: &Key, compared: Compared) -> Result<Vec<Near>, StorageError> {
        let near = |(layer, manifest): (&Layer, Manifest)| Near {
            digest: manifest.digest,
            layer: layer.kind,
            differences: key.differs(&manifest.key, compared),
        };
        let mut known: Vec<Near> = self.manifests()?.into_iter().map(near).collect();
        known.sort_by_key(|near| (key::distance(&near.differences), near.digest));
        known.truncate(N_NEAREST);
        Ok(known)
    }

    /// What every entry that can be believed says about itself.
    fn manifests(&self) -> Result<Vec<(&Layer, Manifest)>, StorageError> {
        let mut manifests = Vec::new();
        for layer in self.layers() {
            for digest in walk::standing(layer)?.iter().filter_map(Standing::digest) {
                if let Ok(Some(manifest)) = entry::read_manifest(layer, &digest) {
                    manifests.push((layer, manifest));
                }
            }
        }
        Ok(manifests)
    }
}
