//! A device whose memory is used up (pitfall 74). Alone in its program, since others would fail beside
//! it. Without a device it says so and is skipped; with `SHAPEYARD_REQUIRE_DEVICE` set it fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "runs with addresses of the device")]

mod common;

use common::{Bench, address, bench_or_skip, read_floats, write_floats};
use hip_sys::{Fault, HipError};
use hipgraph::{Action, BindingMode, DeviceBuffer, Request, Runner, Settings, Stream, Work};

const COUNT: i32 = 256;
const N_KERNELS: usize = 2000;

/// Many nodes, so that their graph needs memory of its own.
struct Many<'a> {
    bench: &'a Bench,
    buffers: [usize; 2],
}

impl Work for Many<'_> {
    type Error = HipError;

    fn enqueue(&mut self, stream: &Stream, _mode: BindingMode) -> Result<(), HipError> {
        let [from, to] = self.buffers;
        (0..N_KERNELS).try_for_each(|_| self.bench.scale(stream, from, to, 2.0, COUNT))
    }
}

/// Takes everything, in blocks that get smaller.
fn fill(bench: &Bench) -> Vec<DeviceBuffer> {
    let mut taken = Vec::new();
    let mut n_bytes = 8_usize << 30;
    while n_bytes >= 4096 {
        match DeviceBuffer::new(&bench.device, n_bytes) {
            Ok(buffer) => taken.push(buffer),
            Err(error) => {
                assert_eq!(error.fault, Fault::OutOfMemory, "{error}");
                n_bytes /= 2;
            }
        }
    }
    taken
}

#[test]
fn pitfall_74_without_memory_answers_are_right_and_errors_typed() {
    let bench = bench_or_skip!("pitfall_74_without_memory_answers_are_right_and_errors_typed");
    let stream = bench.stream();
    let (from, to) = (bench.buffer(1024), bench.buffer(1024));
    write_floats(&stream, &from, &[1.5; 256]);
    let mut work = Many { bench: &bench, buffers: [address(&from), address(&to)] };
    let mut settings = Settings::default();
    settings.rest_runs = 1;
    settings.longest_rest = 1;
    let mut runner = Runner::new(&stream, settings);
    let taken = fill(&bench);
    eprintln!("{} blocks taken", taken.len());
    let arena = DeviceBuffer::new(&bench.device, 64 << 20).unwrap_err();
    assert_eq!(arena.fault, Fault::OutOfMemory, "{arena}");
    let mut run = |n_runs: usize| {
        let mut actions = Vec::new();
        for _ in 0..n_runs {
            stream.fill(&to, 0, 1024, 0).unwrap();
            let request = Request { key: &0, direct: None, staged: &[7] };
            // SAFETY: both buffers outlive the test's work.
            let ran = unsafe { runner.run(request, &mut work) }.unwrap();
            assert_eq!(read_floats(&stream, &to, 256), [3.0; 256], "{ran:?}");
            if let Some(reason) = ran.fallback {
                eprintln!("{:?}: {reason}", ran.action);
            }
            actions.push(ran.action);
        }
        actions
    };
    run(8);
    drop(taken);
    assert_eq!(run(4).last(), Some(&Action::Replay));
}
