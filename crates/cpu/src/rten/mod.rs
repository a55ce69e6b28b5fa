//! rten: an engine in pure Rust that is part of the program.

mod convert;
mod executable;
mod session;

use std::sync::Arc;

use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, BackendError, BackendId, Capabilities, CompileJob, Executable,
    Fingerprint, LoadJob, Optimisation, Probe, Recipe, SearchStep, ShapeSupport, Status,
};
use shapeyard_core::plan::{Plan, PlanOptions, Workload};
use shapeyard_core::{DataType, Model};

use self::executable::RtenExecutable;
use crate::dynamic;

const ID: BackendId = BackendId::new("rten");

/// The engine does not tell its version; a test compares this with the lock file.
const VERSION: &str = "0.27.0";

/// The newest operator set from which the engine knows an operator (`BitCast`). It does not look at the
/// number itself, so a newer model might be read with an older operator's meaning.
const NEWEST_OPSET: i64 = 26;

/// The embedded engine.
///
/// It computes with `f32`, `i32`, `i8` and `u8`. Integers of 64 bits cross its border as 32 bits, and an
/// input that does not fit is an error; products and sums inside a model wrap at 32 bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rten;

impl Rten {
    /// The backend.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Backend for Rten {
    fn id(&self) -> BackendId {
        ID
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            shapes: ShapeSupport::Dynamic,
            artifacts: ArtifactUse::None,
            dtypes: DataType::ALL.into_iter().filter(|&dtype| convert::takes(dtype)).collect(),
        }
    }

    fn probe(&self) -> Probe {
        let fingerprint = Fingerprint(format!("rten {VERSION} cpu {}", dynamic::processor()));
        Probe {
            backend: ID,
            status: Status::Usable { version: VERSION.to_owned(), fingerprint },
            searched: vec![SearchStep {
                place: "this program".to_owned(),
                outcome: format!("rten {VERSION} is part of it"),
            }],
            devices: Vec::new(),
        }
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
        dynamic::check_onnx(&ID, job.model)?;
        dynamic::check_opset(&ID, job.model, NEWEST_OPSET)?;
        dynamic::check_types(&ID, job.model, convert::takes)?;
        Ok(Arc::new(RtenExecutable::load(job.model, job.optimisation)?))
    }
}

#[cfg(test)]
mod tests {
    use super::VERSION;

    #[test]
    fn the_version_is_that_of_the_lock_file() {
        let lock = include_str!("../../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"rten\"\nversion = \"{VERSION}\"")));
    }
}
