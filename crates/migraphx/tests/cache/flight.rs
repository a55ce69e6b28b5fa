//! One compile, however many ask and whoever is killed.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use shapeyard_cache::{Limits, Served, Store};
use shapeyard_core::backend::Backend as _;

use super::child::{Children, obtain};
use super::common::backend;

#[test]
fn pitfall_11_of_8_processes_one_compiles_and_seven_load_20_times() {
    if backend("8 processes").is_none() {
        return;
    }
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let children = Children::new(folder.path());
        let started: Vec<_> = (0..8).map(|_| children.start()).collect();
        for mut child in started {
            assert!(child.wait().unwrap().success(), "{:?}", children.lines());
        }
        let mut lines = children.lines();
        lines.sort();
        assert_eq!(lines[..7], ["Hit"; 7]);
        assert_eq!(lines[7..], ["Produced"]);
    }
}

#[test]
fn pitfall_12_of_32_threads_one_compiles_20_times() {
    let Some(backend) = backend("32 threads") else { return };
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cache");
        let barrier = Barrier::new(32);
        let served: Vec<Served> = thread::scope(|scope| {
            let ask = || {
                barrier.wait();
                obtain(&backend, &root)
            };
            let asking: Vec<_> = (0..32).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let n_produced = served.iter().filter(|served| **served == Served::Produced).count();
        assert_eq!(n_produced, 1, "{served:?}");
    }
}

/// A process that compiles is killed at a random moment, while this one wants the same program.
#[test]
fn pitfalls_13_and_18_a_killed_compile_leaves_nothing_torn_and_nobody_waiting_200_times() {
    let Some(backend) = backend("killed holders") else { return };
    backend.probe();
    let whole = time_of_a_child();
    let (mut n_interrupted, mut random) = (0, 7_u64);
    for _ in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let children = Children::new(folder.path());
        let mut holder = children.start();
        let asking = {
            let (backend, root) = (Arc::clone(&backend), children.root.clone());
            thread::spawn(move || {
                // Late enough for the other to be first more often than not.
                thread::sleep(whole / 3);
                obtain(&backend, &root)
            })
        };
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // From before its first step to after its last.
        thread::sleep(whole.mul_f64((random >> 33) as f64 / (1_u64 << 31) as f64 * 1.2));
        holder.kill().unwrap();
        holder.wait().unwrap();
        let killed = Instant::now();
        let served = asking.join().unwrap();
        assert!(killed.elapsed() < Duration::from_secs(20), "nobody waits for ever");
        n_interrupted += usize::from(served == Served::Produced);
        let store = Store::open(&children.root).unwrap();
        store.collect(&Limits::default()).unwrap();
        let report = store.verify(false).unwrap();
        assert_eq!((report.n_sound, report.damaged.len()), (1, 0), "{report:?}");
        assert!(store.quarantined().unwrap().is_empty());
        assert_eq!(obtain(&backend, &children.root), Served::Hit);
    }
    assert!(n_interrupted > 20, "the kills came too late to show anything: {n_interrupted}");
}

/// How long a child takes that is left alone.
fn time_of_a_child() -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let children = Children::new(folder.path());
    let start = Instant::now();
    assert!(children.start().wait().unwrap().success());
    start.elapsed()
}
