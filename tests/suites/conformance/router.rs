//! Two backends as one: nobody waits for a compile, and no row goes astray.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shapeyard_cache::{CachedArtifacts, Store};
use shapeyard_core::backend::{
    ArtifactSource, Backend, BackendError, LoadJob, Optimisation, SessionOptions,
};
use shapeyard_core::engine::{Engine, EngineOptions, InferRequest};
use shapeyard_core::plan::prices::Price;
use shapeyard_core::plan::{Bucket, Prices};
use shapeyard_core::registry::{Opened, Registry};
use shapeyard_core::router::{BackgroundOptions, RouterOptions, Stage, Wanted};
use shapeyard_core::{FallbackReason, Outputs, Route, RunReport};
use shapeyard_migraphx::{CompilePlace, Compiler, MigraphxOptions, WorkerProgram};

use super::requests::{assert_alike, inputs, noise};
use super::support::{
    Loaded, Programs, batches, bucket, dynamic, migraphx_with, model, options, rten,
};

const N_THREADS: usize = 16;
const MOST_ROWS: usize = 16;

/// MIGraphX, whose compiles take longer: the worker starts after some seconds.
fn slow(seconds: &str) -> MigraphxOptions {
    let words = format!("sleep {seconds}; exec \"$0\"");
    let worker = env!("CARGO_BIN_EXE_shapeyard-tests-worker");
    let place = CompilePlace::worker(WorkerProgram::new("/bin/sh", ["-c", words.as_str(), worker]));
    let options = options();
    let compiler = Compiler { place, ..options.compiler };
    MigraphxOptions { compiler, ..options }
}

/// A model that is routed over MIGraphX without programs and rten.
fn routed(backend: &Arc<dyn Backend>, file: &str, wanted: Wanted, cache: &Path) -> Opened {
    let (store, model) = (Arc::new(Store::open(cache).unwrap()), Arc::new(model(file)));
    let source =
        CachedArtifacts::new(store, Arc::clone(backend), Arc::clone(&model), Optimisation::Full);
    let source: Arc<dyn ArtifactSource> = Arc::new(source.unwrap());
    let background = BackgroundOptions { wanted, ..BackgroundOptions::new(source) };
    let options = RouterOptions { background: Some(background), ..RouterOptions::default() };
    let registry = Registry::new(vec![Arc::clone(backend), rten()]);
    registry.open_routed(&LoadJob::of(&model), options).unwrap()
}

/// Requests of 1 to 16 rows, one after the other until the end is told, each compared with the answer that
/// rten has alone.
fn client(engine: &Engine, alone: &mut Loaded, seed: usize, end: &AtomicBool) -> Vec<RunReport> {
    let mut reports = Vec::new();
    while !end.load(Ordering::Relaxed) {
        let n = reports.len();
        let rows = bucket([("batch", 1 + noise(seed, n) % MOST_ROWS)]);
        let inputs = inputs(alone.executable.signature(), &rows, seed * 4099 + n);
        let wanted = alone.answer(&inputs);
        let request = InferRequest { inputs, outputs: Outputs::new() };
        let response = engine.submit_wait(request).unwrap().wait().unwrap();
        assert_alike(response.outputs.tensors(), &wanted, &format!("{rows}"));
        reports.push(response.report);
    }
    reports
}

/// What `work` gives while sixteen threads send requests; and what they were answered.
fn busy<T>(opened: &Opened, file: &str, work: impl FnOnce() -> T) -> (T, Vec<RunReport>) {
    let session = SessionOptions::threads(1);
    let options = EngineOptions { n_sessions: 2, session, queue_capacity: N_THREADS };
    let engine = Engine::start(&opened.executable, &options).unwrap();
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = |seed| {
            let (engine, end) = (&engine, &end);
            move || client(engine, &mut dynamic(rten().as_ref(), file), seed, end)
        };
        let clients: Vec<_> = (0..N_THREADS).map(|seed| scope.spawn(client(seed))).collect();
        let result = work();
        end.store(true, Ordering::Relaxed);
        (result, clients.into_iter().flat_map(|client| client.join().unwrap()).collect())
    })
}

fn count(reports: &[RunReport], is: impl Fn(&RunReport) -> bool) -> usize {
    reports.iter().filter(|report| is(report)).count()
}

#[test]
fn pitfall_31_nobody_waits_for_a_compile_and_requests_move_over_when_it_is_done() {
    let Some(backend) = migraphx_with("never stall", slow("2")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let wanted = Wanted::Planned(batches(&[16, 4]));
    let opened = routed(&backend, "dense.onnx", wanted, folder.path());
    let events = opened.router.as_ref().unwrap().events();
    for n_ready in 1..=2 {
        let until_ready = || events.iter().find(|it| matches!(it.stage, Stage::Ready { .. }));
        let (event, reports) = busy(&opened, "dense.onnx", until_ready);
        let event = event.unwrap();
        assert_eq!(event.bucket, batches(&[16, 4])[n_ready - 1]);
        let Stage::Ready { took } = event.stage else { unreachable!() };
        let n_meanwhile = count(&reports, |it| it.route != Route::Exact);
        assert!(n_meanwhile > N_THREADS, "{n_meanwhile} answers in {took:?}");
        let compiling = |it: &RunReport| {
            it.fallback.as_ref().is_some_and(|it| it.reason == FallbackReason::Compiling)
        };
        if n_ready == 1 {
            assert!(count(&reports, compiling) > N_THREADS, "answered by others meanwhile");
        } else {
            assert_eq!(count(&reports, |it| it.fallback.is_some()), 0, "all by programs");
        }
    }
    let mut lane = Loaded::new(Arc::clone(&opened.executable));
    let rows = inputs(lane.executable.signature(), &batches(&[4])[0], 1);
    let (report, _) = lane.run(&rows).unwrap();
    assert_eq!((report.route, report.backend), (Route::Exact, shapeyard_migraphx::ID));
}

#[test]
fn a_model_that_is_refused_is_told_once_and_answered_by_others() {
    let Some(backend) = migraphx_with("refused in the background", options()) else { return };
    let folder = tempfile::tempdir().unwrap();
    // Its rows depend on each other, so that no program of it may be padded.
    let wanted = Wanted::Planned(batches(&[4]));
    let opened = routed(&backend, "batch_mean.onnx", wanted, folder.path());
    let events = opened.router.as_ref().unwrap().events();
    let failed = events.iter().find(|it| matches!(it.stage, Stage::Failed { .. })).unwrap();
    let Stage::Failed { error } = failed.stage else { unreachable!() };
    assert!(matches!(*error, BackendError::Model { .. }), "{error}");
    let mut lane = Loaded::new(Arc::clone(&opened.executable));
    let rows = inputs(lane.executable.signature(), &batches(&[4])[0], 1);
    let wanted = dynamic(rten().as_ref(), "batch_mean.onnx").answer(&rows);
    for _ in 0..3 {
        let (report, answer) = lane.run(&rows).unwrap();
        assert_alike(&answer, &wanted, "batch_mean");
        assert_eq!(report.route, Route::Fallback);
    }
    opened.router.unwrap().stop_compiling();
    assert_eq!(events.iter().count(), 0);
}

#[test]
fn the_end_of_a_router_ends_the_compile() {
    let Some(backend) = migraphx_with("cancelled in the background", slow("600")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let opened = routed(&backend, "dense.onnx", Wanted::Planned(batches(&[2])), folder.path());
    let events = opened.router.as_ref().unwrap().events();
    events.iter().find(|it| matches!(it.stage, Stage::Compiling { .. })).unwrap();
    drop(opened);
    let last = events.iter().last().unwrap();
    assert!(matches!(last.stage, Stage::GivenUp), "{last}");
    assert_eq!(Store::open(folder.path()).unwrap().list().unwrap().len(), 0);
}

#[test]
fn rows_are_split_between_two_backends_in_order() {
    let Some(backend) = migraphx_with("two backends", options()) else { return };
    let price = |launch, token| Price { load: 0.0, launch, token, token_length: 0.0 };
    // A run of a program costs as much as three rows and a bit elsewhere.
    for file in ["dense.onnx", "encoder.onnx", "shared_mask.onnx"] {
        let model = model(file);
        let signature = model.signature();
        let names = signature.bound_symbols().map(|id| signature.symbol_name(id).to_owned());
        let whole: Bucket = names.map(|name| (name, 8)).collect();
        let n_row_tokens = whole.volume() / 8;
        let cpu = price(0.0, 0.3 / n_row_tokens as f64);
        let prices = Prices { device: price(1.0, 0.0), cpu, ..Prices::default() };
        let options = RouterOptions { prices: Some(prices), ..RouterOptions::default() };
        let programs = Programs::compile(backend.as_ref(), model, [whole.clone()]).unwrap();
        let job = LoadJob { artifacts: programs.artifacts(), ..LoadJob::of(&programs.model) };
        let registry = Registry::new(vec![Arc::clone(&backend), rten()]);
        let mut lane = Loaded::new(registry.open_routed(&job, options).unwrap().executable);
        let mut alone = dynamic(rten().as_ref(), file);
        for (rows, route) in [
            (1, Route::Fallback),
            (7, Route::Padded),
            (8, Route::Exact),
            (11, Route::Hybrid),
            (14, Route::Split),
            (17, Route::Hybrid),
        ] {
            let shape = whole.clone().with("batch", rows);
            let inputs = inputs(lane.executable.signature(), &shape, rows);
            let (report, answer) = lane.run(&inputs).unwrap();
            assert_alike(&answer, &alone.answer(&inputs), &format!("{file}, {shape}"));
            assert_eq!(report.route, route, "{file}, {shape}: {report:?}");
        }
    }
}
