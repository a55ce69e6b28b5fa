//! What backends that take every shape do alike.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shapeyard_core::backend::{BackendError, BackendId};
use shapeyard_core::plan::{Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model, Signature, TensorSpec, TensorView};

/// An error about a model, in the backend's words.
pub(crate) fn refuse(
    backend: &BackendId,
    model: &Model,
    reason: impl std::fmt::Display,
) -> BackendError {
    BackendError::Model {
        backend: backend.clone(),
        model: model.path().to_owned(),
        reason: reason.to_string(),
    }
}

/// A plan without buckets, for a model that has the workload's symbols.
pub(crate) fn plan(
    backend: BackendId,
    model: &Model,
    workload: &Workload,
    options: &PlanOptions,
) -> Result<Plan, BackendError> {
    let signature = model.signature();
    for symbol in [&workload.rows, &workload.length] {
        // A workload without a name for an axis does not use that axis.
        if !symbol.is_empty() && signature.symbol(symbol).is_none() {
            let known = signature.symbols.join("`, `");
            let reason = format!("it has no symbol `{symbol}`; it has `{known}`");
            return Err(refuse(&backend, model, reason));
        }
    }
    Ok(Plan::dynamic(backend, workload, options))
}

/// Refuses a file that is no ONNX file.
pub(crate) fn check_onnx(backend: &BackendId, model: &Model) -> Result<(), BackendError> {
    match model.gguf() {
        Some(_) => Err(refuse(backend, model, "it is a GGUF file, which only ggml reads")),
        None => Ok(()),
    }
}

/// Refuses a model of an operator set that is newer than the newest whose meaning the backend knows.
pub(crate) fn check_opset(
    backend: &BackendId,
    model: &Model,
    newest: i64,
) -> Result<(), BackendError> {
    match model.opsets().get("") {
        Some(&opset) if opset > newest => {
            let reason = format!(
                "it needs operator set {opset}, and operator sets up to {newest} are known"
            );
            Err(refuse(backend, model, reason))
        }
        _ => Ok(()),
    }
}

/// Refuses a model with an input or output of a type that the backend does not take.
pub(crate) fn check_types(
    backend: &BackendId,
    model: &Model,
    takes: impl Fn(DataType) -> bool,
) -> Result<(), BackendError> {
    let Signature { inputs, outputs, .. } = model.signature();
    let foreign = |specs: &[TensorSpec]| specs.iter().find(|spec| !takes(spec.dtype)).cloned();
    let (kind, spec) = match (foreign(inputs), foreign(outputs)) {
        (Some(spec), _) => ("input", spec),
        (None, Some(spec)) => ("output", spec),
        (None, None) => return Ok(()),
    };
    let reason = format!("{kind} `{}` is {}, which it does not take", spec.name, spec.dtype);
    Err(refuse(backend, model, reason))
}

/// The shapes of a lane's last request, to tell whether the next one is alike.
#[derive(Debug, Default)]
pub(crate) struct LastShapes {
    known: bool,
    ranks_and_extents: Vec<usize>,
}

impl LastShapes {
    /// Whether `inputs` have the shapes of the last call's; remembers theirs.
    pub(crate) fn replace(&mut self, inputs: &[TensorView<'_>]) -> bool {
        let now = || inputs.iter().flat_map(|view| ranked(view.shape()));
        let same = self.known && self.ranks_and_extents.iter().copied().eq(now());
        if !same {
            self.ranks_and_extents.clear();
            self.ranks_and_extents.extend(now());
            self.known = true;
        }
        same
    }

    /// Makes the next request count as unlike.
    pub(crate) fn forget(&mut self) {
        self.known = false;
    }
}

fn ranked(shape: &[usize]) -> impl Iterator<Item = usize> {
    std::iter::once(shape.len()).chain(shape.iter().copied())
}

/// Runs `work`, which may panic in a library, and gives the panic's message.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // What `work` leaves half done is dropped by every caller.
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(panic.as_ref()))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

/// The processor's architecture and the features that kernels are chosen by.
pub(crate) fn processor() -> String {
    let features = features();
    let list = if features.is_empty() { "baseline".to_owned() } else { features.join("+") };
    format!("{}-{} {list}", std::env::consts::ARCH, std::env::consts::OS)
}

macro_rules! detected {
    ($detect:ident: $($feature:tt),*) => {{
        let mut found = Vec::new();
        $(if $detect!($feature) { found.push($feature); })*
        found
    }};
}

#[cfg(target_arch = "x86_64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as detect;
    detected!(detect: "sse4.1", "avx", "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512bw", "avx512vnni", "avx512bf16")
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected as detect;
    detected!(detect: "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<&'static str> {
    Vec::new()
}
