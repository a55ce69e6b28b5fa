//! Doing what the cache of graphs decides.

use std::any::Any;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use hip_sys::HipError;

use crate::cache::{Action, BindingMode, Cache, Decision, Request, Settings, Statistics};
use crate::deny::{DenialReason, denial_of};
use crate::gate;
use crate::graph::{CaptureError, ExecutableGraph};
use crate::stream::Stream;

/// What is run.
pub trait Work {
    /// Why it cannot be enqueued.
    type Error: std::error::Error + 'static;

    /// Enqueues what a run of `mode` needs first and no graph may hold: copies from this request's
    /// addresses into our own buffers.
    ///
    /// # Errors
    ///
    /// The work's own.
    fn prepare(&mut self, stream: &Stream, mode: BindingMode) -> Result<(), Self::Error> {
        let _ = (stream, mode);
        Ok(())
    }

    /// Enqueues one whole run with the addresses of `mode`. Whatever the run adds to has to be reset
    /// first, on the same stream, so that a replay begins as an eager run does.
    ///
    /// # Errors
    ///
    /// The work's own.
    fn enqueue(&mut self, stream: &Stream, mode: BindingMode) -> Result<(), Self::Error>;

    /// Addresses and bytes of the outputs of `mode` on the device, for the comparison of a replay.
    fn outputs(&self, mode: BindingMode) -> Vec<(usize, usize)> {
        let _ = mode;
        Vec::new()
    }

    /// What a graph has to keep alive.
    fn kept(&self) -> Vec<Arc<dyn Any + Send + Sync>> {
        Vec::new()
    }
}

/// How a request was served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ran {
    /// Whose addresses were used.
    pub mode: BindingMode,
    /// What was decided.
    pub action: Action,
    /// Why a graph that was decided on did not serve, so that the request was enqueued.
    pub fallback: Option<String>,
}

/// Why a request was not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E: std::error::Error + 'static> {
    /// The work could not be enqueued.
    #[error("the work could not be enqueued")]
    Work(#[source] E),
    /// The runtime failed.
    #[error(transparent)]
    Hip(#[from] HipError),
}

/// Why no request is served by a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OffReason {
    /// The runtime is known to corrupt replays, and they are not checked.
    Denied(DenialReason),
    /// The default stream cannot be captured.
    DefaultStream,
    /// Whoever made the runner wanted none.
    Unwanted,
}

impl fmt::Display for OffReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(reason) => reason.fmt(f),
            Self::DefaultStream => {
                f.write_str("graphs are off: the default stream is not captured")
            }
            Self::Unwanted => f.write_str("graphs are off: none are wanted"),
        }
    }
}

/// One stream with its graphs.
#[derive(Debug)]
pub struct Runner<K> {
    stream: Stream,
    cache: Cache<K, ExecutableGraph>,
    off: Option<OffReason>,
}

impl<K: Eq + Hash + Clone> Runner<K> {
    /// A runner without graphs so far. With checks, a runtime that is known to corrupt replays is
    /// given a chance.
    #[must_use]
    pub fn new(stream: &Stream, settings: Settings) -> Self {
        let device = stream.device();
        let (platform, version) = (device.hip().platform(), device.runtime_version());
        let denial = denial_of(platform, version, &device.properties().architecture);
        let off = match denial {
            _ if stream.is_default() => Some(OffReason::DefaultStream),
            Some(reason) if settings.checks == 0 => Some(OffReason::Denied(reason)),
            _ => None,
        };
        Self::with_reason(stream, settings, off)
    }

    /// A runner that enqueues every request.
    #[must_use]
    pub fn without_graphs(stream: &Stream) -> Self {
        Self::with_reason(stream, Settings::default(), Some(OffReason::Unwanted))
    }

    fn with_reason(stream: &Stream, settings: Settings, off: Option<OffReason>) -> Self {
        let mut cache = Cache::new(settings);
        cache.set_enabled(off.is_none());
        Self { stream: stream.clone(), cache, off }
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Why graphs are off, if they are.
    #[must_use]
    pub fn off_reason(&self) -> Option<OffReason> {
        self.off
    }

    /// How often what was decided.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.cache.statistics()
    }

    /// Nodes of the graphs of a key.
    #[must_use]
    pub fn n_nodes(&self, key: &K) -> usize {
        let modes = [BindingMode::DirectBind, BindingMode::Staged];
        let graphs = modes.into_iter().filter_map(|mode| self.cache.graph(key, mode));
        graphs.map(ExecutableGraph::n_nodes).sum()
    }

    /// Drops every graph of a key, after its last launch, and what is known about it: its program is gone.
    pub fn remove(&mut self, key: &K) {
        drop(self.cache.remove(key));
    }

    /// Drops every graph of a key, after its last launch: what they were captured of was made anew. See
    /// [`Cache::forget_graphs`].
    pub fn forget_graphs(&mut self, key: &K) {
        drop(self.cache.forget_graphs(key));
    }

    /// Drops the graph of a key in a mode, after its last launch, and captures none for a while: there is
    /// no room for it.
    pub fn refuse_graph(&mut self, key: &K, mode: BindingMode) {
        drop(self.cache.failed(key, mode));
    }

    /// Enqueues one run, by a graph where that is decided. The outputs are there when the stream has
    /// come so far.
    ///
    /// # Errors
    ///
    /// See [`RunError`]. A graph that fails is not an error: the run is enqueued instead.
    ///
    /// # Safety
    ///
    /// `request` names every address that `work` binds in either mode, and these are alive until the
    /// run is done. An address that is named again in a later request is that of memory with the same
    /// meaning.
    pub unsafe fn run<W: Work>(
        &mut self,
        request: Request<'_, K>,
        work: &mut W,
    ) -> Result<Ran, RunError<W::Error>> {
        let mut gate = None;
        let (decision, useless) = self.cache.decide(request, || {
            gate = gate::try_capture();
            gate.is_some()
        });
        // A graph waits for its last launch as it goes.
        drop(useless);
        let Decision { mode, action } = decision;
        work.prepare(&self.stream, mode).map_err(RunError::Work)?;
        let failure = match action {
            Action::Eager(_) => {
                self.enqueue(work, mode)?;
                None
            }
            // SAFETY: the caller vouches for the addresses.
            Action::Capture => unsafe { self.capture(request, mode, work) }?,
            // SAFETY: the caller vouches for the addresses, which are those of the capture.
            Action::Replay => unsafe { self.launch(request.key, mode) }.err(),
            // SAFETY: as above.
            Action::Check => unsafe { self.check(request.key, mode, work) }?,
        };
        if failure.is_some() && action != Action::Check {
            self.enqueue(work, mode)?;
        }
        Ok(Ran { mode, action, fallback: failure })
    }

    fn enqueue<W: Work>(&self, work: &mut W, mode: BindingMode) -> Result<(), RunError<W::Error>> {
        work.enqueue(&self.stream, mode).map_err(RunError::Work)
    }

    /// Captures and launches; answers why that failed.
    unsafe fn capture<W: Work>(
        &mut self,
        request: Request<'_, K>,
        mode: BindingMode,
        work: &mut W,
    ) -> Result<Option<String>, RunError<W::Error>> {
        match self.stream.capture_alone(|stream| work.enqueue(stream, mode)) {
            Ok((mut graph, ())) => {
                work.kept().into_iter().for_each(|value| graph.keep(value));
                let addresses = match mode {
                    BindingMode::DirectBind => request.direct.unwrap_or_default(),
                    BindingMode::Staged => request.staged,
                };
                drop(self.cache.captured(request.key, mode, addresses, graph));
                // SAFETY: the caller vouches for the addresses.
                Ok(unsafe { self.launch(request.key, mode) }.err())
            }
            Err(error) => {
                drop(self.cache.failed(request.key, mode));
                Ok(Some(described(&error)))
            }
        }
    }

    /// Launches the graph; answers why that failed.
    unsafe fn launch(&mut self, key: &K, mode: BindingMode) -> Result<(), String> {
        let Some(graph) = self.cache.graph(key, mode) else {
            return Err("there is no graph".to_owned());
        };
        // SAFETY: the caller vouches for the addresses.
        let answer = unsafe { graph.launch(&self.stream) };
        answer.map_err(|error| {
            drop(self.cache.failed(key, mode));
            error.to_string()
        })
    }

    /// An eager run, a replay, and a comparison; the outputs are the eager run's if they differ.
    unsafe fn check<W: Work>(
        &mut self,
        key: &K,
        mode: BindingMode,
        work: &mut W,
    ) -> Result<Option<String>, RunError<W::Error>> {
        let outputs = work.outputs(mode);
        self.enqueue(work, mode)?;
        // SAFETY: the outputs are alive until the run is done.
        let eager = unsafe { self.read(&outputs) }?;
        // SAFETY: the caller vouches for the addresses.
        if let Err(reason) = unsafe { self.launch(key, mode) } {
            self.enqueue(work, mode)?;
            return Ok(Some(reason));
        }
        // SAFETY: as above.
        let replayed = unsafe { self.read(&outputs) }?;
        drop(self.cache.checked(key, mode, eager == replayed));
        if eager == replayed {
            return Ok(None);
        }
        self.enqueue(work, mode)?;
        Ok(Some("a replay gave another answer than an eager run".to_owned()))
    }

    unsafe fn read(&self, outputs: &[(usize, usize)]) -> Result<Vec<Vec<u8>>, HipError> {
        let read = |&(address, n_bytes): &(usize, usize)| {
            let mut bytes = vec![0; n_bytes];
            // SAFETY: the work vouches for its outputs.
            unsafe { self.stream.read_address(address, &mut bytes) }?;
            Ok(bytes)
        };
        outputs.iter().map(read).collect()
    }
}

/// An error with its causes, in one line.
fn described<E: std::error::Error + 'static>(error: &CaptureError<E>) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
