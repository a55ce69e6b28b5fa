//! ggml, loaded at run time: ONNX graphs as its graphs, and encoders from GGUF files.
//!
//! What a model computes is described to the library ([`builder`], [`layers`]) and computed in memory of a lane's
//! own ([`computation`]); [`onnx`] and [`encoder`] say what is described. Where the processor computes,
//! [`kernels`] of ours take part.

mod builder;
mod cannot;
mod computation;
mod context;
mod custom;
#[cfg(test)]
mod elsewhere;
mod encoder;
mod executable;
mod inputs;
mod kernels;
mod layers;
mod library;
mod mapped;
mod narrow;
mod onnx;
mod session;
mod shape;
mod store;
mod stream;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Environment,
    Executable, InUse, LoadJob, Machine, Optimisation, Probe, Recipe, ShapeSupport,
};
use shapeyard_core::model::gguf::{self, EncoderSizes, GgufFile};
use shapeyard_core::plan::{Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model};

use self::cannot::{Cannot, LOAD};
use self::encoder::{Encoder, Origin};
use self::executable::{GgmlExecutable, Loaded};
use self::library::Engine;
use self::mapped::Residence;
use crate::found::Found;
use crate::{CpuOptions, GgmlWeights, artifact, dynamic};

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
    found: OnceLock<Found<Arc<Engine>>>,
}

impl Ggml {
    /// The backend; nothing is loaded yet.
    #[must_use]
    pub fn new(options: &CpuOptions) -> Self {
        let CpuOptions { ggml, ggml_device, ggml_weights, .. } = options.clone();
        Self { library: ggml, device: ggml_device, weights: ggml_weights, found: OnceLock::new() }
    }

    fn found(&self) -> &Found<Arc<Engine>> {
        self.found.get_or_init(|| library::find(self.library.as_deref(), self.device.as_deref()))
    }

    fn engine(&self) -> Result<&Arc<Engine>, BackendError> {
        self.found().needed(ID)
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
        self.found().probe(ID)
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
        Ok(recipe(weights, self.found().get()))
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        let weights = self.weights.ok_or(NO_ARTIFACTS)?;
        let engine = self.engine()?;
        let gguf = job.model.gguf().ok_or_else(|| {
            dynamic::refuse(&ID, job.model, "only GGUF files are compiled, to narrower weights")
        })?;
        artifact::compile(job, &recipe(weights, Some(engine)), |path| {
            narrow::write(engine, job, gguf, weights, path)
        })
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        let engine = self.engine()?;
        dynamic::check_types(&ID, job.model, takes)?;
        let artifact = job.artifacts.iter().find(|artifact| artifact.backend == ID);
        let (loaded, in_use) = match artifact {
            Some(artifact) => {
                (self.load_artifact(engine, job.model, artifact)?, artifact.in_use.clone())
            }
            None => (from_model(engine, job.model)?, InUse::default()),
        };
        Ok(Arc::new(GgmlExecutable::new(loaded, job.model.signature(), in_use)))
    }
}

impl Ggml {
    /// Loads what was compiled from the model, which says what it is.
    fn load_artifact(
        &self,
        engine: &Arc<Engine>,
        model: &Model,
        artifact: &Artifact,
    ) -> Result<Loaded, BackendError> {
        let weights = self.weights.ok_or(NO_ARTIFACTS)?;
        artifact.check(model, &recipe(weights, Some(engine)).fingerprint())?;
        artifact.verify()?;
        let failed = |cannot| match cannot {
            Cannot::Failed(message) => BackendError::Library { backend: ID, what: LOAD, message },
            damage => BackendError::Artifact {
                path: artifact.payload.clone(),
                reason: damage.to_string(),
            },
        };
        let residence = match artifact.in_use.is_held() {
            true => Residence::Mapped,
            false => Residence::Copied,
        };
        let load = || {
            let foreign = || Cannot::Model("it was made of another kind of model".to_owned());
            let sizes = sizes(model.gguf().ok_or_else(foreign)?)?;
            let file = gguf::read(File::open(artifact.payload())?);
            let file = file.map_err(|error| Cannot::Model(error.to_string()))?;
            Encoder::load(engine, &sizes, artifact.payload(), &file, Origin::Artifact(residence))
        };
        let encoder = caught(load).map_err(failed)?;
        Ok(Loaded::Encoder(Arc::new(encoder)))
    }
}

fn from_model(engine: &Arc<Engine>, model: &Model) -> Result<Loaded, BackendError> {
    let load = || match model.gguf() {
        Some(file) => from_gguf(engine, model, file),
        None => Ok(Loaded::Onnx(Arc::new(onnx::load(engine, model)?))),
    };
    caught(load).map_err(|cannot| cannot.about(model))
}

fn from_gguf(engine: &Arc<Engine>, model: &Model, file: &GgufFile) -> Result<Loaded, Cannot> {
    let encoder = Encoder::load(engine, &sizes(file)?, model.path(), file, Origin::Foreign)?;
    Ok(Loaded::Encoder(Arc::new(encoder)))
}

fn sizes(file: &GgufFile) -> Result<EncoderSizes, Cannot> {
    EncoderSizes::of(file).map_err(|error| Cannot::Model(error.to_string()))
}

/// A panic tells of a fault of ours, and nothing about the model.
fn caught<T>(load: impl FnOnce() -> Result<T, Cannot>) -> Result<T, Cannot> {
    dynamic::caught(load).unwrap_or_else(|panic| Err(Cannot::Failed(panic)))
}

/// What is said where no type of weights was asked for.
const NO_ARTIFACTS: BackendError =
    BackendError::Unsupported { backend: ID, what: "make artifacts: it loads models as they are" };

fn recipe(weights: GgmlWeights, engine: Option<&Arc<Engine>>) -> Recipe {
    let machine = |engine: &Arc<Engine>| Machine {
        compiler: format!("ggml {}", engine.version),
        library: None,
        driver: None,
        // Matrices lie in artifacts as the kind of device reads them.
        architecture: Some(if engine.is_processor() { "processor" } else { "device" }.to_owned()),
        environment: Environment::default(),
    };
    Recipe {
        backend: ID,
        backend_version: "2".to_owned(),
        precision: Some(weights.name().to_owned()),
        calibration: None,
        options: BTreeMap::new(),
        machine: engine.map(machine),
    }
}
