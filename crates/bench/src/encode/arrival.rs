//! A backend that plans no order: texts run as they come, so many a batch.

use std::sync::Arc;

use shapeyard_core::Model;
use shapeyard_core::backend::{
    Artifact, Backend, BackendError, BackendId, Capabilities, CompileJob, Executable, LoadJob,
    Optimisation, Probe, Recipe,
};
use shapeyard_core::plan::{Plan, PlanOptions, Workload, token_budget};

use super::direct::in_order;

/// Another backend, but for the plan.
pub(super) struct Arrival {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) n_rows: usize,
}

impl Backend for Arrival {
    fn id(&self) -> BackendId {
        self.backend.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn probe(&self) -> Probe {
        self.backend.probe()
    }

    fn plan(
        &self,
        model: &Model,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Result<Plan, BackendError> {
        let plan = self.backend.plan(model, workload, options)?;
        let lengths = workload.lengths();
        let batches = in_order(&lengths, self.n_rows);
        let totals = token_budget::totals(&lengths, &batches);
        Ok(Plan { batches, totals, ..plan })
    }

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        self.backend.recipe(optimisation)
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        self.backend.compile(job)
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        self.backend.load(job)
    }
}
