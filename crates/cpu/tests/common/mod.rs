//! What the tests of this crate share.

#![allow(dead_code)]

pub(crate) mod onnx;

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shapeyard_core::backend::{BackendError, LoadJob, Session, SessionOptions, Status};
use shapeyard_core::{
    Backend, DataType, Dim, Executable, Model, Outputs, Request, RunError, RunReport, Signature,
    Tensor, TensorSpec, TensorView,
};
use shapeyard_cpu::{CpuOptions, Ggml, OnnxRuntime, Rten};

pub(crate) fn path(name: &str) -> PathBuf {
    let here = || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models")).to_owned();
    env::var_os("SHAPEYARD_TINY_MODELS").map_or_else(here, PathBuf::from).join(name)
}

pub(crate) fn model(name: &str) -> Model {
    Model::open(path(name)).unwrap()
}

pub(crate) fn rten() -> Arc<dyn Backend> {
    Arc::new(Rten::new())
}

/// ONNX Runtime, or `None` where it is not installed, which is written down.
pub(crate) fn onnxruntime(test: &str) -> Option<Arc<dyn Backend>> {
    usable(Arc::new(OnnxRuntime::new(&CpuOptions::default())), test, "ONNX Runtime")
}

/// The device of ggml that the environment names for these tests; `None` is the processor.
pub(crate) fn ggml_device() -> Option<String> {
    let named = env::var("SHAPEYARD_GGML_DEVICE").ok();
    named.filter(|name| !name.is_empty() && name != "CPU")
}

/// What ggml is told here.
pub(crate) fn ggml_options() -> CpuOptions {
    CpuOptions { ggml_device: ggml_device(), ..CpuOptions::default() }
}

/// ggml on the device that is named, or `None` where it is not installed, which is written down. It fails
/// where `SHAPEYARD_REQUIRE_DEVICE` asks for one.
pub(crate) fn ggml(test: &str) -> Option<Arc<dyn Backend>> {
    let backend: Arc<dyn Backend> = Arc::new(Ggml::new(&ggml_options()));
    if let Status::Unusable { reason, .. } = backend.probe().status {
        assert!(env::var_os("SHAPEYARD_REQUIRE_DEVICE").is_none(), "{test}: {reason}");
    }
    usable(backend, test, "ggml")
}

/// ggml for a test of what only kernels of ours promise, which the processor alone runs.
pub(crate) fn ggml_on_the_processor(test: &str) -> Option<Arc<dyn Backend>> {
    let Some(device) = ggml_device() else { return ggml(test) };
    eprintln!("{test} is skipped: `{device}` is not the processor");
    write_down(&format!("{test}: `{device}` is not the processor"));
    None
}

fn usable(backend: Arc<dyn Backend>, test: &str, name: &str) -> Option<Arc<dyn Backend>> {
    match backend.probe().status {
        Status::Usable { .. } => Some(backend),
        Status::Unusable { reason, .. } => {
            eprintln!("{test} is skipped: {reason}");
            write_down(&format!("{test}: {name} is not installed"));
            None
        }
    }
}

pub(crate) fn write_down(line: &str) {
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        // One write of one line: tests run side by side.
        log.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// The library file that this process would load.
pub(crate) fn library(backend: &dyn Backend) -> PathBuf {
    let searched = backend.probe().searched;
    let mut files = searched.into_iter().filter(|step| !step.place.starts_with("its device"));
    let place = files.next_back().unwrap().place;
    PathBuf::from(place.rsplit_once(" (").unwrap().0).canonicalize().unwrap()
}

pub(crate) fn load(
    backend: &dyn Backend,
    model: &Model,
) -> Result<Arc<dyn Executable>, BackendError> {
    backend.load(&LoadJob::of(model))
}

pub(crate) fn lane(executable: &dyn Executable, n_threads: usize) -> Box<dyn Session> {
    executable.session(&SessionOptions::threads(n_threads)).unwrap()
}

/// Runs tensors that fit the executable.
pub(crate) fn run(
    executable: &dyn Executable,
    session: &mut dyn Session,
    tensors: &[Tensor],
    outputs: &mut Outputs,
) -> Result<RunReport, RunError> {
    let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    session.run(&Request::bind(executable.signature(), &views)?, outputs)
}

/// Inputs for a batch of `batch`; sequences are 5, pictures 6 x 7.
pub(crate) fn inputs(signature: &Signature, batch: usize) -> Vec<Tensor> {
    signature
        .inputs
        .iter()
        .enumerate()
        .map(|(n, spec)| filled(spec, &shape(signature, spec, batch), n))
        .collect()
}

/// The shape that an input or output has for that batch.
pub(crate) fn shape(signature: &Signature, spec: &TensorSpec, batch: usize) -> Vec<usize> {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(extent) => extent,
        Dim::Symbol(symbol) => match signature.symbol_name(symbol) {
            "sequence" | "sequence_length" => 5,
            "height" => 6,
            "width" => 7,
            _ => batch,
        },
        Dim::Unnamed => batch,
    };
    spec.shape.as_ref().unwrap().iter().map(extent).collect()
}

fn filled(spec: &TensorSpec, shape: &[usize], salt: usize) -> Tensor {
    let mut tensor = Tensor::zeroed(spec.dtype, shape).unwrap();
    let value = |n: usize| (n * 7 + salt * 3) % 11;
    match spec.dtype {
        DataType::Bool | DataType::U8 => {
            let limit = if spec.dtype == DataType::Bool { 2 } else { 11 };
            for (n, byte) in tensor.bytes_mut().iter_mut().enumerate() {
                *byte = u8::try_from(value(n) % limit).unwrap();
            }
        }
        DataType::I32 => fill(&mut tensor, |n| i32::try_from(value(n)).unwrap() - 5),
        DataType::I64 => {
            let limit = spec.index_limit.unwrap_or(2);
            fill(&mut tensor, |n| i64::try_from(value(n) % limit).unwrap());
        }
        DataType::F32 => fill(&mut tensor, |n| value(n) as f32 / 4.0 - 1.0),
        DataType::F64 => fill(&mut tensor, |n| value(n) as f64 / 4.0 - 1.0),
        DataType::F16 => fill(&mut tensor, |n| half::f16::from_f32(value(n) as f32 / 4.0 - 1.0)),
        DataType::BF16 => fill(&mut tensor, |n| half::bf16::from_f32(value(n) as f32 / 4.0 - 1.0)),
        other => panic!("no model takes {other}"),
    }
    tensor
}

fn fill<T: shapeyard_core::Element>(tensor: &mut Tensor, value: impl Fn(usize) -> T) {
    let elements = tensor.as_mut_slice::<T>().unwrap();
    elements.iter_mut().enumerate().for_each(|(n, element)| *element = value(n));
}

/// How far numbers are apart at most. What is no number is far from everything, and fails.
pub(crate) fn farthest<'a>(pairs: impl IntoIterator<Item = (&'a f32, &'a f32)>) -> f32 {
    let apart = pairs.into_iter().map(|(a, b)| (a - b).abs());
    apart.fold(0.0, |most: f32, apart| {
        assert!(apart.is_finite(), "there is something that is no number");
        most.max(apart)
    })
}

/// Fails unless two results are alike: floats within `tolerance`, all else exactly.
pub(crate) fn assert_close(ours: &Outputs, theirs: &Outputs, tolerance: f32, what: &str) {
    assert_eq!(ours.tensors().len(), theirs.tensors().len(), "{what}");
    for (ours, theirs) in ours.tensors().iter().zip(theirs.tensors()) {
        assert_eq!((ours.dtype(), ours.shape()), (theirs.dtype(), theirs.shape()), "{what}");
        let (Ok(a), Ok(b)) = (ours.as_slice::<f32>(), theirs.as_slice::<f32>()) else {
            assert_eq!(ours, theirs, "{what}");
            continue;
        };
        let far =
            a.iter().zip(b).position(|(a, b)| (a - b).abs().is_nan() || (a - b).abs() > tolerance);
        assert_eq!(far, None, "{what}: {:?}", far.map(|at| (a[at], b[at])));
    }
}
