//! ggml, loaded at run time: ONNX graphs as its graphs.

mod cannot;
mod compute;
mod evaluate;
mod executable;
mod gguf;
mod graph;
mod host;
mod library;
mod onnx;
mod operators;
mod prepare;
mod session;
mod translate;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Executable,
    LoadJob, Optimisation, Probe, Recipe, ShapeSupport, Status,
};
use shapeyard_core::plan::{Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model};

use self::executable::GgmlExecutable;
use self::library::{Engine, Search};
use crate::{CpuOptions, dynamic};

const ID: BackendId = BackendId::new("ggml");

/// ggml on the CPU.
///
/// The library is looked for when it is first needed. It computes with `f32`; what a model computes of
/// integers (shapes, masks, positions) the backend computes itself. A model with an operator that is
/// neither ggml's nor done by the backend is refused when it is loaded, with the operator's name.
#[derive(Debug)]
pub struct Ggml {
    library: Option<PathBuf>,
    search: OnceLock<Search>,
}

impl Ggml {
    /// The backend; nothing is loaded yet.
    #[must_use]
    pub fn new(options: &CpuOptions) -> Self {
        Self { library: options.ggml.clone(), search: OnceLock::new() }
    }

    fn search(&self) -> &Search {
        self.search.get_or_init(|| library::find(self.library.as_deref()))
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
            artifacts: ArtifactUse::None,
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
        Probe { backend: ID, status, searched: search.steps.clone() }
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
        Err(BackendError::Unsupported {
            backend: ID,
            what: "make artifacts: it loads models as they are",
        })
    }

    fn compile(&self, _job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        Err(BackendError::Unsupported {
            backend: ID,
            what: "compile ahead: it loads models as they are",
        })
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        let engine = self.engine()?;
        dynamic::check_types(&ID, job.model, takes)?;
        Ok(Arc::new(GgmlExecutable::load(engine, job.model)?))
    }
}
