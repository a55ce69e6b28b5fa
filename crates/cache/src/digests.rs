//! Digests of large files, remembered for as long as the files do not change.
//!
//! A file counts as unchanged while its device, inode, length and both of its times are the same. A
//! file that was written to at nearly the moment of reading could be written to again without a
//! change of its times, so its digest is not remembered yet; `git` guards its index the same way.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use shapeyard_core::Model;
use shapeyard_core::model::{Digest, ModelError};

use crate::checksum;
use crate::folder::FILE_MODE;
use crate::layer::{DIGESTS, Layer};
use crate::sealed;
use crate::store::Store;

const KIND: &str = "digest";
const MAX_BYTES: u64 = 4 << 20;
/// The coarsest clock of the file systems in use.
const COARSEST: Duration = Duration::from_secs(2);

/// Digests of files, remembered below a store's root.
#[derive(Clone, Copy, Debug)]
pub struct Digests<'a> {
    layer: Option<&'a Layer>,
}

impl Store {
    /// Digests of files, remembered below the root if there is one.
    #[must_use]
    pub fn digests(&self) -> Digests<'_> {
        Digests { layer: self.writable.as_ref() }
    }
}

/// A digest and the files that it was taken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    what: String,
    parts: Vec<Part>,
    digest: Digest,
}

/// A file, and the name under which a model knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    location: String,
    device: u64,
    inode: u64,
    n_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Digests<'_> {
    /// The BLAKE3 digest of a file's bytes: a library, a calibration, a table.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn of_file(&self, path: &Path) -> io::Result<Digest> {
        let parts = vec![Part::of("", path)?];
        self.remembered("file", parts, || {
            let (digest, _) = checksum::of_reader(fs::File::open(path)?)?;
            Ok((digest, vec![Part::of("", path)?]))
        })
    }

    /// The digest of a model with its external data, as [`Model::digest`] gives it, of what is in the
    /// files now.
    ///
    /// # Errors
    ///
    /// As [`Model::digest`].
    pub fn of_model(&self, model: &Model) -> Result<Digest, ModelError> {
        let parts = parts_of(model)?;
        self.remembered("model", parts, || {
            // A model keeps the digest that it once took, perhaps of files that are gone.
            let fresh = Model::open(model.path())?;
            let digest = fresh.digest()?;
            Ok((digest, parts_of(&fresh)?))
        })
    }

    /// What is remembered of `parts`, or else what `take` gives together with the parts as they are
    /// after the reading.
    fn remembered<E>(
        &self,
        what: &str,
        parts: Vec<Part>,
        take: impl FnOnce() -> Result<(Digest, Vec<Part>), E>,
    ) -> Result<Digest, E> {
        let name = file_name(what, &parts);
        if let Some(digest) = self.read(&name, what, &parts) {
            return Ok(digest);
        }
        let started = SystemTime::now();
        let (digest, after) = take()?;
        if after == parts && parts.iter().all(|part| part.is_settled_at(started)) {
            self.write(&name, &Remembered { what: what.to_owned(), parts, digest });
        }
        Ok(digest)
    }

    fn read(&self, name: &str, what: &str, parts: &[Part]) -> Option<Digest> {
        let folder = self.layer?.folder(DIGESTS).ok()?;
        let bytes = folder.read(name, MAX_BYTES).ok()?;
        let remembered: Remembered = sealed::from_bytes(KIND, &bytes).ok()?;
        (remembered.what == what && remembered.parts == parts).then_some(remembered.digest)
    }

    /// What cannot be written is read again the next time.
    fn write(&self, name: &str, remembered: &Remembered) {
        if let Some(layer) = self.layer
            && let Ok(folder) = layer.make_folder(DIGESTS)
        {
            let _ = folder.put(name, &sealed::to_bytes(KIND, remembered), FILE_MODE);
        }
    }
}

impl Part {
    fn of(location: &str, path: &Path) -> io::Result<Self> {
        Ok(Self::new(location, &fs::metadata(path)?))
    }

    fn new(location: &str, metadata: &Metadata) -> Self {
        Self {
            location: location.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            n_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether whatever is written to the file from then on changes its times.
    fn is_settled_at(&self, moment: SystemTime) -> bool {
        let settled =
            moment.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(COARSEST);
        let settled_s = i64::try_from(settled.as_secs()).unwrap_or(i64::MAX);
        let settled = (settled_s, i64::from(settled.subsec_nanos()));
        self.modified < settled && self.changed < settled
    }
}

fn parts_of(model: &Model) -> Result<Vec<Part>, ModelError> {
    let unreadable = |source| ModelError::Unreadable { path: model.path().to_owned(), source };
    let mut parts = vec![Part::of("", model.path()).map_err(unreadable)?];
    for file in model.external_files() {
        let part = Part::of(&file.location, &file.path).map_err(|source| {
            let (path, location) = (model.path().to_owned(), file.location.clone());
            ModelError::ExternalDataUnreadable { path, location, source }
        })?;
        parts.push(part);
    }
    Ok(parts)
}

/// One record for the same files, so that a newer one takes the older one's place.
fn file_name(what: &str, parts: &[Part]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.location.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.location.as_bytes());
        bytes.extend_from_slice(&part.device.to_le_bytes());
        bytes.extend_from_slice(&part.inode.to_le_bytes());
    }
    format!("{}.json", checksum::derived(&format!("shapeyard cache remembered {what} 1"), &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remembered_digest_costs_no_reading() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let part = Part {
            location: String::new(),
            device: 1,
            inode: 2,
            n_bytes: 3,
            modified: (4, 5),
            changed: (6, 7),
        };
        let ask = |parts: &[Part], read: Option<Digest>| {
            let take = || Ok::<_, ()>((read.ok_or(())?, parts.to_vec()));
            store.digests().remembered("file", parts.to_vec(), take)
        };
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let parts = [part.clone()];
        assert_eq!(ask(&parts, Some(one)), Ok(one));
        assert_eq!(ask(&parts, None), Ok(one), "not read again");
        let changes: [fn(&mut Part); 6] = [
            |part| part.device += 1,
            |part| part.inode += 1,
            |part| part.n_bytes += 1,
            |part| part.modified.1 += 1,
            |part| part.changed.1 += 1,
            |part| part.location.push('a'),
        ];
        for change in changes {
            let mut changed = part.clone();
            change(&mut changed);
            let changed = [changed];
            assert_eq!(ask(&changed, None), Err(()), "{changed:?} has to be read");
        }
        assert_eq!(ask(&[part.clone(), part], Some(other)), Ok(other));
        assert_eq!(ask(&parts, None), Ok(one));
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let before = Part::of("", folder.path()).unwrap();
        let after = Part { n_bytes: before.n_bytes + 1, ..before.clone() };
        let take = || Ok::<_, ()>((Digest::of(b"torn"), vec![after]));
        store.digests().remembered("file", vec![before.clone()], take).unwrap();
        let nothing = || Err::<(Digest, Vec<Part>), _>(());
        assert_eq!(store.digests().remembered("file", vec![before], nothing), Err(()));
    }
}
