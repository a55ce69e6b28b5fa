//! A model on the GPU and on the host, both by the double.

#![allow(unsafe_code, reason = "a function of the double, and compiles in this process")]

use std::env;
use std::ffi::{CString, c_char};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use migraphx_c_gpu_double::{CHANGE_FUNCTION, library_path};
use shapeyard_core::backend::{
    Artifact, Backend as _, BackendError, CompileJob, DeviceReport, Executable, LoadJob, Session,
    SessionOptions, Status,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{
    Dim, Model, Outputs, Request, RunError, RunReport, Shape, Tensor, TensorView,
};
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, DeviceOptions, Graphs, MigraphxBackend,
    MigraphxOptions, Target,
};
use tempfile::TempDir;

/// Changes how the double behaves until it is dropped; one at a time, since that belongs to the process.
pub(crate) struct Double {
    _alone: MutexGuard<'static, ()>,
}

impl Double {
    pub(crate) fn with(settings: &str) -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        change(settings);
        Self { _alone: alone }
    }

    pub(crate) fn change(&self, settings: &str) {
        change(settings);
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        change("");
    }
}

fn change(settings: &str) {
    let options = migraphx_sys::SearchOptions::at(library());
    let library = migraphx_sys::Library::open(&options).unwrap();
    let function = library.symbol(CHANGE_FUNCTION).unwrap();
    // SAFETY: the double's function of that name takes a text that ends in a zero and answers a status.
    let change: unsafe extern "C" fn(*const c_char) -> u32 =
        unsafe { std::mem::transmute(function) };
    let settings = CString::new(settings).unwrap();
    // SAFETY: the text lives during the call.
    assert_eq!(unsafe { change(settings.as_ptr()) }, 0, "{settings:?}");
}

fn library() -> PathBuf {
    library_path().expect("Cargo puts the double beside its tests")
}

pub(crate) fn options(target: Target, device: DeviceOptions) -> MigraphxOptions {
    // SAFETY: the models are those of these tests, and the double does not crash on them.
    let place = unsafe { CompilePlace::this_process() };
    MigraphxOptions {
        library: Some(library()),
        compile: CompileOptions { target, ..CompileOptions::default() },
        device,
        compiler: Compiler { place, ..Compiler::default() },
        ..MigraphxOptions::default()
    }
}

pub(crate) fn with_graphs(graphs: Graphs) -> DeviceOptions {
    DeviceOptions { graphs, ..DeviceOptions::default() }
}

/// The backend on the GPU, or nothing and a line where there is none.
pub(crate) fn gpu(test: &str, device: DeviceOptions) -> Option<MigraphxBackend> {
    let backend = MigraphxBackend::new(options(Target::Gpu, device)).unwrap();
    let Status::Unusable { reason, .. } = backend.probe().status else { return Some(backend) };
    assert!(env::var_os("SHAPEYARD_REQUIRE_DEVICE").is_none(), "{test}: {reason}");
    skipped(test, &reason);
    None
}

/// What the backend says of its first device.
pub(crate) fn gpu_report(backend: &MigraphxBackend) -> DeviceReport {
    backend.probe().devices.remove(0)
}

/// Says what did not run.
pub(crate) fn skipped(test: &str, reason: &str) {
    let line = format!("shapeyard-migraphx {test}: {reason}");
    eprintln!("{line}");
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

pub(crate) fn model(name: &str) -> Model {
    let folder = env::var_os("SHAPEYARD_TINY_MODELS").map(PathBuf::from);
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models");
    Model::open(folder.unwrap_or_else(usual).join(name)).unwrap()
}

pub(crate) fn shape<const N: usize>(extents: [(&str, usize); N]) -> Bucket {
    Bucket::from_iter(extents)
}

pub(crate) fn artifacts(
    backend: &MigraphxBackend,
    model: &Model,
    shapes: &[Bucket],
    folder: &TempDir,
) -> Result<Vec<Artifact>, BackendError> {
    let compile = |shape: &Bucket| {
        let name = format!("{}-{shape}.mxr", backend.options().compile.target);
        let job = CompileJob::new(model, shape.clone(), folder.path().join(name));
        backend.compile(&job)
    };
    shapes.iter().map(compile).collect()
}

pub(crate) fn try_load(
    backend: &MigraphxBackend,
    model: &Model,
    shapes: &[Bucket],
    folder: &TempDir,
) -> Result<Arc<dyn Executable>, BackendError> {
    let artifacts = artifacts(backend, model, shapes, folder)?;
    backend.load(&LoadJob { artifacts: &artifacts, ..LoadJob::of(model) })
}

pub(crate) type Extents = Vec<(&'static str, usize)>;

/// Models that the double runs, with a shape to compile and shapes to ask for.
pub(crate) fn cases() -> Vec<(&'static str, Extents, Vec<Extents>)> {
    let rows = |n| vec![("batch", n)];
    let tokens = |n, length| vec![("batch", n), ("sequence", length)];
    vec![
        ("dense.onnx", rows(4), vec![rows(4), rows(3), rows(1), rows(9)]),
        ("add_one.onnx", rows(4), vec![rows(4), rows(2)]),
        ("identity.onnx", rows(4), vec![rows(4), rows(3)]),
        ("many_inputs.onnx", rows(4), vec![rows(4), rows(3)]),
        ("many_outputs.onnx", rows(4), vec![rows(4), rows(1), rows(6)]),
        ("shared_mask.onnx", tokens(4, 6), vec![tokens(4, 6), tokens(3, 6)]),
        ("encoder.onnx", tokens(4, 8), vec![tokens(4, 8), tokens(3, 5), tokens(1, 8)]),
    ]
}

/// The same programs on the GPU and on the host.
pub(crate) struct Pair {
    pub(crate) gpu: Arc<dyn Executable>,
    pub(crate) host: Arc<dyn Executable>,
    _folder: TempDir,
}

impl Pair {
    pub(crate) fn load(gpu: &MigraphxBackend, name: &str, shapes: &[Bucket]) -> Self {
        let (model, folder) = (model(name), tempfile::tempdir().unwrap());
        let host = options(Target::Ref, DeviceOptions::default());
        let host = MigraphxBackend::new(host).unwrap();
        let gpu = try_load(gpu, &model, shapes, &folder).unwrap();
        let host = try_load(&host, &model, shapes, &folder).unwrap();
        Self { gpu, host, _folder: folder }
    }

    pub(crate) fn sessions(&self) -> [Box<dyn Session>; 2] {
        [session(&self.gpu), session(&self.host)]
    }
}

pub(crate) fn session(executable: &Arc<dyn Executable>) -> Box<dyn Session> {
    executable.session(&SessionOptions::threads(1)).unwrap()
}

pub(crate) fn run(
    executable: &Arc<dyn Executable>,
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
pub(crate) fn inputs(executable: &Arc<dyn Executable>, shape: &Bucket, seed: usize) -> Vec<Tensor> {
    let signature = executable.signature();
    let tensor = |(n, spec): (usize, &shapeyard_core::TensorSpec)| {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Symbol(symbol) => shape.get(signature.symbol_name(*symbol)).unwrap(),
            Dim::Unnamed => 1,
        };
        let shape: Shape = spec.shape.as_ref().unwrap().iter().map(extent).collect();
        let mut tensor = Tensor::zeroed(spec.dtype, &shape).unwrap();
        let is_mask = spec.name.contains("mask");
        let at = |i: usize| (i * 7 + n * 3 + seed * 11) % 13;
        if let Ok(values) = tensor.as_mut_slice::<f32>() {
            values.iter_mut().enumerate().for_each(|(i, it)| *it = at(i) as f32 / 6.0 - 1.0);
        } else if let Ok(values) = tensor.as_mut_slice::<i64>() {
            let limit = spec.index_limit.unwrap_or(5);
            let value = |i| if is_mask { 1 } else { (at(i) % limit) as i64 };
            values.iter_mut().enumerate().for_each(|(i, it)| *it = value(i));
        } else {
            tensor.bytes_mut().iter_mut().enumerate().for_each(|(i, it)| *it = (at(i) % 2) as u8);
        }
        tensor
    };
    signature.inputs.iter().enumerate().map(tensor).collect()
}

/// The same to the bit, but for floats that differ by rounding.
pub(crate) fn assert_same(found: &[Tensor], wanted: &[Tensor], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!((found.dtype(), found.shape()), (wanted.dtype(), wanted.shape()), "{what}");
        match (found.as_slice::<f32>(), wanted.as_slice::<f32>()) {
            (Ok(found), Ok(wanted)) => {
                for (found, wanted) in found.iter().zip(wanted) {
                    let is_near = (found - wanted).abs() <= 1e-5 * wanted.abs().max(1.0);
                    assert!(
                        is_near || found.to_bits() == wanted.to_bits(),
                        "{what}: {found} {wanted}"
                    );
                }
            }
            _ => assert_eq!(found.bytes(), wanted.bytes(), "{what}"),
        }
    }
}
