//! Programs that are compiled while others answer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shapeyard_core::backend::{Artifact, ArtifactSource, BackendError, Cancellation};
use shapeyard_core::plan::prices::PerProgram;
use shapeyard_core::plan::{Bucket, Prices};
use shapeyard_core::router::{BackgroundOptions, Event, Router, RouterOptions, Stage, Wanted};
use shapeyard_core::{FallbackReason, Route};

use crate::double::{DYNAMIC, PROGRAMS, Programs, artifact, dynamic, run, session, shape};

/// A compiler that says what it is asked for, and waits for the test to answer. Knows when it is told to stop.
#[derive(Debug)]
struct HeldCompiler {
    asked: Mutex<Sender<Bucket>>,
    answers: Mutex<Receiver<Result<(), BackendError>>>,
}

impl ArtifactSource for HeldCompiler {
    fn artifact(
        &self,
        bucket: &Bucket,
        cancellation: Cancellation<'_>,
    ) -> Result<Artifact, BackendError> {
        self.asked.lock().unwrap().send(bucket.clone()).unwrap();
        let answers = self.answers.lock().unwrap();
        loop {
            if cancellation.is_cancelled() {
                return Err(BackendError::Cancelled { what: "the compile".to_owned() });
            }
            if let Ok(answer) = answers.recv_timeout(Duration::from_millis(1)) {
                return answer.map(|()| artifact(bucket));
            }
        }
    }
}

/// A router with a held compiler.
struct Held {
    router: Router,
    events: Receiver<Event>,
    asked: Receiver<Bucket>,
    answer: Sender<Result<(), BackendError>>,
}

impl Held {
    fn with(options: impl FnOnce(BackgroundOptions) -> BackgroundOptions) -> Self {
        let ((asks, asked), (answer, answers)) = (channel(), channel());
        let (asks, answers) = (Mutex::new(asks), Mutex::new(answers));
        let source = Arc::new(HeldCompiler { asked: asks, answers });
        let background = Some(options(BackgroundOptions::new(source)));
        let options = RouterOptions { background, ..RouterOptions::default() };
        let programs = Arc::new(Programs::of(Vec::new(), true));
        let router = Router::new(programs, dynamic(), options).unwrap();
        let events = router.events();
        Self { router, events, asked, answer }
    }

    fn new() -> Self {
        Self::with(|options| options)
    }

    /// Waits for the end of the compile that was answered.
    fn ended(&self) -> Event {
        let is_end = |it: &Event| matches!(it.stage, Stage::Ready { .. } | Stage::Failed { .. });
        self.events.iter().find(is_end).unwrap()
    }
}

fn reason(router: &Router, batch: usize, width: usize) -> Option<FallbackReason> {
    run(session(router).as_mut(), batch, width).fallback.map(|it| it.reason)
}

fn refused() -> BackendError {
    let (model, reason) = ("model".into(), "no".to_owned());
    BackendError::Model { backend: PROGRAMS, model, reason }
}

fn failed() -> BackendError {
    BackendError::Library { backend: PROGRAMS, what: "compile", message: "no".to_owned() }
}

#[test]
fn requests_are_answered_meanwhile_and_move_over_when_a_program_is_ready() {
    let held = Held::new();
    let mut lane = session(&held.router);
    let report = run(lane.as_mut(), 3, 5);
    assert_eq!((report.route, &report.backend), (Route::Fallback, &DYNAMIC));
    assert_eq!(held.asked.recv().unwrap(), shape(4, 8));
    for _ in 0..3 {
        let report = run(lane.as_mut(), 3, 5);
        assert_eq!(report.fallback.unwrap().reason, FallbackReason::Compiling);
    }
    held.answer.send(Ok(())).unwrap();
    assert!(matches!(held.ended().stage, Stage::Ready { .. }));
    // The same lane, without being told.
    let report = run(lane.as_mut(), 3, 5);
    assert_eq!((report.route, report.backend), (Route::Padded, PROGRAMS));
}

#[test]
fn what_happens_is_told_in_order() {
    let held = Held::new();
    reason(&held.router, 3, 5);
    held.answer.send(Ok(())).unwrap();
    held.asked.recv().unwrap();
    let stages: Vec<String> = held.events.iter().take(3).map(|it| it.to_string()).collect();
    assert_eq!(stages[..2], ["batch=4,width=8 is queued", "compiling batch=4,width=8, 0 s"]);
    assert!(stages[2].starts_with("batch=4,width=8 is ready after "), "{stages:?}");
    drop(held.router);
    assert!(held.events.recv().is_err(), "nothing more, and an end");
}

#[test]
fn a_compile_is_expected_to_take_what_the_prices_say_by_then() {
    let held = Held::new();
    let compile = PerProgram { fixed: 7.0, token: 0.0 };
    held.router.set_prices(Some(Prices { compile, ..Prices::PROGRAMS_FIRST }));
    reason(&held.router, 3, 5);
    let expected = held.events.iter().find_map(|it| match it.stage {
        Stage::Compiling { expected, .. } => Some(expected),
        _ => None,
    });
    assert_eq!(expected, Some(Some(Duration::from_secs(7))));
}

#[test]
fn what_most_work_waits_for_is_made_first() {
    let held = Held::new();
    reason(&held.router, 1, 1);
    held.asked.recv().unwrap();
    for (batch, width, times) in [(2, 2, 1), (2, 60, 1), (7, 7, 9)] {
        (0..times).for_each(|_| assert!(reason(&held.router, batch, width).is_some()));
    }
    // 441 tokens, and 120; the four of the first are held by what was made by then.
    for wanted in [shape(8, 8), shape(2, 64)] {
        held.answer.send(Ok(())).unwrap();
        assert_eq!(held.asked.recv().unwrap(), wanted);
    }
    held.answer.send(Ok(())).unwrap();
    while reason(&held.router, 2, 60).is_some() {}
    assert_eq!(reason(&held.router, 2, 2), None);
    held.router.stop_compiling();
    assert!(held.asked.try_recv().is_err());
}

#[test]
fn a_full_queue_gives_up_what_least_work_waits_for() {
    let held = Held::with(|options| BackgroundOptions { capacity: 1, ..options });
    reason(&held.router, 1, 1);
    held.asked.recv().unwrap();
    assert_eq!(reason(&held.router, 1, 20), Some(FallbackReason::Compiling));
    assert_eq!(reason(&held.router, 1, 2), Some(FallbackReason::NotReady));
    assert_eq!(reason(&held.router, 1, 40), Some(FallbackReason::Compiling));
    let given_up: Vec<Bucket> = held
        .events
        .try_iter()
        .filter(|it| matches!(it.stage, Stage::GivenUp))
        .map(|it| it.bucket)
        .collect();
    assert_eq!(given_up, [shape(1, 32)]);
    held.answer.send(Ok(())).unwrap();
    assert_eq!(held.asked.recv().unwrap(), shape(1, 64));
}

#[test]
fn a_compile_that_fails_is_told_once_and_not_tried_again_at_once() {
    let held = Held::new();
    reason(&held.router, 3, 5);
    held.answer.send(Err(failed())).unwrap();
    assert!(matches!(held.ended().stage, Stage::Failed { .. }));
    for _ in 0..5 {
        while reason(&held.router, 3, 5) == Some(FallbackReason::Compiling) {}
        assert_eq!(reason(&held.router, 3, 5), Some(FallbackReason::CompileFailed));
        assert_eq!(reason(&held.router, 4, 8), Some(FallbackReason::CompileFailed));
    }
    assert_eq!(held.asked.try_iter().count(), 1);
    assert!(held.events.try_recv().is_err());
}

#[test]
fn it_is_tried_again_after_a_while() {
    let held = Held::with(|it| BackgroundOptions { retry_after: Duration::ZERO, ..it });
    reason(&held.router, 3, 5);
    held.answer.send(Err(failed())).unwrap();
    held.ended();
    held.asked.recv().unwrap();
    while held.asked.try_recv().is_err() {
        reason(&held.router, 3, 5);
    }
    held.answer.send(Ok(())).unwrap();
    held.ended();
    assert_eq!(reason(&held.router, 3, 5), None);
}

#[test]
fn a_step_that_is_refused_is_followed_by_the_very_shape() {
    let held = Held::new();
    reason(&held.router, 3, 5);
    assert_eq!(held.asked.recv().unwrap(), shape(4, 8));
    held.answer.send(Err(refused())).unwrap();
    held.ended();
    while reason(&held.router, 3, 5) != Some(FallbackReason::Compiling) {}
    let next = held.asked.recv().unwrap();
    assert_eq!(next, shape(3, 5));
    held.answer.send(Err(refused())).unwrap();
    held.ended();
    while reason(&held.router, 3, 5) == Some(FallbackReason::Compiling) {}
    assert_eq!(reason(&held.router, 3, 5), Some(FallbackReason::NotReady));
}

#[test]
fn a_plan_is_made_without_a_request_and_nothing_else_is() {
    let planned = vec![shape(8, 8), shape(2, 8)];
    let held =
        Held::with(|it| BackgroundOptions { wanted: Wanted::Planned(planned.clone()), ..it });
    assert_eq!(reason(&held.router, 1, 9), Some(FallbackReason::NotReady));
    for bucket in planned {
        assert_eq!(held.asked.recv().unwrap(), bucket);
        held.answer.send(Ok(())).unwrap();
        held.ended();
    }
    assert_eq!(reason(&held.router, 1, 9), Some(FallbackReason::NotReady));
    assert_eq!(reason(&held.router, 9, 8), None);
}

#[test]
fn the_end_cancels_what_is_under_way_and_gives_up_the_rest() {
    let held = Held::new();
    reason(&held.router, 3, 5);
    held.asked.recv().unwrap();
    reason(&held.router, 3, 50);
    let Held { router, events, .. } = held;
    router.stop_compiling();
    let given_up = events.iter().filter(|it| matches!(it.stage, Stage::GivenUp)).count();
    assert_eq!(given_up, 2);
    assert_eq!(reason(&router, 3, 5), Some(FallbackReason::NotReady), "and requests go on");
}

#[test]
fn a_compiler_that_panics_is_a_compile_that_failed() {
    #[derive(Debug)]
    struct PanickingCompiler;
    impl ArtifactSource for PanickingCompiler {
        fn artifact(&self, _: &Bucket, _: Cancellation<'_>) -> Result<Artifact, BackendError> {
            panic!("out of its depth")
        }
    }
    let background = Some(BackgroundOptions::new(Arc::new(PanickingCompiler)));
    let options = RouterOptions { background, ..RouterOptions::default() };
    let programs = Arc::new(Programs::of(Vec::new(), true));
    let router = Router::new(programs, dynamic(), options).unwrap();
    let events = router.events();
    reason(&router, 3, 5);
    let failed = events.iter().find(|it| matches!(it.stage, Stage::Failed { .. })).unwrap();
    assert!(failed.to_string().contains("out of its depth"), "{failed}");
}
