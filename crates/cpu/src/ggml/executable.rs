//! A model that ggml serves.

use std::num::NonZeroUsize;
use std::sync::Arc;

use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, InUse, Session, SessionOptions,
};
use shapeyard_core::{DataType, Dim, Model, Signature, TensorSpec};

use super::ID;
use super::cannot::Cannot;
use super::host::HostTensor;
use super::library::{Engine, Stream};
use super::mapped::Residence;
use super::prepare::{self, Prepared};
use super::session::GgmlSession;
use super::translate::{self, Given};
use crate::dynamic;

/// One set of weights, which all lanes share.
#[derive(Debug)]
pub(super) struct GgmlExecutable {
    prepared: Arc<Prepared>,
    signature: Arc<Signature>,
    /// Keeps the file that the weights may lie in.
    _in_use: InUse,
}

/// The newest operator set whose operators are read with their meaning.
const NEWEST_OPSET: i64 = 23;

/// The extent of every symbol when a model is tried.
const TRIAL: usize = 2;

impl GgmlExecutable {
    /// `in_use` is the mark of a store that holds the model's file, if one does.
    pub(super) fn load(
        engine: &Arc<Engine>,
        model: &Model,
        in_use: &InUse,
    ) -> Result<Self, BackendError> {
        let residence = if in_use.is_held() { Residence::Mapped } else { Residence::Copied };
        let prepared =
            dynamic::caught(|| load(engine, model, residence).map_err(|it| it.to_string()))
                .flatten()
                .map_err(|reason| dynamic::refuse(&ID, model, reason))?;
        Ok(Self {
            prepared: Arc::new(prepared),
            signature: Arc::new(model.signature().clone()),
            _in_use: in_use.clone(),
        })
    }
}

fn load(engine: &Arc<Engine>, model: &Model, residence: Residence) -> Result<Prepared, Cannot> {
    let opset = model.opsets().get("").copied().unwrap_or(0);
    if opset > NEWEST_OPSET {
        return Err(Cannot::Failed(format!(
            "it needs operator set {opset}, and operator sets up to {NEWEST_OPSET} are known"
        )));
    }
    let prepared = prepare::prepare(engine, model, residence)?;
    // Which operators are ggml's and which our own depends on what flows into them, so only a trial
    // shows whether all are there.
    let stream = Stream::new(engine, NonZeroUsize::MIN).map_err(Cannot::Failed)?;
    let given = model.signature().inputs.iter().map(trial);
    let given: Option<Vec<Given>> = given.collect();
    match given.map(|given| translate::describe(&prepared, &stream, &given)) {
        Some(Err(error)) if !error.depends_on_shape() => Err(error),
        _ => Ok(prepared),
    }
}

/// An input as a request might give it; `None` where its rank is not known.
fn trial(spec: &TensorSpec) -> Option<Given> {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(extent) => extent,
        Dim::Symbol(_) | Dim::Unnamed => TRIAL,
    };
    let shape: Vec<usize> = spec.shape.as_ref()?.iter().map(extent).collect();
    Some(if spec.dtype == DataType::F32 {
        Given::Floats { shape }
    } else {
        let n_elements = shape.iter().product();
        Given::Late(Arc::new(HostTensor::ints(spec.dtype, shape, vec![0; n_elements])))
    })
}

impl Executable for GgmlExecutable {
    fn backend(&self) -> BackendId {
        ID
    }

    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }

    fn domain(&self) -> Domain {
        Domain::Any
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        let stream = Stream::new(&self.prepared.engine, options.n_threads).map_err(|message| {
            BackendError::Library { backend: ID, what: "open another session", message }
        })?;
        let (prepared, signature) = (Arc::clone(&self.prepared), Arc::clone(&self.signature));
        Ok(Box::new(GgmlSession::new(prepared, signature, stream)))
    }

    fn admit(&self, _artifact: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: ID, what: "need buckets: it takes every shape" })
    }
}
