//! A backend that counts what it compiles, and sources that count who asks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use shapeyard_core::Model;
use shapeyard_core::backend::{
    Artifact, ArtifactSource, Backend, BackendError, BackendId, Cancellation, Capabilities,
    CompileJob, Executable, LoadJob, Optimisation, Probe, Recipe,
};
use shapeyard_core::plan::{Bucket, Plan, PlanOptions, Workload};

/// How long a compile waits for all to ask; far longer than they take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A backend that counts its compiles. Each waits until as many have asked as are wanted.
pub(crate) struct Counting {
    inner: Arc<dyn Backend>,
    n_compiles: AtomicUsize,
    asked: Arc<Asked>,
}

/// How many have asked.
#[derive(Debug)]
pub(crate) struct Asked {
    wanted: usize,
    n: Mutex<usize>,
    more: Condvar,
}

impl Counting {
    pub(crate) fn new(inner: &Arc<dyn Backend>, wanted: usize) -> Arc<Self> {
        let asked = Arc::new(Asked { wanted, n: Mutex::new(0), more: Condvar::new() });
        Arc::new(Self { inner: Arc::clone(inner), n_compiles: AtomicUsize::new(0), asked })
    }

    pub(crate) fn n_compiles(&self) -> usize {
        self.n_compiles.load(Ordering::SeqCst)
    }

    /// The same source, whose callers count as having asked.
    pub(crate) fn heard(&self, inner: Arc<dyn ArtifactSource>) -> Arc<dyn ArtifactSource> {
        Arc::new(Heard { inner, asked: Arc::clone(&self.asked) })
    }
}

impl Backend for Counting {
    fn id(&self) -> BackendId {
        self.inner.id()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn probe(&self) -> Probe {
        self.inner.probe()
    }

    fn plan(
        &self,
        model: &Model,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Result<Plan, BackendError> {
        self.inner.plan(model, workload, options)
    }

    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError> {
        self.inner.recipe(optimisation)
    }

    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError> {
        self.n_compiles.fetch_add(1, Ordering::SeqCst);
        let n = self.asked.n.lock().unwrap();
        let few = |n: &mut usize| *n < self.asked.wanted;
        drop(self.asked.more.wait_timeout_while(n, PATIENCE, few).unwrap());
        self.inner.compile(job)
    }

    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
        self.inner.load(job)
    }
}

#[derive(Debug)]
struct Heard {
    inner: Arc<dyn ArtifactSource>,
    asked: Arc<Asked>,
}

impl ArtifactSource for Heard {
    fn artifact(
        &self,
        bucket: &Bucket,
        cancellation: Cancellation<'_>,
    ) -> Result<Artifact, BackendError> {
        *self.asked.n.lock().unwrap() += 1;
        self.asked.more.notify_all();
        self.inner.artifact(bucket, cancellation)
    }
}

/// A source that has nothing to give and counts who asks all the same.
#[derive(Debug, Default)]
pub(crate) struct Forbidden(AtomicUsize);

impl Forbidden {
    pub(crate) fn n_asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl ArtifactSource for Forbidden {
    fn artifact(&self, _: &Bucket, _: Cancellation<'_>) -> Result<Artifact, BackendError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let backend = BackendId::new("migraphx");
        Err(BackendError::Unsupported { backend, what: "compile after it was warmed up" })
    }
}
