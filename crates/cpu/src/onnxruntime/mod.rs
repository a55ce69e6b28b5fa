//! ONNX Runtime, loaded at run time.

mod convert;
mod executable;
mod library;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Environment,
    Executable, LoadJob, Machine, Optimisation, Probe, Recipe, ShapeSupport, tells_of_shortage,
};
use shapeyard_core::plan::{Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model};

use self::executable::OrtExecutable;
use self::library::Library;
use crate::found::Found;
use crate::{CpuOptions, artifact, dynamic};

const ID: BackendId = BackendId::new("onnxruntime");

/// A protobuf message may have 2 GiB; what is not weights needs some of that.
const LARGEST_ARTIFACT: u64 = (2 << 30) - (64 << 20);

/// ONNX Runtime on the CPU.
///
/// The library is looked for when it is first needed, and loaded once per process.
#[derive(Debug)]
pub struct OnnxRuntime {
    options: CpuOptions,
    found: OnceLock<Found<&'static Library>>,
}

impl OnnxRuntime {
    /// The backend; nothing is loaded yet.
    #[must_use]
    pub fn new(options: &CpuOptions) -> Self {
        Self { options: options.clone(), found: OnceLock::new() }
    }

    fn found(&self) -> &Found<&'static Library> {
        self.found.get_or_init(|| library::find(self.options.onnxruntime.as_deref()))
    }

    fn library(&self) -> Result<&'static Library, BackendError> {
        self.found().needed(ID).copied()
    }
}

impl Backend for OnnxRuntime {
    fn id(&self) -> BackendId {
        ID
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shapes: ShapeSupport::Dynamic,
            artifacts: ArtifactUse::Optional,
            dtypes: DataType::ALL.into_iter().filter(|&dtype| convert::takes(dtype)).collect(),
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

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        Ok(recipe(self.found().get().copied(), optimisation))
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        let library = self.library()?;
        check(job.model)?;
        if job.model.n_parameter_bytes() > LARGEST_ARTIFACT {
            let reason =
                "its weights do not fit into one file of 2 GiB, so it is not compiled ahead";
            return Err(dynamic::refuse(&ID, job.model, reason));
        }
        artifact::compile(job, &recipe(Some(library), job.optimisation), |path| {
            executable::optimise(library, job.model, job.optimisation, path).map_err(|reason| {
                match tells_of_shortage(&reason) {
                    true => BackendError::Library { backend: ID, what: "compile", message: reason },
                    false => dynamic::refuse(&ID, job.model, reason),
                }
            })
        })
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        let library = self.library()?;
        check(job.model)?;
        let executable = match job.artifacts.iter().find(|artifact| artifact.backend == ID) {
            Some(artifact) => OrtExecutable::from_artifact(library, job, artifact)?,
            None => OrtExecutable::from_model(library, job)?,
        };
        Ok(Arc::new(executable))
    }
}

fn recipe(library: Option<&Library>, optimisation: Optimisation) -> Recipe {
    let machine = |library: &Library| Machine {
        compiler: library.fingerprint.0.clone(),
        library: None,
        driver: None,
        architecture: Some(std::env::consts::ARCH.to_owned()),
        environment: Environment::default(),
    };
    let level = match optimisation {
        Optimisation::Off => "off",
        Optimisation::Basic => "basic",
        Optimisation::Full => "full",
    };
    Recipe {
        backend: ID,
        backend_version: "1".to_owned(),
        precision: None,
        calibration: None,
        options: BTreeMap::from([("optimisation".to_owned(), level.to_owned())]),
        machine: library.map(machine),
    }
}

fn check(model: &Model) -> Result<(), BackendError> {
    dynamic::check_onnx(&ID, model)?;
    dynamic::check_types(&ID, model, convert::takes)
}
