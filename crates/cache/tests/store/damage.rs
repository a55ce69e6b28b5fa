//! Damaged entries: none is handed out, each is set aside once and made again.

use std::fs;
use std::path::Path;

use shapeyard_cache::{Ask, Damage, Explanation, Key, Served, Store, Warning};

use crate::common::{SMALL, Scene, content, key, never, produce};

/// Numbers that only look random, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % n
    }
}

/// Changes something about an entry; says what.
fn damage(dice: &mut Dice, entry: &Path, other: &Path) -> String {
    let name = ["payload", "manifest.json"][dice.below(2)];
    let path = entry.join(name);
    let mut bytes = fs::read(&path).unwrap();
    let at = dice.below(bytes.len());
    match dice.below(8) {
        0 | 1 => {
            let bit = 1 << dice.below(8);
            bytes[at] ^= bit;
            fs::write(&path, bytes).unwrap();
            format!("bit {bit} of byte {at} of {name} flipped")
        }
        2 => {
            bytes.truncate(at);
            fs::write(&path, bytes).unwrap();
            format!("{name} cut off at {at}")
        }
        3 => {
            bytes.extend_from_slice(b" ");
            fs::write(&path, bytes).unwrap();
            format!("{name} made longer")
        }
        4 => {
            fs::copy(other.join(name), &path).unwrap();
            format!("{name} of another entry")
        }
        5 => {
            fs::remove_file(&path).unwrap();
            format!("{name} removed")
        }
        6 => {
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(other.join(name), &path).unwrap();
            format!("{name} linked to another entry's")
        }
        _ => edit_manifest(dice, entry),
    }
}

/// What somebody with an editor, or another program, could do.
fn edit_manifest(dice: &mut Dice, entry: &Path) -> String {
    let path = entry.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let edits = [
        ("compiler 1.0", "compiler 1.1"),
        ("\"schema\": 1", "\"schema\": 2"),
        ("\"n_bytes\": 10000", "\"n_bytes\": 9999"),
        ("\"batch\": 4", "\"batch\": 8"),
        ("\"precision\": null", "\"precision\": \"fp16\""),
        ("\"notes\": {}", "\"notes\": {\"a\": \"b\"}"),
        ("  ", " "),
    ];
    let (from, to) = edits[dice.below(edits.len())];
    let edited = text.replacen(from, to, 1);
    assert_ne!(edited, text, "{from} is not there");
    fs::write(&path, edited).unwrap();
    format!("{from} became {to}")
}

fn make(store: &Store, key: &Key) -> Served {
    let outcome = store.get_or_produce(key, &Ask::new(), |path| produce(key, path)).unwrap();
    assert_eq!(outcome.entry.read().unwrap(), content(key, SMALL));
    outcome.served
}

#[test]
fn pitfall_15_of_5000_damaged_entries_none_is_handed_out() {
    const N_STORES: usize = 10;
    for seed in 0..N_STORES as u64 {
        let (scene, one, other) = (Scene::in_memory(), key("one"), key("other"));
        let (store, mut dice) = (scene.store(), Dice(seed));
        make(&store, &other);
        for n_damages in 0..5000 / N_STORES {
            make(&store, &one);
            let what = damage(&mut dice, &scene.entry(&one), &scene.entry(&other));
            assert!(store.get(&one).is_none(), "{what}");
            assert_eq!(make(&store, &one), Served::Produced, "{what}");
            assert_eq!(make(&store, &one), Served::Hit, "{what}");
            assert_eq!(store.counters().quarantined as usize, n_damages + 1, "{what}");
        }
        let aside = store.quarantined().unwrap();
        assert_eq!(aside.len(), 5000 / N_STORES);
        assert!(aside.iter().all(|(_, reason)| reason.is_some()));
        assert_eq!(make(&store, &other), Served::Hit, "the other entry was not touched");
    }
}

#[test]
fn eight_threads_set_a_damaged_entry_aside_once() {
    let (scene, key) = (Scene::new(), key("model"));
    let stores: Vec<_> = (0..4).map(|_| scene.store()).collect();
    make(&stores[0], &key);
    fs::write(scene.entry(&key).join("payload"), "not that").unwrap();
    std::thread::scope(|scope| {
        for store in stores.iter().chain(&stores) {
            scope.spawn(|| make(store, &key));
        }
    });
    assert_eq!(stores[0].quarantined().unwrap().len(), 1);
    let productions: u64 = stores.iter().map(|store| store.counters().productions).sum();
    assert_eq!(productions, 2, "one before the damage and one after");
}

#[test]
fn what_is_no_entry_at_all_makes_room_for_one() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.store();
    let place = scene.entry(&key);
    make(&store, &key);
    let stand_ins: [&dyn Fn(); 4] = [
        &|| fs::write(&place, "a file").unwrap(),
        &|| std::os::unix::fs::symlink(scene.folder(), &place).unwrap(),
        &|| fs::create_dir(&place).unwrap(),
        &|| {
            fs::create_dir_all(place.join("payload")).unwrap();
            fs::write(place.join("manifest.json"), "{}").unwrap();
        },
    ];
    for stand_in in stand_ins {
        fs::remove_dir_all(&place).or_else(|_| fs::remove_file(&place)).unwrap();
        stand_in();
        assert!(store.get(&key).is_none());
        assert_eq!(make(&store, &key), Served::Produced);
        assert_eq!(make(&store, &key), Served::Hit);
    }
    assert!(scene.folder().is_dir(), "what a link points to is not touched");
}

#[test]
fn verify_finds_damage_and_repairs_it() {
    let (scene, keys) = (Scene::new(), ["a", "b", "c"].map(key));
    let store = scene.store();
    for key in &keys {
        make(&store, key);
    }
    let payload = scene.entry(&keys[1]).join("payload");
    let mut bytes = fs::read(&payload).unwrap();
    bytes[77] ^= 1;
    fs::write(&payload, bytes).unwrap();
    let stray = scene.entry(&keys[2]).with_file_name("stray");
    fs::write(&stray, "").unwrap();

    let mut seen = Vec::new();
    let found = store.verify_watched(false, &mut |done, all| seen.push((done, all))).unwrap();
    let n_all = seen[0].1;
    assert_eq!(seen, (0..=n_all).map(|done| (done, n_all)).collect::<Vec<_>>());
    assert_eq!((found.n_sound, found.damaged.len()), (2, 2));
    assert_eq!(found.n_bytes, 2 * SMALL as u64);
    assert!(found.damaged.iter().any(|entry| matches!(entry.damage, Damage::Checksum { .. })));
    assert!(found.damaged.iter().any(|entry| entry.damage == Damage::Name && entry.path == stray));
    assert!(matches!(store.explain(&keys[1]).unwrap(), Explanation::Damaged { .. }));
    assert!(payload.exists() && stray.exists(), "nothing was moved");

    let repaired = store.verify(true).unwrap();
    assert!(repaired.damaged.iter().all(|entry| entry.quarantined.is_some()), "{repaired:?}");
    assert!(!payload.exists() && !stray.exists());
    let clean = store.verify(true).unwrap();
    assert_eq!((clean.n_sound, clean.damaged.len()), (2, 0));
    assert_eq!(store.quarantined().unwrap().len(), 2);
}

#[test]
fn a_damaged_base_is_passed_over_with_a_warning() {
    let (shipped, scene, key) = (Scene::new(), Scene::new(), key("model"));
    make(&shipped.store(), &key);
    fs::write(shipped.entry(&key).join("payload"), "not that").unwrap();
    let store = scene.options().base(shipped.root()).open().unwrap();
    let made = store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
    assert_eq!(made.served, Served::Produced);
    assert!(matches!(made.warnings[..], [Warning::DamagedBase { .. }]), "{:?}", made.warnings);
    assert!(shipped.entry(&key).exists());
}

#[test]
fn a_damaged_failure_is_as_good_as_none() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.store();
    let fail = |_: &Path| Err(shapeyard_cache::Failure::permanent("no"));
    store.get_or_produce(&key, &Ask::new(), fail).unwrap_err();
    store.get_or_produce(&key, &Ask::new(), never).unwrap_err();
    let record = scene.root().join(format!("v1/failures/{}.json", key.digest()));
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"no\"", "\"on\"")).unwrap();
    assert_eq!(make(&store, &key), Served::Produced);
    assert!(!record.exists(), "what was made is no failure any more");
}
