//! Choosing a backend: the only place where one may stand in for another.
//!
//! [`Registry::open`] loads a model on one backend. [`Registry::open_routed`] pairs a backend that runs
//! programs of fixed shapes with one that takes every shape, so that the second answers what no program does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::backend::{
    ArtifactUse, Backend, BackendError, BackendId, Executable, LoadJob, Probe, ShapeSupport, Status,
};
use crate::router::{RoutedBackend, Router, RouterError, RouterOptions};

/// Which backend the caller wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first in order of preference that is usable and takes the model.
    #[default]
    Auto,
    /// This one; another never answers for it.
    Forced(BackendId),
}

impl FromStr for Choice {
    type Err = std::convert::Infallible;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "auto" => Self::Auto,
            name => Self::Forced(BackendId::from(name.to_owned())),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Forced(backend) => backend.fmt(f),
        }
    }
}

/// A backend that was asked before the one that answers, and why it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The backend.
    pub backend: BackendId,
    /// Why it does not serve.
    pub reason: String,
}

/// A model that was opened on a backend.
pub struct Opened {
    /// The backend.
    pub backend: Arc<dyn Backend>,
    /// What runs.
    pub executable: Arc<dyn Executable>,
    /// Backends that were preferred and do not serve.
    pub passed_over: Vec<PassedOver>,
    /// What routes requests, where two backends serve.
    pub router: Option<Arc<Router>>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("backend", &self.backend.id())
            .field("passed_over", &self.passed_over)
            .finish_non_exhaustive()
    }
}

/// Why no backend serves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no backend of that name.
    #[error("there is no backend `{name}`; known are auto, {known}")]
    Unknown {
        /// The name that was given.
        name: BackendId,
        /// The names that are known.
        known: String,
    },
    /// The one that was asked for does not serve.
    #[error("the backend `{name}`, which was asked for, does not serve this model")]
    Forced {
        /// The backend.
        name: BackendId,
        /// Why.
        source: BackendError,
    },
    /// What two backends have loaded cannot be routed over.
    #[error("the model cannot be served by two backends")]
    Router(#[from] RouterError),
    /// None serves.
    #[error("no backend serves this model: {}", list(reasons))]
    None {
        /// Why each does not.
        reasons: Vec<PassedOver>,
    },
}

fn list(reasons: &[PassedOver]) -> String {
    let lines: Vec<String> =
        reasons.iter().map(|passed| format!("{}: {}", passed.backend, passed.reason)).collect();
    lines.join("; ")
}

/// The backends of a program, in order of preference.
#[derive(Clone)]
pub struct Registry {
    backends: Vec<Arc<dyn Backend>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.backends.iter().map(|backend| backend.id())).finish()
    }
}

impl Registry {
    /// A registry of backends, the preferred ones first.
    #[must_use]
    pub const fn new(backends: Vec<Arc<dyn Backend>>) -> Self {
        Self { backends }
    }

    /// The backends, the preferred ones first.
    #[must_use]
    pub fn backends(&self) -> &[Arc<dyn Backend>] {
        &self.backends
    }

    /// What each backend finds here.
    #[must_use]
    pub fn probe(&self) -> Vec<Probe> {
        self.backends.iter().map(|backend| backend.probe()).collect()
    }

    /// Loads a model on the chosen backend.
    ///
    /// With [`Choice::Auto`] the first that is usable and takes the model serves, and every one that was
    /// passed over is in the result with its reason.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A forced backend fails rather than let another answer.
    pub fn open(&self, choice: &Choice, job: &LoadJob<'_>) -> Result<Opened, OpenError> {
        match choice {
            Choice::Auto => self.open_first(job),
            Choice::Forced(name) => self.open_forced(name, job),
        }
    }

    fn open_forced(&self, name: &BackendId, job: &LoadJob<'_>) -> Result<Opened, OpenError> {
        let Some(backend) = self.backends.iter().find(|backend| backend.id() == *name) else {
            let known: Vec<String> =
                self.backends.iter().map(|backend| backend.id().to_string()).collect();
            return Err(OpenError::Unknown { name: name.clone(), known: known.join(", ") });
        };
        match try_load(backend.as_ref(), job, false) {
            Ok(executable) => Ok(Opened {
                backend: Arc::clone(backend),
                executable,
                passed_over: Vec::new(),
                router: None,
            }),
            Err(source) => Err(OpenError::Forced { name: name.clone(), source }),
        }
    }

    /// Loads a model on the first backend that is usable and takes it, as under [`Choice::Auto`]. Where that
    /// runs programs of fixed shapes, the first that takes every shape is loaded too, and a [`Router`] decides
    /// for each request.
    ///
    /// With [`RouterOptions::background`] a backend of fixed shapes is taken that has no program yet.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_routed(
        &self,
        job: &LoadJob<'_>,
        options: RouterOptions,
    ) -> Result<Opened, OpenError> {
        let may_compile = options.background.is_some();
        let first = self.open_one(job, |_| true, may_compile)?;
        if first.backend.capabilities().shapes == ShapeSupport::Dynamic {
            return Ok(first);
        }
        let is_dynamic = |it: &dyn Backend| it.capabilities().shapes == ShapeSupport::Dynamic;
        let Opened { backend: preferred, executable, mut passed_over, .. } = first;
        let second = match self.open_one(job, is_dynamic, false) {
            Ok(second) => second,
            // Then the first is all there is.
            Err(OpenError::None { reasons }) => {
                passed_over.extend(reasons);
                return Ok(Opened { backend: preferred, executable, passed_over, router: None });
            }
            Err(error) => return Err(error),
        };
        let known: Vec<BackendId> = passed_over.iter().map(|it| it.backend.clone()).collect();
        let new = |it: &PassedOver| !known.contains(&it.backend);
        passed_over.extend(second.passed_over.into_iter().filter(new));
        let router = Arc::new(Router::new(executable, second.executable, options)?);
        let backend = RoutedBackend::new(preferred, second.backend, Arc::clone(&router));
        let executable = Arc::clone(&router) as Arc<dyn Executable>;
        Ok(Opened { backend: Arc::new(backend), executable, passed_over, router: Some(router) })
    }

    fn open_first(&self, job: &LoadJob<'_>) -> Result<Opened, OpenError> {
        self.open_one(job, |_| true, false)
    }

    /// The first that is meant and serves. With `may_compile` one that has no program yet does.
    fn open_one(
        &self,
        job: &LoadJob<'_>,
        is_meant: impl Fn(&dyn Backend) -> bool,
        may_compile: bool,
    ) -> Result<Opened, OpenError> {
        let mut passed_over = Vec::new();
        for backend in self.backends.iter().filter(|backend| is_meant(backend.as_ref())) {
            match try_load(backend.as_ref(), job, may_compile) {
                Ok(executable) => {
                    let backend = Arc::clone(backend);
                    return Ok(Opened { backend, executable, passed_over, router: None });
                }
                Err(error) => {
                    passed_over
                        .push(PassedOver { backend: backend.id(), reason: error.to_string() });
                }
            }
        }
        Err(OpenError::None { reasons: passed_over })
    }
}

/// Whether the backend could serve no request at all.
fn lacks_artifacts(backend: &dyn Backend, job: &LoadJob<'_>) -> bool {
    backend.capabilities().artifacts == ArtifactUse::Required
        && job.on_demand.is_none()
        && !job.artifacts.iter().any(|artifact| artifact.backend == backend.id())
}

fn try_load(
    backend: &dyn Backend,
    job: &LoadJob<'_>,
    may_compile: bool,
) -> Result<Arc<dyn Executable>, BackendError> {
    match backend.probe().status {
        Status::Usable { .. } if !may_compile && lacks_artifacts(backend, job) => {
            Err(BackendError::NothingCompiled { backend: backend.id() })
        }
        Status::Usable { .. } => backend.load(job),
        Status::Unusable { reason, remedy } => {
            Err(BackendError::Unavailable { backend: backend.id(), reason, remedy })
        }
    }
}
