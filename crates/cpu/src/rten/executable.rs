//! A model that rten has loaded.

use std::path::Path;
use std::sync::Arc;
use std::{fmt, fs};

use rten::{Model as Graph, ModelOptions, NodeId};
use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, Optimisation, Session, SessionOptions,
};
use shapeyard_core::{Model, Signature, TensorSpec};

use super::ID;
use super::session::RtenSession;
use crate::dynamic;

/// One graph with its weights, which all lanes share.
pub(super) struct RtenExecutable {
    graph: Arc<LoadedGraph>,
    signature: Arc<Signature>,
}

/// A graph and where its inputs and outputs are, in the signature's order.
pub(super) struct LoadedGraph {
    pub(super) graph: Graph,
    pub(super) inputs: Vec<NodeId>,
    pub(super) outputs: Vec<NodeId>,
}

impl fmt::Debug for LoadedGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.graph.fmt(f)
    }
}

impl RtenExecutable {
    pub(super) fn load(model: &Model, optimisation: Optimisation) -> Result<Self, BackendError> {
        let graph = dynamic::caught(|| load(model, optimisation))
            .flatten()
            .map_err(|reason| dynamic::refuse(&ID, model, reason))?;
        Ok(Self { graph: Arc::new(graph), signature: Arc::new(model.signature().clone()) })
    }
}

impl Executable for RtenExecutable {
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
        let (graph, signature) = (Arc::clone(&self.graph), Arc::clone(&self.signature));
        Ok(Box::new(RtenSession::new(graph, signature, options.n_threads)))
    }

    fn admit(&self, _artifact: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: ID, what: "need buckets: it takes every shape" })
    }
}

fn load(model: &Model, optimisation: Optimisation) -> Result<LoadedGraph, String> {
    let mut options = ModelOptions::with_all_ops();
    // It has no level between none and all, and no more than asked for is done.
    options.enable_optimization(optimisation == Optimisation::Full).prepack_weights(true);
    let graph = read(&mut options, model)?;
    let ids = |specs: &[TensorSpec]| -> Result<Vec<NodeId>, String> {
        let id = |spec: &TensorSpec| graph.node_id(&spec.name).map_err(|error| error.to_string());
        specs.iter().map(id).collect()
    };
    let (inputs, outputs) = (ids(&model.signature().inputs)?, ids(&model.signature().outputs)?);
    Ok(LoadedGraph { graph, inputs, outputs })
}

/// The engine opens a file only if it is called `.onnx`; what is handed over in memory may have any name.
fn read(options: &mut ModelOptions, model: &Model) -> Result<Graph, String> {
    check_external(model)?;
    if model.path().extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
        return options.load_file(model.path()).map_err(|error| error.to_string());
    }
    for file in model.external_files() {
        options.external_data(&file.location, bytes(&file.path)?);
    }
    options.load(bytes(model.path())?).map_err(|error| error.to_string())
}

/// Says what the engine's own words (`disallowed path`) leave out.
fn check_external(model: &Model) -> Result<(), String> {
    let opened = |location: &str| {
        let extension = Path::new(location).extension().and_then(|extension| extension.to_str());
        let known = |name: &str| name.starts_with("data") || name.starts_with("onnx_data");
        !location.contains(['/', '\\']) && extension.is_some_and(known)
    };
    match model.external_files().iter().find(|file| !opened(&file.location)) {
        Some(file) => Err(format!(
            "its weights are in `{}`; rten opens such files only beside the model and called `.data` or \
             `.onnx_data`",
            file.location
        )),
        None => Ok(()),
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}
