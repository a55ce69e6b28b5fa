//! One lane: routes a request to programs and runs them, in one of three tiers.
//!
//! * *Rebind*: the shape is that of the last request. Nothing is looked up and nothing is made.
//! * *Cached*: the programs are in memory. The route is looked up, or worked out the first time.
//! * *Standard*: a program was compiled or fetched first. Only where the caller asked for that.

mod direct;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use hip_sys::Fault;
use shapeyard_core::backend::{BackendError, Cancellation, Outputs, Request, RunError, Session};
use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::cover::{Freedom, Piece, cover, nearest};
use shapeyard_core::{Extents, Route, RunReport, StageTimes, Tier};

use crate::ID;
use crate::executable::{Ready, Shared};
use crate::feed::{self, FeedError, Rows};
use crate::lane::{Lane, Served, Step, Work};
use crate::programs::{BucketProgram, ProgramError};

/// Routes that are remembered; a client that sends ever new shapes must not fill the memory.
const MOST_ROUTES: usize = 1024;
/// Routes with more pieces are worked out anew each time.
const MOST_KEPT_PIECES: usize = 64;
/// Buckets that an error names.
const N_NEAREST: usize = 3;

pub use direct::DeviceRunError;

/// A lane through the programs of an executable, for requests on the host ([`Session::run`]) and, where the
/// programs are a GPU's, on the device ([`Self::run_on_device`]).
pub struct MigraphxSession {
    shared: Arc<Shared>,
    /// Its own buffers, for each of `bound`.
    lane: Box<dyn Lane>,
    /// Programs that this lane has run.
    bound: Vec<Arc<BucketProgram>>,
    routes: HashMap<Extents, Arc<Way>>,
    last: Option<(Extents, Arc<Way>)>,
    /// The set of programs that the routes are made for.
    generation: u64,
    /// Addresses of a request on the device; kept from run to run, to allocate nothing.
    addresses: Vec<usize>,
}

/// Where the requests of one shape go.
#[derive(Debug)]
struct Way {
    steps: Vec<Step>,
    route: Route,
    n_padded_rows: usize,
}

impl MigraphxSession {
    pub(crate) fn new(shared: Arc<Shared>, lane: Box<dyn Lane>) -> Self {
        let (bound, routes, addresses) = (Vec::new(), HashMap::new(), Vec::new());
        Self { shared, lane, bound, routes, last: None, generation: 0, addresses }
    }

    /// The way of a request, and how ready it was.
    fn way(&mut self, request: &Extents) -> Result<(Arc<Way>, Tier), RunError> {
        self.forget_if_outdated(self.shared.generation());
        if let Some((extents, way)) = &self.last
            && extents == request
        {
            return Ok((Arc::clone(way), Tier::Rebind));
        }
        let (way, tier) = match self.routes.get(request) {
            Some(way) => (Arc::clone(way), Tier::Cached),
            None => self.find_way(request)?,
        };
        self.last = Some((request.clone(), Arc::clone(&way)));
        Ok((way, tier))
    }

    /// Drops routes that were made for another set of programs: a better one may be ready now.
    fn forget_if_outdated(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.routes.clear();
            self.last = None;
        }
    }

    fn find_way(&mut self, request: &Extents) -> Result<(Arc<Way>, Tier), RunError> {
        let wanted = self.shared.signature.bucket(request);
        let mut ready = self.shared.ready();
        let mut tier = Tier::Cached;
        let mut pieces = self.cover(&wanted, &ready);
        // What a step makes may turn out not to hold the request: outputs that cannot be cut, an extent that
        // the model does not take. Exactly what is wanted is asked for then.
        for exactly in [false, true] {
            if pieces.is_some() || self.shared.on_demand.is_none() {
                break;
            }
            let step = self.shared.bucket_for(&wanted, &ready);
            let is_last = exactly || step == wanted;
            let fetched = self.fetch(if exactly { &wanted } else { &step }, &wanted);
            if is_last || !fetched.as_ref().is_err_and(is_refusal) {
                fetched?;
            }
            ready = self.shared.ready();
            tier = Tier::Standard;
            pieces = self.cover(&wanted, &ready);
            if is_last {
                break;
            }
        }
        self.forget_if_outdated(ready.generation);
        let Some(pieces) = pieces else {
            let nearest = nearest(&wanted, &ready.buckets, N_NEAREST);
            return Err(RunError::NotReady { wanted, nearest });
        };
        let way = Arc::new(self.bind(&wanted, request, &pieces, &ready)?);
        if pieces.len() <= MOST_KEPT_PIECES {
            if self.routes.len() >= MOST_ROUTES {
                self.routes.clear();
            }
            self.routes.insert(request.clone(), Arc::clone(&way));
        }
        Ok((way, tier))
    }

    fn cover(&self, wanted: &Bucket, ready: &Ready) -> Option<Vec<Piece>> {
        let name = |rows| self.shared.signature.symbol_name(rows);
        let rows = self.shared.rows.filter(|_| ready.can_split).map(name);
        cover(wanted, &ready.buckets, &Freedom { rows, rigid: &ready.rigid })
    }

    /// Has a program made for this bucket, since the caller asked for that.
    fn fetch(&self, bucket: &Bucket, wanted: &Bucket) -> Result<(), RunError> {
        let Some(source) = &self.shared.on_demand else { return Ok(()) };
        let prepare =
            |source| RunError::Prepare { wanted: wanted.clone(), source: Arc::new(source) };
        let artifact = source.artifact(bucket, Cancellation::never()).map_err(prepare)?;
        self.shared.admit(&[&artifact], NonZeroUsize::MIN).map_err(prepare)
    }

    fn bind(
        &mut self,
        wanted: &Bucket,
        request: &Extents,
        pieces: &[Piece],
        ready: &Ready,
    ) -> Result<Way, RunError> {
        let mut way = Way { steps: Vec::new(), route: Route::Split, n_padded_rows: 0 };
        for piece in pieces {
            // `cover` answers with positions in the list that it was given.
            let program = &ready.programs[piece.bucket];
            let rows = (pieces.len() > 1).then_some(Rows {
                first: piece.first_row,
                n: piece.n_rows,
                skipped: 0,
            });
            way.n_padded_rows += program.feed.n_padded_rows(&program.extents, request, rows);
            way.steps.push(Step { bound: self.bound_to(program)?, rows });
        }
        if let [piece] = pieces {
            let exact = ready.buckets.get(piece.bucket) == Some(wanted);
            way.route = if exact { Route::Exact } else { Route::Padded };
        }
        Ok(way)
    }

    fn bound_to(&mut self, program: &Arc<BucketProgram>) -> Result<usize, RunError> {
        let known = self.bound.iter().position(|bound| Arc::ptr_eq(bound, program));
        if let Some(known) = known {
            return Ok(known);
        }
        self.lane.bind(program).map_err(failed)?;
        self.bound.push(Arc::clone(program));
        Ok(self.bound.len() - 1)
    }

    fn take(
        &mut self,
        way: &Way,
        request: &Request<'_>,
        outputs: &mut Outputs,
    ) -> Result<(Served, StageTimes), RunError> {
        let (extents, mut times) = (request.extents(), StageTimes::default());
        if let Some(first) = way.steps.first() {
            let made = self.bound[first.bound].feed.prepare(extents, outputs);
            made.map_err(|error| failed(error.into()))?;
        }
        let (programs, views) = (&self.bound, request.inputs());
        let work = Work { programs, steps: &way.steps, views, request: extents };
        let served = self.lane.run(&work, outputs, &mut times).map_err(failed)?;
        Ok((served, times))
    }

    /// A request without rows needs no program: there is nothing to compute.
    fn empty(&self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        let (start, signature) = (Instant::now(), &self.shared.signature);
        feed::empty_outputs(signature, request.extents(), outputs).map_err(|output| {
            RunError::Empty {
                symbol: self.shared.rows.map_or("?", |id| signature.symbol_name(id)).to_owned(),
                output: signature.outputs.get(output).map_or("?", |it| it.name.as_str()).to_owned(),
            }
        })?;
        let times = StageTimes { finish: start.elapsed(), ..StageTimes::default() };
        let report = RunReport::exact_on_host(ID, Tier::Cached, times);
        Ok(RunReport { n_pieces: 0, ..report })
    }
}

impl Session for MigraphxSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        request.check_bound_to(&self.shared.signature)?;
        let extents = request.extents();
        if self.shared.rows.is_some_and(|rows| extents.get(rows) == Some(0)) {
            return self.empty(request, outputs);
        }
        let (way, tier) = self.way(extents)?;
        let (served, times) = self.take(&way, request, outputs)?;
        Ok(RunReport {
            backend: ID,
            fallback: None,
            route: way.route,
            tier,
            binding: served.binding,
            replayed: served.replayed,
            n_pieces: way.steps.len(),
            n_padded_rows: way.n_padded_rows,
            sent: served.sent,
            times,
            disturbed: false,
        })
    }
}

impl fmt::Debug for MigraphxSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.lane.device().map(hipgraph::Device::index);
        let n_bound = self.bound.len();
        f.debug_struct("MigraphxSession")
            .field("device", &device)
            .field("n_bound", &n_bound)
            .finish()
    }
}

/// Whether the model itself was refused in the shape that was asked for.
fn is_refusal(error: &RunError) -> bool {
    matches!(error, RunError::Prepare { source, .. } if matches!(**source, BackendError::Model { .. }))
}

fn failed(error: ProgramError) -> RunError {
    let out_of_memory = |reason: String| RunError::DeviceMemory { backend: ID, reason };
    let message = match error {
        ProgramError::Reload { source: BackendError::DeviceMemory { reason, .. }, .. } => {
            return out_of_memory(reason);
        }
        ProgramError::Reload { wanted, source } => {
            return RunError::Prepare { wanted, source: Arc::new(source) };
        }
        ProgramError::Memory(error) => return out_of_memory(error.to_string()),
        ProgramError::Hip(error) | ProgramError::Feed(FeedError::Hip(error)) => {
            if error.fault == Fault::OutOfMemory {
                return out_of_memory(error.to_string());
            }
            error.to_string()
        }
        // The C API has no other place for its words.
        ProgramError::Feed(FeedError::Native(error)) => format!("{error}; its words are on stderr"),
        ProgramError::Feed(error) => error.to_string(),
    };
    RunError::Library { backend: ID, message }
}
