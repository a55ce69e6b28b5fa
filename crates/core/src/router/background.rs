//! Compiling what requests lack, while others answer them.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use super::demand::{Demand, Progress};
use super::event::{Event, Stage};
use super::routes::Routes;
use crate::backend::{Artifact, ArtifactSource, BackendError, Cancellation};
use crate::plan::cover::cover;
use crate::plan::{Bucket, Steps, steps};
use crate::{Extents, FallbackReason};

/// Events that wait for an observer; of one that does not look, further ones are lost.
const MOST_EVENTS: usize = 1024;

/// How often a compile says that it goes on.
const TICK: Duration = Duration::from_secs(1);

/// How what requests lack is compiled.
#[derive(Clone, Debug)]
pub struct BackgroundOptions {
    /// Where programs come from: where from a compile, from one in a process of its own, at low priority.
    pub source: Arc<dyn ArtifactSource>,
    /// Which programs may be made.
    pub wanted: Wanted,
    /// Programs that wait for their turn at most; 0 counts as 1. Those that least work waits for are given
    /// up.
    pub capacity: usize,
    /// How long after a failure that may pass the same program is tried again. What is refused for good never
    /// is.
    pub retry_after: Duration,
}

/// Which programs may be made.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Those of a plan, in the order of their worth. They are made whether or not a request comes; nothing
    /// else is.
    Planned(Vec<Bucket>),
    /// For a request that no program holds, the next step along each symbol; without steps, the next power of
    /// two.
    Steps(BTreeMap<String, Steps>),
}

impl BackgroundOptions {
    /// By powers of two, with room for 16 programs, failures tried again after ten minutes.
    #[must_use]
    pub fn new(source: Arc<dyn ArtifactSource>) -> Self {
        let wanted = Wanted::Steps(BTreeMap::new());
        Self { source, wanted, capacity: 16, retry_after: Duration::from_secs(600) }
    }
}

/// The queue, and whoever watches it.
#[derive(Debug)]
pub(super) struct Background {
    options: BackgroundOptions,
    demand: Mutex<Demand>,
    /// Told when there is something to do, or nothing any more.
    changed: Condvar,
    stopping: AtomicBool,
    observers: Mutex<Vec<SyncSender<Event>>>,
}

impl Background {
    pub(super) fn new(options: BackgroundOptions) -> Self {
        Self {
            demand: Mutex::new(Demand::new(options.capacity)),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            observers: Mutex::default(),
            options,
        }
    }

    /// A request found no program; why that is, where more is known than that.
    pub(super) fn missed(&self, routes: &Routes, request: &Extents) -> Option<FallbackReason> {
        if self.is_stopping() {
            return None;
        }
        let (_, n_tokens) = routes.n_rows_and_tokens(request);
        let bucket_for =
            |refused: &dyn Fn(&Bucket) -> bool| self.bucket_for(routes, request, refused);
        let progress = self.with_demand(|demand| match self.is_stopping() {
            // Since then all was given up, and nobody would make it.
            true => Progress::None,
            false => demand.missed(request, n_tokens as u64, Instant::now(), bucket_for),
        });
        match progress {
            Progress::None => None,
            Progress::OnItsWay => Some(FallbackReason::Compiling),
            Progress::Failed => Some(FallbackReason::CompileFailed),
        }
    }

    /// The program to make for a request; `None` where none may be made that would change anything.
    fn bucket_for(
        &self,
        routes: &Routes,
        request: &Extents,
        refused: &dyn Fn(&Bucket) -> bool,
    ) -> Option<Bucket> {
        let ready = routes.ready()?;
        let (wanted, freedom) = (routes.bucket(request), ready.freedom());
        if wanted.iter().any(|(_, extent)| extent == 0) {
            return None;
        }
        let is_new = |bucket: &Bucket| !ready.buckets.contains(bucket) && !refused(bucket);
        match &self.options.wanted {
            Wanted::Planned(planned) => {
                let new: Vec<Bucket> = planned.iter().filter(|it| is_new(it)).cloned().collect();
                let pieces = cover(&wanted, &new, &freedom)?;
                pieces.first().map(|piece| new[piece.bucket].clone())
            }
            Wanted::Steps(steps) => {
                let step = steps::bucket_for(&wanted, steps, &freedom);
                // What a step makes may be refused where the very shape is not.
                let exact = refused(&step).then_some(wanted);
                Some(step).filter(is_new).or(exact.filter(is_new))
            }
        }
    }

    fn planned(&self) -> &[Bucket] {
        match &self.options.wanted {
            Wanted::Planned(planned) => planned,
            Wanted::Steps(_) => &[],
        }
    }

    /// Watches from now on; what waits already is told first.
    pub(super) fn observe(&self) -> Receiver<Event> {
        let (sender, events) = sync_channel(MOST_EVENTS);
        let demand = self.demand();
        // Under the lock: else the end could come in between, and would not reach this observer.
        if !self.is_stopping() {
            demand.waiting().for_each(|event| drop(sender.try_send(event)));
            self.observers().push(sender);
        }
        events
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // Whoever holds the lock sees the flag when they are done; the other may be about to wait.
        let mut demand = self.demand();
        demand.give_up();
        demand.events().for_each(|event| self.tell(&event));
        self.observers().clear();
        drop(demand);
        self.changed.notify_all();
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the queue, and tells what happened, in the order in which it did.
    fn with_demand<T>(&self, work: impl FnOnce(&mut Demand) -> T) -> T {
        let mut demand = self.demand();
        let result = work(&mut demand);
        let mut is_new = false;
        for event in demand.events() {
            is_new = true;
            self.tell(&event);
        }
        if is_new {
            self.changed.notify_all();
        }
        result
    }

    fn tell(&self, event: &Event) {
        use std::sync::mpsc::TrySendError;
        let sent = |observer: &SyncSender<Event>| {
            !matches!(observer.try_send(event.clone()), Err(TrySendError::Disconnected(_)))
        };
        self.observers().retain(sent);
    }

    fn observers(&self) -> MutexGuard<'_, Vec<SyncSender<Event>>> {
        self.observers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<Arc<Bucket>> {
        let mut demand = self.demand();
        loop {
            if self.is_stopping() {
                return None;
            }
            if let Some(bucket) = demand.next() {
                return Some(bucket);
            }
            demand = self.changed.wait(demand).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has a program made and admitted.
    fn make(
        &self,
        bucket: &Bucket,
        shared: &Shared,
        expected: Option<Duration>,
    ) -> Result<Duration, BackendError> {
        let start = Instant::now();
        let n_ticks = AtomicU64::new(0);
        // Whoever compiles asks all the time whether that is still wanted, and thereby keeps the time.
        let is_cancelled = || {
            let elapsed = start.elapsed();
            let tick = 1 + elapsed.as_secs() / TICK.as_secs();
            if n_ticks.fetch_max(tick, Ordering::Relaxed) < tick {
                let stage = Stage::Compiling { elapsed, expected };
                self.tell(&Event { bucket: bucket.clone(), stage });
            }
            self.is_stopping()
        };
        is_cancelled();
        let source = &self.options.source;
        let made = || {
            let artifact: Artifact = source.artifact(bucket, Cancellation::when(&is_cancelled))?;
            shared.admit(&artifact)
        };
        let outcome = catch_unwind(AssertUnwindSafe(made)).unwrap_or_else(|panic| {
            let (backend, message) = (shared.preferred.backend(), message(&*panic));
            Err(BackendError::Library { backend, what: "compile", message })
        });
        outcome.map(|()| start.elapsed())
    }

    /// Nothing is being compiled any more: looks anew at what requests lack.
    fn settle(&self, shared: &Shared) {
        let routes = shared.routes();
        self.with_demand(|demand| {
            demand.ready(self.planned(), |request, refused| {
                routes.lacks(request).then(|| self.bucket_for(&routes, request, refused))?
            });
        });
    }

    fn finished(&self, bucket: &Bucket, shared: &Shared, outcome: Result<Duration, BackendError>) {
        let tell = |stage| self.tell(&Event { bucket: bucket.clone(), stage });
        match outcome {
            Ok(took) => {
                self.settle(shared);
                tell(Stage::Ready { took });
            }
            // It was given up before it was cancelled.
            Err(BackendError::Cancelled { .. }) if self.is_stopping() => {}
            Err(error) => {
                let is_final = matches!(error, BackendError::Model { .. });
                let until = (!is_final).then(|| Instant::now() + self.options.retry_after);
                // Whoever hears of it finds it so.
                self.with_demand(|demand| demand.failed(until));
                tell(Stage::Failed { error: Arc::new(error) });
            }
        }
    }
}

/// The thread that compiles: one program at a time, until it is told to stop.
pub(super) fn work(shared: &Shared) {
    let Some(background) = &shared.background else { return };
    let routes = shared.routes();
    let is_lacking = |it: &&Bucket| routes.ready().is_some_and(|ready| !ready.buckets.contains(it));
    let planned: Vec<Bucket> = background.planned().iter().filter(is_lacking).cloned().collect();
    background.with_demand(|demand| demand.plan(&planned, Instant::now()));
    drop(routes);
    let (mut n_made, mut spent) = (0_u32, Duration::ZERO);
    while let Some(bucket) = background.next() {
        // A request that was routed before a program was admitted may ask for it once more.
        let now = shared.routes();
        if now.ready().is_some_and(|ready| ready.buckets.contains(&bucket)) {
            background.settle(shared);
            background.tell(&Event { bucket: (*bucket).clone(), stage: Stage::GivenUp });
            continue;
        }
        let expected = match now.compile_time(&bucket) {
            Some(expected) => Some(expected),
            None => spent.checked_div(n_made),
        };
        let outcome = background.make(&bucket, shared, expected);
        if let Ok(took) = outcome {
            (n_made, spent) = (n_made + 1, spent + took);
        }
        background.finished(&bucket, shared, outcome);
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::BackendId;

    #[derive(Debug)]
    struct NoCompiler;

    impl ArtifactSource for NoCompiler {
        fn artifact(&self, _: &Bucket, _: Cancellation<'_>) -> Result<Artifact, BackendError> {
            let (backend, message) = (BackendId::new("none"), "nobody compiles".to_owned());
            Err(BackendError::Library { backend, what: "compile", message })
        }
    }

    #[test]
    fn whoever_starts_to_watch_at_the_end_hears_of_the_end() {
        for _ in 0..1000 {
            let background = Background::new(BackgroundOptions::new(Arc::new(NoCompiler)));
            thread::scope(|scope| {
                scope.spawn(|| background.stop());
                // Ends only where its sender is dropped.
                assert_eq!(background.observe().iter().count(), 0);
            });
            assert!(background.observers().is_empty());
        }
    }
}
