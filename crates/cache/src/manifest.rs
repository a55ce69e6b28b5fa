//! What an entry says about itself, and what can be wrong with one.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::key::Key;
use crate::lock::Holder;
use crate::sealed;

/// The file with the artifact.
pub(crate) const PAYLOAD: &str = "payload";
/// The file with the [`Manifest`]. Its time of change is when the entry was last used.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Longer than any manifest.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// The version of the manifest. It changes only together with the version of the layout, so that a
/// program never meets, and never sets aside, a manifest that it is too old for.
const SCHEMA: u32 = 1;
const KIND: &str = "manifest";

/// What an entry says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the manifest.
    pub schema: u32,
    /// The key's digest, which is also the entry's name.
    pub digest: Digest,
    /// Everything that decided what the payload is.
    pub key: Key,
    /// The payload's length and content.
    pub payload: Payload,
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// Which process made it.
    pub created_by: Holder,
    /// What the producer had to say, such as the compiler's log.
    pub notes: BTreeMap<String, String>,
}

/// The payload as it was when it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Its length in bytes.
    pub n_bytes: u64,
    /// The BLAKE3 digest of its bytes.
    pub checksum: Digest,
}

impl Manifest {
    pub(crate) fn new(key: &Key, payload: Payload, notes: BTreeMap<String, String>) -> Self {
        Self {
            schema: SCHEMA,
            digest: key.digest(),
            key: key.clone(),
            payload,
            created_at_ms: crate::clock::now_ms(),
            created_by: Holder::this_process(),
            notes,
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        sealed::to_bytes(KIND, self)
    }

    /// Reads the manifest of the entry that stands under `digest`.
    pub(crate) fn from_bytes(bytes: &[u8], digest: &Digest) -> Result<Self, Damage> {
        let manifest: Self =
            sealed::from_bytes(KIND, bytes).map_err(|reason| Damage::Manifest { reason })?;
        if manifest.schema != SCHEMA {
            let reason = format!("it has schema {}, known is {SCHEMA}", manifest.schema);
            return Err(Damage::Manifest { reason });
        }
        if manifest.digest != *digest || manifest.key.digest() != *digest {
            return Err(Damage::Misplaced { belongs_to: manifest.key.digest() });
        }
        Ok(manifest)
    }
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "damage")]
#[non_exhaustive]
pub enum Damage {
    /// Something that is no folder stands in its place, or a link.
    NotAFolder,
    /// It has no manifest, or something that cannot be one stands in its place.
    NoManifest,
    /// Its manifest is not as it was written.
    Manifest {
        /// What is wrong with it.
        reason: String,
    },
    /// Its manifest is another entry's.
    Misplaced {
        /// The entry whose manifest it is.
        belongs_to: Digest,
    },
    /// Its key has the same digest and yet differs.
    Key {
        /// The fields that differ.
        fields: Vec<String>,
    },
    /// It has no payload, or a link in its place.
    NoPayload,
    /// Its payload has another length.
    Length {
        /// Bytes when it was published.
        wanted: u64,
        /// Bytes now.
        found: u64,
    },
    /// Its payload has other bytes.
    Checksum {
        /// The digest when it was published.
        wanted: Digest,
        /// The digest now.
        found: Digest,
    },
    /// It lies outside of its place, or has a name that no entry has.
    Name,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFolder => f.write_str("no folder stands in its place"),
            Self::NoManifest => f.write_str("it has no manifest"),
            Self::Manifest { reason } => write!(f, "its manifest cannot be believed: {reason}"),
            Self::Misplaced { belongs_to } => write!(f, "its manifest is that of {belongs_to}"),
            Self::Key { fields } => write!(f, "its key differs in {}", fields.join(", ")),
            Self::NoPayload => f.write_str("it has no payload"),
            Self::Length { wanted, found } => {
                write!(f, "its payload has {found} bytes and should have {wanted}")
            }
            Self::Checksum { wanted, found } => {
                write!(f, "its payload has the checksum {found} and should have {wanted}")
            }
            Self::Name => f.write_str("it has a name that no entry has"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shapeyard_core::BackendId;

    use super::*;

    fn manifest() -> Manifest {
        let key = Key::builder(Digest::of(b"model"), BackendId::new("test"), "1")
            .bucket([("batch", 4)].into_iter().collect())
            .build();
        let payload = Payload { n_bytes: 3, checksum: Digest::of(b"abc") };
        let notes = [("log".to_owned(), "\"quoted\" \u{1f600}".to_owned())];
        Manifest::new(&key, payload, notes.into_iter().collect())
    }

    #[test]
    fn a_manifest_reads_back_in_its_own_place_only() {
        let manifest = manifest();
        let bytes = manifest.to_bytes();
        assert_eq!(Manifest::from_bytes(&bytes, &manifest.digest), Ok(manifest.clone()));
        let elsewhere = Manifest::from_bytes(&bytes, &Digest::of(b"another"));
        assert_eq!(elsewhere, Err(Damage::Misplaced { belongs_to: manifest.digest }));
    }

    #[test]
    fn a_manifest_that_was_sealed_again_still_has_to_fit() {
        let digest = manifest().digest;
        let changes: [fn(&mut Manifest); 3] = [
            |manifest| manifest.schema = 2,
            |manifest| manifest.digest = Digest::of(b"another"),
            |manifest| {
                let key = Key::builder(Digest::of(b"model"), BackendId::new("test"), "2");
                manifest.key = key.build();
            },
        ];
        for change in changes {
            let mut changed = manifest();
            change(&mut changed);
            assert!(Manifest::from_bytes(&changed.to_bytes(), &digest).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_edit_of_a_manifest_is_believed(
            cut in any::<proptest::sample::Index>(),
            removed in 0usize..40,
            added in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let (bytes, digest) = (manifest().to_bytes(), manifest().digest);
            let at = cut.index(bytes.len());
            let end = bytes.len().min(at + removed);
            let edited = [&bytes[..at], &added, &bytes[end..]].concat();
            if let Ok(believed) = Manifest::from_bytes(&edited, &digest) {
                prop_assert_eq!(edited, believed.to_bytes());
                prop_assert_eq!(at + added.len(), end);
            }
        }
    }
}
