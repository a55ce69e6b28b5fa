//! What goes wrong on a device is an error or a right answer, and passes.

use shapeyard_core::RunError;
use shapeyard_core::backend::{Backend as _, Status};
use shapeyard_migraphx::{DeviceOptions, MigraphxBackend, Target};

use crate::common::{Double, Pair, assert_same, gpu, gpu_report, inputs, options, run, shape};

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
    let n_loads = gpu_report(&backend).n_loads - before;
    assert!((1..=3).contains(&n_loads), "{n_loads} loads");
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
