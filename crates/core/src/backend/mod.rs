//! The one pluggable point: a backend plans, compiles, loads and runs.
//!
//! Four verbs, three objects, because three lifetimes say what may be shared:
//!
//! * [`Backend`] lives as long as the program. It probes, plans, compiles and loads.
//! * [`Executable`] lives as long as a model is loaded; many threads share it.
//! * [`Session`] is one lane through an executable. It runs one request at a time.
//!
//! All are synchronous: every engine below blocks, and a dropped future cannot stop a kernel.
//! [`crate::engine`] is where async begins.

mod artifact;
mod cancellation;
mod describe;
mod environment;
mod error;
mod outputs;
mod recipe;
mod request;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use artifact::{Artifact, ArtifactSource, InUse};
pub use cancellation::Cancellation;
pub use describe::{
    ArtifactUse, BackendId, Capabilities, DeviceReport, Fingerprint, Probe, SearchStep,
    ShapeSupport, Status,
};
pub use environment::{Environment, EnvironmentRule};
pub use error::{BackendError, CompileEnd, RunError, tells_of_shortage};
pub use outputs::Outputs;
pub use recipe::{Machine, Recipe};
pub use request::Request;

use crate::model::Model;
use crate::plan::cover::Freedom;
use crate::plan::{Bucket, Plan, PlanOptions, Workload};
use crate::{RunReport, Signature};

/// An engine that can run models.
pub trait Backend: Send + Sync {
    /// The backend's name, the same in plans, reports and on the command line.
    fn id(&self) -> BackendId;

    /// What the backend can do, whether or not it is usable here.
    fn capabilities(&self) -> Capabilities;

    /// Whether the backend is usable here and now; if not, what to install or set.
    ///
    /// Cheap: libraries are looked for and loaded, models are not.
    fn probe(&self) -> Probe;

    /// What would run, in which shapes. Pure: no library is called.
    ///
    /// # Errors
    ///
    /// [`BackendError::Model`] when the model's axes do not fit the workload.
    fn plan(
        &self,
        model: &Model,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Result<Plan, BackendError>;

    /// Everything but model and shape that decides what [`Self::compile`] makes.
    ///
    /// Where the compiler is not installed the recipe has no [`Machine`], and can be compared only in
    /// part.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] for a backend that makes no artifacts; otherwise what keeps an
    /// option's content from being read.
    fn recipe(&self, optimisation: Optimisation) -> Result<Recipe, BackendError>;

    /// Makes one artifact. May take minutes.
    ///
    /// # Errors
    ///
    /// [`BackendError`]; nothing is left at the job's output path then.
    fn compile(&self, job: &CompileJob<'_>) -> Result<Artifact, BackendError>;

    /// Loads a model, from artifacts where they are given.
    ///
    /// # Errors
    ///
    /// [`BackendError`].
    fn load(&self, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError>;
}

/// What every backend does alike.
pub trait BackendExt: Backend {
    /// The fourth verb: runs a request on a session.
    ///
    /// # Errors
    ///
    /// As [`Session::run`].
    fn run(
        &self,
        session: &mut dyn Session,
        request: &Request<'_>,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        session.run(request, outputs)
    }
}

impl<B: Backend + ?Sized> BackendExt for B {}

/// A loaded model, shared by its sessions and immutable from outside.
pub trait Executable: Send + Sync {
    /// The backend that loaded it.
    fn backend(&self) -> BackendId;

    /// Inputs, outputs and symbols.
    fn signature(&self) -> &Arc<Signature>;

    /// The shapes that are served.
    fn domain(&self) -> Domain;

    /// A number that changes when plans that were made before are worth making anew: other programs are ready, or
    /// cost something else.
    fn generation(&self) -> u64 {
        0
    }

    /// A new lane. Lanes of one executable may run at the same time.
    ///
    /// # Errors
    ///
    /// [`BackendError`].
    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError>;

    /// Adds a bucket that was compiled later; requests go on meanwhile.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where every shape is served already.
    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError>;
}

/// One lane through an executable.
pub trait Session: Send {
    /// Runs one request and fills every output, in the signature's order.
    ///
    /// Takes `&mut self`: a lane's buffers serve one request at a time. `outputs` keeps its memory, so a
    /// caller that hands the same one in again stops allocating.
    ///
    /// # Errors
    ///
    /// [`RunError`]; `outputs` is then unspecified, and the session usable unless the error says
    /// otherwise.
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError>;
}

/// The shapes that an executable serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Domain {
    /// Every shape that binds.
    Any,
    /// What fits into programs of fixed shapes.
    Buckets(ReadyShapes),
}

/// The shapes of programs that are ready, and what may be done to a request to make it fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyShapes {
    /// The shapes.
    pub buckets: Vec<Bucket>,
    /// The symbol that counts rows.
    pub rows: Option<String>,
    /// Whether rows do not depend on each other, so that a request may be split along them.
    pub can_split: bool,
    /// Symbols along which nothing may be padded or split.
    pub rigid: Vec<String>,
}

impl ReadyShapes {
    /// What may be done to a request.
    #[must_use]
    pub fn freedom(&self) -> Freedom<'_> {
        let rows = self.rows.as_deref().filter(|_| self.can_split);
        Freedom { rows, rigid: &self.rigid }
    }
}

/// How much a backend rewrites a graph before it runs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimisation {
    /// Not at all: for finding out whether a rewrite is at fault.
    Off,
    /// What keeps the graph portable: folding constants, dropping dead nodes.
    Basic,
    /// All that the backend knows, for this machine.
    #[default]
    Full,
}

/// What to compile.
#[derive(Clone, Debug)]
pub struct CompileJob<'a> {
    /// The model.
    pub model: &'a Model,
    /// The shape to compile for; empty where the backend takes any shape.
    pub bucket: Bucket,
    /// How much to rewrite.
    pub optimisation: Optimisation,
    /// The file to write. It does not exist yet; its folder does.
    pub output: PathBuf,
    /// Whether the artifact is still wanted.
    pub cancellation: Cancellation<'a>,
}

impl<'a> CompileJob<'a> {
    /// A job for one shape, fully optimised.
    #[must_use]
    pub fn new(model: &'a Model, bucket: Bucket, output: impl Into<PathBuf>) -> Self {
        let (optimisation, cancellation) = (Optimisation::Full, Cancellation::never());
        Self { model, bucket, optimisation, output: output.into(), cancellation }
    }
}

/// What to load.
#[derive(Clone, Copy, Debug)]
pub struct LoadJob<'a> {
    /// The model.
    pub model: &'a Model,
    /// What was compiled before; empty where the backend loads the model itself. The files have to stay as
    /// long as the executable: a program that failed is loaded from its file again.
    pub artifacts: &'a [Artifact],
    /// How much to rewrite when the model itself is loaded.
    pub optimisation: Optimisation,
    /// Where an artifact comes from that a request wants and that is not loaded. Without one such a
    /// request is answered with [`RunError::NotReady`], so that nothing is compiled inside a request
    /// unless the caller asked for it here.
    pub on_demand: Option<&'a Arc<dyn ArtifactSource>>,
    /// What sessions will probably be asked for. A backend that makes one to see whether the model loads
    /// makes it so, and need not make it again.
    pub sessions: SessionOptions,
}

impl<'a> LoadJob<'a> {
    /// A job that loads the model itself, fully optimised, for sessions on all of the machine's threads.
    #[must_use]
    pub fn of(model: &'a Model) -> Self {
        let n_threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let sessions = SessionOptions { n_threads, waiting: Waiting::default() };
        Self { model, artifacts: &[], optimisation: Optimisation::Full, on_demand: None, sessions }
    }

    /// The same job for sessions of another kind.
    #[must_use]
    pub const fn for_sessions(self, sessions: SessionOptions) -> Self {
        Self { sessions, ..self }
    }
}

/// What a lane may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Threads that work on one request.
    pub n_threads: NonZeroUsize,
    /// What they do while they wait for each other.
    pub waiting: Waiting,
}

/// What a lane's threads do while they wait for each other within a request. A lane of one thread never
/// waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// They sleep, and other work has the processors: for lanes side by side, and for machines that do more
    /// than answer this lane.
    #[default]
    Sleep,
    /// They look for work without a pause, for a moment after the request too, before they sleep: for the one
    /// lane of a machine on which somebody waits for each answer. It takes processor time that other work could
    /// use; where other work wants the processors it makes answers slower, not faster.
    ///
    /// ONNX Runtime does so; other backends wait as they always do.
    Spin,
}

impl SessionOptions {
    /// A lane of so many threads that sleep while they wait; 0 counts as 1.
    #[must_use]
    pub fn threads(n_threads: usize) -> Self {
        let n_threads = NonZeroUsize::new(n_threads).unwrap_or(NonZeroUsize::MIN);
        Self { n_threads, waiting: Waiting::Sleep }
    }

    /// The same with threads that wait so.
    #[must_use]
    pub const fn waiting(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }
}
