//! This very program as a child process: a test that does nothing unless it is told what to do.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use shapeyard_cache::{Ask, CachedArtifacts, Served, Store};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, Cancellation, LoadJob, Optimisation};
use shapeyard_core::plan::Bucket;
use shapeyard_migraphx::MigraphxBackend;

use super::common::{backend, bucket, inputs, model_path, run, session, values};

const TASK: &str = "SHAPEYARD_MIGRAPHX_TEST_TASK";

pub(crate) fn artifacts(
    root: &Path,
    backend: Arc<MigraphxBackend>,
    model: &Path,
) -> CachedArtifacts {
    let store = Arc::new(Store::open(root).unwrap());
    let model = Arc::new(Model::open(model).unwrap());
    CachedArtifacts::new(store, backend, model, Optimisation::Full).unwrap()
}

pub(crate) fn four() -> Bucket {
    bucket([("batch", 4)])
}

/// Gets the program for four rows of `add_one` from the store or the compiler, loads it and runs it.
pub(crate) fn obtain(backend: &Arc<MigraphxBackend>, root: &Path) -> Served {
    let artifacts = artifacts(root, Arc::clone(backend), &model_path("add_one.onnx"));
    let obtained = artifacts.get_or_compile(&four(), &Ask::new(), Cancellation::never()).unwrap();
    let model = artifacts.model();
    let job = LoadJob { artifacts: &[obtained.artifact], ..LoadJob::of(model) };
    let executable = backend.load(&job).unwrap();
    let requests = inputs(executable.as_ref(), &four(), 1);
    let outputs =
        run(executable.as_ref(), session(executable.as_ref()).as_mut(), &requests).unwrap().1;
    let pairs = values::<f32>(&requests[0]).iter().zip(values::<f32>(&outputs[0]));
    assert!(pairs.into_iter().all(|(x, y)| x + 1.0 == *y));
    obtained.served
}

/// Children on one root, and what they say.
pub(crate) struct Children {
    pub(crate) root: PathBuf,
    log: PathBuf,
}

impl Children {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { root: folder.join("cache"), log: folder.join("log") }
    }

    pub(crate) fn start(&self) -> Child {
        let task = format!("{}\n{}", self.root.display(), self.log.display());
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "child::the_task_of_a_child", "--nocapture"])
            .env(TASK, task)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_task_of_a_child() {
    let Ok(task) = env::var(TASK) else { return };
    let (root, log) = task.split_once('\n').unwrap();
    let backend = backend("child").unwrap();
    let served = obtain(&backend, Path::new(root));
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    log.write_all(format!("{served:?}\n").as_bytes()).unwrap();
}
