//! Many threads with batches of every size at one engine: nothing compiles, and no row goes astray.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use shapeyard_core::backend::{ArtifactSource, LoadJob, SessionOptions};
use shapeyard_core::engine::{Engine, EngineOptions, InferRequest, InferResponse};
use shapeyard_core::{Outputs, Tensor, Tier};
use shapeyard_migraphx::MigraphxOptions;

use super::counting::Forbidden;
use super::requests::{inputs, noise};
use super::support::{Loaded, Programs, batches, bucket, migraphx_with, model, options};

const N_THREADS: usize = 16;
const N_REQUESTS: usize = 60;
const MOST_ROWS: usize = 16;
/// Rows that requests are made of.
const N_ROWS: usize = 64;

/// Rows by number: inputs, and the answer that each has alone.
struct Rows {
    inputs: Vec<Tensor>,
    answers: Vec<Vec<Tensor>>,
}

impl Rows {
    fn of(alone: &mut Loaded) -> Self {
        let signature = Arc::clone(alone.executable.signature());
        let one = bucket([("batch", 1)]);
        let given: Vec<Vec<Tensor>> =
            (0..N_ROWS).map(|row| inputs(&signature, &one, row)).collect();
        let answers = given.iter().map(|inputs| alone.answer(inputs)).collect();
        Self { inputs: given.into_iter().flatten().collect(), answers }
    }

    /// A request of these rows; the model has one input.
    fn request(&self, rows: &[usize]) -> Tensor {
        let width = self.inputs[0].shape()[1];
        let mut tensor = Tensor::zeroed(self.inputs[0].dtype(), &[rows.len(), width]).unwrap();
        let size = self.inputs[0].bytes().len();
        for (slot, &row) in tensor.bytes_mut().chunks_exact_mut(size).zip(rows) {
            slot.copy_from_slice(self.inputs[row].bytes());
        }
        tensor
    }

    fn check(&self, rows: &[usize], response: &InferResponse) {
        for (n, output) in response.outputs.tensors().iter().enumerate() {
            assert_eq!(output.shape()[0], rows.len());
            let size = output.bytes().len() / rows.len();
            for (found, &row) in output.bytes().chunks_exact(size).zip(rows) {
                assert_eq!(found, self.answers[row][n].bytes(), "row {row} of {rows:?}");
            }
        }
    }
}

fn client(engine: &Engine, rows: &Rows, seed: usize) {
    for n in 0..N_REQUESTS {
        let n_rows = 1 + noise(seed, n) % MOST_ROWS;
        let wanted: Vec<usize> =
            (0..n_rows).map(|row| noise(seed, n * MOST_ROWS + row + 1000) % N_ROWS).collect();
        let request = InferRequest { inputs: vec![rows.request(&wanted)], outputs: Outputs::new() };
        let response = engine.submit_wait(request).unwrap().wait().unwrap();
        rows.check(&wanted, &response);
        assert_ne!(response.report.tier, Tier::Standard);
        assert_eq!(response.report.n_padded_rows, n_rows.next_power_of_two() - n_rows);
    }
}

fn crowd(test: &str, instances: usize) {
    let instances = NonZeroUsize::new(instances).unwrap();
    let options = MigraphxOptions { instances, ..options() };
    let Some(backend) = migraphx_with(test, options) else { return };
    let buckets = batches(&[1, 2, 4, 8, 16]);
    let programs = Programs::compile(backend.as_ref(), model("dense.onnx"), buckets).unwrap();
    let forbidden = Arc::new(Forbidden::default());
    let source: Arc<dyn ArtifactSource> = Arc::clone(&forbidden) as _;
    let job = LoadJob {
        artifacts: programs.artifacts(),
        on_demand: Some(&source),
        ..LoadJob::of(&programs.model)
    };
    let mut alone = Loaded::new(backend.load(&job).unwrap());
    let rows = Rows::of(&mut alone);
    let session = SessionOptions::threads(1);
    let options = EngineOptions { n_sessions: 4, session, queue_capacity: N_THREADS };
    let engine = Engine::start(&alone.executable, &options).unwrap();
    thread::scope(|scope| {
        for seed in 0..N_THREADS {
            let (engine, rows) = (&engine, &rows);
            scope.spawn(move || client(engine, rows, seed));
        }
    });
    let stats = engine.shutdown();
    let n_requests = (N_THREADS * N_REQUESTS) as u64;
    assert_eq!((stats.n_accepted, stats.n_answered), (n_requests, n_requests), "{stats:?}");
    assert_eq!(forbidden.n_asked(), 0, "a request wanted a compile");
}

#[test]
fn pitfall_31_any_batch_from_any_thread_compiles_nothing() {
    crowd("16 threads on one instance", 1);
}

#[test]
fn pitfall_31_nor_with_several_instances_of_each_program() {
    crowd("16 threads on four instances", 4);
}
