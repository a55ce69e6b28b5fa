//! Counting the shapes that an executable serves, to plan its next programs by.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, Outputs, Request, RunError, Session,
    SessionOptions,
};
use crate::plan::{Traffic, Workload};
use crate::{Extents, RunReport, Signature, SymbolId};

/// An executable that counts what it answers: requests by rows and length, in bounded memory.
///
/// It stands in front of any other, a [router](crate::router) too. Each session counts for itself, so that
/// counting is one look-up and sessions do not wait for each other.
pub struct Recorder {
    inner: Arc<dyn Executable>,
    rows: Axis,
    length: Axis,
    /// What sessions count that still live.
    lanes: Mutex<Vec<Arc<Mutex<Traffic>>>>,
    /// What those counted that ended. Locked before `lanes`, and as long as what they counted is moved or added up.
    ended: Mutex<Traffic>,
}

/// A symbol that is counted by, and its name; one that the model lacks counts as 1.
#[derive(Clone, Debug)]
struct Axis {
    name: String,
    symbol: Option<SymbolId>,
}

impl Axis {
    fn new(signature: &Signature, name: &str) -> Self {
        Self { name: name.to_owned(), symbol: signature.symbol(name) }
    }

    fn extent(&self, request: &Extents) -> usize {
        self.symbol.and_then(|symbol| request.get(symbol)).unwrap_or(1)
    }
}

struct RecorderSession {
    inner: Box<dyn Session>,
    rows: Axis,
    length: Axis,
    traffic: Arc<Mutex<Traffic>>,
}

impl Recorder {
    /// Counts what `inner` answers, along these symbols.
    #[must_use]
    pub fn new(inner: Arc<dyn Executable>, rows: &str, length: &str) -> Self {
        let signature = inner.signature();
        let (rows, length) = (Axis::new(signature, rows), Axis::new(signature, length));
        Self { rows, length, lanes: Mutex::default(), ended: Mutex::default(), inner }
    }

    /// What was answered so far, as a workload of requests.
    #[must_use]
    pub fn workload(&self) -> Workload {
        let ended = locked(&self.ended);
        let mut all = ended.clone();
        for lane in locked(&self.lanes).iter() {
            all.merge(&locked(lane));
        }
        drop(ended);
        all.workload(self.rows.name.clone(), self.length.name.clone())
    }

    /// Keeps what sessions counted that nobody has any more.
    fn gather(&self) {
        let mut ended = locked(&self.ended);
        locked(&self.lanes).retain(|lane| {
            let lives = Arc::strong_count(lane) > 1;
            if !lives {
                ended.merge(&locked(lane));
            }
            lives
        });
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("inner", &self.inner.backend()).finish_non_exhaustive()
    }
}

impl Executable for Recorder {
    fn backend(&self) -> BackendId {
        self.inner.backend()
    }

    fn signature(&self) -> &Arc<Signature> {
        self.inner.signature()
    }

    fn domain(&self) -> Domain {
        self.inner.domain()
    }

    fn generation(&self) -> u64 {
        self.inner.generation()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        self.gather();
        let (rows, length) = (self.rows.clone(), self.length.clone());
        let (inner, traffic) = (self.inner.session(options)?, Arc::default());
        locked(&self.lanes).push(Arc::clone(&traffic));
        Ok(Box::new(RecorderSession { inner, rows, length, traffic }))
    }

    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.inner.admit(artifact)
    }
}

impl Session for RecorderSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        let report = self.inner.run(request, outputs)?;
        let extents = request.extents();
        let shape = (self.rows.extent(extents), self.length.extent(extents));
        locked(&self.traffic).record(shape.0, shape.1);
        Ok(report)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
