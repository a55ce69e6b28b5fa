//! The backend: what MIGraphX is to the rest of Shapeyard.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Executable,
    Fingerprint, InUse, LoadJob, Machine, Optimisation, Probe, Recipe, SearchStep, ShapeSupport,
    Status,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::{Bucket, Plan, PlanOptions, Workload};
use shapeyard_core::{AxisSymbol, DataType, Model};

use crate::compile::{self, Job, Traits};
use crate::device::Gpu;
use crate::executable::MigraphxExecutable;
use crate::native::{Migraphx, dtype_of};
use crate::options::{Compiler, MigraphxOptions, Target};
use crate::{ID, plan, specialise};

/// The version of what this crate decides about a program: counted up when the same options make another
/// program, or what is noted beside it changes.
pub(crate) const VERSION: &str = "3";

const NO_DEVICE_REMEDY: &str =
    "run on a machine with one, or compile for the target `ref` to try without";

const REMEDY: &str = "install ROCm with MIGraphX, or name the library with MIGRAPHX_DYLIB_PATH";

/// MIGraphX: static programs for whatever shapes come.
///
/// The library is looked for when it is first needed, and stays loaded until the process ends.
#[derive(Debug)]
pub struct MigraphxBackend {
    options: MigraphxOptions,
    /// The programs that plans use; none where nobody said.
    ready: Vec<Bucket>,
    search: OnceLock<Search>,
    gpus: OnceLock<Result<Vec<Arc<Gpu>>, String>>,
    /// The content of the calibration files, read once: a compile refuses other content.
    calibration: OnceLock<Option<Digest>>,
    /// The model that was compiled last.
    last: Mutex<Option<Known>>,
}

/// What was found out about a model and holds for every bucket.
#[derive(Clone, Debug)]
struct Known {
    model: Digest,
    declared: Vec<AxisSymbol>,
    traits: Traits,
}

#[derive(Clone, Debug)]
struct Search {
    library: Result<&'static Migraphx, String>,
    steps: Vec<SearchStep>,
}

impl MigraphxBackend {
    /// The backend; nothing is loaded yet.
    ///
    /// # Errors
    ///
    /// [`BackendError::Option`]: options that contradict each other.
    pub fn new(options: MigraphxOptions) -> Result<Self, BackendError> {
        let compile = &options.compile;
        let contradiction = |option, reason: &str| {
            Err(BackendError::Option { backend: ID, option, reason: reason.to_owned() })
        };
        if compile.precision.quantisation.is_some() && compile.calibration.is_empty() {
            return contradiction(
                "precision",
                "8-bit products need calibration, without which answers are silently wrong; give \
                 calibration files",
            );
        }
        if compile.precision.quantisation.is_none() && !compile.calibration.is_empty() {
            return contradiction(
                "calibration",
                "only int8 and fp8 are calibrated; ask for one of them",
            );
        }
        if compile.exhaustive_tune && compile.target != Target::Gpu {
            return contradiction(
                "exhaustive_tune",
                "only the target gpu has kernels to choose from",
            );
        }
        if compile.target == Target::Gpu && options.device.devices.is_empty() {
            return contradiction("devices", "programs for gpu need one device at least");
        }
        Ok(Self {
            options,
            ready: Vec::new(),
            search: OnceLock::new(),
            gpus: OnceLock::new(),
            calibration: OnceLock::new(),
            last: Mutex::default(),
        })
    }

    /// The same backend, which plans over these programs. The library is not looked for again.
    #[must_use]
    pub fn with_ready(&self, ready: Vec<Bucket>) -> Self {
        Self { ready, ..self.with(self.options.clone()) }
    }

    /// The same backend, whose compiles give way to everything else that wants the processors.
    #[must_use]
    pub fn with_low_priority(&self) -> Self {
        let compiler = Compiler { low_priority: true, ..self.options.compiler.clone() };
        self.with(MigraphxOptions { compiler, ..self.options.clone() })
    }

    fn with(&self, options: MigraphxOptions) -> Self {
        Self {
            options,
            ready: self.ready.clone(),
            search: self.search.clone(),
            gpus: self.gpus.clone(),
            calibration: self.calibration.clone(),
            last: Mutex::default(),
        }
    }

    /// What the backend was told.
    #[must_use]
    pub const fn options(&self) -> &MigraphxOptions {
        &self.options
    }

    /// Checks what the options say about a model: its rows, and what its inputs are padded with. Every
    /// compile and every load does so too; this is for whoever is about to ask for many.
    ///
    /// # Errors
    ///
    /// [`BackendError::Option`], when they name what the model does not have.
    pub fn check_options(&self, model: &Model) -> Result<(), BackendError> {
        specialise::check_padding(model.signature(), &self.options.padding)
            .map_err(|reason| BackendError::Option { backend: ID, option: "padding", reason })
    }

    fn search(&self) -> &Search {
        self.search.get_or_init(|| search(self.options.library.as_deref()))
    }

    fn library(&self) -> Result<&'static Migraphx, BackendError> {
        self.search().library.clone().map_err(|reason| BackendError::Unavailable {
            backend: ID,
            reason,
            remedy: REMEDY.to_owned(),
        })
    }

    /// The library, if what it would compile for is here too, and that; nothing for the host.
    fn usable(&self) -> Result<(&'static Migraphx, &[Arc<Gpu>]), BackendError> {
        let library = self.library()?;
        let target = self.options.compile.target;
        let unavailable = |reason: String, remedy: &str| BackendError::Unavailable {
            backend: ID,
            reason,
            remedy: remedy.to_owned(),
        };
        let gpus = match target {
            Target::Gpu => self.gpus().map_err(|reason| unavailable(reason, NO_DEVICE_REMEDY))?,
            Target::Ref | Target::Cpu => &[],
        };
        library.know_target(target.name()).map_err(|error| {
            let reason = format!("this MIGraphX has no target `{target}` ({error})");
            unavailable(reason, "install the part of MIGraphX for that target")
        })?;
        Ok((library, gpus))
    }

    fn gpus(&self) -> Result<&[Arc<Gpu>], String> {
        let gpus = self.gpus.get_or_init(|| Gpu::open(&self.options.device));
        gpus.as_deref().map_err(Clone::clone)
    }

    fn refuse(model: &Model, reason: impl Into<String>) -> BackendError {
        BackendError::Model { backend: ID, model: model.path().to_owned(), reason: reason.into() }
    }

    fn calibration(&self) -> Result<Option<Digest>, BackendError> {
        if let Some(digest) = self.calibration.get() {
            return Ok(*digest);
        }
        let digest = self.options.compile.calibration_digest().map_err(|reason| {
            BackendError::Option { backend: ID, option: "calibration", reason }
        })?;
        Ok(*self.calibration.get_or_init(|| digest))
    }

    /// What compiles of this model found out that holds for every bucket.
    fn known(&self, model: Digest, declared: &[AxisSymbol]) -> Option<Traits> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let same = last.as_ref().filter(|it| it.model == model && it.declared == declared)?;
        Some(same.traits.clone())
    }

    fn machine(&self) -> Result<Option<Machine>, BackendError> {
        let Ok((library, gpus)) = self.usable() else { return Ok(None) };
        let digest = library.digest().map_err(|message| BackendError::Library {
            backend: ID,
            what: "read its own library",
            message,
        })?;
        let host = || std::env::consts::ARCH.to_owned();
        let architecture = gpus.first().map_or_else(host, |gpu| gpu.architecture());
        Ok(Some(Machine {
            compiler: library.compiler(),
            library: Some(digest),
            driver: gpus.first().and_then(|gpu| gpu.driver()),
            architecture: Some(architecture),
            environment: library.environment().clone(),
        }))
    }
}

fn search(path: Option<&Path>) -> Search {
    let described = |steps: &[migraphx_sys::SearchStep]| {
        steps
            .iter()
            .map(|step| SearchStep {
                place: step.place_and_why(),
                outcome: step.outcome.to_string(),
            })
            .collect()
    };
    match Migraphx::load(path) {
        Ok(library) => Search { steps: described(library.library().steps()), library: Ok(library) },
        Err(error) => {
            let steps = described(error.steps());
            Search { library: Err(error.to_string()), steps }
        }
    }
}

impl MigraphxBackend {
    /// What [`Backend::load`] gives, by its own type: its sessions take requests that lie on a device too.
    ///
    /// # Errors
    ///
    /// As [`Backend::load`].
    pub fn load_programs(
        &self,
        job: &LoadJob<'_>,
    ) -> Result<Arc<MigraphxExecutable>, BackendError> {
        let (library, gpus) = self.usable()?;
        let fingerprint = self.recipe(job.optimisation)?.fingerprint();
        let (gpus, options) = (gpus.to_vec(), &self.options);
        Ok(Arc::new(MigraphxExecutable::load(library, gpus, options, fingerprint, job)?))
    }
}

impl Backend for MigraphxBackend {
    fn id(&self) -> BackendId {
        ID
    }

    fn capabilities(&self) -> Capabilities {
        let known = migraphx_sys::ShapeType::ALL.into_iter().filter_map(dtype_of);
        let known: Vec<DataType> = known.collect();
        Capabilities {
            shapes: ShapeSupport::Static,
            artifacts: ArtifactUse::Required,
            dtypes: DataType::ALL.into_iter().filter(|dtype| known.contains(dtype)).collect(),
        }
    }

    fn probe(&self) -> Probe {
        let status = match self.usable() {
            // What options are wrong with is told by whoever uses them, not by what is installed.
            Ok((library, _)) => Status::Usable {
                version: library.compiler(),
                fingerprint: match self.recipe(Optimisation::Full) {
                    Ok(recipe) => recipe.fingerprint(),
                    Err(_) => Fingerprint(library.compiler()),
                },
            },
            Err(BackendError::Unavailable { reason, remedy, .. }) => {
                Status::Unusable { reason, remedy }
            }
            Err(error) => Status::Unusable { reason: error.to_string(), remedy: REMEDY.to_owned() },
        };
        // A device that was opened and does not answer is told by the first run.
        let devices = self.usable().map(|(_, gpus)| gpus).unwrap_or_default();
        let devices = devices.iter().filter_map(|gpu| gpu.report().ok()).collect();
        Probe { backend: ID, status, searched: self.search().steps.clone(), devices }
    }

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        if optimisation != Optimisation::Full {
            return Err(BackendError::Unsupported {
                backend: ID,
                what: "leave out rewrites: its compiler always does all that it knows",
            });
        }
        let options = &self.options.compile;
        // Numbers and names always have a JSON form.
        let padding = serde_json::to_string(&self.options.padding).unwrap_or_default();
        let named = [
            ("target", options.target.to_string()),
            ("fast_math", options.fast_math.to_string()),
            ("exhaustive_tune", options.exhaustive_tune.to_string()),
            ("padding", padding),
        ];
        Ok(Recipe {
            backend: ID,
            backend_version: VERSION.to_owned(),
            precision: Some(options.precision.to_string()),
            calibration: self.calibration()?,
            options: named.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            machine: self.machine()?,
        })
    }

    fn plan(
        &self,
        model: &Model,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Result<Plan, BackendError> {
        let shapes = (&self.ready[..], &self.options.steps);
        plan::plan(model.signature(), shapes, workload, options)
            .map_err(|reason| Self::refuse(model, reason))
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        let (library, gpus) = self.usable()?;
        let (model, options) = (job.model, &self.options);
        specialise::check_bucket(model.signature(), &job.bucket)
            .map_err(|reason| Self::refuse(model, reason))?;
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let digest = model.digest()?;
        self.check_options(model)?;
        let recipe = self.recipe(job.optimisation)?;
        let declared = Job::declared(model.signature());
        let compile_job = Job {
            version: VERSION.to_owned(),
            library: library.library().path().to_owned(),
            model: absolute(model.path()),
            digest,
            bucket: job.bucket.clone(),
            device: gpus.first().and_then(|gpu| usize::try_from(gpu.device().index()).ok()),
            options: options.compile.clone(),
            calibration: recipe.calibration,
            padding: options.padding.clone(),
            known: self.known(digest, &declared),
            declared,
            output: job.output.clone(),
        };
        let compiled = compile::compile(
            library,
            &options.compiler,
            &compile_job,
            &job.output,
            job.cancellation,
        )?;
        if let Some(traits) = compiled.known {
            let known = Known { model: digest, declared: compile_job.declared, traits };
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        }
        let checksum = Digest::of_file(&job.output).map_err(|source| {
            // Nothing is left of a compile that failed.
            let _ = fs::remove_file(&job.output);
            BackendError::Write { path: job.output.clone(), source }
        })?;
        Ok(Artifact {
            backend: ID,
            model: digest,
            bucket: job.bucket.clone(),
            optimisation: job.optimisation,
            fingerprint: recipe.fingerprint(),
            payload: job.output.clone(),
            n_bytes: compiled.n_bytes,
            checksum,
            notes: compiled.notes,
            in_use: InUse::default(),
        })
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        Ok(self.load_programs(job)?)
    }
}
