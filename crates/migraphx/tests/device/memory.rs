//! The account of the device's memory.

use std::sync::Arc;
use std::thread;

use shapeyard_core::Tensor;
use shapeyard_core::backend::{BackendError, Executable};
use shapeyard_core::plan::Bucket;
use shapeyard_migraphx::{DeviceOptions, MigraphxBackend};
use tempfile::TempDir;

use crate::common::{
    Double, Pair, assert_same, gpu, gpu_report, inputs, model, run, session, shape, try_load,
};

/// Much to keep, little to compute.
const MODEL: &str = "many_inputs.onnx";

fn with_memory(n_bytes: u64) -> DeviceOptions {
    DeviceOptions { memory: Some(n_bytes), ..DeviceOptions::default() }
}

/// Rows of programs whose memory is more than the pieces of some MiB that devices give it in.
const ROWS: [usize; 3] = [1 << 10, 1 << 11, 1 << 12];
/// What the same program takes at one time more than at another.
const SLACK: u64 = 4 << 20;

fn buckets() -> Vec<Bucket> {
    ROWS.map(|n| shape([("batch", n)])).into()
}

/// What the largest program takes, with what a lane has for it.
fn bytes_of_largest(backend: &MigraphxBackend) -> u64 {
    let (model, folder) = (model(MODEL), tempfile::tempdir().unwrap());
    let largest = shape([("batch", ROWS[2])]);
    let loaded = try_load(backend, &model, std::slice::from_ref(&largest), &folder).unwrap();
    let inputs = inputs(&loaded, &largest, 0);
    let mut lane = session(&loaded);
    // Enough for a graph.
    for _ in 0..4 {
        run(&loaded, lane.as_mut(), &inputs).unwrap();
    }
    gpu_report(backend).used_bytes
}

/// The model with all its buckets under a budget.
struct Tight {
    backend: MigraphxBackend,
    loaded: Arc<dyn Executable>,
    _folder: TempDir,
}

impl Tight {
    fn load(test: &str, budget: u64) -> Self {
        let backend = gpu(test, with_memory(budget)).unwrap();
        let (model, folder) = (model(MODEL), tempfile::tempdir().unwrap());
        let loaded = try_load(&backend, &model, &buckets(), &folder).unwrap();
        Self { backend, loaded, _folder: folder }
    }

    fn assert_within(&self, budget: u64) {
        let report = gpu_report(&self.backend);
        assert_eq!(report.budget_bytes, budget);
        assert!(report.used_bytes <= budget, "{} of {budget}", report.used_bytes);
    }
}

/// Requests of every number of rows, with what the host answers.
fn requests(pair: &Pair) -> Vec<(Vec<Tensor>, Vec<Tensor>)> {
    let mut host = session(&pair.host);
    let request = |n: usize| {
        let inputs = inputs(&pair.gpu, &shape([("batch", n)]), n);
        let (_, answer) = run(&pair.host, host.as_mut(), &inputs).unwrap();
        (inputs, answer)
    };
    [ROWS[0], ROWS[1], ROWS[2], 3, ROWS[2] + 5].map(request).into()
}

#[test]
fn pitfall_83_what_does_not_fit_is_refused_before_anything_is_asked_of_the_device() {
    let _double = Double::with("");
    let Some(backend) = gpu("no room", with_memory(100)) else { return };
    let (model, folder) = (model(MODEL), tempfile::tempdir().unwrap());
    let error = try_load(&backend, &model, &[shape([("batch", 4)])], &folder).err().unwrap();
    assert!(matches!(error, BackendError::DeviceMemory { .. }), "{error}");
    assert!(error.to_string().contains("budget of 100"), "{error}");
    assert_eq!(gpu_report(&backend).n_loads, 0);
}

#[test]
fn pitfall_83_programs_and_buffers_make_room_for_each_other_and_come_back() {
    const TEST: &str = "room for some";
    let _double = Double::with("");
    let Some(all) = gpu(TEST, DeviceOptions::default()) else { return };
    let requests = requests(&Pair::load(&all, MODEL, &buckets()));
    let largest = bytes_of_largest(&all);
    // Room for the largest program with its buffers, and for all.
    for (n, is_tight) in [(1, true), (4, false)] {
        let budget = n * largest + SLACK;
        let tight = Tight::load(TEST, budget);
        let mut lane = session(&tight.loaded);
        for round in 0..3 {
            for (inputs, wanted) in &requests {
                let (_, found) = run(&tight.loaded, lane.as_mut(), inputs).unwrap();
                let rows = inputs[0].shape()[0];
                assert_same(&found, wanted, &format!("{rows} rows, round {round}, room for {n}"));
                tight.assert_within(budget);
            }
        }
        let report = gpu_report(&tight.backend);
        assert_eq!(report.n_evictions > 0, is_tight, "{report:?}");
        assert_eq!(report.n_loads > ROWS.len() as u64, is_tight, "{report:?}");
    }
}

#[test]
fn pitfall_83_lanes_wait_for_memory_that_runs_of_others_use() {
    const TEST: &str = "waiting for room";
    let _double = Double::with("");
    let Some(all) = gpu(TEST, DeviceOptions::default()) else { return };
    let requests = requests(&Pair::load(&all, MODEL, &buckets()));
    let budget = bytes_of_largest(&all) + SLACK;
    let tight = Tight::load(TEST, budget);
    thread::scope(|scope| {
        for lane in 0..4 {
            let (tight, requests) = (&tight, &requests);
            scope.spawn(move || {
                let mut session = session(&tight.loaded);
                for at in 0..20 {
                    let (inputs, wanted) = &requests[(at * 5 + lane) % requests.len()];
                    let (_, found) = run(&tight.loaded, session.as_mut(), inputs).unwrap();
                    assert_same(&found, wanted, &format!("lane {lane}, run {at}"));
                }
            });
        }
    });
    tight.assert_within(budget);
    assert!(gpu_report(&tight.backend).n_evictions > 0);
}

#[test]
fn what_an_executable_takes_is_given_back_with_it() {
    let _double = Double::with("");
    let Some(backend) = gpu("given back", DeviceOptions::default()) else { return };
    let (model, folder) = (model(MODEL), tempfile::tempdir().unwrap());
    let loaded = try_load(&backend, &model, &buckets(), &folder).unwrap();
    let mut lane = session(&loaded);
    let inputs = inputs(&loaded, &shape([("batch", 3)]), 0);
    for _ in 0..5 {
        run(&loaded, lane.as_mut(), &inputs).unwrap();
    }
    assert!(gpu_report(&backend).used_bytes > 0);
    drop((lane, loaded));
    assert_eq!(gpu_report(&backend).used_bytes, 0);
}
