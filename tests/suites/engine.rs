//! The engine on real backends: concurrent answers are the serial ones, and nothing hangs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use shapeyard_core::backend::{Backend, Executable, LoadJob, SessionOptions};
use shapeyard_core::engine::{
    Engine, EngineOptions, InferError, InferRequest, InferenceService, Rejection,
};
use shapeyard_core::{Model, Outputs, Request, Tensor, TensorView};
use shapeyard_tests::{tiny_model, usable_backends};

const N_REQUESTS: usize = 200;

fn load(backend: &dyn Backend) -> Arc<dyn Executable> {
    let model = Model::open(tiny_model("encoder.onnx")).unwrap();
    backend.load(&LoadJob::of(&model)).unwrap()
}

/// Request number `n`: 1 to 4 rows of 1 to 13 tokens, none like the next.
fn inputs(n: usize) -> Vec<Tensor> {
    let shape = [1 + n % 4, 1 + n % 13];
    let n_tokens = shape[0] * shape[1];
    let ids: Vec<i64> = (0..n_tokens).map(|at| ((n * 31 + at * 7) % 128) as i64).collect();
    let mask = vec![1i64; n_tokens];
    let types = vec![0i64; n_tokens];
    [ids, mask, types].map(|values| Tensor::from_slice(&shape, &values).unwrap()).to_vec()
}

fn serial(executable: &Arc<dyn Executable>) -> Vec<Vec<Tensor>> {
    let mut session = executable.session(&SessionOptions::threads(1)).unwrap();
    let run = |n| {
        let inputs = inputs(n);
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        let mut outputs = Outputs::new();
        let request = Request::bind(executable.signature(), &views).unwrap();
        session.run(&request, &mut outputs).unwrap();
        outputs.into_tensors()
    };
    (0..N_REQUESTS).map(run).collect()
}

fn engine(executable: &Arc<dyn Executable>, queue_capacity: usize) -> Engine {
    let session = SessionOptions::threads(1);
    Engine::start(executable, &EngineOptions { n_sessions: 2, session, queue_capacity }).unwrap()
}

fn request(n: usize) -> InferRequest {
    InferRequest { inputs: inputs(n), outputs: Outputs::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_answers_are_byte_for_byte_the_serial_ones() {
    for backend in usable_backends("concurrent_answers_are_byte_for_byte_the_serial_ones") {
        let executable = load(backend.as_ref());
        let expected = serial(&executable);
        let engine: Arc<dyn InferenceService> = Arc::new(engine(&executable, N_REQUESTS));
        let tasks: Vec<_> = (0..N_REQUESTS)
            .map(|n| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move { engine.infer(request(n)).await })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            let response = task.await.unwrap().unwrap();
            assert_eq!(response.outputs.tensors(), expected[n], "{} request {n}", backend.id());
            assert_eq!(response.inputs, inputs(n));
            assert_eq!(response.report.backend, backend.id());
        }
    }
}

#[test]
fn a_full_queue_is_a_typed_error() {
    for backend in usable_backends("a_full_queue_is_a_typed_error") {
        let engine = engine(&load(backend.as_ref()), 1);
        let mut tickets = Vec::new();
        let rejected = loop {
            match engine.submit(request(tickets.len())) {
                Ok(ticket) => tickets.push(ticket),
                Err(rejected) => break rejected,
            }
        };
        assert_eq!(rejected.rejection, Rejection::QueueFull { capacity: 1 });
        assert_eq!(rejected.request.inputs, inputs(tickets.len()));
        for ticket in tickets {
            ticket.wait().unwrap();
        }
    }
}

#[test]
fn dropping_the_engine_with_work_in_flight_neither_hangs_nor_crashes() {
    for backend in usable_backends("dropping_the_engine_with_work_in_flight") {
        let executable = load(backend.as_ref());
        for _ in 0..10 {
            let engine = engine(&executable, N_REQUESTS);
            let tickets: Vec<_> =
                (0..N_REQUESTS).map(|n| engine.submit(request(n)).unwrap()).collect();
            drop(engine);
            for ticket in tickets {
                if let Err(failed) = ticket.wait() {
                    let refused = InferError::Rejected(Rejection::Stopped);
                    assert_eq!(failed.to_string(), refused.to_string());
                    assert!(failed.request.is_some());
                }
            }
        }
    }
}

#[test]
fn closing_a_shared_engine_answers_what_was_accepted() {
    for backend in usable_backends("closing_a_shared_engine_answers_what_was_accepted") {
        let engine = Arc::new(engine(&load(backend.as_ref()), N_REQUESTS));
        let tickets: Vec<_> = (0..20).map(|n| engine.submit(request(n)).unwrap()).collect();
        let service: Arc<dyn InferenceService> = Arc::clone(&engine) as _;
        service.close();
        assert_eq!(engine.stats().n_answered, 20);
        assert_eq!(engine.submit(request(0)).unwrap_err().rejection, Rejection::Stopped);
        for ticket in tickets {
            ticket.wait().unwrap();
        }
    }
}

#[test]
fn a_bad_request_is_answered_and_the_next_one_too() {
    for backend in usable_backends("a_bad_request_is_answered_and_the_next_one_too") {
        let engine = engine(&load(backend.as_ref()), 4);
        let mut outside = request(5);
        outside.inputs[0].as_mut_slice::<i64>().unwrap()[0] = 128;
        let failed = engine.submit(outside).unwrap().wait().unwrap_err();
        assert!(failed.to_string().contains("`input_ids` holds 128"), "{failed}");
        // What came back is good for another try.
        let mut mended = failed.request.unwrap();
        mended.inputs[0].as_mut_slice::<i64>().unwrap()[0] = 127;
        engine.submit(mended).unwrap().wait().unwrap();
    }
}
