//! Where requests go, and that no row goes astray.

use std::sync::Arc;

use proptest::prelude::*;
use shapeyard_core::backend::{BackendError, Executable as _};
use shapeyard_core::plan::prices::Price;
use shapeyard_core::plan::{PaddingLimit, Prices};
use shapeyard_core::router::{Router, RouterError, RouterOptions};
use shapeyard_core::{FallbackReason, Route, RunError, RunReport};

use crate::double::{
    DYNAMIC, Failure, PROGRAMS, Programs, artifact, dynamic, dynamic_that_fails, dynamic_with_sum,
    error, run, run_with_sum, session, shape,
};

/// A token costs ten times as much on the CPU, and a program takes as long to start as 20 of its tokens.
pub(crate) const PRICES: Prices = Prices {
    device: Price { load: 0.0, launch: 20e-6, token: 1e-6, token_length: 0.0 },
    cpu: Price { load: 0.0, launch: 0.0, token: 10e-6, token_length: 0.0 },
    compile: shapeyard_core::plan::prices::PerProgram { fixed: 0.0, token: 0.0 },
    memory: shapeyard_core::plan::prices::PerProgram { fixed: 0.0, token: 0.0 },
};

fn router(buckets: &[(usize, usize)], can_split: bool, options: RouterOptions) -> Router {
    let buckets = buckets.iter().map(|&(batch, width)| shape(batch, width)).collect();
    Router::new(Arc::new(Programs::of(buckets, can_split)), dynamic(), options).unwrap()
}

fn priced(padding: PaddingLimit) -> RouterOptions {
    RouterOptions { prices: Some(PRICES), padding, background: None }
}

fn routed(router: &Router, batch: usize, width: usize) -> RunReport {
    run(session(router).as_mut(), batch, width)
}

fn reason(report: &RunReport) -> FallbackReason {
    report.fallback.as_ref().unwrap().reason
}

#[test]
fn a_request_runs_where_it_costs_least() {
    let router = router(&[(4, 8), (32, 8)], true, priced(PaddingLimit::NONE));
    assert_eq!(routed(&router, 32, 8).route, Route::Exact);
    assert_eq!(routed(&router, 30, 8).route, Route::Padded);
    assert_eq!(routed(&router, 64, 8).route, Route::Split);
    // One row of one token: 10 µs on the CPU, 52 in the smallest program.
    let short = routed(&router, 1, 1);
    assert_eq!((short.route, reason(&short)), (Route::Fallback, FallbackReason::Cheaper));
    assert_eq!((short.backend, short.fallback.unwrap().backend), (DYNAMIC, DYNAMIC));
    let long = routed(&router, 1, 9);
    assert_eq!((long.route, reason(&long)), (Route::Fallback, FallbackReason::NotReady));
}

#[test]
fn the_last_rows_go_where_they_cost_least() {
    let router = router(&[(32, 8)], true, priced(PaddingLimit::NONE));
    // A second run of the program costs 276 µs, one row on the CPU 80.
    let report = routed(&router, 33, 8);
    assert_eq!((report.route, report.n_pieces), (Route::Hybrid, 2));
    assert_eq!((&report.backend, report.n_padded_rows), (&PROGRAMS, 0));
    let fallback = report.fallback.unwrap();
    assert_eq!((fallback.backend, fallback.n_rows), (DYNAMIC, 1));
    assert_eq!(fallback.reason, FallbackReason::Cheaper);
    assert_eq!(routed(&router, 40, 8).route, Route::Split);
}

#[test]
fn what_is_made_of_all_rows_is_not_put_together_of_parts() {
    let programs = Programs::of(vec![shape(32, 8)], true).with_sum();
    let options = priced(PaddingLimit::NONE);
    let router = Router::new(Arc::new(programs), dynamic_with_sum(), options).unwrap();
    let (report, sum) = run_with_sum(session(&router).as_mut(), 33, 8);
    assert_ne!(report.route, Route::Hybrid);
    let column = |at: usize| (0..33).map(|row| 2.0 * (8 * row + at) as f32 + 1.0).sum::<f32>();
    assert_eq!(sum, (0..8).map(column).collect::<Vec<_>>());
}

#[test]
fn rows_that_depend_on_each_other_stay_together() {
    let router = router(&[(32, 8)], false, priced(PaddingLimit::NONE));
    let report = routed(&router, 33, 8);
    assert_eq!((report.route, reason(&report)), (Route::Fallback, FallbackReason::NotReady));
}

#[test]
fn padding_over_the_limit_runs_elsewhere() {
    let few = PaddingLimit { share: 0.1, tokens: 0 };
    let router = router(&[(32, 8)], true, priced(few));
    assert_eq!(routed(&router, 30, 8).route, Route::Padded);
    let report = routed(&router, 20, 8);
    assert_eq!((report.route, reason(&report)), (Route::Fallback, FallbackReason::Padding));
    let report = routed(&router, 52, 8);
    assert_eq!((report.route, reason(&report)), (Route::Hybrid, FallbackReason::Padding));
    assert_eq!(report.fallback.unwrap().n_rows, 20);
}

#[test]
fn without_prices_programs_take_what_they_hold() {
    let router = router(&[(512, 64)], true, RouterOptions::default());
    assert_eq!(routed(&router, 1, 1).route, Route::Padded);
    assert_eq!(routed(&router, 1, 65).route, Route::Fallback);
}

#[test]
fn a_program_that_went_is_no_error() {
    let programs = Programs::of(vec![shape(4, 8)], true);
    let preferred = Arc::new(programs.clone());
    let router = Router::new(preferred, dynamic(), RouterOptions::default()).unwrap();
    let mut lane = session(&router);
    assert_eq!(run(lane.as_mut(), 4, 8).route, Route::Exact);
    programs.evict_all();
    for _ in 0..2 {
        let report = run(lane.as_mut(), 4, 8);
        assert_eq!((report.route, reason(&report)), (Route::Fallback, FallbackReason::NotReady));
    }
}

fn no_room() -> RunError {
    RunError::DeviceMemory { backend: PROGRAMS, reason: "9 bytes of 8".to_owned() }
}

fn not_prepared(source: BackendError) -> RunError {
    RunError::Prepare { wanted: shape(32, 8), source: Arc::new(source) }
}

fn pruned() -> RunError {
    let reason = "it is gone".to_owned();
    not_prepared(BackendError::Artifact { path: "program".into(), reason })
}

#[test]
fn a_program_that_cannot_be_loaded_and_a_full_device_are_no_errors() {
    let programs = Programs::of(vec![shape(32, 8)], true);
    let preferred = Arc::new(programs.clone());
    let router = Router::new(preferred, dynamic(), priced(PaddingLimit::NONE)).unwrap();
    let mut lane = session(&router);
    let cases: [(Failure, FallbackReason, &str); 2] = [
        (no_room, FallbackReason::DeviceMemory, "9 bytes of 8"),
        (pruned, FallbackReason::NotLoaded, "it is gone"),
    ];
    for (failure, reason, words) in cases {
        programs.fail(Some(failure));
        // Whole requests, and those of which a part would run elsewhere in any case.
        for batch in [32, 32, 33] {
            let report = run(lane.as_mut(), batch, 8);
            let fallback = report.fallback.unwrap();
            assert_eq!((report.route, fallback.backend), (Route::Fallback, DYNAMIC));
            assert_eq!((fallback.reason, fallback.n_rows), (reason, batch));
            assert!(fallback.error.unwrap().contains(words));
        }
        // Who asks for that backend alone hears of it.
        let forced = error(session(router.preferred().as_ref()).as_mut(), 32, 8);
        assert_eq!(forced.to_string(), failure().to_string());
        programs.fail(None);
        if reason == FallbackReason::NotLoaded {
            router.admit(&artifact(&shape(32, 8))).unwrap();
        }
        assert_eq!(run(lane.as_mut(), 32, 8).route, Route::Exact);
        assert_eq!(run(lane.as_mut(), 33, 8).route, Route::Hybrid);
    }
}

#[test]
fn a_program_that_cannot_be_loaded_is_not_tried_by_every_request() {
    let programs = Programs::of(vec![shape(32, 8)], true);
    let preferred = Arc::new(programs.clone());
    let router = Router::new(preferred, dynamic(), RouterOptions::default()).unwrap();
    programs.fail(Some(pruned));
    let (mut lane, mut other) = (session(&router), session(&router));
    let before = programs.n_runs();
    for _ in 0..20 {
        for lane in [&mut lane, &mut other] {
            let fallback = run(lane.as_mut(), 32, 8).fallback.unwrap();
            assert_eq!(fallback.reason, FallbackReason::NotLoaded);
            assert!(fallback.error.unwrap().contains("it is gone"));
        }
    }
    // Each lane once: the copies that they run may differ.
    assert_eq!(programs.n_runs() - before, 2);
    // Another shape that runs in the same program does not try it, and one without any part in it goes its way.
    assert_eq!(reason(&run(lane.as_mut(), 31, 7)), FallbackReason::NotLoaded);
    assert_eq!(reason(&run(lane.as_mut(), 1, 9)), FallbackReason::NotReady);
    assert_eq!(programs.n_runs() - before, 2);
    // Of itself it is tried again later, too.
    programs.fail(None);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(run(lane.as_mut(), 32, 8).route, Route::Exact);
    assert_eq!(run(other.as_mut(), 32, 8).route, Route::Exact);
}

#[test]
fn an_error_of_the_fallback_is_its_own() {
    let programs = Arc::new(Programs::of(vec![shape(32, 8)], true));
    let fallback = dynamic_that_fails(1);
    let router = Router::new(programs, fallback, priced(PaddingLimit::NONE)).unwrap();
    let mut lane = session(&router);
    let told = error(lane.as_mut(), 33, 8);
    assert!(
        matches!(&told, RunError::DeviceMemory { backend, .. } if *backend == DYNAMIC),
        "{told}"
    );
    assert_eq!(run(lane.as_mut(), 33, 8).route, Route::Hybrid);
}

#[test]
fn what_another_cannot_mend_is_told() {
    let programs = Programs::of(vec![shape(4, 8)], true);
    let preferred = Arc::new(programs.clone());
    let router = Router::new(preferred, dynamic(), RouterOptions::default()).unwrap();
    programs.fail(Some(|| not_prepared(BackendError::Cancelled { what: "it".to_owned() })));
    let told = error(session(&router).as_mut(), 4, 8);
    assert!(matches!(told, RunError::Prepare { .. }), "{told}");
    programs.fail(Some(|| RunError::Library { backend: PROGRAMS, message: "no".to_owned() }));
    let told = error(session(&router).as_mut(), 4, 8);
    assert!(matches!(told, RunError::Library { .. }), "{told}");
}

#[test]
fn only_what_takes_every_shape_may_stand_in() {
    let programs = || Arc::new(Programs::of(vec![], true));
    let error = Router::new(programs(), programs(), RouterOptions::default()).unwrap_err();
    assert_eq!(error, RouterError::NotDynamic { fallback: PROGRAMS });
}

#[test]
fn requests_go_over_two_that_take_every_shape() {
    let options = priced(PaddingLimit::NONE);
    let router = Router::new(dynamic(), dynamic(), options).unwrap();
    assert_eq!(routed(&router, 1, 1).route, Route::Fallback);
    assert_eq!(routed(&router, 9, 9).route, Route::Exact);
}

/// What a report says that a request cost, in seconds by the prices.
fn cost(report: &RunReport, batch: usize, width: usize, buckets: &[(usize, usize)]) -> f64 {
    let n_cpu = report.fallback.as_ref().map_or(0, |it| it.n_rows);
    let cpu = PRICES.cpu.batch(n_cpu, width);
    if n_cpu == batch {
        return cpu;
    }
    cpu + in_programs(batch - n_cpu, width, buckets).unwrap().0
}

/// Seconds, and tokens, of rows in programs.
fn in_programs(batch: usize, width: usize, buckets: &[(usize, usize)]) -> Option<(f64, f64)> {
    let ready: Vec<_> = buckets.iter().map(|&(batch, width)| shape(batch, width)).collect();
    let freedom = shapeyard_core::plan::cover::Freedom { rows: Some("batch"), rigid: &[] };
    let pieces = shapeyard_core::plan::cover::cover(&shape(batch, width), &ready, &freedom)?;
    let sum = pieces.iter().fold((0.0, 0.0), |(seconds, tokens), piece| {
        let (rows, length) = buckets[piece.bucket];
        (seconds + PRICES.device.batch(rows, length), tokens + (rows * length) as f64)
    });
    Some(sum)
}

proptest! {
    #[test]
    fn every_row_is_answered_once_and_in_order_within_the_limits(
        buckets in proptest::collection::btree_set((1_usize..40, 1_usize..12), 0..6),
        requests in proptest::collection::vec((1_usize..90, 1_usize..14), 1..12),
        share in prop_oneof![Just(1.0), Just(0.5), Just(0.1)],
        tokens in 0_usize..4,
    ) {
        let buckets: Vec<_> = buckets.into_iter().collect();
        let limit = PaddingLimit { share, tokens };
        let router = router(&buckets, true, priced(limit));
        let mut lane = session(&router);
        for (batch, width) in requests {
            // The rows themselves are checked there.
            let report = run(lane.as_mut(), batch, width);
            let n_cpu = report.fallback.as_ref().map_or(0, |it| it.n_rows);
            prop_assert!(n_cpu <= batch);
            let seconds = cost(&report, batch, width, &buckets);
            prop_assert!(seconds <= PRICES.cpu.batch(batch, width) + 1e-12, "more than the CPU alone");
            if n_cpu < batch {
                let n = batch - n_cpu;
                let (_, padded) = in_programs(n, width, &buckets).unwrap();
                prop_assert!(limit.allows((n * width) as f64, padded, n));
            }
            if let Some((whole, padded)) = in_programs(batch, width, &buckets) {
                let allowed = limit.allows((batch * width) as f64, padded, batch);
                prop_assert!(!allowed || seconds <= whole + 1e-12, "more than programs alone");
            }
        }
    }

    #[test]
    fn without_freedom_to_split_requests_stay_whole(
        buckets in proptest::collection::btree_set((1_usize..40, 1_usize..12), 0..6),
        batch in 1_usize..60,
        width in 1_usize..14,
    ) {
        let buckets: Vec<_> = buckets.into_iter().collect();
        let router = router(&buckets, false, priced(PaddingLimit::NONE));
        let report = routed(&router, batch, width);
        prop_assert_eq!(report.n_pieces, 1);
        prop_assert!(report.route != Route::Hybrid && report.route != Route::Split);
        let held = buckets.iter().any(|&(rows, length)| rows >= batch && length >= width);
        prop_assert!(held || report.route == Route::Fallback);
    }
}

#[test]
fn more_shapes_than_a_table_has_are_routed_too() {
    let buckets: Vec<_> = (1..400).map(|n| (n, 400 - n)).collect();
    let router = router(&buckets, false, RouterOptions::default());
    assert_eq!(routed(&router, 10, 390).route, Route::Exact);
    assert_eq!(routed(&router, 9, 390).route, Route::Padded);
    assert_eq!(routed(&router, 10, 391).route, Route::Fallback);
}
