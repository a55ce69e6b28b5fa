//! ggml, loaded at run time: ONNX graphs as its graphs.

mod cannot;
mod compute;
mod custom;
mod evaluate;
mod executable;
mod gguf;
mod graph;
mod host;
mod kernels;
mod library;
mod mapped;
mod modern_bert;
mod onnx;
mod operators;
mod prepare;
mod quantise;
mod session;
mod translate;
mod widen;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Environment,
    Executable, InUse, LoadJob, Machine, Optimisation, Probe, Recipe, ShapeSupport, Status,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::{Bucket, Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model};

use self::executable::GgmlExecutable;
use self::library::{Engine, Search};
use crate::{CpuOptions, GgmlWeights, dynamic};

const ID: BackendId = BackendId::new("ggml");

/// ggml, on the CPU unless another of its devices is named.
///
/// The library is looked for when it is first needed. It computes with `f32`; what a model computes of
/// integers (shapes, masks, positions) the backend computes itself. A model with an operator that is
/// neither ggml's nor done by the backend is refused when it is loaded, with the operator's name.
///
/// Its plan is the common one of engines that take every shape: on one busy core the real encoder took 0.3 to
/// 0.6 ms a token in batches of 16 to 4096 tokens, in no order of size that stood out of the noise. What is best on a
/// machine is found on the job, by the calibration of an encoding.
///
/// The threads of a lane wait for each other by spinning: where other work keeps the cores busy, lanes of one
/// thread are faster than one lane of several.
#[derive(Debug)]
pub struct Ggml {
    library: Option<PathBuf>,
    device: Option<String>,
    weights: Option<GgmlWeights>,
    search: OnceLock<Search>,
}

impl Ggml {
    /// The backend; nothing is loaded yet.
    #[must_use]
    pub fn new(options: &CpuOptions) -> Self {
        let CpuOptions { ggml, ggml_device, ggml_weights, .. } = options.clone();
        Self { library: ggml, device: ggml_device, weights: ggml_weights, search: OnceLock::new() }
    }

    fn search(&self) -> &Search {
        self.search.get_or_init(|| library::find(self.library.as_deref(), self.device.as_deref()))
    }

    fn engine(&self) -> Result<&Arc<Engine>, BackendError> {
        self.search().engine.as_ref().map_err(|reason| BackendError::Unavailable {
            backend: ID,
            reason: reason.clone(),
            remedy: library::REMEDY.to_owned(),
        })
    }
}

/// Whether tensors of this type can cross the border.
const fn takes(dtype: DataType) -> bool {
    matches!(dtype, DataType::Bool | DataType::I32 | DataType::I64 | DataType::F32)
}

impl Backend for Ggml {
    fn id(&self) -> BackendId {
        ID
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shapes: ShapeSupport::Dynamic,
            artifacts: match self.weights {
                Some(_) => ArtifactUse::Optional,
                None => ArtifactUse::None,
            },
            dtypes: DataType::ALL.into_iter().filter(|&dtype| takes(dtype)).collect(),
        }
    }

    fn probe(&self) -> Probe {
        let search = self.search();
        let status = match &search.engine {
            Ok(engine) => Status::Usable {
                version: engine.version.clone(),
                fingerprint: engine.fingerprint.clone(),
            },
            Err(reason) => {
                Status::Unusable { reason: reason.clone(), remedy: library::REMEDY.to_owned() }
            }
        };
        Probe { backend: ID, status, searched: search.steps.clone(), devices: Vec::new() }
    }

    fn plan(
        &self,
        model: &Model,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Result<Plan, BackendError> {
        dynamic::plan(ID, model, workload, options)
    }

    fn recipe(&self, _optimisation: Optimisation) -> Result<Recipe, BackendError> {
        let weights = self.weights.ok_or(NO_ARTIFACTS)?;
        Ok(recipe(weights, self.search().engine.as_ref().ok()))
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        let weights = self.weights.ok_or(NO_ARTIFACTS)?;
        let engine = self.engine()?;
        let gguf = job.model.gguf().ok_or_else(|| {
            dynamic::refuse(&ID, job.model, "only GGUF files are compiled, to narrower weights")
        })?;
        let n_bytes = quantise::write(engine, job, gguf, weights)?;
        let unreadable = |source| BackendError::Write { path: job.output.clone(), source };
        Ok(Artifact {
            backend: ID,
            model: job.model.digest()?,
            bucket: Bucket::default(),
            optimisation: job.optimisation,
            fingerprint: recipe(weights, Some(engine)).fingerprint(),
            payload: job.output.clone(),
            n_bytes,
            checksum: Digest::of_file(&job.output).map_err(unreadable)?,
            notes: BTreeMap::new(),
            in_use: InUse::default(),
        })
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        let engine = self.engine()?;
        dynamic::check_types(&ID, job.model, takes)?;
        let Some(artifact) = job.artifacts.iter().find(|artifact| artifact.backend == ID) else {
            return Ok(Arc::new(GgmlExecutable::load(engine, job.model, &InUse::default())?));
        };
        let weights = self.weights.ok_or(NO_ARTIFACTS)?;
        artifact.check(job.model, &recipe(weights, Some(engine)).fingerprint())?;
        artifact.verify()?;
        let damaged = |reason| BackendError::Artifact { path: artifact.payload.clone(), reason };
        let narrow = Model::open(artifact.payload()).map_err(|error| damaged(error.to_string()))?;
        if narrow.signature() != job.model.signature() {
            return Err(damaged("it takes or gives something else than the model".to_owned()));
        }
        Ok(Arc::new(GgmlExecutable::load(engine, &narrow, &artifact.in_use)?))
    }
}

/// What is said where no type of weights was asked for.
const NO_ARTIFACTS: BackendError =
    BackendError::Unsupported { backend: ID, what: "make artifacts: it loads models as they are" };

fn recipe(weights: GgmlWeights, engine: Option<&Arc<Engine>>) -> Recipe {
    let machine = |engine: &Arc<Engine>| Machine {
        compiler: format!("ggml {}", engine.version),
        library: None,
        driver: None,
        architecture: None,
        environment: Environment::default(),
    };
    Recipe {
        backend: ID,
        backend_version: "1".to_owned(),
        precision: Some(weights.name().to_owned()),
        calibration: None,
        options: BTreeMap::new(),
        machine: engine.map(machine),
    }
}
