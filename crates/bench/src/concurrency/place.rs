//! The programs, and engines on them.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shapeyard_core::Model;
use shapeyard_core::backend::{
    Artifact, ArtifactSource, Backend, BackendError, Cancellation, CompileJob, Executable, LoadJob,
    SessionOptions, Status,
};
use shapeyard_core::engine::{Engine, EngineOptions};
use shapeyard_core::plan::Bucket;
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};

use super::Args;
use super::clients::Batches;
use super::rows::Rows;
use crate::suite::Skipped;

/// The symbol that counts rows.
const ROWS: &str = "batch";

/// A model with a program for each batch.
pub(crate) struct Place {
    model: Model,
    worker: WorkerProgram,
    target: Target,
    artifacts: Vec<Artifact>,
    pub(crate) batches: Vec<usize>,
    pub(crate) rows: Rows,
    pub(crate) compile_time: Duration,
    pub(crate) compiler: String,
    _folder: tempfile::TempDir,
}

/// An engine, and what is asked of it.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) batches: Batches,
    pub(crate) instances: usize,
    /// Whether every request runs in the one largest program.
    pub(crate) is_padded_to_one: bool,
    pub(crate) engine: Engine,
    wanted: Arc<Wanted>,
}

/// Has nothing to give, and counts who asks all the same.
#[derive(Debug, Default)]
struct Wanted(AtomicUsize);

impl ArtifactSource for Wanted {
    fn artifact(&self, _: &Bucket, _: Cancellation<'_>) -> Result<Artifact, BackendError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(BackendError::Unsupported {
            backend: shapeyard_migraphx::ID,
            what: "compile while it is measured",
        })
    }
}

impl Contender {
    pub(crate) fn n_wanted_compiles(&self) -> usize {
        self.wanted.0.load(Ordering::Relaxed)
    }
}

impl Place {
    /// Compiles a program for each batch.
    pub(crate) fn make(args: &Args, worker: WorkerProgram) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (model, batches) = (Model::open(&args.model)?, args.batches.extents()?);
        let backend = backend(worker.clone(), args.target, 1)?;
        let compiler = version(&backend)?;
        eprintln!("compiling {} programs of {}", batches.len(), args.model.display());
        let start = Instant::now();
        let shapes = batches.iter().map(|&batch| shape(&model, args.extent, batch));
        let artifacts: Vec<Artifact> = shapes
            .map(|shape| compile(&backend, &model, shape, folder.path()))
            .collect::<Result<_, _>>()?;
        let compile_time = start.elapsed();
        let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(&model) };
        let rows = Rows::of(&backend.load(&job)?, &shape(&model, args.extent, 1))?;
        let target = args.target;
        Ok(Self {
            model,
            worker,
            target,
            artifacts,
            batches,
            rows,
            compile_time,
            compiler,
            _folder: folder,
        })
    }

    pub(crate) fn most_rows(&self) -> usize {
        self.batches.last().copied().unwrap_or(1)
    }

    /// An engine on all programs, or on that of one batch.
    pub(crate) fn contender(
        &self,
        name: String,
        batches: Batches,
        only: Option<usize>,
        (instances, n_sessions, queue_capacity): (usize, usize, usize),
    ) -> Result<Contender> {
        let wanted = Arc::new(Wanted::default());
        let executable = self.load(instances, only, &wanted)?;
        let session = SessionOptions::threads(1);
        let options = EngineOptions { n_sessions, session, queue_capacity };
        let engine = Engine::start(&executable, &options)?;
        let is_padded_to_one = only.is_some();
        Ok(Contender { name, batches, instances, is_padded_to_one, engine, wanted })
    }

    fn load(
        &self,
        instances: usize,
        only: Option<usize>,
        wanted: &Arc<Wanted>,
    ) -> Result<Arc<dyn Executable>> {
        let kept = |artifact: &&Artifact| only.is_none() || artifact.bucket.get(ROWS) == only;
        let artifacts: Vec<Artifact> = self.artifacts.iter().filter(kept).cloned().collect();
        let source: Arc<dyn ArtifactSource> = Arc::clone(wanted) as _;
        let job =
            LoadJob { artifacts: &artifacts, on_demand: Some(&source), ..LoadJob::of(&self.model) };
        Ok(backend(self.worker.clone(), self.target, instances)?.load(&job)?)
    }
}

fn backend(worker: WorkerProgram, target: Target, instances: usize) -> Result<MigraphxBackend> {
    let options = MigraphxOptions {
        compile: CompileOptions { target, ..CompileOptions::default() },
        compiler: Compiler { place: CompilePlace::worker(worker), ..Compiler::default() },
        instances: NonZeroUsize::new(instances).unwrap_or(NonZeroUsize::MIN),
        ..MigraphxOptions::default()
    };
    MigraphxBackend::new(options).context("MIGraphX cannot be used")
}

fn version(backend: &MigraphxBackend) -> Result<String> {
    match backend.probe().status {
        Status::Usable { version, .. } => Ok(version),
        Status::Unusable { reason, remedy } => {
            bail!(Skipped(format!("MIGraphX cannot run here: {reason}; {remedy}")))
        }
    }
}

fn shape(model: &Model, extent: usize, batch: usize) -> Bucket {
    let signature = model.signature();
    let symbols = signature.bound_symbols().map(|symbol| signature.symbol_name(symbol).to_owned());
    symbols.map(|symbol| (symbol, extent)).collect::<Bucket>().with(ROWS, batch)
}

fn compile(
    backend: &MigraphxBackend,
    model: &Model,
    shape: Bucket,
    folder: &Path,
) -> Result<Artifact, BackendError> {
    let output = folder.join(shape.to_string());
    backend.compile(&CompileJob::new(model, shape, output))
}
