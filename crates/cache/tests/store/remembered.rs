//! Digests of files: taken once, and never believed of a file that changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use shapeyard_core::Model;
use shapeyard_core::model::Digest;

use crate::common::{Scene, tree};

/// Longer than the coarsest clock of a file system.
const SETTLED: Duration = Duration::from_millis(2_100);

fn records(scene: &Scene) -> Vec<PathBuf> {
    tree(&scene.root().join("v1/digests"))
}

/// Writes other bytes of the same number, with the same time of change.
fn change_unseen(path: &Path, bytes: &[u8]) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn a_digest_is_remembered_until_the_file_changes() {
    let scene = Scene::new();
    let (store, file) = (scene.store(), scene.folder().join("library"));
    fs::write(&file, "first").unwrap();
    assert_eq!(store.digests().of_file(&file).unwrap(), Digest::of(b"first"));
    assert!(records(&scene).is_empty(), "it could still change unseen");

    thread::sleep(SETTLED);
    assert_eq!(store.digests().of_file(&file).unwrap(), Digest::of(b"first"));
    let [record] = &records(&scene)[..] else { panic!("one record") };
    // The record is what answers now, and it is believed only as it was written.
    let text = fs::read_to_string(record).unwrap();
    let written = fs::metadata(record).unwrap().modified().unwrap();
    assert_eq!(scene.store().digests().of_file(&file).unwrap(), Digest::of(b"first"));
    assert_eq!(fs::metadata(record).unwrap().modified().unwrap(), written);
    let forged = text.replace(&Digest::of(b"first").to_string(), &Digest::of(b"x").to_string());
    assert_ne!(forged, text);
    fs::write(record, forged).unwrap();
    assert_eq!(store.digests().of_file(&file).unwrap(), Digest::of(b"first"));

    change_unseen(&file, b"other");
    assert_eq!(store.digests().of_file(&file).unwrap(), Digest::of(b"other"));
    let later = SystemTime::now() + Duration::from_secs(3600);
    fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
    assert_eq!(store.digests().of_file(&file).unwrap(), Digest::of(b"other"));
    assert!(store.digests().of_file(&scene.folder().join("none")).is_err());
}

#[test]
fn pitfalls_3_4_and_7_a_models_digest_is_that_of_its_content_now() {
    let scene = Scene::new();
    let (store, folder) = (scene.store(), scene.folder());
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models");
    for name in ["external.onnx", "external.bin", "dense.onnx"] {
        fs::copy(models.join(name), folder.join(name)).unwrap();
    }
    thread::sleep(SETTLED);
    let path = folder.join("external.onnx");
    let model = Model::open(&path).unwrap();
    let digest = model.digest().unwrap();
    for _ in 0..2 {
        assert_eq!(store.digests().of_model(&model).unwrap(), digest);
        assert_eq!(records(&scene).len(), 1);
    }

    let renamed = folder.join("renamed.onnx");
    fs::rename(&path, &renamed).unwrap();
    let model = Model::open(&renamed).unwrap();
    assert_eq!(store.digests().of_model(&model).unwrap(), digest, "the name does not count");

    // An opened model keeps the digest that it took once; this one is of what is in the files.
    assert_eq!(model.digest().unwrap(), digest);
    let mut weights = fs::read(folder.join("external.bin")).unwrap();
    weights[0] ^= 1;
    change_unseen(&folder.join("external.bin"), &weights);
    let changed = store.digests().of_model(&model).unwrap();
    assert_ne!(changed, digest);
    weights[0] ^= 1;
    change_unseen(&folder.join("external.bin"), &weights);
    assert_eq!(store.digests().of_model(&model).unwrap(), digest);

    fs::copy(folder.join("dense.onnx"), &renamed).unwrap();
    let other = Model::open(folder.join("dense.onnx")).unwrap().digest().unwrap();
    assert_eq!(store.digests().of_model(&model).unwrap(), other);
}
