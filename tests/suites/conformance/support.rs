//! Backends, models that are loaded on them, and runs.

use std::env;
use std::sync::Arc;

use shapeyard_core::backend::{
    Artifact, Backend, BackendError, CompileJob, Executable, LoadJob, Session, SessionOptions,
    Status,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{
    AxisSymbol, Dim, Model, Outputs, Request, RunError, RunReport, Tensor, TensorView,
};
use shapeyard_cpu::{CpuOptions, OnnxRuntime, Rten};
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};
use shapeyard_tests::{skipped, tiny_model};

/// MIGraphX on its target `ref`, with the worker of this package.
pub(crate) fn options() -> MigraphxOptions {
    let none: [&str; 0] = [];
    let worker = WorkerProgram::new(env!("CARGO_BIN_EXE_shapeyard-tests-worker"), none);
    MigraphxOptions {
        compile: CompileOptions { target: Target::Ref, ..CompileOptions::default() },
        compiler: Compiler { place: CompilePlace::worker(worker), ..Compiler::default() },
        ..MigraphxOptions::default()
    }
}

pub(crate) fn migraphx(test: &str) -> Option<Arc<dyn Backend>> {
    migraphx_with(test, options())
}

pub(crate) fn migraphx_with(test: &str, options: MigraphxOptions) -> Option<Arc<dyn Backend>> {
    let inside = env::var_os("SHAPEYARD_MIGRAPHX_RUN").is_some();
    let usable = usable(test, Arc::new(MigraphxBackend::new(options).unwrap()));
    assert!(usable.is_some() || !inside, "inside the root MIGraphX has to be found");
    usable
}

pub(crate) fn onnxruntime(test: &str) -> Option<Arc<dyn Backend>> {
    usable(test, Arc::new(OnnxRuntime::new(&CpuOptions::default())))
}

pub(crate) fn rten() -> Arc<dyn Backend> {
    Arc::new(Rten::new())
}

fn usable(test: &str, backend: Arc<dyn Backend>) -> Option<Arc<dyn Backend>> {
    match backend.probe().status {
        Status::Usable { .. } => Some(backend),
        Status::Unusable { reason, .. } => {
            skipped(test, &format!("without {}: {reason}", backend.id()));
            None
        }
    }
}

/// A tiny model. A leading axis of an input without a name gets the name `batch`.
pub(crate) fn model(file: &str) -> Model {
    let model = Model::open(tiny_model(file)).unwrap();
    let unnamed = model.signature().inputs.iter().filter(|input| {
        input.shape.as_ref().is_some_and(|dims| dims.first() == Some(&Dim::Unnamed))
    });
    let axes: Vec<AxisSymbol> = unnamed
        .map(|input| AxisSymbol { tensor: input.name.clone(), axis: 0, symbol: "batch".to_owned() })
        .collect();
    model.declare(&axes).unwrap()
}

pub(crate) fn bucket<const N: usize>(extents: [(&str, usize); N]) -> Bucket {
    Bucket::from_iter(extents)
}

pub(crate) fn batches(extents: &[usize]) -> Vec<Bucket> {
    extents.iter().map(|&extent| bucket([("batch", extent)])).collect()
}

/// A model's programs, as long as their folder lives.
pub(crate) struct Programs {
    pub(crate) model: Model,
    artifacts: Vec<Artifact>,
    folder: tempfile::TempDir,
}

impl Programs {
    pub(crate) fn none(model: Model) -> Self {
        Self { model, artifacts: Vec::new(), folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn compile(
        backend: &dyn Backend,
        model: Model,
        buckets: impl IntoIterator<Item = Bucket>,
    ) -> Result<Self, BackendError> {
        let mut programs = Self::none(model);
        for bucket in buckets {
            programs.add(backend, bucket)?;
        }
        Ok(programs)
    }

    fn add(&mut self, backend: &dyn Backend, bucket: Bucket) -> Result<(), BackendError> {
        let output = self.folder.path().join(format!("{bucket}.mxr"));
        let artifact = backend.compile(&CompileJob::new(&self.model, bucket, output))?;
        self.artifacts.push(artifact);
        Ok(())
    }

    /// Loads those programs that `wanted` wants; without any, the model itself.
    pub(crate) fn load(&self, backend: &dyn Backend, wanted: impl Fn(&Bucket) -> bool) -> Loaded {
        let artifacts: Vec<Artifact> =
            self.artifacts.iter().filter(|artifact| wanted(&artifact.bucket)).cloned().collect();
        let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(&self.model) };
        Loaded::new(backend.load(&job).unwrap())
    }

    pub(crate) fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }
}

/// An executable with a lane.
pub(crate) struct Loaded {
    pub(crate) executable: Arc<dyn Executable>,
    session: Box<dyn Session>,
}

impl Loaded {
    pub(crate) fn new(executable: Arc<dyn Executable>) -> Self {
        let session = executable.session(&SessionOptions::threads(1)).unwrap();
        Self { executable, session }
    }

    /// The same executable with another lane.
    pub(crate) fn lane(&self) -> Self {
        Self::new(Arc::clone(&self.executable))
    }

    pub(crate) fn name(&self) -> String {
        self.executable.backend().to_string()
    }

    pub(crate) fn run(&mut self, inputs: &[Tensor]) -> Result<(RunReport, Vec<Tensor>), RunError> {
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        self.run_views(&views)
    }

    pub(crate) fn run_views(
        &mut self,
        views: &[TensorView<'_>],
    ) -> Result<(RunReport, Vec<Tensor>), RunError> {
        let mut outputs = Outputs::new();
        let report = self.run_into(views, &mut outputs)?;
        Ok((report, outputs.into_tensors()))
    }

    pub(crate) fn run_into(
        &mut self,
        views: &[TensorView<'_>],
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let request = Request::bind(self.executable.signature(), views)?;
        self.session.run(&request, outputs)
    }

    pub(crate) fn answer(&mut self, inputs: &[Tensor]) -> Vec<Tensor> {
        let name = self.name();
        self.run(inputs).unwrap_or_else(|error| panic!("{name}: {error}")).1
    }
}

/// A model on a backend that takes every shape.
pub(crate) fn dynamic(backend: &dyn Backend, file: &str) -> Loaded {
    Programs::none(model(file)).load(backend, |_| true)
}

/// A model on MIGraphX, with programs of these shapes.
pub(crate) fn compiled(
    backend: &dyn Backend,
    file: &str,
    buckets: impl IntoIterator<Item = Bucket>,
) -> Loaded {
    let programs = Programs::compile(backend, model(file), buckets);
    programs.unwrap_or_else(|error| panic!("{file}: {error}")).load(backend, |_| true)
}

/// A model on every backend that can be used here; it is one that all take.
pub(crate) fn everywhere(test: &str, file: &str, buckets: &[Bucket]) -> Vec<Loaded> {
    let mut all = vec![dynamic(rten().as_ref(), file)];
    all.extend(onnxruntime(test).map(|backend| dynamic(backend.as_ref(), file)));
    all.extend(
        migraphx(test).map(|backend| compiled(backend.as_ref(), file, buckets.iter().cloned())),
    );
    all
}
