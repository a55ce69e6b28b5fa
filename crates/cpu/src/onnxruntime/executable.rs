//! A model that ONNX Runtime has loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::Session as Lane;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::Outlet;
use shapeyard_core::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, InUse, LoadJob, Optimisation, Session,
    SessionOptions, Waiting,
};
use shapeyard_core::{Model, Signature, TensorSpec};

use super::ID;
use super::library::Library;
use super::session::OrtSession;
use crate::dynamic;

/// Where lanes come from: each is an ONNX Runtime session of its own, with its own copy of the weights.
///
/// Measured with MiniLM-L6 (90 MB of `f32`, 8 x 128 tokens, ONNX Runtime 1.31.1), resident MiB with one,
/// two and three lanes: 160, 290, 405. A shared container of prepacked weights alone changes nothing (it
/// holds only weights that the caller hands over). Handing over every weight of a model that was rewritten
/// before, with that container, gives 208, 265, 314: worth a second copy on disk and in memory only from
/// three lanes on, so it is not done. One session that two threads run at once holds the weights once, and takes
/// longer: 1.22 times as long with INT8 weights, 1.02 with `f32`, on two cores. rten shares its weights and needs 14 MiB for a further lane.
#[derive(Debug)]
pub(super) struct OrtExecutable {
    library: &'static Library,
    source: Source,
    signature: Arc<Signature>,
    spare: Mutex<Option<Spare>>,
}

/// What lanes are made from.
#[derive(Debug)]
struct Source {
    file: PathBuf,
    level: GraphOptimizationLevel,
    /// Where external data is, if that is not the file's own folder.
    weights: Option<String>,
    /// Lanes that are made later read the file again.
    _in_use: InUse,
}

/// The lane that showed that the model loads.
#[derive(Debug)]
struct Spare {
    options: SessionOptions,
    lane: Lane,
}

impl OrtExecutable {
    /// Loads the model itself.
    pub(super) fn from_model(
        library: &'static Library,
        job: &LoadJob<'_>,
    ) -> Result<Self, BackendError> {
        let model = job.model;
        let level = level(job.optimisation);
        let source = Source {
            file: model.path().to_owned(),
            level,
            weights: None,
            _in_use: InUse::default(),
        };
        Self::load(library, job, source).map_err(|reason| dynamic::refuse(&ID, model, reason))
    }

    /// Loads what was compiled from the model.
    pub(super) fn from_artifact(
        library: &'static Library,
        job: &LoadJob<'_>,
        artifact: &Artifact,
    ) -> Result<Self, BackendError> {
        let model = job.model;
        artifact.check(model, &super::recipe(Some(library), job.optimisation).fingerprint())?;
        artifact.verify()?;
        let path = artifact.payload().to_owned();
        let damaged = |reason| BackendError::Artifact { path: path.clone(), reason };
        let source = compiled(model, &path, artifact.in_use.clone()).map_err(damaged)?;
        Self::load(library, job, source).map_err(damaged)
    }

    fn load(library: &'static Library, job: &LoadJob<'_>, source: Source) -> Result<Self, String> {
        let (model, options) = (job.model, job.sessions);
        let lane = open(library, &source, options)?;
        check_names("inputs", &model.signature().inputs, lane.inputs())?;
        check_names("outputs", &model.signature().outputs, lane.outputs())?;
        let signature = Arc::new(model.signature().clone());
        let spare = Mutex::new(Some(Spare { options, lane }));
        Ok(Self { library, source, signature, spare })
    }

    /// The spare lane if it fits. One that does not is dropped: it would only take memory.
    fn take_spare(&self, options: SessionOptions) -> Option<Lane> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (spare.options == options).then_some(spare.lane)
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
        let lane = match self.take_spare(*options) {
            Some(lane) => lane,
            None => open(self.library, &self.source, *options).map_err(|message| {
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
        builder(library, level(optimisation), SessionOptions::threads(1))?
            .with_optimized_model_path(output)?
            .commit_from_file(model.path())
    };
    build().map_err(|error| error.to_string())?;
    if model.external_files().is_empty() {
        return Ok(());
    }
    // Older versions write such a model and cannot read it again (1.20 cannot, 1.31 can).
    open(library, &compiled(model, output, InUse::default())?, SessionOptions::threads(1))
        .map(drop)
        .map_err(|reason| format!("with external data it is not compiled ahead: {reason}"))
}

/// What was compiled needs no rewriting. It names external data as the model does, which stays where it is.
fn compiled(model: &Model, file: &Path, in_use: InUse) -> Result<Source, String> {
    let folder = (!model.external_files().is_empty()).then(|| model.path().parent()).flatten();
    let weights = folder.map(|folder| folder.join(".").canonicalize()).transpose();
    let weights = weights.map_err(|error| error.to_string())?;
    // The library takes the folder as an option, and options are text.
    let weights = weights.map(|folder| folder.into_os_string().into_string()).transpose();
    let weights = weights.map_err(|folder| {
        format!("its weights are in `{}`, a folder whose name is not UTF-8", folder.display())
    })?;
    Ok(Source {
        file: file.to_owned(),
        level: GraphOptimizationLevel::Disable,
        weights,
        _in_use: in_use,
    })
}

fn open(
    library: &'static Library,
    source: &Source,
    options: SessionOptions,
) -> Result<Lane, String> {
    let commit = || {
        let mut builder = builder(library, source.level, options)?;
        let Some(weights) = &source.weights else {
            return builder.commit_from_file(&source.file);
        };
        // Only a model in memory may have its external data elsewhere.
        let model = fs::read(&source.file).map_err(ort::Error::wrap)?;
        builder.with_config_entry(WEIGHTS_FOLDER, weights)?.commit_from_memory(&model)
    };
    commit().map_err(|error| error.to_string())
}

const WEIGHTS_FOLDER: &str = "session.model_external_initializers_file_folder_path";

const SPIN_DURATION: &str = "session.intra_op.spin_duration_us";

/// As much as threads wait for each other within a run.
///
/// Without a bound threads spin for over 50 ms after a run: MiniLM-L6 on two quiet cores, 1 x 16 tokens, one
/// query every 50 ms, took 54 ms of processor time a query, 15 with this bound, 12 when they slept. One query
/// right after the other took 6.85 ms when they slept, 6.07 without a bound, 5.99 as here; 12.5, 56 and 32
/// where six other processes wanted the cores.
const SPIN_MICROSECONDS: &str = "100";

/// Versions before 1.26 do not know the duration; these stop with the run.
const STOP_SPINNING: &str = "session.force_spinning_stop";

fn builder(
    library: &'static Library,
    level: GraphOptimizationLevel,
    options: SessionOptions,
) -> ort::Result<SessionBuilder> {
    let spins = options.waiting == Waiting::Spin;
    let builder = Lane::builder(&library.environment)?
        .with_optimization_level(level)?
        .with_intra_threads(options.n_threads.get())?
        // A pattern is kept for each shape, and shapes are many here.
        .with_memory_pattern(false)?
        .with_intra_op_spinning(spins)?
        // Both go by the file's extension otherwise, and an artifact may have any.
        .with_config_entry("session.load_model_format", "ONNX")?
        .with_config_entry("session.save_model_format", "ONNX")?;
    if !spins {
        return Ok(builder);
    }
    Ok(builder
        .with_config_entry(SPIN_DURATION, SPIN_MICROSECONDS)?
        .with_config_entry(STOP_SPINNING, "1")?)
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
