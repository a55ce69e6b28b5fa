//! Several processes on one root.

use std::time::{Duration, Instant};

use shapeyard_cache::{Ask, Locking, Served};

use crate::child::Task;
use crate::common::{Scene, content, key, never, produce, tree, unfinished};

#[test]
fn pitfall_11_of_8_processes_one_produces_and_seven_load_20_times() {
    for _ in 0..20 {
        let scene = Scene::new();
        let task = Task::new(&scene.root(), &scene.folder().join("log"));
        let children: Vec<_> = (0..8).map(|_| task.start()).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(task.count("producing"), 1, "{:?}", task.lines());
        assert_eq!((task.count("produced"), task.count("loaded")), (1, 7), "{:?}", task.lines());
    }
}

/// The holder is killed at a random moment while another waits and then finishes the work.
#[test]
fn pitfalls_13_and_18_a_killed_holder_leaves_nothing_torn_and_nobody_waiting_200_times() {
    let (mut n_interrupted, mut moment) = (0, 1u64);
    for _ in 0..200 {
        let scene = Scene::new();
        let mut task = Task::new(&scene.root(), &scene.folder().join("log"));
        task.production = Duration::from_millis(2);
        let (mut holder, mut waiter) = (task.start(), task.start());
        // From before the child's first line to after its last.
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((moment >> 33) % 25_000));
        holder.kill().unwrap();
        let n_before = task.count("produced");
        holder.wait().unwrap();
        let began = Instant::now();
        assert!(waiter.wait().unwrap().success(), "{:?}", task.lines());
        assert!(began.elapsed() < Duration::from_secs(20), "nobody waits for ever");
        n_interrupted += usize::from(n_before == 0);

        // Another process finds the one complete entry, and sweeping leaves nothing beside it.
        let (store, key) = (scene.store(), key("model"));
        let hit = store.get_or_produce(&key, &Ask::new(), never).unwrap();
        assert_eq!(hit.entry.read().unwrap(), content(&key, task.n_bytes));
        assert_eq!(task.count("failed"), 0);
        store.collect(&shapeyard_cache::Limits::default()).unwrap();
        assert_eq!(unfinished(&scene.root()), Vec::<std::path::PathBuf>::new());
        let report = store.verify(false).unwrap();
        assert_eq!((report.n_sound, report.damaged.len()), (1, 0), "{report:?}");
        assert!(store.quarantined().unwrap().is_empty());
    }
    assert!(n_interrupted > 20, "the kills came too late to show anything: {n_interrupted}");
}

#[test]
fn a_waiting_process_says_who_holds_the_lock() {
    let scene = Scene::new();
    let mut task = Task::new(&scene.root(), &scene.folder().join("log"));
    task.production = Duration::from_secs(5);
    let mut holder = task.start();
    while task.count("producing") == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ask = Ask::new().patience(Duration::from_millis(50));
    let error = scene.store().get_or_produce(&key("model"), &ask, never).unwrap_err();
    let expected = format!("process {} on ", holder.id());
    assert!(error.to_string().contains(&expected), "{error}");
    holder.kill().unwrap();
    holder.wait().unwrap();
    let ask = Ask::new().patience(Duration::from_secs(10));
    let made =
        scene.store().get_or_produce(&key("model"), &ask, |path| produce(&key("model"), path));
    assert_eq!(made.unwrap().served, Served::Produced);
}

#[test]
fn pitfall_22_without_locks_two_writers_are_correct_and_one_entry_stands() {
    for _ in 0..50 {
        let (scene, key) = (Scene::new(), key("model"));
        let barrier = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (scene, key, barrier) = (&scene, &key, &barrier);
                scope.spawn(move || {
                    let store = scene.options().locking(Locking::Never).open().unwrap();
                    let outcome = store.get_or_produce(key, &Ask::new(), |path| {
                        barrier.wait();
                        // Compilers are not deterministic: each writes something else.
                        std::fs::write(path, format!("writer {writer}"))?;
                        Ok(shapeyard_cache::Produced::default())
                    });
                    let outcome = outcome.unwrap();
                    let text = String::from_utf8(outcome.entry.read().unwrap()).unwrap();
                    assert!(text.starts_with("writer "));
                    let warned = format!("{:?}", outcome.warnings);
                    assert!(warned.contains("NoLocks"), "{warned}");
                });
            }
        });
        let store = scene.store();
        let report = store.verify(false).unwrap();
        assert_eq!((report.n_sound, report.damaged.len()), (1, 0));
        assert_eq!(store.get_or_produce(&key, &Ask::new(), never).unwrap().served, Served::Hit);
        assert_eq!(unfinished(&scene.root()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn locks_leave_no_files_behind() {
    let scene = Scene::new();
    let store = scene.store();
    for n in 0..20 {
        let key = key(&n.to_string());
        store.get_or_produce(&key, &Ask::new(), |path| produce(&key, path)).unwrap();
    }
    assert!(tree(&scene.root().join("v1/locks")).is_empty());
}
