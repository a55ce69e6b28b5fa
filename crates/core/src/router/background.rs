//! Compiling what requests lack, while others answer them.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Shared;
use super::demand::{Demand, Lack, Progress, Shapes};
use super::event::{Event, Stage};
use super::routes::Routes;
use crate::Extents;
use crate::backend::{Artifact, ArtifactSource, BackendError, Cancellation};
use crate::plan::cover::cover;
use crate::plan::{Bucket, Steps, steps};

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
    /// Programs that wait for their turn at most; 0 counts as 1, and a plan's may all wait. Those that save least are
    /// given up.
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
    /// For a request that would be answered at less cost, the next step along each symbol; without steps, the next
    /// power of two. Each is made once it would have saved as much time as it takes to compile, by the prices;
    /// where these do not say what a compile takes, at once.
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
    /// Held while shapes are learnt anew, so that none are learnt by older routes than those before.
    settling: Mutex<()>,
    observers: Mutex<Vec<SyncSender<Event>>>,
}

impl Background {
    pub(super) fn new(options: BackgroundOptions) -> Self {
        let n_planned = match &options.wanted {
            Wanted::Planned(planned) => planned.len(),
            Wanted::Steps(_) => 0,
        };
        Self {
            demand: Mutex::new(Demand::new(options.capacity.max(n_planned))),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            settling: Mutex::default(),
            observers: Mutex::default(),
            options,
        }
    }

    /// Counts a request, and says how far the program is that it lacks.
    pub(super) fn count(&self, routes: &Routes, request: &Extents) -> Progress {
        let count = || {
            self.with_demand(|demand| match self.is_stopping() {
                // All was given up, and nobody would make it.
                true => Some(Progress::Content),
                false => demand.count(request, Instant::now()),
            })
        };
        if let Some(progress) = count() {
            return progress;
        }
        // A shape that is new: what it lacks is found out while others go on.
        let refused = self.demand().refused();
        let lack = self.lack(routes, request, &refused);
        self.demand().learn(request, lack);
        count().unwrap_or(Progress::None)
    }

    /// The program to make for a request; `None` where none may be made that would save it time.
    fn lack(&self, routes: &Routes, request: &Extents, refused: &[Arc<Bucket>]) -> Option<Lack> {
        let ready = routes.ready()?;
        let (wanted, freedom) = (routes.bucket(request), ready.freedom());
        if wanted.iter().any(|(_, extent)| extent == 0) {
            return None;
        }
        let is_refused = |bucket: &Bucket| refused.iter().any(|it| **it == *bucket);
        let is_ready = |bucket: &Bucket| ready.buckets.contains(bucket);
        let now = routes.decide(request).1;
        let lack = |bucket: &Bucket, seconds: f64, costs: f64| {
            let (bucket, saves) = (Arc::new(bucket.clone()), now - seconds);
            (saves > 0.0).then_some(Lack { bucket, saves, costs })
        };
        match &self.options.wanted {
            Wanted::Planned(planned) => {
                let is_new = |it: &&Bucket| !is_ready(it) && !is_refused(it);
                let new: Vec<Bucket> = planned.iter().filter(is_new).cloned().collect();
                let pieces = cover(&wanted, &new, &freedom)?;
                let bucket = &new[pieces.first()?.bucket];
                // The plan knows what it is worth.
                lack(bucket, routes.seconds_in(request, bucket)?, 0.0)
            }
            Wanted::Steps(steps) => {
                let step = steps::bucket_for(&wanted, steps, &freedom);
                // What a step makes may be refused, or be padded too much, where the very shape is not.
                for bucket in [step, wanted].iter().filter(|it| !is_refused(it)) {
                    let Some(seconds) = routes.seconds_in(request, bucket) else { continue };
                    if is_ready(bucket) {
                        return None;
                    }
                    if let Some(lack) = lack(bucket, seconds, routes.compile_seconds(bucket)) {
                        return Some(lack);
                    }
                }
                None
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

    /// Looks anew at what requests lack, by the routes of now, while they go on.
    pub(super) fn settle(&self, shared: &Shared) {
        let _one = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = shared.routes();
        let (shapes, refused) = {
            let mut demand = self.demand();
            (demand.take_shapes(), demand.refused())
        };
        self.settle_with(shapes, |request| self.lack(&routes, request, &refused));
    }

    fn settle_with(&self, shapes: Shapes, lack: impl Fn(&Extents) -> Option<Lack>) {
        let anew = shapes.into_iter().map(|(request, asked)| {
            let asked = asked.lacking(lack(&request));
            (request, asked)
        });
        let shapes = anew.collect();
        self.with_demand(|demand| demand.learn_anew(self.planned(), shapes));
    }

    /// What was being compiled is ready.
    fn made(&self, shared: &Shared) {
        // Until nobody lacks it any more it counts as on its way, and is not queued again.
        self.settle(shared);
        self.demand().made();
    }

    fn finished(&self, bucket: &Bucket, shared: &Shared, outcome: Result<Duration, BackendError>) {
        let tell = |stage| self.tell(&Event { bucket: bucket.clone(), stage });
        match outcome {
            Ok(took) => {
                self.made(shared);
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
            background.made(shared);
            background.tell(&Event { bucket: (*bucket).clone(), stage: Stage::GivenUp });
            continue;
        }
        let expected = match Duration::try_from_secs_f64(now.compile_seconds(&bucket)) {
            Ok(expected) if !expected.is_zero() => Some(expected),
            _ => spent.checked_div(n_made),
        };
        let begun = shared.activity.compiles.begin();
        let outcome = background.make(&bucket, shared, expected);
        drop(begun);
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
    fn requests_are_counted_while_others_are_looked_at_anew() {
        let background = Background::new(BackgroundOptions::new(Arc::new(NoCompiler)));
        let request = Extents::default();
        background.demand().learn(&request, None);
        let shapes = background.demand().take_shapes();
        let n_looked_at = std::cell::Cell::new(0);
        background.settle_with(shapes, |_| {
            n_looked_at.set(n_looked_at.get() + 1);
            assert!(background.demand.try_lock().is_ok(), "a request would wait");
            None
        });
        assert_eq!(n_looked_at.get(), 1);
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
