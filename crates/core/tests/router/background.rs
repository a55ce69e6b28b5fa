//! Programs that are compiled while others answer.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shapeyard_core::backend::{Artifact, ArtifactSource, BackendError, Cancellation};
use shapeyard_core::plan::prices::PerProgram;
use shapeyard_core::plan::{Bucket, PaddingLimit, Prices};
use shapeyard_core::router::{BackgroundOptions, Event, Router, RouterOptions, Stage, Wanted};
use shapeyard_core::{Executable as _, FallbackReason, Route};

use crate::double::{DYNAMIC, PROGRAMS, Programs, artifact, dynamic, run, session, shape};
use crate::routing::PRICES;

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
        Self::over(&[], RouterOptions::default(), options)
    }

    /// With programs that are ready.
    fn over(
        ready: &[Bucket],
        mut options: RouterOptions,
        background: impl FnOnce(BackgroundOptions) -> BackgroundOptions,
    ) -> Self {
        let ((asks, asked), (answer, answers)) = (channel(), channel());
        let (asks, answers) = (Mutex::new(asks), Mutex::new(answers));
        let source = Arc::new(HeldCompiler { asked: asks, answers });
        options.background = Some(background(BackgroundOptions::new(source)));
        let programs = Arc::new(Programs::of(ready.to_vec(), true));
        let router = Router::new(programs, dynamic(), options).unwrap();
        let events = router.events();
        Self { router, events, asked, answer }
    }

    /// The next program that is asked for.
    #[track_caller]
    fn wanted(&self) -> Bucket {
        self.asked.recv_timeout(Duration::from_secs(60)).unwrap()
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
    // 441 tokens, 120, and of four the padding by then.
    for wanted in [shape(8, 8), shape(2, 64), shape(2, 2)] {
        held.answer.send(Ok(())).unwrap();
        assert_eq!(held.wanted(), wanted);
    }
    held.answer.send(Ok(())).unwrap();
    while reason(&held.router, 2, 60).is_some() {}
    assert_eq!(reason(&held.router, 2, 2), None);
    held.router.stop_compiling();
    assert!(held.asked.try_recv().is_err());
}

#[test]
fn a_program_that_holds_everything_does_not_end_what_smaller_requests_lack() {
    let held = Held::over(&[shape(64, 64)], RouterOptions::default(), |it| it);
    let mut lane = session(&held.router);
    assert_eq!(run(lane.as_mut(), 3, 5).route, Route::Padded);
    assert_eq!(held.wanted(), shape(4, 8));
    held.answer.send(Ok(())).unwrap();
    held.ended();
    let report = run(lane.as_mut(), 3, 5);
    assert_eq!((report.route, report.n_padded_rows), (Route::Padded, 1));
    // Nothing smaller is made for what has its step.
    for (batch, width) in [(4, 8), (3, 6), (3, 5), (64, 64), (33, 60)] {
        run(lane.as_mut(), batch, width);
    }
    held.router.stop_compiling();
    assert!(held.asked.try_recv().is_err());
}

#[test]
fn what_the_cpu_answers_because_programs_are_too_large_gets_its_own() {
    let options = RouterOptions { prices: Some(PRICES), ..RouterOptions::default() };
    let held = Held::over(&[shape(64, 64)], options, |it| it);
    // 240 µs on the CPU, 4,116 in the program, and 52 in one of its own.
    assert_eq!(reason(&held.router, 3, 8), Some(FallbackReason::Cheaper));
    assert_eq!(held.wanted(), shape(4, 8));
    // 10 µs on the CPU, 21 in a program of one row of one token.
    assert_eq!(reason(&held.router, 1, 1), Some(FallbackReason::Cheaper));
    held.router.stop_compiling();
    assert!(held.asked.try_recv().is_err());
}

#[test]
fn what_would_be_padded_over_the_limit_gets_the_very_shape() {
    let padding = PaddingLimit { share: 0.1, tokens: 0 };
    let options = RouterOptions { padding, ..RouterOptions::default() };
    let held = Held::over(&[], options, |it| it);
    reason(&held.router, 5, 5);
    assert_eq!(held.wanted(), shape(5, 5));
}

#[test]
fn a_program_is_made_when_it_would_have_saved_its_compile() {
    let compile = PerProgram { fixed: 500e-6, token: 0.0 };
    let prices = Some(Prices { compile, ..PRICES });
    let options = RouterOptions { prices, ..RouterOptions::default() };
    let held = Held::over(&[], options, |it| it);
    // 188 µs a request: 240 on the CPU, 52 in a program.
    for _ in 0..2 {
        assert_eq!(reason(&held.router, 3, 8), Some(FallbackReason::NotReady));
    }
    assert!(held.events.try_recv().is_err());
    assert_eq!(reason(&held.router, 3, 8), Some(FallbackReason::Compiling));
    assert_eq!(held.wanted(), shape(4, 8));
}

#[test]
fn what_requests_lack_is_weighed_by_the_prices_of_now() {
    // A token costs as little on the CPU, and a compile a minute.
    let compile = PerProgram { fixed: 60.0, token: 0.0 };
    let cheap = Prices { cpu: PRICES.device, ..PRICES };
    let options = RouterOptions { prices: Some(cheap), ..RouterOptions::default() };
    let held = Held::over(&[], options, |it| it);
    let mut lane = session(&held.router);
    let mut reason = |n| run(lane.as_mut(), n, 8).fallback.unwrap().reason;
    assert_eq!(reason(3), FallbackReason::NotReady, "content");
    held.router.set_prices(Some(Prices { compile, ..PRICES }));
    assert_eq!(reason(3), FallbackReason::NotReady, "not worth a minute");
    assert!(held.events.try_recv().is_err());
    held.router.set_prices(Some(PRICES));
    assert_eq!(held.wanted(), shape(4, 8), "without another request");
    held.router.set_prices(Some(PRICES));
    assert_eq!(reason(3), FallbackReason::Compiling, "what is under way stays so");
    held.answer.send(Ok(())).unwrap();
    held.ended();
    held.router.stop_compiling();
    assert!(held.asked.try_recv().is_err(), "and is not made twice");
}

#[test]
fn what_somebody_else_admits_is_not_made() {
    let held = Held::new();
    reason(&held.router, 1, 1);
    held.wanted();
    reason(&held.router, 3, 5);
    held.router.admit(&artifact(&shape(4, 8))).unwrap();
    // At once: not only when it would be its turn.
    let stages = held.events.try_iter().filter(|it| it.bucket == shape(4, 8)).map(|it| it.stage);
    assert!(matches!(&stages.collect::<Vec<_>>()[..], [Stage::Queued, Stage::GivenUp]));
    assert_eq!(reason(&held.router, 3, 5), None);
}

#[test]
fn who_runs_while_something_is_compiled_is_disturbed() {
    let held = Held::new();
    let mut lane = session(&held.router);
    run(lane.as_mut(), 3, 5);
    held.wanted();
    assert!(run(lane.as_mut(), 3, 5).disturbed);
    held.answer.send(Ok(())).unwrap();
    held.ended();
    assert!(!run(lane.as_mut(), 3, 5).disturbed);
    held.router.stop_compiling();
    let alone = run(lane.as_mut(), 30, 50);
    assert_eq!((alone.route, alone.disturbed), (Route::Fallback, false));
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
    let planned = vec![shape(8, 8), shape(2, 8), shape(4, 8)];
    let wanted = Wanted::Planned(planned.clone());
    let held = Held::with(|it| BackgroundOptions { wanted, capacity: 1, ..it });
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
