//! Damaged entries, set aside with the reason.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::clock;
use crate::error::StorageError;
use crate::folder::{FILE_MODE, Folder, last_name};
use crate::layer::{Layer, QUARANTINE};
use crate::lock::Holder;
use crate::manifest::Damage;
use crate::sealed;

const REASON: &str = "reason.json";
const KIND: &str = "reason";
const MAX_BYTES: u64 = 1 << 20;

/// A damaged entry that was set aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The name under which it stood.
    pub name: String,
    /// What is wrong with it.
    pub damage: Damage,
    /// When it was set aside, in milliseconds since 1970.
    pub since_ms: u64,
    /// Which process did.
    pub by: Holder,
}

/// Sets an entry aside. `None` when somebody else did.
///
/// Called by the holder of the entry's lock, who has just found the damage: a good entry that
/// somebody made meanwhile cannot be meant.
pub(crate) fn set_aside(
    layer: &Layer,
    digest: &Digest,
    damage: &Damage,
) -> Result<Option<PathBuf>, StorageError> {
    set_name_aside(layer, &layer.shard(digest)?, &digest.to_string(), damage)
}

/// Sets aside whatever stands at a name.
pub(crate) fn set_name_aside(
    layer: &Layer,
    shard: &Folder,
    name: &str,
    damage: &Damage,
) -> Result<Option<PathBuf>, StorageError> {
    let quarantine = layer.make_folder(QUARANTINE)?;
    let place = quarantine.make_temporary(&format!("{name}-"))?;
    let folder = quarantine.folder(&last_name(place.path()))?;
    match shard.rename(name, &folder, "entry") {
        Ok(()) => {}
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    }
    let path = place.keep();
    let reason = Quarantined {
        name: name.to_owned(),
        damage: damage.clone(),
        since_ms: clock::now_ms(),
        by: Holder::this_process(),
    };
    // It is out of the way, which is what counts; on a full disk the reason cannot be kept.
    let _ = folder.put(REASON, &sealed::to_bytes(KIND, &reason), FILE_MODE);
    let _ = shard.sync();
    Ok(Some(path))
}

/// What was set aside, with the folder's name; damaged reasons are left out.
pub(crate) fn list(layer: &Layer) -> Result<Vec<(String, Option<Quarantined>)>, StorageError> {
    let quarantine = match layer.folder(QUARANTINE) {
        Ok(folder) => folder,
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let reason = |name: &String| {
        let bytes = quarantine.folder(name).ok()?.read(REASON, MAX_BYTES).ok()?;
        sealed::from_bytes(KIND, &bytes).ok()
    };
    Ok(quarantine.names()?.into_iter().map(|name| (name.clone(), reason(&name))).collect())
}
