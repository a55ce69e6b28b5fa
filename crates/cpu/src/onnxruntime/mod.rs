//! ONNX Runtime, loaded at run time.

mod convert;
mod executable;
mod library;
mod session;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Environment,
    Executable, InUse, LoadJob, Machine, Optimisation, Probe, Recipe, ShapeSupport, Status,
    tells_of_shortage,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::{Bucket, Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model};

use self::executable::OrtExecutable;
use self::library::{Library, Search};
use crate::{CpuOptions, dynamic};

const ID: BackendId = BackendId::new("onnxruntime");

/// A protobuf message may have 2 GiB; what is not weights needs some of that.
const LARGEST_ARTIFACT: u64 = (2 << 30) - (64 << 20);

/// ONNX Runtime on the CPU.
///
/// The library is looked for when it is first needed, and loaded once per process.
#[derive(Debug)]
pub struct OnnxRuntime {
    options: CpuOptions,
    search: OnceLock<Search>,
}

impl OnnxRuntime {
    /// The backend; nothing is loaded yet.
    #[must_use]
    pub fn new(options: &CpuOptions) -> Self {
        Self { options: options.clone(), search: OnceLock::new() }
    }

    fn search(&self) -> &Search {
        self.search.get_or_init(|| library::find(self.options.onnxruntime.as_deref()))
    }

    fn library(&self) -> Result<&'static Library, BackendError> {
        self.search().library.as_ref().copied().map_err(|reason| BackendError::Unavailable {
            backend: ID,
            reason: reason.clone(),
            remedy: library::REMEDY.to_owned(),
        })
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
        let search = self.search();
        let status = match &search.library {
            Ok(library) => Status::Usable {
                version: library.version.clone(),
                fingerprint: library.fingerprint.clone(),
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

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        Ok(recipe(self.search().library.as_ref().ok().copied(), optimisation))
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        let library = self.library()?;
        check(job.model)?;
        if job.model.n_parameter_bytes() > LARGEST_ARTIFACT {
            let reason =
                "its weights do not fit into one file of 2 GiB, so it is not compiled ahead";
            return Err(dynamic::refuse(&ID, job.model, reason));
        }
        let n_bytes = write_optimised(library, job)?;
        let unreadable = |source| BackendError::Write { path: job.output.clone(), source };
        Ok(Artifact {
            backend: ID,
            model: job.model.digest()?,
            bucket: Bucket::default(),
            optimisation: job.optimisation,
            fingerprint: recipe(Some(library), job.optimisation).fingerprint(),
            payload: job.output.clone(),
            n_bytes,
            checksum: Digest::of_file(&job.output).map_err(unreadable)?,
            notes: BTreeMap::new(),
            in_use: InUse::default(),
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

fn write_optimised(library: &'static Library, job: &CompileJob<'_>) -> Result<u64, BackendError> {
    let cannot_write = |source| BackendError::Write { path: job.output.clone(), source };
    let folder = match job.output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Made here first, so that a folder that cannot be written to is not taken for a bad model. A rename
    // from the same folder is what makes the artifact appear whole or not at all.
    let temporary = tempfile::Builder::new()
        .prefix(".onnxruntime-")
        .suffix(".tmp")
        .make_in(folder, |path| File::create_new(path))
        .map_err(cannot_write)?
        .into_temp_path();
    executable::optimise(library, job.model, job.optimisation, &temporary).map_err(|reason| {
        match tells_of_shortage(&reason) {
            true => BackendError::Library { backend: ID, what: "compile", message: reason },
            false => dynamic::refuse(&ID, job.model, reason),
        }
    })?;
    let file = File::open(&temporary).map_err(cannot_write)?;
    file.sync_all().map_err(cannot_write)?;
    temporary.persist(&job.output).map_err(|error| cannot_write(error.error))?;
    Ok(fs::metadata(&job.output).map_err(cannot_write)?.len())
}
