//! Damage to real programs: none of it reaches the library.

use std::fs;
use std::path::Path;

use shapeyard_cache::{Ask, Produced, Served, Store};
use shapeyard_core::backend::Cancellation;

use super::child::{artifacts, four, obtain};
use super::common::{backend, model_path};

const N: u64 = 5_000;
/// Every so many damages the program is compiled anew and run; in between it is copied, since what is
/// tested is whether the damage is found.
const COMPILED_EVERY: u64 = 100;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

/// Damages an entry in one of many ways, and says how.
fn damage(entry: &Path, other: &Path, random: &mut Random) -> String {
    let file = if random.below(4) == 0 { "manifest.json" } else { "payload" };
    let path = entry.join(file);
    let mut bytes = fs::read(&path).unwrap();
    let at = random.below(bytes.len());
    let how = match random.below(6) {
        0 | 1 => {
            bytes[at] ^= 1 << random.below(8);
            "a flipped bit"
        }
        2 => {
            bytes.truncate(at);
            "a truncation"
        }
        3 => {
            bytes.extend_from_slice(&bytes.clone());
            "a doubled file"
        }
        4 => {
            bytes = fs::read(other.join(file)).unwrap();
            "another entry's file"
        }
        _ => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            // Different from what stands there, whatever that is.
            bytes[at..end].iter_mut().for_each(|byte| *byte = !*byte);
            "an overwritten range"
        }
    };
    // As if a disk or another program had done it: the length of time stays out of it.
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&path, bytes).unwrap();
    format!("{how} in {file} at {at}")
}

#[test]
fn pitfall_15_of_5000_damages_none_reaches_the_library() {
    let Some(backend) = backend("5,000 damages") else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cache");
    obtain(&backend, &root);
    let of = artifacts(&root, backend.clone(), &model_path("add_one.onnx"));
    let larger = four().with("batch", 8);
    of.get_or_compile(&larger, &Ask::new(), Cancellation::never()).unwrap();
    let place = |key: &shapeyard_cache::Key| {
        let digest = key.digest().to_string();
        root.join("v1/entries").join(&digest[..2]).join(digest)
    };
    let (key, entry, other) = (of.key(&four()), place(&of.key(&four())), place(&of.key(&larger)));
    let whole = fs::read(entry.join("payload")).unwrap();
    let store = Store::open(&root).unwrap();
    let notes = store.get(&key).unwrap().manifest().notes.clone();
    let mut random = Random(99);
    for n in 1..=N {
        let how = damage(&entry, &other, &mut random);
        if n.is_multiple_of(COMPILED_EVERY) {
            assert_eq!(obtain(&backend, &root), Served::Produced, "{how}");
            continue;
        }
        let rebuilt = store.get_or_produce(&key, &Ask::new(), |path| {
            fs::write(path, &whole)?;
            Ok(Produced { n_bytes: None, notes: notes.clone() })
        });
        let rebuilt = rebuilt.unwrap();
        assert_eq!(rebuilt.served, Served::Produced, "not noticed: {how}");
        assert_eq!(rebuilt.entry.read().unwrap(), whole, "{how}");
    }
    assert_eq!(store.quarantined().unwrap().len() as u64, N, "each is set aside once");
    assert_eq!(obtain(&backend, &root), Served::Hit);
}
