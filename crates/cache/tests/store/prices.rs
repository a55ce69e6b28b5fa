//! Measurements: believed as they were written, and for what they were written for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use shapeyard_cache::MeasuredOf;
use shapeyard_core::BackendId;
use shapeyard_core::backend::Fingerprint;
use shapeyard_core::model::Digest;
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::plan::prices::Measurements;

use crate::common::{Scene, tree};

const BACKEND: BackendId = BackendId::new("test");
const SPLIT: Split = Split { n_sessions: 1, n_threads: 2 };

fn of(model: &str) -> MeasuredOf {
    let fingerprint = Fingerprint("test 1.0".to_owned());
    MeasuredOf::here(Digest::of(model.as_bytes()), BACKEND, fingerprint)
}

fn measured() -> Measurements {
    let mut all = Measurements::new(BACKEND);
    all.measured_at_ms = 5;
    all.of(SPLIT).loads.record(1, 1, 0.1);
    // Seconds that have no short decimal form.
    for nth in 1..50_usize {
        all.of(SPLIT).runs.record(nth, 3 * nth, 1.0 / 3.0 / nth as f64);
    }
    all
}

#[test]
fn what_was_kept_is_read_again() {
    let scene = Scene::new();
    let (of, all) = (of("a model"), measured());
    let path = scene.store().keep_measurements(&of, &all).unwrap();
    assert_eq!(scene.store().measurements(&of), Some(all));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(tree(&scene.root().join("v1/prices")), [path]);
}

#[test]
fn what_was_measured_of_something_else_is_not_believed() {
    let scene = Scene::new();
    let store = scene.store();
    let own = of("a model");
    store.keep_measurements(&own, &measured()).unwrap();
    let changes: [fn(&mut MeasuredOf); 4] = [
        |it| it.model = Digest::of(b"another"),
        |it| it.backend = BackendId::new("another"),
        |it| it.fingerprint = Fingerprint("test 1.1".to_owned()),
        |it| it.machine.push('2'),
    ];
    for change in changes {
        let mut other = own.clone();
        change(&mut other);
        assert_eq!(store.measurements(&other), None, "{other:?}");
        // Not in another's place either.
        let path = store.keep_measurements(&other, &Measurements::new(other.backend.clone()));
        let foreign = store.keep_measurements(&own, &measured()).unwrap();
        fs::copy(foreign, path.unwrap()).unwrap();
        assert_eq!(store.measurements(&other), None, "{other:?}");
    }
}

#[test]
fn what_was_damaged_is_not_believed() {
    let scene = Scene::new();
    let store = scene.store();
    let of = of("a model");
    let path = store.keep_measurements(&of, &measured()).unwrap();
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 100) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert_eq!(store.measurements(&of), None, "byte {at}");
    }
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(store.measurements(&of), None);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(store.measurements(&of), Some(measured()));
}

#[test]
fn production_refines_what_was_measured_and_starts_nothing() {
    let scene = Scene::new();
    let store = scene.store();
    let of = of("a model");
    let mut newer = Measurements::new(BACKEND);
    newer.of(SPLIT).runs.record(1, 3, 1.0);
    assert!(!store.refine_measurements(&of, &newer).unwrap());
    assert!(tree(&scene.root()).is_empty(), "nobody calibrated");
    store.keep_measurements(&of, &measured()).unwrap();
    assert!(store.refine_measurements(&of, &newer).unwrap());
    let runs = store.measurements(&of).unwrap().of(SPLIT).runs.n_runs();
    assert_eq!(runs, measured().of(SPLIT).runs.n_runs() + 1.0);
}

#[test]
fn what_two_add_at_one_moment_counts_for_both() {
    const N: usize = 25;
    let scene = Scene::new();
    let of = of("a model");
    scene.store().keep_measurements(&of, &measured()).unwrap();
    let mut newer = Measurements::new(BACKEND);
    newer.of(SPLIT).runs.record(1, 3, 1.0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // As another process would have it.
                let store = scene.store();
                (0..N).for_each(|_| assert!(store.refine_measurements(&of, &newer).unwrap()));
            });
        }
    });
    let runs = scene.store().measurements(&of).unwrap().of(SPLIT).runs.n_runs();
    assert_eq!(runs, measured().of(SPLIT).runs.n_runs() + 2.0 * N as f64);
}
