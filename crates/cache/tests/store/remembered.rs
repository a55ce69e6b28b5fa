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
fn pitfalls_3_4_and_7_a_models_digest_is_that_of_its_content() {
    let scene = Scene::new();
    let (store, path) = (scene.store(), scene.folder().join("model.onnx"));
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models");
    let Some(source) = fs::read_dir(&models)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .find(|path| Model::open(path).is_ok_and(|model| model.external_files().is_empty()))
    else {
        panic!("no model in {}", models.display())
    };
    fs::copy(source, &path).unwrap();
    thread::sleep(SETTLED);
    let model = Model::open(&path).unwrap();
    let digest = model.digest().unwrap();
    assert_eq!(store.digests().of_model(&model).unwrap(), digest);
    assert_eq!(records(&scene).len(), 1);
    assert_eq!(store.digests().of_model(&model).unwrap(), digest);

    let renamed = scene.folder().join("renamed.onnx");
    fs::rename(&path, &renamed).unwrap();
    assert_eq!(store.digests().of_model(&Model::open(&renamed).unwrap()).unwrap(), digest);
    fs::rename(&renamed, &path).unwrap();

    // The opened model keeps its digest; what is asked for is that of the file.
    let mut bytes = fs::read(&path).unwrap();
    let producer = bytes.len() - 1;
    bytes[producer] ^= 1;
    change_unseen(&path, &bytes);
    if Model::open(&path).is_ok() {
        assert_ne!(store.digests().of_model(&model).unwrap(), digest);
    }
}
