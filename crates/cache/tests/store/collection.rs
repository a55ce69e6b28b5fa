//! Making room while others load.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use shapeyard_cache::{Ask, Key, Limits, Served, Store};

use crate::common::{SMALL, Scene, content, key, produce, unfinished};

fn make(store: &Store, key: &Key) -> shapeyard_cache::Outcome {
    store.get_or_produce(key, &Ask::new(), |path| produce(key, path)).unwrap()
}

/// As if it had last been used so long ago.
fn age(entry: &Path, age: Duration) {
    let manifest = fs::File::open(entry.join("manifest.json")).unwrap();
    manifest.set_modified(SystemTime::now() - age).unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn pitfall_82_the_least_recently_used_goes_first_and_never_what_is_in_use() {
    let (scene, keys) = (Scene::new(), ["a", "b", "c", "d"].map(key));
    let store = scene.store();
    let held = make(&store, &keys[0]).entry;
    for (key, hours) in keys.iter().zip([9, 8, 7, 6]) {
        make(&store, key);
        age(&scene.entry(key), hours * HOUR);
    }
    // Used again just now, so no longer the oldest.
    assert_eq!(make(&store, &keys[1]).served, Served::Hit);

    let one_entry = store.list().unwrap()[0].n_bytes;
    let limits = Limits { max_bytes: Some(2 * one_entry + 100), max_age: None };
    let would = scene.store().would_collect(&limits).unwrap();
    assert_eq!((would.removed.len(), would.n_kept), (2, 2));
    assert!(keys.iter().all(|key| scene.entry(key).exists()), "nothing was touched");
    // From another handle, as another process would.
    let report = scene.store().collect(&limits).unwrap();
    let names = |entries: &[shapeyard_cache::Collected]| -> Vec<String> {
        entries.iter().map(|entry| entry.name.clone()).collect()
    };
    let digest = |n: usize| keys[n].digest().to_string();
    assert_eq!(names(&report.in_use), [digest(0)]);
    assert_eq!(names(&report.removed), [digest(2), digest(3)]);
    assert_eq!((report.n_kept, report.kept_bytes), (2, 2 * one_entry));
    assert_eq!(report.removed_bytes, 2 * one_entry);
    assert_eq!(held.read().unwrap(), content(&keys[0], SMALL));
    assert!(scene.entry(&keys[0]).exists() && scene.entry(&keys[1]).exists());
    assert!(!scene.entry(&keys[2]).exists() && !scene.entry(&keys[3]).exists());

    drop(held);
    let report = store.collect(&Limits { max_bytes: Some(0), max_age: None }).unwrap();
    assert_eq!((report.n_kept, report.removed.len()), (0, 2));
    assert_eq!(make(&store, &keys[0]).served, Served::Produced);
}

#[test]
fn age_is_counted_from_the_last_use() {
    let (scene, old, used) = (Scene::new(), key("old"), key("used"));
    let store = scene.store();
    for key in [&old, &used] {
        make(&store, key);
        age(&scene.entry(key), 3 * HOUR);
    }
    make(&store, &used);
    let report = store.collect(&Limits { max_bytes: None, max_age: Some(HOUR) }).unwrap();
    assert_eq!((report.removed.len(), report.n_kept), (1, 1));
    assert!(scene.entry(&used).exists());
}

#[test]
fn pitfall_23_others_load_while_entries_are_removed() {
    let (scene, done) = (Scene::new(), AtomicBool::new(false));
    let keys: Vec<Key> = (0..4).map(|n| key(&n.to_string())).collect();
    let stores: Vec<_> = (0..3).map(|_| scene.store()).collect();
    std::thread::scope(|scope| {
        let loaders: Vec<_> = stores
            .iter()
            .enumerate()
            .map(|(n, store)| {
                let (scene, keys) = (&scene, &keys);
                scope.spawn(move || {
                    for round in 0..250 {
                        let key = &keys[(round * 3 + n) % keys.len()];
                        let outcome = make(store, key);
                        assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
                        // By name, as a library does: it is in use, so it is there.
                        assert_eq!(outcome.entry.path(), scene.entry(key).join("payload"));
                        assert_eq!(fs::read(outcome.entry.path()).unwrap(), content(key, SMALL));
                    }
                })
            })
            .collect();
        let collector = scope.spawn(|| {
            let (store, mut n_removed) = (scene.store(), 0);
            while !done.load(SeqCst) {
                let limits = Limits { max_bytes: Some(0), max_age: None };
                n_removed += store.collect(&limits).unwrap().removed.len();
            }
            n_removed
        });
        let loaded: Vec<_> = loaders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, SeqCst);
        assert!(collector.join().unwrap() > 10);
        assert!(loaded.iter().all(Result::is_ok));
    });
    let store = scene.store();
    assert!(store.quarantined().unwrap().is_empty());
    assert!(store.verify(false).unwrap().damaged.is_empty());
    assert_eq!(unfinished(&scene.root()), Vec::<std::path::PathBuf>::new());
    for store in &stores {
        let counted = store.counters();
        assert_eq!(counted.lookups, counted.hits + counted.misses);
    }
}

#[test]
fn rubbish_goes_with_every_collection() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.options().remember_failures(Duration::from_millis(1)).open().unwrap();
    make(&store, &key);
    let failing = crate::common::key("failing");
    let fail = |_: &Path| Err(shapeyard_cache::Failure::permanent("no"));
    store.get_or_produce(&failing, &Ask::new(), fail).unwrap_err();
    // What killed processes leave behind.
    let abandoned = scene.entry(&key).with_file_name(".tmp-abandoned000");
    fs::create_dir(&abandoned).unwrap();
    fs::write(abandoned.join("payload"), "half").unwrap();
    let lock = scene.root().join("v1/locks/some.lock");
    fs::write(&lock, "").unwrap();
    std::thread::sleep(Duration::from_millis(5));
    let report = store.collect(&Limits::default()).unwrap();
    assert_eq!((report.n_rubbish, report.n_kept), (3, 1));
    assert!(!abandoned.exists() && !lock.exists());
    assert!(store.failures().unwrap().is_empty());
}

#[test]
fn work_under_way_is_no_rubbish() {
    let (scene, key) = (Scene::new(), key("model"));
    let (store, other) = (scene.store(), scene.store());
    let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
        let made = produce(&key, path);
        let report = other.collect(&Limits { max_bytes: Some(0), max_age: None }).unwrap();
        assert_eq!((report.n_rubbish, report.removed.len()), (0, 0));
        made
    });
    assert_eq!(outcome.unwrap().served, Served::Produced);
}
