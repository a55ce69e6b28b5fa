//! A model that ONNX Runtime has loaded.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, thread};

use ort::session::Session as Lane;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::Outlet;
use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, Optimisation, Session, SessionOptions,
};
use shapeyard_core::{Model, Signature, TensorSpec};

use super::ID;
use super::library::Library;
use super::session::OrtSession;
use crate::dynamic;

/// Where lanes come from: each is an ONNX Runtime session of its own.
#[derive(Debug)]
pub(super) struct OrtExecutable {
    library: &'static Library,
    file: PathBuf,
    level: GraphOptimizationLevel,
    signature: Arc<Signature>,
    spare: Mutex<Option<Spare>>,
}

/// The lane that showed that the model loads.
#[derive(Debug)]
struct Spare {
    n_threads: NonZeroUsize,
    lane: Lane,
}

impl OrtExecutable {
    /// Loads the model itself.
    pub(super) fn from_model(
        library: &'static Library,
        model: &Model,
        optimisation: Optimisation,
    ) -> Result<Self, BackendError> {
        Self::load(library, model, model.path().to_owned(), level(optimisation))
            .map_err(|reason| dynamic::refuse(&ID, model, reason))
    }

    /// Loads what was compiled from the model.
    pub(super) fn from_artifact(
        library: &'static Library,
        model: &Model,
        artifact: &Artifact,
    ) -> Result<Self, BackendError> {
        artifact.check(model, &library.fingerprint)?;
        let path = artifact.payload().to_owned();
        let damaged = |reason| BackendError::Artifact { path: path.clone(), reason };
        let found = fs::metadata(&path).map_err(|error| damaged(error.to_string()))?.len();
        if found != artifact.n_bytes {
            return Err(damaged(format!("it has {found} bytes, it was written with {}", artifact.n_bytes)));
        }
        // It was rewritten when it was compiled.
        Self::load(library, model, path.clone(), GraphOptimizationLevel::Disable).map_err(damaged)
    }

    fn load(
        library: &'static Library,
        model: &Model,
        file: PathBuf,
        level: GraphOptimizationLevel,
    ) -> Result<Self, String> {
        // Most programs have one lane on all cores.
        let n_threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let lane = open(library, &file, &level, n_threads)?;
        check_names("inputs", &model.signature().inputs, lane.inputs())?;
        check_names("outputs", &model.signature().outputs, lane.outputs())?;
        let signature = Arc::new(model.signature().clone());
        let spare = Mutex::new(Some(Spare { n_threads, lane }));
        Ok(Self { library, file, level, signature, spare })
    }

    /// The spare lane if it fits. One that does not is dropped: it would only take memory.
    fn take_spare(&self, n_threads: NonZeroUsize) -> Option<Lane> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (spare.n_threads == n_threads).then_some(spare.lane)
    }
}

impl Executable for OrtExecutable {
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
        let lane = match self.take_spare(options.n_threads) {
            Some(lane) => lane,
            None => open(self.library, &self.file, &self.level, options.n_threads).map_err(|message| {
                BackendError::Library { backend: ID, what: "open another session", message }
            })?,
        };
        Ok(Box::new(OrtSession::new(lane, Arc::clone(&self.signature))))
    }

    fn admit(&self, _artifact: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: ID, what: "need buckets: it takes every shape" })
    }
}

/// Writes the rewritten model to `output`.
pub(super) fn optimise(
    library: &'static Library,
    model: &Model,
    optimisation: Optimisation,
    output: &Path,
) -> Result<(), String> {
    let build = || {
        builder(library, &level(optimisation), NonZeroUsize::MIN)?
            .with_optimized_model_path(output)?
            .commit_from_file(model.path())
    };
    build().map(drop).map_err(|error| error.to_string())
}

fn open(
    library: &'static Library,
    file: &Path,
    level: &GraphOptimizationLevel,
    n_threads: NonZeroUsize,
) -> Result<Lane, String> {
    builder(library, level, n_threads)
        .and_then(|mut builder| builder.commit_from_file(file))
        .map_err(|error| error.to_string())
}

fn builder(
    library: &'static Library,
    level: &GraphOptimizationLevel,
    n_threads: NonZeroUsize,
) -> ort::Result<SessionBuilder> {
    Ok(Lane::builder(&library.environment)?
        .with_optimization_level(level.clone())?
        .with_intra_threads(n_threads.get())?
        // A pattern is kept for each shape, and shapes are many here.
        .with_memory_pattern(false)?
        .with_intra_op_spinning(std::env::var_os("SPIN").is_some())?)
}

/// `All` is known to every version; `Level3` has a number that versions up to 1.22 refuse.
const fn level(optimisation: Optimisation) -> GraphOptimizationLevel {
    match optimisation {
        Optimisation::Off => GraphOptimizationLevel::Disable,
        Optimisation::Basic => GraphOptimizationLevel::Level1,
        Optimisation::Full => GraphOptimizationLevel::All,
    }
}

/// Values are handed over by position.
fn check_names(kind: &str, ours: &[TensorSpec], theirs: &[Outlet]) -> Result<(), String> {
    if ours.iter().map(|spec| spec.name.as_str()).eq(theirs.iter().map(Outlet::name)) {
        return Ok(());
    }
    let theirs: Vec<&str> = theirs.iter().map(Outlet::name).collect();
    Err(format!("ONNX Runtime finds other {kind} than the file declares: {}", theirs.join(", ")))
}
