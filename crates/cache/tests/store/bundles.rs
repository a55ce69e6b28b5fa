//! Bases and bundles, and looking at a store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use shapeyard_cache::{
    Ask, BundleError, Explanation, Key, LayerKind, Place, Served, Store, StoreOptions,
};
use shapeyard_core::BackendId;
use shapeyard_core::model::Digest;

use crate::common::{Scene, key, never, produce, tree};

fn make(store: &Store, key: &Key) {
    store.get_or_produce(key, &Ask::new(), |path| produce(key, path)).unwrap();
}

#[test]
fn pitfall_79_a_shipped_base_is_used_without_a_single_write() {
    let (scene, key) = (Scene::new(), key("model"));
    let maker = scene.store();
    make(&maker, &key);
    let bundle = scene.folder().join("beside the model");
    let report = maker.export(&[key.digest(), Digest::of(b"no such")], &bundle).unwrap();
    assert_eq!((report.copied, report.missing), (vec![key.digest()], vec![Digest::of(b"no such")]));
    let stamps = || -> Vec<_> {
        let look = |path| {
            let metadata = fs::metadata(&path).unwrap();
            (metadata.modified().unwrap(), metadata.permissions().mode(), path)
        };
        tree(&bundle).into_iter().map(look).collect()
    };
    let before = stamps();
    assert!(before.iter().all(|(_, mode, _)| mode & 0o044 == 0o044), "others may read it");

    let root = scene.folder().join("never made");
    for options in [StoreOptions::new(), StoreOptions::new().root(&root)] {
        let store = options.base(&bundle).open().unwrap();
        let hit = store.get_or_produce(&key, &Ask::new(), never).unwrap();
        assert_eq!((hit.served, hit.entry.place()), (Served::Hit, Place::Base));
        assert_eq!(store.counters().base_hits, 1);
        assert_eq!(store.list().unwrap()[0].layer, LayerKind::Base);
        assert!(matches!(
            store.explain(&key).unwrap(),
            Explanation::Hit { layer: LayerKind::Base, .. }
        ));
    }
    assert_eq!(stamps(), before);
    assert!(!root.exists(), "nothing was to be kept");
}

#[test]
fn a_bundle_is_imported_once_and_never_damaged() {
    let (from, to) = (Scene::new(), Scene::new());
    let (sound, damaged) = (key("sound"), key("damaged"));
    let (maker, taker) = (from.store(), to.store());
    make(&maker, &sound);
    make(&maker, &damaged);
    let bundle = from.folder().join("bundle");
    let digests = [sound.digest(), damaged.digest()];
    assert_eq!(maker.export(&digests, &bundle).unwrap().copied.len(), 2);
    assert_eq!(maker.export(&digests, &bundle).unwrap().already_there.len(), 2);
    let entry = tree(&bundle)
        .into_iter()
        .find(|path| path.ends_with(format!("{}/payload", damaged.digest())))
        .unwrap();
    fs::write(entry, "not that").unwrap();

    let report = taker.import(&bundle).unwrap();
    assert_eq!((report.copied.clone(), report.damaged.len()), (vec![sound.digest()], 1));
    assert_eq!(taker.import(&bundle).unwrap().already_there, report.copied);
    let hit = taker.get_or_produce(&sound, &Ask::new(), never).unwrap();
    assert_eq!(hit.entry.place(), Place::Writable);
    assert_eq!(hit.entry.manifest(), maker.get(&sound).unwrap().manifest());
    assert!(taker.get(&damaged).is_none());

    fs::set_permissions(&bundle, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(taker.import(&bundle).unwrap_err(), BundleError::Open(_)));
    let rootless = StoreOptions::new().open().unwrap();
    assert!(matches!(rootless.import(&bundle).unwrap_err(), BundleError::NoRoot));
}

#[test]
fn pitfalls_78_and_80_a_miss_names_what_differs_from_the_nearest_entry() {
    let scene = Scene::new();
    let store = scene.store();
    let key = |model: &[u8], batch: usize, compiler: &str| {
        Key::builder(Digest::of(model), BackendId::new("test"), "1")
            .bucket([("batch", batch)].into_iter().collect())
            .compiler(compiler)
            .build()
    };
    for batch in [1, 2, 4] {
        make(&store, &key(b"model", batch, "compiler 1.0"));
    }
    let explain = |key: &Key| match store.explain(key).unwrap() {
        Explanation::Miss { nearest } => {
            nearest[0].differences.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        store.explain(&key(b"model", 2, "compiler 1.0")).unwrap(),
        Explanation::Hit { .. }
    ));
    assert_eq!(
        explain(&key(b"model", 2, "compiler 1.1")),
        ["compiler: `compiler 1.1` here, `compiler 1.0` there"]
    );
    assert_eq!(
        explain(&key(b"model", 8, "compiler 1.0"))[0].split(':').next(),
        Some("bucket.batch")
    );
    let retrained = explain(&key(b"other weights", 4, "compiler 1.0"));
    assert_eq!(retrained.len(), 1);
    assert!(retrained[0].starts_with("model: "), "{retrained:?}");

    let failing = key(b"model", 16, "compiler 1.0");
    let fail = |_: &std::path::Path| Err(shapeyard_cache::Failure::permanent("too large"));
    store.get_or_produce(&failing, &Ask::new(), fail).unwrap_err();
    assert!(matches!(store.explain(&failing).unwrap(), Explanation::Failed { .. }));
    assert_eq!(store.failures().unwrap()[0].text, "too large");

    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|entry| entry.manifest.is_some() && entry.damage.is_none()));
    let json = serde_json::to_string(&listed).unwrap();
    assert_eq!(serde_json::from_str::<Vec<shapeyard_cache::EntryInfo>>(&json).unwrap(), listed);
    let one = store.find(&listed[1].name[..12]).unwrap();
    assert_eq!(one, listed[1..2]);
    serde_json::to_string(&store.explain(&failing).unwrap()).unwrap();
    serde_json::to_string(&store.counters()).unwrap();
}

#[test]
fn without_the_compiler_an_entry_is_a_hit_if_its_machine_is_the_right_one() {
    let scene = Scene::new();
    let store = scene.store();
    let key = |batch: usize, precision: &str| {
        Key::builder(Digest::of(b"model"), BackendId::new("test"), "1")
            .bucket([("batch", batch)].into_iter().collect())
            .precision(precision)
    };
    for compiler in ["compiler 1.0", "compiler 1.1"] {
        make(&store, &key(1, "fp16").compiler(compiler).architecture("gfx942").build());
    }
    let explain = |key: Key| store.explain_elsewhere(&key).unwrap();
    let Explanation::Possible { entries } = explain(key(1, "fp16").build()) else { panic!() };
    let mut compilers: Vec<String> =
        entries.iter().map(|entry| entry.machine.clone().unwrap().compiler).collect();
    compilers.sort();
    assert_eq!(compilers, ["compiler 1.0", "compiler 1.1"]);

    let Explanation::Miss { nearest } = explain(key(1, "fp32").build()) else { panic!() };
    let fields: Vec<&str> = nearest[0].differences.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["precision"], "what cannot be compared is no difference");

    for entry in &entries {
        fs::write(entry.path.join("payload"), "not that").unwrap();
    }
    assert!(matches!(explain(key(1, "fp16").build()), Explanation::Damaged { .. }));
    let fail = |_: &std::path::Path| Err(shapeyard_cache::Failure::permanent("too large"));
    let failing = key(2, "fp16").compiler("compiler 1.0").build();
    store.get_or_produce(&failing, &Ask::new(), fail).unwrap_err();
    assert!(matches!(explain(key(2, "fp16").build()), Explanation::Failed { .. }));
    assert!(matches!(explain(key(4, "fp16").build()), Explanation::Miss { .. }));
}
