//! Small JSON files that show every change made to them.
//!
//! A file holds its content and a digest of it, in exactly the bytes that this crate would write
//! again. Whatever was flipped, cut, moved or edited is no longer that.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::checksum;

#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    content: T,
    seal: Digest,
}

/// The bytes of a file of this `kind`.
pub(crate) fn to_bytes<T: Serialize>(kind: &str, content: &T) -> Vec<u8> {
    let seal = seal(kind, content);
    json(&Sealed { content, seal })
}

/// The content of a file of this `kind`, or what is wrong with it.
pub(crate) fn from_bytes<T: Serialize + DeserializeOwned>(
    kind: &str,
    bytes: &[u8],
) -> Result<T, String> {
    let sealed: Sealed<T> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if sealed.seal != seal(kind, &sealed.content) {
        return Err("its content is not what its seal was made from".to_owned());
    }
    if to_bytes(kind, &sealed.content) != bytes {
        return Err("it is not written as this program writes it".to_owned());
    }
    Ok(sealed.content)
}

fn seal<T: Serialize>(kind: &str, content: &T) -> Digest {
    checksum::derived(&format!("shapeyard cache {kind} 1"), &json(content))
}

fn json<T: Serialize>(content: &T) -> Vec<u8> {
    // Everything sealed is made of texts, numbers and maps by text, which always can be written.
    let mut bytes = serde_json::to_vec_pretty(content).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Content = BTreeMap<String, u64>;

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let bytes = to_bytes("manifest", &1u8);
        assert_eq!(from_bytes::<u8>("manifest", &bytes), Ok(1));
        assert!(from_bytes::<u8>("failure", &bytes).is_err());
    }

    proptest! {
        #[test]
        fn every_change_shows(
            content in proptest::collection::btree_map("[a-z\"\\\\é]{0,4}", any::<u64>(), 0..4),
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let bytes = to_bytes("test", &content);
            prop_assert_eq!(from_bytes::<Content>("test", &bytes), Ok(content));
            let (mut flipped, at) = (bytes.clone(), at.index(bytes.len()));
            flipped[at] = byte;
            prop_assert_eq!(from_bytes::<Content>("test", &flipped).is_ok(), flipped == bytes);
            prop_assert!(from_bytes::<Content>("test", &bytes[..at]).is_err());
            prop_assert!(from_bytes::<Content>("test", &[&bytes[..], &[byte]].concat()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(from_bytes::<Content>("test", &bytes).is_err());
        }
    }
}
