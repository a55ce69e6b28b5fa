//! How compiling in the background goes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::BackendError;
use crate::plan::Bucket;

/// Something that happened to a shape that was wanted.
#[derive(Clone, Debug)]
pub struct Event {
    /// The shape.
    pub bucket: Bucket,
    /// What happened.
    pub stage: Stage,
}

/// How far a shape is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// It waits for its turn.
    Queued,
    /// It is being compiled; told at the start, and then about every second.
    Compiling {
        /// For how long so far.
        elapsed: Duration,
        /// How long it takes by the prices or by those before it, if either is known.
        expected: Option<Duration>,
    },
    /// It is ready: requests run in it from now on.
    Ready {
        /// How long it took to compile and to load it.
        took: Duration,
    },
    /// It could not be made ready. Requests go on without it.
    Failed {
        /// Why.
        error: Arc<BackendError>,
    },
    /// Nobody will make it: others were wanted more, requests need it no longer, or the router ended.
    GivenUp,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = &self.bucket;
        match &self.stage {
            Stage::Queued => write!(f, "{bucket} is queued"),
            Stage::Compiling { elapsed, expected } => {
                write!(f, "compiling {bucket}, {:.0} s", elapsed.as_secs_f64())?;
                expected.map_or(Ok(()), |it| write!(f, " of about {:.0} s", it.as_secs_f64()))
            }
            Stage::Ready { took } => {
                write!(f, "{bucket} is ready after {:.1} s", took.as_secs_f64())
            }
            Stage::Failed { error } => write!(f, "{bucket} failed: {error}"),
            Stage::GivenUp => write!(f, "{bucket} is given up"),
        }
    }
}
