//! The router: one executable made of two, so that no request waits for a compiler.
//!
//! A *preferred* executable runs programs of fixed shapes, a *fallback* takes every shape. Each request goes
//! where it costs least by what is ready at that moment: whole to one of them, or its first rows to the
//! preferred one and the others to the fallback. A [`Router`] is an [`Executable`] itself, so whatever runs
//! on one runs on a router: an engine, an encoder, a program of yours.
//!
//! * A route is found by a look-up in a table, and remembered for the next request of the shape.
//! * Where a fallback answers, the report says which, for how many rows, and why: also where a program cannot be
//!   loaded again or the device has no room, which is no error while another can answer. A program
//!   that cannot be loaded rests for a while, so that not every request waits for another try.
//! * With [`BackgroundOptions`] the programs that would save requests time are compiled meanwhile, one at a time,
//!   those that save most first. One that is ready is admitted, and the next request moves over. A
//!   compile that fails is told once, and changes nothing else. [`Router::events`] tells how it goes.
//!
//! A backend that was forced never comes here: [`crate::registry`] alone pairs backends, under `auto`.

mod activity;
mod backend;
mod background;
mod demand;
mod event;
mod rests;
mod routes;
mod rows;
mod session;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

pub use self::backend::RoutedBackend;
pub use self::background::{BackgroundOptions, Wanted};
pub use self::event::{Event, Stage};

use self::activity::Activity;
use self::background::Background;
use self::routes::Routes;
use self::session::RouterSession;
use crate::Signature;
use crate::backend::{
    Artifact, BackendError, BackendId, Domain, Executable, Session, SessionOptions,
};
use crate::plan::{PaddingLimit, Prices};

/// How requests are routed.
#[derive(Clone, Debug, Default)]
pub struct RouterOptions {
    /// What runs cost on the preferred backend (the device) and on the fallback (the CPU). Without prices the
    /// preferred one takes all that its programs hold.
    pub prices: Option<Prices>,
    /// How much padding programs may run.
    pub padding: PaddingLimit,
    /// Compiles what requests lack, while the fallback answers them.
    pub background: Option<BackgroundOptions>,
}

/// Why two executables cannot be routed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// They have other inputs, outputs or symbols.
    #[error("{preferred} and {fallback} have loaded different models")]
    DifferentModels {
        /// The preferred backend.
        preferred: BackendId,
        /// The other.
        fallback: BackendId,
    },
    /// The fallback does not take every shape.
    #[error("{fallback} does not take every shape, so it cannot answer for another")]
    NotDynamic {
        /// The backend.
        fallback: BackendId,
    },
    /// The thread that compiles in the background cannot be started.
    #[error("no thread can be started: {message}")]
    Thread {
        /// The system's words.
        message: String,
    },
}

/// Two executables of one model behind the face of one.
pub struct Router {
    shared: Arc<Shared>,
    compiler: Mutex<Option<JoinHandle<()>>>,
}

/// What a router, its sessions and its compiler share.
struct Shared {
    preferred: Arc<dyn Executable>,
    fallback: Arc<dyn Executable>,
    prices: RwLock<Option<Prices>>,
    padding: PaddingLimit,
    routes: RwLock<Arc<Routes>>,
    /// The generation of `routes`, to be looked at without a lock.
    generation: AtomicU64,
    /// Held while routes are made, so that none are older than those that they replace.
    renewing: Mutex<()>,
    activity: Activity,
    background: Option<Background>,
}

impl Router {
    /// Routes over what both have loaded; starts to compile in the background if that was asked for.
    ///
    /// # Errors
    ///
    /// [`RouterError`].
    pub fn new(
        preferred: Arc<dyn Executable>,
        fallback: Arc<dyn Executable>,
        options: RouterOptions,
    ) -> Result<Self, RouterError> {
        if preferred.signature() != fallback.signature() {
            let (preferred, fallback) = (preferred.backend(), fallback.backend());
            return Err(RouterError::DifferentModels { preferred, fallback });
        }
        if fallback.domain() != Domain::Any {
            return Err(RouterError::NotDynamic { fallback: fallback.backend() });
        }
        let RouterOptions { prices, padding, background } = options;
        let routes = Routes::new(preferred.as_ref(), prices, padding, 0);
        let background = background.map(Background::new);
        let shared = Arc::new(Shared {
            preferred,
            fallback,
            prices: RwLock::new(prices),
            padding,
            routes: RwLock::new(Arc::new(routes)),
            generation: AtomicU64::new(0),
            renewing: Mutex::new(()),
            activity: Activity::default(),
            background,
        });
        let compiler = shared.background.is_some().then(|| start(&shared)).transpose()?;
        Ok(Self { shared, compiler: Mutex::new(compiler) })
    }

    /// The executable of fixed shapes.
    #[must_use]
    pub fn preferred(&self) -> &Arc<dyn Executable> {
        &self.shared.preferred
    }

    /// The executable that takes every shape.
    #[must_use]
    pub fn fallback(&self) -> &Arc<dyn Executable> {
        &self.shared.fallback
    }

    /// Weighs by other prices from the next request on: where requests go, and which programs are worth their compile.
    pub fn set_prices(&self, prices: Option<Prices>) {
        *self.shared.prices.write().unwrap_or_else(PoisonError::into_inner) = prices;
        self.shared.renew();
        self.shared.settle();
    }

    /// How compiling in the background goes, from now on; ends with it. Nothing comes where nothing is
    /// compiled. Events that are not taken in time are lost.
    #[must_use]
    pub fn events(&self) -> Receiver<Event> {
        match &self.shared.background {
            Some(background) => background.observe(),
            None => std::sync::mpsc::sync_channel(0).1,
        }
    }

    /// Ends compiling in the background; what is under way is cancelled. Blocks until it has ended; does
    /// nothing the second time. Requests are routed on, over what is ready.
    pub fn stop_compiling(&self) {
        if let Some(background) = &self.shared.background {
            background.stop();
        }
        let compiler = self.compiler.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(compiler) = compiler {
            // It catches the panics of what it calls.
            let _ = compiler.join();
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router")
            .field("preferred", &self.shared.preferred.backend())
            .field("fallback", &self.shared.fallback.backend())
            .finish_non_exhaustive()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.stop_compiling();
    }
}

fn start(shared: &Arc<Shared>) -> Result<JoinHandle<()>, RouterError> {
    let theirs = Arc::clone(shared);
    let compiler = thread::Builder::new().name("shapeyard-compiler".to_owned());
    let started = compiler.spawn(move || background::work(&theirs));
    started.map_err(|error| RouterError::Thread { message: error.to_string() })
}

impl Executable for Router {
    /// The preferred backend; reports say who answered.
    fn backend(&self) -> BackendId {
        self.shared.preferred.backend()
    }

    fn signature(&self) -> &Arc<Signature> {
        self.shared.preferred.signature()
    }

    fn domain(&self) -> Domain {
        Domain::Any
    }

    fn generation(&self) -> u64 {
        self.shared.generation()
    }

    fn session(&self, options: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        // Both now: a session made by the first request that wants it would make that request wait.
        let preferred = self.shared.preferred.session(options)?;
        let fallback = self.shared.fallback.session(options)?;
        Ok(Box::new(RouterSession::new(Arc::clone(&self.shared), preferred, fallback)))
    }

    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.shared.admit(artifact)?;
        self.shared.settle();
        Ok(())
    }
}

impl Shared {
    fn admit(&self, artifact: &Artifact) -> Result<(), BackendError> {
        self.preferred.admit(artifact)?;
        self.renew();
        Ok(())
    }

    /// The routes over what is ready now.
    fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the routes anew: the preferred executable has other programs than before.
    fn renew(&self) {
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation() + 1;
        let routes = Routes::new(self.preferred.as_ref(), self.prices(), self.padding, generation);
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
        self.generation.store(generation, Ordering::Release);
    }

    /// Looks anew at what requests lack, after somebody else than the compiler changed what there is.
    fn settle(&self) {
        if let Some(background) = &self.background {
            background.settle(self);
            // A session that asked in between remembers that it lacks nothing, for as long as routes are the same.
            self.renew();
        }
    }

    fn prices(&self) -> Option<Prices> {
        *self.prices.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever [`Self::routes`] does.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}
