//! What goes wrong on a device is an error or a right answer, and passes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use shapeyard_core::RunError;
use shapeyard_core::backend::{Backend as _, BackendError, LoadJob, Status};
use shapeyard_migraphx::{DeviceOptions, MigraphxBackend, Target};

use crate::common::{
    Double, Pair, artifacts, assert_same, gpu, gpu_report, inputs, model, options, run, session,
    shape,
};

#[test]
fn pitfall_64_after_a_run_that_failed_the_next_ones_answer_on_every_lane() {
    for queue in ["", "queue-bound,"] {
        let double = Double::with(queue.trim_end_matches(','));
        let Some(backend) = gpu("failed runs", DeviceOptions::default()) else { return };
        let pair = Pair::load(&backend, "dense.onnx", &[shape([("batch", 4)])]);
        let ([mut one, mut host], mut other) =
            (pair.sessions(), pair.sessions().into_iter().next().unwrap());
        let mut n_failed = 0;
        for (seed, n) in [4, 3, 4, 2, 4, 4].into_iter().enumerate() {
            let inputs = inputs(&pair.gpu, &shape([("batch", n)]), seed);
            let (_, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
            // Both lanes, warm or replaying, before and after the program was loaded anew.
            for lane in [&mut one, &mut other] {
                assert_same(&run(&pair.gpu, lane.as_mut(), &inputs).unwrap().1, &wanted, "before");
            }
            double.change(&format!("{queue}run-fails=1"));
            let failed = run(&pair.gpu, one.as_mut(), &inputs);
            double.change(queue.trim_end_matches(','));
            match failed {
                // A replay does not ask the library, and a capture that fails is run again without a graph.
                Ok((_, found)) => assert_same(&found, &wanted, "answered all the same"),
                Err(error) => {
                    assert!(matches!(error, RunError::Library { .. }), "{error}");
                    n_failed += 1;
                }
            }
            for lane in [&mut other, &mut one] {
                assert_same(&run(&pair.gpu, lane.as_mut(), &inputs).unwrap().1, &wanted, "after");
            }
        }
        assert!(n_failed > 0, "no run failed: {queue}");
    }
}

#[test]
fn pitfall_57_a_program_that_cannot_be_captured_answers_without_graphs() {
    let _double = Double::with("run-synchronises");
    let Some(backend) = gpu("spoilt captures", DeviceOptions::default()) else { return };
    let pair = Pair::load(&backend, "dense.onnx", &[shape([("batch", 4)])]);
    let [mut device, mut host] = pair.sessions();
    let before = gpu_report(&backend).n_loads;
    for seed in 0..200 {
        let inputs = inputs(&pair.gpu, &shape([("batch", 3)]), seed);
        let (report, found) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
        assert_same(&found, &run(&pair.host, host.as_mut(), &inputs).unwrap().1, "eager");
        assert!(!report.replayed);
    }
    // A program is loaded anew after each try to capture it: in the third run, and after rests of 64 and of
    // 128 runs.
    let report = gpu_report(&backend);
    let n_loads = report.n_loads - before;
    assert!((1..=3).contains(&n_loads), "{n_loads} loads");
    assert_eq!(report.n_failed_graphs, n_loads);
    assert!(report.failed_graph.is_some_and(|reason| reason.contains("capture")));
}

/// Loading waits for the device in the middle, which a capture does not stand, on some runtimes in any thread.
#[test]
fn pitfall_58_programs_come_and_go_while_others_are_captured() {
    const TEST: &str = "loads beside captures";
    let _double = Double::with("");
    let Some(backend) = gpu(TEST, DeviceOptions::default()) else { return };
    let buckets: Vec<_> = [1, 4].map(|n| shape([("batch", n)])).into();
    let pair = Pair::load(&backend, "dense.onnx", &buckets);
    let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
    let artifacts = artifacts(&backend, &model, &buckets, &folder).unwrap();
    let requests: Vec<_> = [1, 3, 4].map(|n| inputs(&pair.gpu, &shape([("batch", n)]), n)).into();
    let mut host = session(&pair.host);
    let answers: Vec<_> =
        requests.iter().map(|it| run(&pair.host, host.as_mut(), it).unwrap().1).collect();
    let is_over = AtomicBool::new(false);
    let n_replayed = thread::scope(|scope| {
        let loads = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(&model) };
                drop(backend.load(&job).unwrap());
            }
        });
        let lanes: Vec<_> = (0..2)
            .map(|_| {
                let (pair, requests, answers) = (&pair, &requests, &answers);
                scope.spawn(move || {
                    let mut n_replayed = 0;
                    // Each session captures anew.
                    for _ in 0..20 {
                        let mut lane = session(&pair.gpu);
                        for at in 0..30 {
                            let n = at % requests.len();
                            let (report, found) =
                                run(&pair.gpu, lane.as_mut(), &requests[n]).unwrap();
                            assert_same(&found, &answers[n], "beside loads");
                            n_replayed += usize::from(report.replayed);
                        }
                    }
                    n_replayed
                })
            })
            .collect();
        let n_replayed: usize = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
        is_over.store(true, Ordering::Relaxed);
        loads.join().unwrap();
        n_replayed
    });
    let report = gpu_report(&backend);
    assert_eq!((report.n_failed_graphs, report.failed_graph), (0, None));
    assert!(n_replayed > 0, "there was a moment for a capture");
}

#[test]
fn a_load_that_fails_is_an_error_and_takes_nothing() {
    let double = Double::with("");
    let Some(backend) = gpu("failed loads", DeviceOptions::default()) else { return };
    let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
    let artifacts = artifacts(&backend, &model, &[shape([("batch", 4)])], &folder).unwrap();
    let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(&model) };
    for fault in ["load-fails", "load-out-of-memory"] {
        double.change(fault);
        let error = backend.load(&job).err().unwrap();
        assert!(matches!(error, BackendError::Library { .. }), "{fault}: {error}");
        assert_eq!(gpu_report(&backend).used_bytes, 0, "{fault}");
        double.change("");
        drop(backend.load(&job).unwrap());
    }
}

#[test]
fn without_a_device_the_reason_is_told_and_the_host_serves() {
    let missing = DeviceOptions { devices: vec![9999], ..DeviceOptions::default() };
    let backend = MigraphxBackend::new(options(Target::Gpu, missing)).unwrap();
    let Status::Unusable { reason, remedy } = backend.probe().status else {
        panic!("there is no device 9999")
    };
    assert!(reason.contains("no AMD GPU") || reason.contains("device 9999"), "{reason}");
    assert!(remedy.contains("`ref`"), "{remedy}");
    let host = options(Target::Ref, DeviceOptions::default());
    assert!(MigraphxBackend::new(host).unwrap().probe().is_usable());
}
