//! The engine's promises about queues and threads, on a double that can be held up and made to panic at a
//! given moment, which no real engine can. `tests/` proves the same engine on the real ones.

use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;

use super::*;
use crate::backend::{Artifact, BackendId, Domain, Request, Session};
use crate::{DataType, Dim, StageTimes, TensorSpec, Tier};

const DOUBLE: BackendId = BackendId::new("double");

/// Doubles its input once it is allowed to: a permit a run.
struct HeldDouble {
    signature: Arc<Signature>,
    permits: Arc<Mutex<Receiver<()>>>,
    making: Making,
}

struct HeldSession {
    permits: Arc<Mutex<Receiver<()>>>,
    owner: ThreadId,
    n_alive: Arc<AtomicUsize>,
}

/// How making sessions goes.
#[derive(Clone, Default)]
struct Making {
    /// So many are made; then it fails.
    limit: Option<usize>,
    /// It fails with a panic instead of an error.
    panics: bool,
    n_made: Arc<AtomicUsize>,
    n_alive: Arc<AtomicUsize>,
    /// Each session waits until so many are being made.
    together: Option<Arc<Barrier>>,
}

impl Making {
    fn at_most(limit: usize, panics: bool) -> Self {
        Self { limit: Some(limit), panics, ..Self::default() }
    }
}

impl Executable for HeldDouble {
    fn backend(&self) -> BackendId {
        DOUBLE
    }
    fn signature(&self) -> &Arc<Signature> {
        &self.signature
    }
    fn domain(&self) -> Domain {
        Domain::Any
    }
    fn session(&self, _: &SessionOptions) -> Result<Box<dyn Session>, BackendError> {
        let making = &self.making;
        if let Some(together) = &making.together {
            together.wait();
        }
        let n_before = making.n_made.fetch_add(1, Ordering::SeqCst);
        if making.limit.is_some_and(|limit| n_before >= limit) {
            assert!(!making.panics, "panicked while making a session");
            return Err(BackendError::Unsupported { backend: DOUBLE, what: "make another" });
        }
        making.n_alive.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(HeldSession {
            permits: Arc::clone(&self.permits),
            owner: std::thread::current().id(),
            n_alive: Arc::clone(&making.n_alive),
        }))
    }
    fn admit(&self, _: &Artifact) -> Result<(), BackendError> {
        Err(BackendError::Unsupported { backend: DOUBLE, what: "take artifacts" })
    }
}

impl Session for HeldSession {
    fn run(&mut self, request: &Request<'_>, outputs: &mut Outputs) -> Result<RunReport, RunError> {
        assert_eq!(self.owner, std::thread::current().id());
        // A dropped sender lifts the hold for good.
        let _ = self.permits.lock().map(|permits| permits.recv());
        let input = request.inputs()[0].as_slice::<i32>().unwrap();
        assert_ne!(input.first(), Some(&-1), "asked to panic");
        let doubled: Vec<i32> = input.iter().map(|x| 2 * x).collect();
        outputs.slots(1)[0] = Tensor::from_slice(&[doubled.len()], &doubled).unwrap();
        Ok(RunReport::exact_on_host(DOUBLE, Tier::Cached, StageTimes::default()))
    }
}

impl Drop for HeldSession {
    fn drop(&mut self) {
        assert_eq!(self.owner, std::thread::current().id());
        self.n_alive.fetch_sub(1, Ordering::SeqCst);
    }
}

fn held(n_sessions: usize, queue_capacity: usize) -> (Engine, Sender<()>) {
    let (engine, permit) = making(&Making::default(), n_sessions, queue_capacity);
    (engine.unwrap(), permit)
}

fn making(
    making: &Making,
    n_sessions: usize,
    queue_capacity: usize,
) -> (Result<Engine, BackendError>, Sender<()>) {
    let (executable, permit) = executable(making);
    let session = SessionOptions::threads(1);
    let options = EngineOptions { n_sessions, session, queue_capacity };
    (Engine::start(&executable, &options), permit)
}

fn executable(making: &Making) -> (Arc<dyn Executable>, Sender<()>) {
    let (permit, permits) = channel();
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: DataType::I32,
        shape: Some(vec![Dim::Unnamed]),
        index_limit: None,
    };
    let signature =
        Signature { inputs: vec![spec("x")], outputs: vec![spec("y")], symbols: vec![] };
    let executable: Arc<dyn Executable> = Arc::new(HeldDouble {
        signature: Arc::new(signature),
        permits: Arc::new(Mutex::new(permits)),
        making: making.clone(),
    });
    (executable, permit)
}

fn request(x: i32) -> InferRequest {
    let inputs = vec![Tensor::from_slice(&[1], &[x]).unwrap()];
    InferRequest { inputs, outputs: Outputs::new() }
}

fn result(answer: Answer) -> i32 {
    answer.unwrap().outputs.tensors()[0].as_slice::<i32>().unwrap()[0]
}

/// The input of a request that came back with an error.
fn input(failed: &Failed) -> i32 {
    failed.request.as_ref().unwrap().inputs[0].as_slice::<i32>().unwrap()[0]
}

/// Waits until the engine's one session is busy and the queue is empty.
fn until_running(engine: &Engine) {
    while engine.shared.queue().is_some_and(|queue| !queue.is_empty()) {
        std::thread::yield_now();
    }
}

#[test]
fn a_full_queue_hands_the_request_back() {
    let (engine, permit) = held(1, 2);
    let running = engine.submit(request(1)).unwrap();
    until_running(&engine);
    let waiting = [2, 3].map(|x| engine.submit(request(x)).unwrap());
    let rejected = engine.submit(request(4)).unwrap_err();
    assert_eq!(rejected.rejection, Rejection::QueueFull { capacity: 2 });
    assert_eq!(rejected.request.inputs[0].as_slice::<i32>().unwrap(), [4]);
    drop(permit);
    assert_eq!(result(running.wait()), 2);
    assert_eq!(waiting.map(|ticket| result(ticket.wait())), [4, 6]);
    let stats = engine.shutdown();
    assert_eq!((stats.n_accepted, stats.n_answered, stats.n_queue_full), (3, 3, 1));
}

#[test]
fn what_nobody_waits_for_is_not_run() {
    let (engine, permit) = held(1, 4);
    let running = engine.submit(request(1)).unwrap();
    until_running(&engine);
    drop(engine.submit(request(2)).unwrap());
    let last = engine.submit(request(3)).unwrap();
    drop(permit);
    assert_eq!(result(running.wait()), 2);
    assert_eq!(result(last.wait()), 6);
    let stats = engine.shutdown();
    assert_eq!((stats.n_answered, stats.n_cancelled), (2, 1));
}

#[test]
fn dropping_the_engine_answers_everyone() {
    let (engine, permit) = held(1, 4);
    let running = engine.submit(request(1)).unwrap();
    until_running(&engine);
    let waiting = engine.submit(request(2)).unwrap();
    let dropper = std::thread::spawn(move || drop(engine));
    std::thread::sleep(Duration::from_millis(20));
    permit.send(()).unwrap();
    assert_eq!(result(running.wait()), 2);
    let refused = waiting.wait().unwrap_err();
    assert!(matches!(refused.error, InferError::Rejected(Rejection::Stopped)), "{refused}");
    assert_eq!(input(&refused), 2);
    dropper.join().unwrap();
}

#[test]
fn shutdown_answers_what_was_accepted() {
    let (engine, permit) = held(2, 64);
    let tickets: Vec<_> = (0..50).map(|x| engine.submit(request(x)).unwrap()).collect();
    drop(permit);
    let stats = engine.shutdown();
    assert_eq!((stats.n_answered, stats.n_refused), (50, 0));
    for (x, ticket) in (0..).zip(tickets) {
        assert_eq!(result(ticket.wait()), 2 * x);
    }
}

#[test]
fn a_shared_engine_is_closed_by_any_of_its_holders() {
    let (engine, permit) = held(1, 4);
    let engine = Arc::new(engine);
    let tickets = [1, 2, 3].map(|x| engine.submit(request(x)).unwrap());
    let closers = [(); 2].map(|()| {
        let engine = Arc::clone(&engine);
        std::thread::spawn(move || {
            InferenceService::close(&*engine);
            engine.stats().n_answered
        })
    });
    while engine.shared.queue().is_some() {
        std::thread::yield_now();
    }
    for rejected in [engine.submit(request(4)), engine.submit_wait(request(4))] {
        let rejected = rejected.unwrap_err();
        assert_eq!(rejected.rejection, Rejection::Stopped);
        assert_eq!(rejected.request.inputs[0].as_slice::<i32>().unwrap(), [4]);
    }
    drop(permit);
    // Neither closer returns before all is answered.
    assert_eq!(closers.map(|closer| closer.join().unwrap()), [3, 3]);
    assert_eq!(tickets.map(|ticket| result(ticket.wait())), [2, 4, 6]);
    engine.close();
    assert!(engine.workers().is_empty());
}

#[test]
fn who_waits_for_room_when_the_engine_is_closed_is_answered() {
    let (engine, permit) = held(1, 1);
    let running = engine.submit(request(1)).unwrap();
    until_running(&engine);
    let waiting = engine.submit(request(2)).unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| engine.submit_wait(request(3)).map(Ticket::wait));
        std::thread::sleep(Duration::from_millis(20));
        let closer = scope.spawn(|| engine.close());
        std::thread::sleep(Duration::from_millis(20));
        drop(permit);
        closer.join().unwrap();
        match blocked.join().unwrap() {
            Ok(answer) => assert_eq!(result(answer), 6),
            // On a busy machine it may come too late to be waiting yet.
            Err(rejected) => assert_eq!(rejected.rejection, Rejection::Stopped),
        }
    });
    assert_eq!([running, waiting].map(|ticket| result(ticket.wait())), [2, 4]);
    let stats = engine.shutdown();
    assert_eq!(stats.n_accepted, stats.n_answered);
}

#[test]
fn a_panic_is_an_error_and_the_next_request_is_answered() {
    let (engine, permit) = held(1, 4);
    drop(permit);
    let answers = [-1, 5].map(|x| engine.submit(request(x)).unwrap()).map(Ticket::wait);
    let [panicked, next] = answers;
    let panicked = panicked.unwrap_err();
    assert!(panicked.to_string().contains("asked to panic"), "{panicked}");
    assert_eq!(input(&panicked), -1);
    assert_eq!(result(next), 10);
}

#[test]
fn a_lane_answers_here_and_replaces_a_session_that_panicked() {
    let sessions = Making::at_most(2, false);
    let (executable, permit) = executable(&sessions);
    drop(permit);
    let mut lane = Lane::open(&executable, SessionOptions::threads(1)).unwrap();
    let answer = lane.run(request(1)).unwrap();
    assert_eq!(answer.queued, Duration::ZERO);
    assert_eq!(result(Ok(answer)), 2);
    let panicked = lane.run(request(-1)).unwrap_err();
    assert!(matches!(panicked.error, InferError::Panicked { .. }), "{panicked}");
    assert_eq!(input(&panicked), -1);
    assert_eq!(result(lane.run(request(5))), 10);
    assert_eq!(sessions.n_alive.load(Ordering::SeqCst), 1);
    assert!(lane.run(request(-1)).is_err());
    // No third one can be made.
    let stopped = lane.run(request(6)).unwrap_err();
    assert!(matches!(stopped.error, InferError::Rejected(Rejection::Stopped)), "{stopped}");
    assert_eq!(input(&stopped), 6);
    drop(lane);
    assert_eq!(sessions.n_alive.load(Ordering::SeqCst), 0);
}

#[test]
fn sessions_are_made_at_the_same_time() {
    let together = Some(Arc::new(Barrier::new(3)));
    let sessions = Making { together, ..Making::default() };
    let (engine, permit) = making(&sessions, 3, 4);
    drop(permit);
    assert_eq!(result(engine.unwrap().submit(request(1)).unwrap().wait()), 2);
    assert_eq!(sessions.n_alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_session_that_cannot_be_made_is_the_error_of_the_start() {
    for (panics, reason) in
        [(false, "double does not make another"), (true, "panicked while making a session")]
    {
        let sessions = Making::at_most(2, panics);
        let error = making(&sessions, 3, 4).0.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        // All threads have ended: all have tried, and nothing is left of what they made.
        assert_eq!(sessions.n_made.load(Ordering::SeqCst), 3);
        assert_eq!(sessions.n_alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn when_no_session_is_left_what_waits_is_refused() {
    for panics in [false, true] {
        let (engine, permit) = making(&Making::at_most(2, panics), 2, 8);
        let engine = engine.unwrap();
        let tickets = [-1, -1, 3, 4].map(|x| engine.submit(request(x)).unwrap());
        drop(permit);
        let [first, second, third, fourth] = tickets.map(|ticket| ticket.wait().unwrap_err());
        for panicked in [first, second] {
            assert!(matches!(panicked.error, InferError::Panicked { .. }), "{panicked}");
        }
        for refused in [third, fourth] {
            assert!(matches!(refused.error, InferError::Rejected(Rejection::Stopped)), "{refused}");
        }
        let rejected = engine.submit(request(5)).unwrap_err();
        assert_eq!(rejected.rejection, Rejection::Stopped);
        let stats = engine.shutdown();
        assert_eq!((stats.n_accepted, stats.n_failed, stats.n_refused), (4, 2, 2));
    }
}

#[test]
fn a_replacement_is_made_after_the_old_session_was_dropped() {
    let sessions = Making::default();
    let (engine, permit) = making(&sessions, 1, 4);
    let engine = engine.unwrap();
    drop(permit);
    for _ in 0..3 {
        engine.submit(request(-1)).unwrap().wait().unwrap_err();
        assert_eq!(result(engine.submit(request(1)).unwrap().wait()), 2);
        assert_eq!(sessions.n_alive.load(Ordering::SeqCst), 1);
    }
    assert_eq!(sessions.n_made.load(Ordering::SeqCst), 4);
}

#[test]
fn a_request_that_does_not_bind_is_answered_with_the_reason() {
    let (engine, permit) = held(1, 4);
    drop(permit);
    let mut outputs = Outputs::new();
    outputs.slots(1)[0] = Tensor::from_slice(&[1], &[7]).unwrap();
    let request = InferRequest { inputs: vec![], outputs };
    let failed = engine.submit(request).unwrap().wait().unwrap_err();
    assert_eq!(failed.to_string(), "input `x` (i32) is missing");
    // The memory for the outputs comes back too.
    assert_eq!(failed.request.unwrap().outputs.tensors().len(), 1);
}

#[tokio::test]
async fn a_request_that_finds_the_queue_full_comes_back() {
    let (engine, permit) = held(1, 1);
    let running = engine.submit(request(1)).unwrap();
    until_running(&engine);
    let waiting = engine.submit(request(2)).unwrap();
    let failed = engine.infer(request(3)).await.unwrap_err();
    let full = Rejection::QueueFull { capacity: 1 };
    assert!(matches!(failed.error, InferError::Rejected(found) if found == full), "{failed}");
    assert_eq!(input(&failed), 3);
    drop(permit);
    assert_eq!([running, waiting].map(|ticket| result(ticket.wait())), [2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tasks_each_get_their_own_answer() {
    let (engine, permit) = held(3, 200);
    drop(permit);
    let engine = Arc::new(engine);
    let tasks: Vec<_> = (0..200)
        .map(|x| {
            let engine = Arc::clone(&engine);
            tokio::spawn(async move { engine.infer(request(x)).await })
        })
        .collect();
    for (x, task) in (0..).zip(tasks) {
        assert_eq!(result(task.await.unwrap()), 2 * x);
    }
}
