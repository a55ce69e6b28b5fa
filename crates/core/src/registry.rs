//! Choosing a backend: the only place where one may stand in for another.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;

use crate::backend::{
    ArtifactUse, Backend, BackendError, BackendId, Executable, LoadJob, Probe, Status,
};

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
        match try_load(backend.as_ref(), job) {
            Ok(executable) => {
                Ok(Opened { backend: Arc::clone(backend), executable, passed_over: Vec::new() })
            }
            Err(source) => Err(OpenError::Forced { name: name.clone(), source }),
        }
    }

    fn open_first(&self, job: &LoadJob<'_>) -> Result<Opened, OpenError> {
        let mut passed_over = Vec::new();
        for backend in &self.backends {
            match try_load(backend.as_ref(), job) {
                Ok(executable) => {
                    return Ok(Opened { backend: Arc::clone(backend), executable, passed_over });
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

fn try_load(backend: &dyn Backend, job: &LoadJob<'_>) -> Result<Arc<dyn Executable>, BackendError> {
    match backend.probe().status {
        Status::Usable { .. } if lacks_artifacts(backend, job) => {
            Err(BackendError::NothingCompiled { backend: backend.id() })
        }
        Status::Usable { .. } => backend.load(job),
        Status::Unusable { reason, remedy } => {
            Err(BackendError::Unavailable { backend: backend.id(), reason, remedy })
        }
    }
}
