//! A model whose programs are loaded, and the buckets that it serves.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;

use shapeyard_core::backend::{
    Artifact, ArtifactSource, BackendError, BackendId, Domain, Executable, Fingerprint, LoadJob,
    ReadyShapes, Session, SessionOptions,
};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::cover::Freedom;
use shapeyard_core::plan::{Bucket, Steps, steps};
use shapeyard_core::{Signature, SymbolId};

use crate::ID;
use crate::device::Gpu;
use crate::lane::{DeviceLane, HostLane, Lane};
use crate::native::Migraphx;
use crate::options::{MigraphxOptions, Padding, Target};
use crate::programs::{BucketProgram, Setting};
use crate::session::MigraphxSession;
use crate::specialise;

/// A model whose programs are loaded, as [`MigraphxBackend::load_programs`](crate::MigraphxBackend) gives it.
#[derive(Debug)]
pub struct MigraphxExecutable {
    shared: Arc<Shared>,
    next_lane: AtomicUsize,
}

/// What an executable and its sessions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) signature: Arc<Signature>,
    pub(crate) rows: Option<SymbolId>,
    pub(crate) rigid: Vec<String>,
    pub(crate) on_demand: Option<Arc<dyn ArtifactSource>>,
    steps: BTreeMap<String, Steps>,
    library: &'static Migraphx,
    target: Target,
    padding: Padding,
    instances: NonZeroUsize,
    /// Where programs run; none for the host.
    gpus: Vec<Arc<Gpu>>,
    model: Digest,
    fingerprint: Fingerprint,
    ready: RwLock<Arc<Ready>>,
    /// The generation of `ready`, to be looked at without a lock.
    generation: AtomicU64,
    /// Held while the set of programs changes.
    admitting: Mutex<()>,
}

/// The programs that are ready, at one moment.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    pub(crate) generation: u64,
    pub(crate) buckets: Vec<Bucket>,
    pub(crate) programs: Vec<Arc<BucketProgram>>,
    /// Symbols along which outputs cannot be cut, with those of the executable.
    pub(crate) rigid: Vec<String>,
    /// Whether requests may be split along their rows.
    pub(crate) can_split: bool,
}

impl MigraphxExecutable {
    pub(crate) fn load(
        library: &'static Migraphx,
        gpus: Vec<Arc<Gpu>>,
        options: &MigraphxOptions,
        fingerprint: Fingerprint,
        job: &LoadJob<'_>,
    ) -> Result<Self, BackendError> {
        let signature = Arc::new(job.model.signature().clone());
        specialise::check_padding(&signature, &options.padding)
            .map_err(|reason| BackendError::Option { backend: ID, option: "padding", reason })?;
        let refuse = |reason| BackendError::Model {
            backend: ID,
            model: job.model.path().to_owned(),
            reason,
        };
        let shared = Shared {
            rows: specialise::rows(&signature, &options.padding).map_err(refuse)?,
            rigid: specialise::rigid(&signature, &options.padding),
            on_demand: job.on_demand.cloned(),
            steps: options.steps.clone(),
            library,
            target: options.compile.target,
            padding: options.padding.clone(),
            instances: options
                .instances
                .max(NonZeroUsize::new(gpus.len()).unwrap_or(NonZeroUsize::MIN)),
            gpus,
            model: job.model.digest()?,
            fingerprint,
            ready: RwLock::default(),
            generation: AtomicU64::new(0),
            admitting: Mutex::new(()),
            signature,
        };
        // Otherwise the first request would wait for the compiler of the kernel that pads.
        for gpu in &shared.gpus {
            let _ = gpu.spread();
        }
        shared.start();
        let ours: Vec<&Artifact> =
            job.artifacts.iter().filter(|artifact| artifact.backend == ID).collect();
        shared.admit(&ours, job.sessions.n_threads)?;
        Ok(Self { shared: Arc::new(shared), next_lane: AtomicUsize::new(0) })
    }

    /// What [`Executable::session`] gives, by its own type: a session that takes requests on a device too.
    ///
    /// # Errors
    ///
    /// As [`Executable::session`].
    pub fn open_session(&self) -> Result<MigraphxSession, BackendError> {
        let number = self.next_lane.fetch_add(1, Ordering::Relaxed);
        Ok(MigraphxSession::new(Arc::clone(&self.shared), self.shared.lane(number)?))
    }
}

impl Executable for MigraphxExecutable {
    fn backend(&self) -> BackendId {
        ID
    }

    fn signature(&self) -> &Arc<Signature> {
        &self.shared.signature
    }

    fn domain(&self) -> Domain {
        let ready = self.shared.ready();
        Domain::Buckets(ReadyShapes {
            buckets: ready.buckets.clone(),
            rows: self.shared.rows.map(|rows| self.shared.signature.symbol_name(rows).to_owned()),
            can_split: ready.can_split,
            rigid: ready.rigid.clone(),
        })
    }

    fn session(&self, _options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(self.open_session()?))
    }

    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.shared.admit(&[artifact], NonZeroUsize::MIN)
    }
}

impl Shared {
    /// The state without any program: until one says otherwise, only what was asked for is rigid.
    fn start(&self) {
        let ready = Ready { rigid: self.rigid.clone(), can_split: true, ..Ready::default() };
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ready);
    }

    /// A lane on the device of the copies that it runs.
    fn lane(&self, number: usize) -> Result<Box<dyn Lane>, BackendError> {
        let copy = number % self.instances;
        let Some(gpu) = self.gpus.get(copy % self.gpus.len().max(1)) else {
            return Ok(Box::new(HostLane::new(number)));
        };
        let lane = DeviceLane::new(gpu, number).map_err(|error| BackendError::Library {
            backend: ID,
            what: "make a stream",
            message: error.to_string(),
        })?;
        Ok(Box::new(lane))
    }

    /// The programs that are ready now.
    pub(crate) fn ready(&self) -> Arc<Ready> {
        Arc::clone(&self.ready.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The shape to have a program made for when a request finds none.
    pub(crate) fn bucket_for(&self, wanted: &Bucket, ready: &Ready) -> Bucket {
        let rows = self.rows.filter(|_| ready.can_split).map(|it| self.signature.symbol_name(it));
        steps::bucket_for(wanted, &self.steps, &Freedom { rows, rigid: &ready.rigid })
    }

    /// Changes whenever [`Self::ready`] does.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Checks and loads programs, side by side, and adds them to those that are ready. Requests go on with
    /// those that are ready already; a bucket that is among them stays as it is.
    pub(crate) fn admit(
        &self,
        artifacts: &[&Artifact],
        n_threads: NonZeroUsize,
    ) -> Result<(), BackendError> {
        let _one = self.admitting.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.ready();
        let mut new: Vec<&Artifact> = Vec::new();
        for artifact in artifacts {
            self.check(artifact)?;
            let is_new = !known.buckets.contains(&artifact.bucket)
                && !new.iter().any(|it| it.bucket == artifact.bucket);
            if is_new {
                new.push(artifact);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let loaded = self.load_all(&new, n_threads)?;
        let ready = Arc::new(self.with(&known, loaded));
        let generation = ready.generation;
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = ready;
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }

    fn check(&self, artifact: &Artifact) -> Result<(), BackendError> {
        let differs = |what: &str, found: String, wanted: String| BackendError::Artifact {
            path: artifact.payload.clone(),
            reason: format!("its {what} is {found}, wanted is {wanted}"),
        };
        if artifact.backend != ID {
            return Err(differs("backend", artifact.backend.to_string(), ID.to_string()));
        }
        if artifact.model != self.model {
            return Err(differs("model", artifact.model.to_string(), self.model.to_string()));
        }
        if artifact.fingerprint != self.fingerprint {
            let wanted = self.fingerprint.to_string();
            return Err(differs("fingerprint", artifact.fingerprint.to_string(), wanted));
        }
        Ok(())
    }

    fn load_all(
        &self,
        artifacts: &[&Artifact],
        n_threads: NonZeroUsize,
    ) -> Result<Vec<BucketProgram>, BackendError> {
        let setting = Setting {
            library: self.library,
            target: self.target,
            signature: &self.signature,
            padding: &self.padding,
            rows: self.rows,
            gpus: &self.gpus,
        };
        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::with_capacity(artifacts.len()));
        let work = || {
            while let Some((at, artifact)) = Some(next.fetch_add(1, Ordering::Relaxed))
                .and_then(|at| Some((at, artifacts.get(at)?)))
            {
                let loaded = BucketProgram::load(&setting, artifact, self.instances.get());
                results.lock().unwrap_or_else(PoisonError::into_inner).push((at, loaded));
            }
        };
        thread::scope(|scope| {
            for _ in 1..n_threads.get().min(artifacts.len()) {
                scope.spawn(work);
            }
            work();
        });
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, loaded)| loaded).collect()
    }

    fn with(&self, known: &Ready, loaded: Vec<BucketProgram>) -> Ready {
        let mut programs = known.programs.clone();
        programs.extend(loaded.into_iter().map(Arc::new));
        let mut rigid = self.rigid.clone();
        for symbol in programs.iter().flat_map(|program| program.feed.rigid()) {
            let name = self.signature.symbol_name(symbol).to_owned();
            if !rigid.contains(&name) {
                rigid.push(name);
            }
        }
        Ready {
            generation: known.generation + 1,
            buckets: programs.iter().map(|program| program.bucket.clone()).collect(),
            can_split: programs.iter().all(|program| program.can_split),
            programs,
            rigid,
        }
    }
}
