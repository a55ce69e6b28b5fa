//! ONNX Runtime through its own interface, on any model.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use ort::environment::Environment;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use shapeyard_core::{DataType, Signature, Tensor};

use crate::suite::ONNXRUNTIME_VARIABLE;

/// The one environment that a process may have.
pub(crate) fn environment() -> Result<Environment> {
    let library = std::env::var_os(ONNXRUNTIME_VARIABLE).filter(|path| !path.is_empty());
    let library = library.with_context(|| {
        format!("name ONNX Runtime's library by {ONNXRUNTIME_VARIABLE} (or --onnxruntime)")
    })?;
    Ok(ort::init_from(Path::new(&library))?.with_telemetry(false).build()?)
}

/// A session of so many threads, which look for work a while before they sleep or do not.
pub(crate) fn session(
    environment: &Environment,
    model: &Path,
    n_threads: usize,
    spins: bool,
) -> Result<Session> {
    let builder = || -> ort::Result<Session> {
        let mut builder = Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(n_threads)?
            .with_intra_op_spinning(spins)?
            .with_memory_pattern(false)?;
        builder.commit_from_file(model)
    };
    Ok(builder()?)
}

/// Runs inputs in the signature's order; gives the first output's numbers.
pub(crate) fn run(
    session: &mut Session,
    signature: &Signature,
    inputs: &[Tensor],
) -> Result<Vec<f32>> {
    let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
    for (spec, tensor) in signature.inputs.iter().zip(inputs) {
        let value = match tensor.dtype() {
            DataType::I64 => {
                TensorRef::from_array_view((tensor.shape(), tensor.as_slice::<i64>()?))?.into()
            }
            DataType::F32 => {
                TensorRef::from_array_view((tensor.shape(), tensor.as_slice::<f32>()?))?.into()
            }
            other => bail!("input `{}` is of {other}; only i64 and f32 are measured", spec.name),
        };
        values.push((&spec.name, value));
    }
    let outputs = session.run(values)?;
    let (_, numbers) = outputs[0].try_extract_tensor::<f32>()?;
    Ok(numbers.to_vec())
}
