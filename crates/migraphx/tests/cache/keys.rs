//! What makes a program another one, and that `explain` names it.

use std::fs;
use std::path::{Path, PathBuf};

use shapeyard_cache::{Ask, CachedArtifacts, Explanation, Key, Limits, Served, Store};
use shapeyard_core::backend::{Backend as _, Cancellation, LoadJob, Optimisation};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Tensor};
use shapeyard_migraphx::{CompileOptions, MigraphxBackend, MigraphxOptions, Precision};

use super::child::artifacts;
use super::common::{backend, model_path, options};

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    /// A copy of a model, beside which its weights lie.
    fn copy(&self, name: &str, to: &str) -> PathBuf {
        let path = self.folder.path().join(to);
        fs::copy(model_path(name), &path).unwrap();
        if name == "external.onnx" {
            fs::copy(model_path("external.bin"), self.folder.path().join("external.bin")).unwrap();
        }
        path
    }

    fn artifacts(&self, backend: MigraphxBackend, model: &Path) -> CachedArtifacts {
        artifacts(&self.root(), backend.into(), model)
    }

    /// The fields in which a key differs from the nearest entry.
    fn differing(&self, key: &Key) -> Vec<String> {
        match Store::open(self.root()).unwrap().explain(key).unwrap() {
            Explanation::Miss { nearest } => {
                nearest[0].differences.iter().map(|difference| difference.field.clone()).collect()
            }
            other => panic!("{other:?}"),
        }
    }
}

fn shape(artifacts: &CachedArtifacts) -> Bucket {
    let symbols = &artifacts.model().signature().symbols;
    symbols.iter().map(|symbol| (symbol.clone(), 2)).collect()
}

fn served(artifacts: &CachedArtifacts) -> Served {
    let bucket = shape(artifacts);
    artifacts.get_or_compile(&bucket, &Ask::new(), Cancellation::never()).unwrap().served
}

fn fresh() -> MigraphxBackend {
    MigraphxBackend::new(options()).unwrap()
}

fn with(compile: CompileOptions) -> MigraphxBackend {
    let compile = CompileOptions { target: options().compile.target, ..compile };
    MigraphxBackend::new(MigraphxOptions { compile, ..options() }).unwrap()
}

/// Changes the last place where `from` stands.
fn edit(path: &Path, from: &[u8], to: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(from.len()).rposition(|window| window == from).unwrap();
    bytes[at..at + from.len()].copy_from_slice(to);
    fs::write(path, bytes).unwrap();
}

#[test]
fn pitfall_7_a_model_under_another_name_is_a_hit() {
    if backend("renamed model").is_none() {
        return;
    }
    let scene = Scene::new();
    let one = scene.artifacts(fresh(), &scene.copy("add_one.onnx", "one.onnx"));
    assert_eq!(served(&one), Served::Produced);
    let other = scene.artifacts(fresh(), &scene.copy("add_one.onnx", "another.onnx"));
    assert_eq!(served(&other), Served::Hit);
}

#[test]
fn pitfalls_3_4_and_10_a_weight_an_operator_or_an_external_byte_is_another_model() {
    if backend("changed models").is_none() {
        return;
    }
    let scene = Scene::new();
    for (name, file, from, to) in [
        // 1.0 becomes 2.0.
        ("add_one.onnx", "model.onnx", &1.0_f32.to_le_bytes()[..], &2.0_f32.to_le_bytes()[..]),
        ("add_one.onnx", "model.onnx", &b"Add"[..], &b"Mul"[..]),
    ] {
        let path = scene.copy(name, file);
        served(&scene.artifacts(fresh(), &path));
        edit(&path, from, to);
        let changed = scene.artifacts(fresh(), &path);
        assert_eq!(scene.differing(&changed.key(&shape(&changed))), ["model"]);
        assert_eq!(served(&changed), Served::Produced);
    }
    let path = scene.copy("external.onnx", "external.onnx");
    served(&scene.artifacts(fresh(), &path));
    let weights = scene.folder.path().join("external.bin");
    let mut bytes = fs::read(&weights).unwrap();
    bytes[0] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let changed = scene.artifacts(fresh(), &path);
    assert_eq!(scene.differing(&changed.key(&shape(&changed))), ["model"]);
}

/// A calibration set for `dense.onnx`, all of one value.
fn calibration(scene: &Scene, name: &str, model: &Path, value: f32) -> PathBuf {
    let model = Model::open(model).unwrap();
    let spec = &model.signature().inputs[0];
    let width = match spec.shape.as_ref().unwrap()[1] {
        shapeyard_core::Dim::Fixed(width) => width,
        _ => panic!("the model's width is not fixed"),
    };
    let tensor = Tensor::from_slice(&[2, width], &vec![value; 2 * width]).unwrap();
    let view = safetensors::tensor::TensorView::new(
        safetensors::Dtype::F32,
        tensor.shape().to_vec(),
        tensor.bytes(),
    );
    let path = scene.folder.path().join(name);
    safetensors::serialize_to_file([(spec.name.clone(), view.unwrap())], None, &path).unwrap();
    path
}

#[test]
fn pitfall_5_precision_and_calibration_are_in_the_key() {
    if backend("precision in the key").is_none() {
        return;
    }
    let scene = Scene::new();
    let path = scene.copy("dense.onnx", "dense.onnx");
    served(&scene.artifacts(fresh(), &path));
    let precision = |text: &str| text.parse::<Precision>().unwrap();
    let half = with(CompileOptions { precision: precision("fp16"), ..CompileOptions::default() });
    let half = scene.artifacts(half, &path);
    assert_eq!(scene.differing(&half.key(&shape(&half))), ["precision"]);
    assert_eq!(served(&half), Served::Produced);
    let int8 = |value: f32| {
        let file = calibration(&scene, "calibration.safetensors", &path, value);
        let precision = precision("int8");
        let compile =
            CompileOptions { precision, calibration: vec![file], ..CompileOptions::default() };
        scene.artifacts(with(compile), &path)
    };
    assert_eq!(served(&int8(0.5)), Served::Produced);
    assert_eq!(served(&int8(0.5)), Served::Hit);
    let other = int8(0.75);
    assert_eq!(scene.differing(&other.key(&shape(&other))), ["calibration"]);
}

#[test]
fn a_variable_or_another_compiler_is_named() {
    let Some(backend) = backend("environment in the key") else { return };
    let scene = Scene::new();
    let path = scene.copy("add_one.onnx", "model.onnx");
    let ours = scene.artifacts(fresh(), &path);
    served(&ours);
    let model = Model::open(&path).unwrap();
    let recipe = backend.recipe(Optimisation::Full).unwrap();
    let (digest, bucket) = (model.digest().unwrap(), shape(&ours));
    let key = |change: &dyn Fn(&mut shapeyard_core::backend::Machine)| {
        let mut recipe = recipe.clone();
        change(recipe.machine.as_mut().unwrap());
        Key::of(digest, model.signature(), &bucket, &recipe)
    };
    let newer = key(&|machine| machine.compiler = "MIGraphX 2.15.0".to_owned());
    assert_eq!(scene.differing(&newer), ["compiler"]);
    let rebuilt = key(&|machine| machine.library = Some(digest));
    assert_eq!(scene.differing(&rebuilt), ["library"]);
    let variable = key(&|machine| {
        let others = machine.environment.iter();
        let others = others.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let more = [("MIGRAPHX_DISABLE_PASSES".to_owned(), "dead_code".to_owned())];
        machine.environment = others.chain(more).collect();
    });
    assert_eq!(scene.differing(&variable), ["environment.MIGRAPHX_DISABLE_PASSES"]);
}

#[test]
fn a_loaded_program_keeps_its_file_from_being_collected() {
    let Some(backend) = backend("in use") else { return };
    let scene = Scene::new();
    let path = scene.copy("add_one.onnx", "model.onnx");
    // Nothing but the executable is left after this.
    let executable = {
        let artifacts = artifacts(&scene.root(), backend.clone(), &path);
        let bucket = shape(&artifacts);
        let obtained = artifacts.get_or_compile(&bucket, &Ask::new(), Cancellation::never());
        let model = Model::open(&path).unwrap();
        let job = LoadJob { artifacts: &[obtained.unwrap().artifact], ..LoadJob::of(&model) };
        backend.load(&job).unwrap()
    };
    let collect = || {
        let limits = Limits { max_bytes: Some(0), max_age: None };
        Store::open(scene.root()).unwrap().collect(&limits).unwrap()
    };
    assert_eq!((collect().in_use.len(), collect().removed.len()), (1, 0));
    drop(executable);
    assert_eq!(collect().removed.len(), 1);
}
