//! Many threads on one GPU.

#![allow(unsafe_code, reason = "the runtime is asked for the thread's device")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use hipgraph::Device;
use shapeyard_core::Tensor;
use shapeyard_core::plan::Bucket;
use shapeyard_migraphx::{DeviceOptions, MigraphxBackend, MigraphxOptions, Target};

use crate::common::{Double, Pair, gpu, inputs, options, run, session, shape, skipped};

const N_RUNS: usize = 10_000;

fn equal_serial(test: &str, n_lanes: usize, n_instances: usize, device: DeviceOptions) {
    if gpu(test, device.clone()).is_none() {
        return;
    }
    let instances = NonZeroUsize::new(n_instances).unwrap();
    let options = MigraphxOptions { instances, ..options(Target::Gpu, device) };
    let backend = MigraphxBackend::new(options).unwrap();
    let buckets: Vec<Bucket> = [1, 4, 16].map(|n| shape([("batch", n)])).into();
    let pair = Pair::load(&backend, "dense.onnx", &buckets);
    let requests: Vec<Vec<Tensor>> =
        (0..24).map(|n| inputs(&pair.gpu, &shape([("batch", n + 1)]), n)).collect();
    let mut serial = session(&pair.gpu);
    let answers: Vec<Vec<Tensor>> =
        requests.iter().map(|inputs| run(&pair.gpu, serial.as_mut(), inputs).unwrap().1).collect();
    thread::scope(|scope| {
        for lane in 0..n_lanes {
            let (pair, requests, answers) = (&pair, &requests, &answers);
            scope.spawn(move || {
                let mut session = session(&pair.gpu);
                for at in 0..N_RUNS / n_lanes {
                    let n = (at * 7 + lane * 5) % requests.len();
                    let found = run(&pair.gpu, session.as_mut(), &requests[n]).unwrap().1;
                    assert_eq!(found, answers[n], "lane {lane}, run {at}");
                }
            });
        }
    });
}

#[test]
fn pitfall_63_two_lanes_of_one_program_answer_as_one_does() {
    let _double = Double::with("");
    equal_serial("two lanes", 2, 1, DeviceOptions::default());
}

#[test]
fn pitfall_63_eight_lanes_of_two_copies_answer_as_one_does() {
    let _double = Double::with("");
    equal_serial("eight lanes", 8, 2, DeviceOptions::default());
}

#[test]
fn pitfall_63_eight_lanes_of_one_program_with_queues_bound() {
    let _double = Double::with("queue-bound,extra=0");
    equal_serial("eight lanes, bound queues", 8, 1, DeviceOptions::default());
}

#[test]
fn a_device_that_is_named_twice_has_a_copy_for_each_name() {
    let _double = Double::with("");
    let devices = DeviceOptions { devices: vec![0, 0], ..DeviceOptions::default() };
    equal_serial("a device twice", 4, 1, devices);
}

#[test]
fn two_devices_answer_as_one_and_the_callers_device_stays() {
    const TEST: &str = "two devices";
    let _double = Double::with("");
    let two = Device::first().ok().filter(|it| it.hip().device_count().is_ok_and(|n| n > 1));
    let Some(first) = two else { return skipped(TEST, "there are not two devices") };
    let current = || {
        let mut device = -1;
        // SAFETY: the place is ours.
        unsafe { first.hip().get_device(&mut device) }.unwrap();
        device
    };
    let second = Device::new(Arc::clone(first.hip()), 1).unwrap();
    let pinned = second.pin().unwrap();
    let devices = DeviceOptions { devices: vec![0, 1], ..DeviceOptions::default() };
    equal_serial(TEST, 4, 1, devices);
    assert_eq!(current(), 1, "whatever was called between");
    drop(pinned);
    assert_eq!(current(), 0);
}
