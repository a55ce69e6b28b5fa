//! What a backend compiles, kept in a store.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shapeyard_cache::{Ask, CachedArtifacts, Limits, Served, Store};
use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Cancellation, Capabilities,
    CompileJob, Executable, InUse, LoadJob, Machine, Optimisation, Probe, Recipe, ShapeSupport,
    Status,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::{Bucket, Plan, PlanOptions, Workload};
use shapeyard_core::{AxisSymbol, Model};

use super::common::Scene;

const ID: BackendId = BackendId::new("toy");

/// A backend whose programs are the names of their shapes.
struct Toy {
    precision: &'static str,
}

impl Backend for Toy {
    fn id(&self) -> BackendId {
        ID
    }

    fn capabilities(&self) -> Capabilities {
        let (shapes, artifacts) = (ShapeSupport::Static, ArtifactUse::Required);
        Capabilities { shapes, artifacts, dtypes: Vec::new() }
    }

    fn probe(&self) -> Probe {
        let (reason, remedy) = ("it is a toy".to_owned(), "none".to_owned());
        Probe {
            backend: ID,
            status: Status::Unusable { reason, remedy },
            searched: Vec::new(),
            devices: Vec::new(),
        }
    }

    fn plan(&self, _: &Model, work: &Workload, by: &PlanOptions) -> Result<Plan, BackendError> {
        Ok(Plan::dynamic(ID, work, by))
    }

    fn recipe(&self, _: Optimisation) -> Result<Recipe, BackendError> {
        let machine = Machine {
            compiler: "Toy 1".to_owned(),
            library: None,
            driver: None,
            architecture: None,
            environment: shapeyard_core::backend::Environment::default(),
        };
        Ok(Recipe {
            backend: ID,
            backend_version: "1".to_owned(),
            precision: Some(self.precision.to_owned()),
            calibration: None,
            options: BTreeMap::new(),
            machine: Some(machine),
        })
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        let program = job.bucket.to_string();
        fs::write(&job.output, &program).unwrap();
        Ok(Artifact {
            backend: ID,
            model: job.model.digest()?,
            bucket: job.bucket.clone(),
            optimisation: job.optimisation,
            fingerprint: self.recipe(job.optimisation)?.fingerprint(),
            payload: job.output.clone(),
            n_bytes: program.len() as u64,
            checksum: Digest::of(program.as_bytes()),
            notes: BTreeMap::new(),
            in_use: InUse::default(),
        })
    }

    fn load(&self, _: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        Err(BackendError::NothingCompiled { backend: ID })
    }
}

fn model(name: &str) -> Model {
    let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models"));
    Model::open(models.join(name)).unwrap()
}

fn artifacts(store: &Arc<Store>, precision: &'static str, model: Model) -> CachedArtifacts {
    let (store, toy) = (Arc::clone(store), Arc::new(Toy { precision }));
    CachedArtifacts::new(store, toy, Arc::new(model), Optimisation::Full).unwrap()
}

fn of_batch(batch: usize) -> Bucket {
    Bucket::from_iter([("batch", batch)])
}

fn compile(artifacts: &CachedArtifacts, batch: usize) -> shapeyard_cache::Obtained {
    artifacts.get_or_compile(&of_batch(batch), &Ask::new(), Cancellation::never()).unwrap()
}

#[test]
fn the_shapes_that_are_there_are_those_of_the_same_model_and_recipe() {
    let scene = Scene::new();
    let store = Arc::new(Store::open(scene.root()).unwrap());
    let ours = artifacts(&store, "fp16", model("dense.onnx"));
    assert_eq!(ours.buckets().unwrap(), []);
    for batch in [8, 1, 4] {
        let obtained = compile(&ours, batch);
        assert_eq!((obtained.served, obtained.waited), (Served::Produced, Duration::ZERO));
    }
    compile(&artifacts(&store, "fp32", model("dense.onnx")), 2);
    compile(&artifacts(&store, "fp16", model("add_one.onnx")), 3);
    assert_eq!(ours.buckets().unwrap(), [1, 4, 8].map(of_batch));
    assert_eq!(compile(&ours, 4).served, Served::Hit);
}

#[test]
fn what_lies_in_a_base_is_there_too_and_counts_once() {
    let (scene, base) = (Scene::new(), Scene::new());
    let in_base = Arc::new(Store::open(base.root()).unwrap());
    let shipped = artifacts(&in_base, "fp16", model("dense.onnx"));
    compile(&shipped, 1);
    compile(&shipped, 2);
    let own = Arc::new(Store::open(scene.root()).unwrap());
    compile(&artifacts(&own, "fp16", model("dense.onnx")), 2);
    let both = shapeyard_cache::StoreOptions::new().root(scene.root()).base(base.root());
    let both = artifacts(&Arc::new(both.open().unwrap()), "fp16", model("dense.onnx"));
    assert_eq!(both.buckets().unwrap(), [1, 2].map(of_batch));
}

#[test]
fn a_declared_axis_makes_another_artifact() {
    let scene = Scene::new();
    let store = Arc::new(Store::open(scene.root()).unwrap());
    let declared = |symbol: &str| {
        let (tensor, symbol) = ("x".to_owned(), symbol.to_owned());
        let axis = AxisSymbol { tensor, axis: 0, symbol };
        artifacts(&store, "fp16", model("unnamed_dims.onnx").declare(&[axis]).unwrap())
    };
    compile(&declared("batch"), 2);
    assert_eq!(declared("batch").buckets().unwrap(), [of_batch(2)]);
    assert_eq!(declared("rows").buckets().unwrap(), []);
}

#[test]
fn a_damaged_entry_is_listed_by_its_shape_and_not_handed_out() {
    let scene = Scene::new();
    let store = Arc::new(Store::open(scene.root()).unwrap());
    let ours = artifacts(&store, "fp16", model("dense.onnx"));
    let payload: PathBuf = compile(&ours, 1).artifact.payload;
    let mut bytes = fs::read(&payload).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(&payload).unwrap();
    fs::write(&payload, bytes).unwrap();
    assert_eq!(ours.buckets().unwrap(), [of_batch(1)]);
    assert!(ours.get(&of_batch(1)).is_none());
}

#[test]
fn an_artifact_is_in_use_as_long_as_a_copy_of_it_lives() {
    let scene = Scene::new();
    let store = Arc::new(Store::open(scene.root()).unwrap());
    let copy = {
        let artifacts = artifacts(&store, "fp16", model("dense.onnx"));
        compile(&artifacts, 1);
        compile(&artifacts, 2);
        artifacts.get(&of_batch(1)).unwrap().clone()
    };
    let collect = || store.collect(&Limits { max_bytes: Some(0), max_age: None }).unwrap();
    let first = collect();
    assert_eq!((first.in_use.len(), first.removed.len()), (1, 1));
    assert!(copy.payload.exists());
    drop(copy);
    assert_eq!(collect().removed.len(), 1);
}
