//! One process: hits and misses, sharing between threads, waiting, failures, counters.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use shapeyard_cache::{
    Ask, CacheError, Failure, FailureOrigin, Place, Produced, Served, StoreOptions,
};

use crate::common::{SMALL, Scene, content, key, never, produce, unfinished};

#[test]
fn what_was_produced_is_a_hit_for_this_store_and_the_next() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.store();
    assert!(store.get(&key).is_none());
    let made = store.get_or_produce(&key, &Ask::new(), |path| {
        assert!(!path.exists() && path.parent().unwrap().is_dir());
        std::fs::write(path.with_file_name("beside"), "of no use").unwrap();
        std::fs::write(path, content(&key, SMALL))?;
        let notes = [("log".to_owned(), "took long".to_owned())];
        Ok(Produced { notes: notes.into_iter().collect(), ..Produced::default() })
    });
    let made = made.unwrap();
    assert_eq!((made.served, made.entry.place()), (Served::Produced, Place::Writable));
    for store in [store, scene.store()] {
        let hit = store.get_or_produce(&key, &Ask::new(), never).unwrap();
        assert_eq!(hit.served, Served::Hit);
        assert_eq!(hit.entry.path(), scene.entry(&key).join("payload"));
        assert_eq!(hit.entry.read().unwrap(), content(&key, SMALL));
        assert_eq!(std::fs::read(hit.entry.path()).unwrap(), content(&key, SMALL));
        assert_eq!(hit.entry.manifest(), made.entry.manifest());
        assert_eq!(hit.entry.manifest().notes["log"], "took long");
        assert_eq!(hit.entry.manifest().key, key);
        assert!(store.get(&key).is_some());
    }
    let mut names: Vec<_> = std::fs::read_dir(scene.entry(&key))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["manifest.json", "payload"]);
    assert_eq!(unfinished(&scene.root()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn pitfall_11_of_32_threads_one_produces_20_times() {
    for _ in 0..20 {
        let (scene, key, produced) = (Scene::new(), key("model"), AtomicUsize::new(0));
        let store = scene.store();
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
                        produced.fetch_add(1, SeqCst);
                        thread::sleep(Duration::from_millis(5));
                        produce(&key, path)
                    });
                    assert_eq!(outcome.unwrap().entry.read().unwrap(), content(&key, SMALL));
                });
            }
        });
        assert_eq!(produced.load(SeqCst), 1);
        let counters = store.counters();
        assert_eq!((counters.lookups, counters.misses, counters.hits), (32, 1, 31));
    }
}

#[test]
fn pitfall_12_without_a_folder_threads_share_too() {
    let (key, produced) = (key("model"), AtomicUsize::new(0));
    let store = StoreOptions::new().reserve_bytes(1).open().unwrap();
    let path = thread::scope(|scope| {
        let ask = || {
            let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
                produced.fetch_add(1, SeqCst);
                produce(&key, path)
            });
            let entry = outcome.unwrap().entry;
            assert_eq!(entry.place(), Place::Private);
            entry.path().to_owned()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).next_back().unwrap()
    });
    assert_eq!(produced.load(SeqCst), 1);
    assert!(path.exists());
    drop(store);
    assert!(!path.exists(), "a private artifact goes with its store");
}

#[test]
fn pitfall_19_waiting_is_bounded_cancellable_and_says_for_whom() {
    let (scene, key) = (Scene::new(), key("model"));
    let (store, other_store) = (scene.store(), scene.store());
    let (started, is_started) = mpsc::channel();
    let (finish, is_finished) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (store, key) = (&store, &key);
        let holder = scope.spawn(move || {
            store.get_or_produce(key, &Ask::new(), |path| {
                started.send(()).unwrap();
                is_finished.recv().unwrap();
                produce(key, path)
            })
        });
        is_started.recv().unwrap();
        // The first shares the process's registry, the second meets the lock on disk.
        for store in [store, &other_store] {
            let heard = Mutex::new(Vec::new());
            let on_wait = |waiting: &shapeyard_cache::Waiting| {
                heard.lock().unwrap().push(waiting.holder.clone());
            };
            let short = Duration::from_millis(60);
            let began = Instant::now();
            let ask = Ask::new().patience(short).on_wait(&on_wait);
            let error = store.get_or_produce(key, &ask, never).unwrap_err();
            assert!(began.elapsed() >= short && began.elapsed() < Duration::from_secs(10));
            let CacheError::WaitedTooLong { holder, waited, .. } = error else { panic!("{error}") };
            assert!(waited >= short);
            assert_eq!(holder.unwrap().pid, std::process::id());
            assert_eq!(heard.lock().unwrap()[0].as_ref().unwrap().pid, std::process::id());

            let cancelled = || began.elapsed() > 2 * short;
            let ask = Ask::new().cancelled(&cancelled);
            let error = store.get_or_produce(key, &ask, never).unwrap_err();
            assert!(matches!(error, CacheError::Cancelled { .. }), "{error}");
            assert_eq!(store.counters().abandoned, 2);
        }
        finish.send(()).unwrap();
        assert_eq!(holder.join().unwrap().unwrap().served, Served::Produced);
    });
    assert_eq!(store.get_or_produce(&key, &Ask::new(), never).unwrap().served, Served::Hit);
}

#[test]
fn pitfall_20_a_failure_is_shared_remembered_and_retried() {
    let (scene, key, produced) = (Scene::new(), key("model"), AtomicUsize::new(0));
    let store = scene.store();
    let fail = |_: &std::path::Path| {
        produced.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(20));
        Err(Failure::permanent("op Foo is not supported"))
    };
    let origins = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match store.get_or_produce(&key, &Ask::new(), fail).unwrap_err() {
                CacheError::Failed { record, origin } => {
                    assert_eq!(record.text, "op Foo is not supported");
                    origins.lock().unwrap().push(origin);
                }
                error => panic!("{error}"),
            });
        }
    });
    assert_eq!(produced.load(SeqCst), 1, "one attempt for all");
    let here = |origin: &&FailureOrigin| **origin == FailureOrigin::Here;
    assert_eq!(origins.lock().unwrap().iter().filter(here).count(), 1);
    assert_eq!(store.counters().negative, 7);

    let other = scene.store();
    let error = other.get_or_produce(&key, &Ask::new(), never).unwrap_err();
    assert!(matches!(error, CacheError::Failed { origin: FailureOrigin::Remembered, .. }));
    assert!(error.to_string().contains("op Foo is not supported"), "{error}");

    thread::sleep(Duration::from_millis(2));
    let retried = other.get_or_produce(&key, &Ask::new().retry(true), fail).unwrap_err();
    assert!(matches!(retried, CacheError::Failed { origin: FailureOrigin::Here, .. }));
    assert_eq!(produced.load(SeqCst), 2);

    let made = other.get_or_produce(&key, &Ask::new().retry(true), |path| produce(&key, path));
    assert_eq!(made.unwrap().served, Served::Produced);
    assert_eq!(store.get_or_produce(&key, &Ask::new(), never).unwrap().served, Served::Hit);
}

#[test]
fn a_failure_expires() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.options().remember_failures(Duration::from_millis(500)).open().unwrap();
    let fail = |_: &std::path::Path| Err(Failure::permanent("no"));
    store.get_or_produce(&key, &Ask::new(), fail).unwrap_err();
    store.get_or_produce(&key, &Ask::new(), never).unwrap_err();
    thread::sleep(Duration::from_millis(550));
    let made = store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path));
    assert_eq!(made.unwrap().served, Served::Produced);
}

#[test]
fn a_passing_failure_is_not_remembered() {
    let (scene, key) = (Scene::new(), key("model"));
    let store = scene.store();
    let time_out = |_: &std::path::Path| Err(Failure::passing("took longer than 600 s"));
    store.get_or_produce(&key, &Ask::new(), time_out).unwrap_err();
    let nothing = |_: &std::path::Path| Ok(Produced::default());
    let error = store.get_or_produce(&key, &Ask::new(), nothing).unwrap_err();
    assert!(error.to_string().contains("wrote no file"), "{error}");
    let made = store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path));
    assert_eq!(made.unwrap().served, Served::Produced);
}

#[test]
fn who_waits_goes_on_when_the_producer_gives_up_or_panics() {
    for panics in [false, true] {
        let (scene, key) = (Scene::new(), key("model"));
        let store = scene.store();
        let (started, is_started) = mpsc::channel();
        thread::scope(|scope| {
            let (store, key) = (&store, &key);
            let first = scope.spawn(move || {
                store.get_or_produce(key, &Ask::new(), |_| {
                    started.send(()).unwrap();
                    thread::sleep(Duration::from_millis(30));
                    assert!(!panics, "a producer may panic");
                    Err(Failure::Cancelled)
                })
            });
            is_started.recv().unwrap();
            let second = store.get_or_produce(key, &Ask::new(), |path| produce(key, path));
            assert_eq!(second.unwrap().served, Served::Produced);
            match first.join() {
                Ok(first) => assert!(matches!(first, Err(CacheError::Cancelled { .. }))),
                Err(_) => assert!(panics),
            }
        });
        assert_eq!(unfinished(&scene.root()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn pitfall_24_two_handles_of_one_process_exclude_each_other() {
    let (scene, key) = (Scene::new(), key("model"));
    let stores: Vec<_> = (0..4).map(|_| scene.store()).collect();
    let (busy, produced) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| {
                let outcome = store.get_or_produce(&key, &Ask::new(), |path| {
                    assert!(!busy.swap(true, SeqCst), "two at once");
                    produced.fetch_add(1, SeqCst);
                    thread::sleep(Duration::from_millis(20));
                    busy.store(false, SeqCst);
                    produce(&key, path)
                });
                outcome.unwrap();
            });
        }
    });
    assert_eq!(produced.load(SeqCst), 1);
}

#[test]
fn pitfall_81_counters_add_up() {
    let scene = Scene::new();
    let store = scene.store();
    thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..30 {
                    let key = key(&format!("model {}", (round * 7 + thread) % 9));
                    let ask = Ask::new().patience(Duration::from_millis(3)).retry(round % 5 == 0);
                    let _ = store.get_or_produce(&key, &ask, |path| match round % 4 {
                        0 => Err(Failure::permanent("no")),
                        1 => Err(Failure::passing("not now")),
                        2 => Err(Failure::Cancelled),
                        _ => produce(&key, path),
                    });
                }
            });
        }
    });
    let counted = store.counters();
    assert_eq!(counted.lookups, 120);
    assert_eq!(
        counted.lookups,
        counted.hits + counted.misses + counted.negative + counted.abandoned,
        "{counted:?}"
    );
    assert!(counted.hits > 0 && counted.misses > 0 && counted.negative > 0, "{counted:?}");
}
