//! The backend as the tests want it, and requests for it.

use std::env;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shapeyard_core::backend::{
    Artifact, Backend, BackendError, CompileJob, Executable, LoadJob, Session, SessionOptions,
    Status,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{
    Dim, Element, Model, Outputs, Request, RunError, RunReport, Shape, Tensor, TensorView,
};
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};

/// The worker that this crate builds.
pub(crate) fn worker() -> CompilePlace {
    let none: [&str; 0] = [];
    CompilePlace::worker(WorkerProgram::new(env!("CARGO_BIN_EXE_shapeyard-migraphx-worker"), none))
}

pub(crate) fn options() -> MigraphxOptions {
    MigraphxOptions {
        compile: CompileOptions { target: Target::Ref, ..CompileOptions::default() },
        compiler: Compiler { place: worker(), ..Compiler::default() },
        ..MigraphxOptions::default()
    }
}

/// A backend with these options, or nothing where the library is not in reach, with a line in the log of
/// skipped tests.
pub(crate) fn backend_with(test: &str, options: MigraphxOptions) -> Option<Arc<MigraphxBackend>> {
    let backend = MigraphxBackend::new(options).unwrap();
    match backend.probe().status {
        Status::Usable { .. } => Some(Arc::new(backend)),
        Status::Unusable { reason, .. } => {
            let line = format!("shapeyard-migraphx {test}: {reason}");
            assert!(env::var_os("SHAPEYARD_MIGRAPHX_RUN").is_none(), "inside the root: {line}");
            eprintln!("{line}");
            if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
                let mut log = File::options().append(true).create(true).open(log).unwrap();
                writeln!(log, "{line}").unwrap();
            }
            None
        }
    }
}

pub(crate) fn backend(test: &str) -> Option<Arc<MigraphxBackend>> {
    backend_with(test, options())
}

pub(crate) fn model_path(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models")).join(name)
}

pub(crate) fn model(name: &str) -> Model {
    Model::open(model_path(name)).unwrap()
}

pub(crate) fn bucket<const N: usize>(extents: [(&str, usize); N]) -> Bucket {
    Bucket::from_iter(extents)
}

pub(crate) fn compile(
    backend: &dyn Backend,
    model: &Model,
    bucket: Bucket,
    folder: &Path,
) -> Result<Artifact, BackendError> {
    let output = folder.join(format!("{bucket}.mxr"));
    backend.compile(&CompileJob::new(model, bucket, output))
}

/// An executable with programs of these shapes, compiled into `folder`.
pub(crate) fn load(
    backend: &dyn Backend,
    model: &Model,
    buckets: impl IntoIterator<Item = Bucket>,
    folder: &Path,
) -> Arc<dyn Executable> {
    let artifacts: Vec<Artifact> = buckets
        .into_iter()
        .map(|bucket| compile(backend, model, bucket, folder).unwrap())
        .collect();
    backend.load(&LoadJob { artifacts: &artifacts, ..LoadJob::of(model) }).unwrap()
}

pub(crate) fn session(executable: &dyn Executable) -> Box<dyn Session> {
    executable.session(&SessionOptions::threads(1)).unwrap()
}

pub(crate) fn run(
    executable: &dyn Executable,
    session: &mut dyn Session,
    inputs: &[Tensor],
) -> Result<(RunReport, Vec<Tensor>), RunError> {
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    let request = Request::bind(executable.signature(), &views).unwrap();
    let mut outputs = Outputs::new();
    let report = session.run(&request, &mut outputs)?;
    Ok((report, outputs.into_tensors()))
}

/// Inputs of the model for a shape: floats from a counter, indices inside their tables, masks of ones.
pub(crate) fn inputs(executable: &dyn Executable, shape: &Bucket, seed: usize) -> Vec<Tensor> {
    let signature = executable.signature();
    let tensors = signature.inputs.iter().enumerate().map(|(n, spec)| {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Symbol(symbol) => shape.get(signature.symbol_name(*symbol)).unwrap(),
            Dim::Unnamed => 1,
        };
        let shape: Shape = spec.shape.as_ref().unwrap().iter().map(extent).collect();
        let mut tensor = Tensor::zeroed(spec.dtype, &shape).unwrap();
        let mask = spec.name.contains("mask");
        let at = |i: usize| (i * 7 + n * 3 + seed * 11) % 13;
        if let Ok(values) = tensor.as_mut_slice::<f32>() {
            values.iter_mut().enumerate().for_each(|(i, it)| *it = at(i) as f32 / 6.0 - 1.0);
        } else if let Ok(values) = tensor.as_mut_slice::<i64>() {
            let limit = spec.index_limit.unwrap_or(5);
            values.iter_mut().enumerate().for_each(|(i, it)| {
                *it = if mask { 1 } else { (at(i) % limit) as i64 };
            });
        } else {
            tensor.bytes_mut().iter_mut().enumerate().for_each(|(i, it)| *it = (at(i) % 2) as u8);
        }
        tensor
    });
    tensors.collect()
}

/// The elements of an output.
pub(crate) fn values<T: Element>(tensor: &Tensor) -> &[T] {
    tensor.as_slice::<T>().unwrap()
}
