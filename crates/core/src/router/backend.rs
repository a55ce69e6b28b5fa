//! What a routed model's backend is: the preferred one, with plans over what is ready.

use std::sync::Arc;

use super::Router;
use super::routes::prices_or_preferred;
use crate::Model;
use crate::backend::{
    Artifact, Backend, BackendError, BackendId, Capabilities, CompileJob, Domain, Executable,
    Fingerprint, LoadJob, Optimisation, Probe, ReadyShapes, Recipe, Status,
};
use crate::plan::{Batch, Plan, PlanOptions, Workload, over_ready, token_budget};

/// The backend of a model that is routed: plans are made for the programs that are ready at that moment, and
/// for the fallback where these do not pay; all else is the preferred backend's.
#[derive(Clone)]
pub struct RoutedBackend {
    preferred: Arc<dyn Backend>,
    fallback: Arc<dyn Backend>,
    router: Arc<Router>,
}

impl RoutedBackend {
    /// The backend of a router over what these two have loaded.
    #[must_use]
    pub fn new(
        preferred: Arc<dyn Backend>,
        fallback: Arc<dyn Backend>,
        router: Arc<Router>,
    ) -> Self {
        Self { preferred, fallback, router }
    }

    /// The router.
    #[must_use]
    pub const fn router(&self) -> &Arc<Router> {
        &self.router
    }
}

impl std::fmt::Debug for RoutedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoutedBackend").field("router", &self.router).finish_non_exhaustive()
    }
}

impl Backend for RoutedBackend {
    fn id(&self) -> BackendId {
        self.preferred.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.preferred.capabilities()
    }

    /// The preferred backend's, with both in the fingerprint: either may have answered.
    fn probe(&self) -> Probe {
        let mut probe = self.preferred.probe();
        if let (Status::Usable { fingerprint, .. }, Status::Usable { fingerprint: other, .. }) =
            (&mut probe.status, self.fallback.probe().status)
        {
            *fingerprint = Fingerprint(format!("{fingerprint}, {other}"));
        }
        probe
    }

    /// Batches that fit the programs that are ready where those pay, and unpadded ones for the fallback.
    fn plan(
        &self,
        model: &Model,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Result<Plan, BackendError> {
        let Domain::Buckets(ready) = self.router.preferred().domain() else {
            return self.preferred.plan(model, workload, options);
        };
        if ready.buckets.iter().all(|it| it.get(&workload.length).is_none()) {
            return self.fallback.plan(model, workload, options);
        }
        let options = PlanOptions { padding: self.router.shared.padding, ..options.clone() };
        batches(&self.router, &ready, workload, &options).map_err(|reason| BackendError::Model {
            backend: self.id(),
            model: model.path().to_owned(),
            reason,
        })
    }

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        self.preferred.recipe(optimisation)
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        self.preferred.compile(job)
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        self.preferred.load(job)
    }
}

/// One batch for each piece of the cheapest routes: each is as long as its own longest row, so that rows that
/// the fallback takes carry no padding of a program's.
fn batches(
    router: &Router,
    ready: &ReadyShapes,
    workload: &Workload,
    options: &PlanOptions,
) -> Result<Plan, String> {
    let prices = prices_or_preferred(router.shared.prices());
    let routed = over_ready(&ready.buckets, workload, options, &prices);
    let routed = routed.map_err(|error| error.to_string())?;
    let lengths = workload.lengths();
    let batch = |items: Vec<usize>| {
        let length = items.iter().map(|&item| lengths[item]).max().unwrap_or(0);
        Batch { items, length }
    };
    let batches: Vec<Batch> = routed.batches.into_iter().map(|it| batch(it.items)).collect();
    let totals = token_budget::totals(&lengths, &batches);
    Ok(Plan { backend: router.backend(), buckets: routed.buckets, batches, totals })
}
