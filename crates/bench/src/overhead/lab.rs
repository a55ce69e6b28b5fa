//! Programs, sessions and requests to be measured.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use shapeyard_core::backend::{
    Artifact, Backend, CompileJob, Executable, LoadJob, Session, SessionOptions, Status,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Dim, Model, Outputs, Request, Shape, Tensor, TensorView, Tier};
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};
use tempfile::TempDir;

use crate::suite::Skipped;

/// The backend, and a folder for what it compiles.
pub(super) struct Lab {
    backend: MigraphxBackend,
    pub(super) compiler: String,
    folder: TempDir,
}

impl Lab {
    pub(super) fn open(worker: WorkerProgram) -> Result<Self> {
        let backend = MigraphxBackend::new(MigraphxOptions {
            compile: CompileOptions { target: Target::Ref, ..CompileOptions::default() },
            compiler: Compiler { place: CompilePlace::worker(worker), ..Compiler::default() },
            ..MigraphxOptions::default()
        })?;
        let compiler = match backend.probe().status {
            Status::Usable { version, .. } => version,
            Status::Unusable { reason, remedy } => {
                bail!(Skipped(format!("MIGraphX cannot run here: {reason}; {remedy}")))
            }
        };
        let folder = tempfile::tempdir().context("no temporary folder")?;
        Ok(Self { backend, compiler, folder })
    }

    /// A model with one program.
    pub(super) fn subject(&self, path: &Path, n_rows: usize) -> Result<Subject> {
        let model = Model::open(path)?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let output = self.folder.path().join(format!("{name}-{n_rows}.mxr"));
        let bucket: Bucket = [("batch", n_rows)].into_iter().collect();
        let artifact = self.backend.compile(&CompileJob::new(&model, bucket, output))?;
        let artifacts = [artifact];
        let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(&model) };
        let executable = self.backend.load(&job)?;
        let [artifact] = artifacts;
        Ok(Subject { executable, artifact })
    }
}

/// A model with one program.
pub(super) struct Subject {
    pub(super) executable: Arc<dyn Executable>,
    artifact: Artifact,
}

impl Subject {
    /// The program's file.
    pub(super) fn payload(&self) -> &Path {
        &self.artifact.payload
    }

    /// Inputs of so many rows, all `f32`.
    pub(super) fn inputs(&self, n_rows: usize) -> Result<Vec<Tensor>> {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Symbol(_) | Dim::Unnamed => n_rows,
        };
        let inputs = self.executable.signature().inputs.iter().map(|spec| {
            let shape: Shape = spec.shape.iter().flatten().map(extent).collect();
            let n: usize = shape.iter().product();
            let elements: Vec<f32> = (0..n).map(|at| at as f32 / 4.0).collect();
            Ok(Tensor::from_slice(&shape, &elements)?)
        });
        inputs.collect()
    }

    /// The inputs' names with their values.
    pub(super) fn named<'a>(&'a self, views: &[TensorView<'a>]) -> Vec<(&'a str, TensorView<'a>)> {
        let inputs = &self.executable.signature().inputs;
        inputs.iter().map(|spec| spec.name.as_str()).zip(views.iter().copied()).collect()
    }

    pub(super) fn lane(&self) -> Result<Lane> {
        let session = self.executable.session(&SessionOptions::threads(1))?;
        Ok(Lane { session, outputs: Outputs::new() })
    }
}

/// A session with outputs that are used again and again.
pub(super) struct Lane {
    session: Box<dyn Session>,
    outputs: Outputs,
}

impl Lane {
    /// A lane that has seen a request, and so is ready for it.
    pub(super) fn after(mut self, request: &Request<'_>) -> Result<Self> {
        self.session.run(request, &mut self.outputs)?;
        Ok(self)
    }

    /// Runs a request, which has to be served in this tier.
    pub(super) fn run(&mut self, request: &Request<'_>, tier: Tier) -> Result<()> {
        let report = self.session.run(request, &mut self.outputs)?;
        ensure!(report.tier == tier, "it was served as {:?}, not {tier:?}", report.tier);
        Ok(())
    }

    /// Checks that the last answers are these.
    pub(super) fn check(&self, answers: &[Vec<u8>]) -> Result<()> {
        let own = self.outputs.tensors().iter().map(Tensor::bytes);
        ensure!(own.eq(answers.iter().map(Vec::as_slice)), "ours answers otherwise than MIGraphX");
        Ok(())
    }
}

pub(super) fn views(tensors: &[Tensor]) -> Vec<TensorView<'_>> {
    tensors.iter().map(Tensor::view).collect()
}
