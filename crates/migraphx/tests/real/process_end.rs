//! The process may end while threads are inside MIGraphX.

use std::env;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{backend, bucket, inputs, load, model, run, session};

const TASK: &str = "SHAPEYARD_MIGRAPHX_END_AFTER";

/// Without the gate, 31 of 60 such processes died of a segmentation fault.
#[test]
fn pitfall_73_a_process_that_ends_in_the_middle_of_runs_ends_well_60_times() {
    if backend("process end").is_none() {
        return;
    }
    for n in 0..60 {
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "process_end::the_process_that_ends", "--nocapture"])
            .env(TASK, (n * 3).to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(42), "run {n}: {status}");
    }
}

#[test]
fn the_process_that_ends() {
    let Ok(after) = env::var(TASK) else { return };
    let backend = backend("child").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let shape = bucket([("batch", 4), ("sequence", 8)]);
    let model = Arc::new(model("encoder.onnx"));
    let executable = load(backend.as_ref(), &model, [shape.clone()], folder.path());
    for seed in 0..2 {
        let (executable, shape) = (Arc::clone(&executable), shape.clone());
        thread::spawn(move || {
            let requests = inputs(executable.as_ref(), &shape, seed);
            let mut lane = session(executable.as_ref());
            // Until the process ends: then runs are refused, and the thread goes on without the library.
            while run(executable.as_ref(), lane.as_mut(), &requests).is_ok() {}
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(10) {
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    thread::sleep(Duration::from_millis(after.parse().unwrap()));
    std::process::exit(42);
}
