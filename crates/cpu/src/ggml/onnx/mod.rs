//! ONNX graphs as ggml's.

mod evaluate;
mod fuse;
mod host;
mod lane;
mod operators;
mod prepare;
mod program;
mod translate;
mod weights;

use std::num::NonZeroUsize;
use std::sync::Arc;

use shapeyard_core::{DataType, Dim, Model, TensorSpec};

use self::host::{HostTensor, room};
pub(crate) use self::lane::OnnxLane;
pub(crate) use self::prepare::Prepared;
pub(crate) use self::program::Node;
use self::translate::Given;
use super::cannot::Cannot;
use super::computation::Arena;
use super::library::Engine;
use super::stream::Stream;

/// The newest operator set whose operators are read with their meaning.
const NEWEST_OPSET: i64 = 23;

/// The extent of every symbol when a model is tried.
const TRIAL: usize = 2;

/// Reads a model, and tries whether it can be described.
pub(crate) fn load(engine: &Arc<Engine>, model: &Model) -> Result<Prepared, Cannot> {
    let opset = model.opsets().get("").copied().unwrap_or(0);
    if opset > NEWEST_OPSET {
        return Err(Cannot::Model(format!(
            "it needs operator set {opset}, and operator sets up to {NEWEST_OPSET} are known"
        )));
    }
    let prepared = prepare::prepare(engine, model)?;
    // Which operators are ggml's and which our own depends on what flows into them, so only a trial
    // shows whether all are there.
    let stream = Stream::new(engine, NonZeroUsize::MIN)?;
    let mut arena = Arena::new(&stream)?;
    let mut given = Vec::new();
    for spec in &model.signature().inputs {
        // Where a rank is not known, the first request shows it.
        let Some(trial) = trial(spec) else { return Ok(prepared) };
        given.push(trial?);
    }
    match translate::describe(&prepared, &stream, &mut arena, &given) {
        Err(error) if !error.depends_on_shape() => Err(error),
        _ => Ok(prepared),
    }
}

/// An input as a request might give it; `None` where its rank is not known.
fn trial(spec: &TensorSpec) -> Option<Result<Given, Cannot>> {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(extent) => extent,
        Dim::Symbol(_) | Dim::Unnamed => TRIAL,
    };
    let shape: Vec<usize> = spec.shape.as_ref()?.iter().map(extent).collect();
    if spec.dtype == DataType::F32 {
        return Some(Ok(Given::Floats { shape }));
    }
    // Integers stay on the host, and a file may declare more of them than any host holds.
    let zeros = room(&shape, 0).map(|n| HostTensor::ints(spec.dtype, shape, vec![0; n]));
    let refuse = |reason| {
        let reason = format!("is declared too large: {reason}");
        Cannot::Border { name: spec.name.clone(), reason }
    };
    Some(zeros.map(|zeros| Given::Late(Arc::new(zeros))).map_err(refuse))
}

#[cfg(test)]
mod tests {
    use super::{evaluate, fuse, operators};

    /// The names in a part of the README.
    fn listed(heading: &str) -> Vec<&'static str> {
        let readme = include_str!("../../../README.md");
        let part = readme.split("\n### ").find_map(|part| part.strip_prefix(heading)).unwrap();
        part.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn the_readme_names_the_operators_that_are_served() {
        // What stands for several nodes is in no file.
        let inner = [fuse::GELU, fuse::MASKED_SOFTMAX, fuse::ATTENTION];
        let on_device = operators::OPERATORS.into_iter().filter(|name| !inner.contains(name));
        assert_eq!(listed("Of floats"), on_device.collect::<Vec<_>>());
        assert_eq!(listed("Of integers"), evaluate::OPERATORS);
    }
}
