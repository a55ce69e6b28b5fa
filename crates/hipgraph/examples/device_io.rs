//! What gathering inputs and replaying graphs costs, beside the same by the runtime's functions alone.
//!
//! ```sh
//! cargo run --release -p hipgraph --example device_io
//! ```
//!
//! Prints JSON. Every figure is a median over rounds in which all measurements take turns; `raw` calls
//! the function pointers, `ours` this crate.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a measurement that fails ends the program")]
#![allow(unsafe_code, reason = "raw calls are what is compared with")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::ffi::c_void;
use std::process::ExitCode;
use std::ptr;
use std::slice;
use std::time::Instant;

use common::{Bench, address};
use hip_sys::{HipError, HostMallocFlags, MemcpyKind, hipGraphExec_t, hipStream_t};
use hipgraph::{
    Action, BindingMode, DeviceBuffer, Event, Layout, PinnedBuffer, Request, Runner, Settings,
    StagingRing, Stream, Timing, Work,
};
use serde_json::{Value, json};

const N_INPUTS: usize = 190;
const N_KERNELS: usize = 100;
const COUNT: i32 = 1024;
const COPY_BYTES: usize = 16 << 20;
const REQUESTS: u32 = 20;
const ROUNDS: usize = 300;
const WARM_ROUNDS: usize = 30;

/// Calls a function pointer and expects success.
macro_rules! raw {
    ($bench:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: handles and addresses live until the stream was synchronised.
        let status = unsafe { ($bench.device.hip().api().$function)($($argument),*) };
        assert!(status.is_success(), "{}: {status:?}", stringify!($function));
    }};
}

fn main() -> ExitCode {
    let bench = match Bench::open() {
        Ok(bench) => bench,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    let report = json!({
        "device": bench.device.properties().name,
        "architecture": bench.device.properties().architecture,
        "platform": bench.device.hip().platform().name(),
        "runtime": bench.device.runtime_version(),
        "driver": bench.device.hip().driver_version().unwrap(),
        "rounds": ROUNDS,
        "inputs_64_us": inputs(&bench, 64),
        "inputs_1024_us": inputs(&bench, 1024),
        "kernels_100_us": kernels(&bench),
        "requests_us_each": requests(&bench),
        "pinned_16_mb_gb_per_s": copies(&bench),
    });
    println!("{report:#}");
    ExitCode::SUCCESS
}

/// One thing to measure; it answers what it took.
struct Measurement<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> f64 + 'a>,
}

fn measured<'a>(name: &'static str, run: impl FnMut() -> f64 + 'a) -> Measurement<'a> {
    Measurement { name, run: Box::new(run) }
}

/// The median of each, with the measurements taking turns.
fn medians(mut measurements: Vec<Measurement<'_>>) -> Value {
    let mut taken = vec![Vec::with_capacity(ROUNDS); measurements.len()];
    for round in 0..WARM_ROUNDS + ROUNDS {
        for (measurement, taken) in measurements.iter_mut().zip(&mut taken) {
            let value = (measurement.run)();
            if round >= WARM_ROUNDS {
                taken.push(value);
            }
        }
    }
    let pairs = measurements.iter().zip(taken).map(|(measurement, mut values)| {
        values.sort_by(f64::total_cmp);
        let median = (values[values.len() / 2] * 100.0).round() / 100.0;
        (measurement.name.to_owned(), json!(median))
    });
    Value::Object(pairs.collect())
}

/// Microseconds that a call took.
fn timed(call: impl FnOnce()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64() * 1e6
}

/// Pinned memory by the raw function, kept until the program ends.
fn raw_pinned(bench: &Bench, n_bytes: usize) -> &'static mut [u8] {
    let mut raw = ptr::null_mut();
    // SAFETY: the place is ours.
    unsafe { bench.device.hip().host_malloc(&mut raw, n_bytes, HostMallocFlags::DEFAULT) }.unwrap();
    // SAFETY: the runtime gave so many bytes, which nobody frees; they are filled first.
    unsafe { raw.cast::<u8>().write_bytes(1, n_bytes) };
    // SAFETY: as above.
    unsafe { slice::from_raw_parts_mut(raw.cast(), n_bytes) }
}

fn raw_copy_in(bench: &Bench, to: usize, from: *const u8, n_bytes: usize, stream: hipStream_t) {
    let (to, kind) = (ptr::without_provenance_mut(to), MemcpyKind::HOST_TO_DEVICE);
    raw!(bench, memcpy_async(to, from.cast(), n_bytes, kind, stream));
}

fn inputs(bench: &Bench, size: usize) -> Value {
    let stream = bench.stream();
    let (raw, sync) = (stream.raw(), || raw!(bench, stream_synchronize(stream.raw())));
    let layout = Layout::of(&[size; N_INPUTS]).unwrap();
    let n_bytes = layout.n_bytes();
    let arena = bench.buffer(n_bytes);
    let mut ring = StagingRing::new(&stream, n_bytes, 2).unwrap();
    let pageable: Vec<Vec<u8>> = (0..N_INPUTS).map(|_| vec![7; size]).collect();
    let inputs: Vec<&[u8]> = pageable.iter().map(Vec::as_slice).collect();
    let pinned: &[u8] = raw_pinned(bench, n_bytes);
    let mirror = raw_pinned(bench, n_bytes);
    let slots = layout.slots();
    medians(vec![
        measured("raw_one_copy_each_pageable", || {
            timed(|| {
                for (slot, input) in slots.iter().zip(&inputs) {
                    raw_copy_in(bench, address(&arena) + slot.offset, input.as_ptr(), size, raw);
                }
                sync();
            })
        }),
        measured("raw_one_copy_each_pinned", || {
            timed(|| {
                for slot in slots {
                    let from = pinned[slot.range()].as_ptr();
                    raw_copy_in(bench, address(&arena) + slot.offset, from, size, raw);
                }
                sync();
            })
        }),
        measured("raw_gathered", || {
            timed(|| {
                for (slot, input) in slots.iter().zip(&inputs) {
                    mirror[slot.range()].copy_from_slice(input);
                }
                raw_copy_in(bench, address(&arena), mirror.as_ptr(), n_bytes, raw);
                sync();
            })
        }),
        measured("raw_copy_alone", || {
            timed(|| {
                raw_copy_in(bench, address(&arena), pinned.as_ptr(), n_bytes, raw);
                sync();
            })
        }),
        measured("ours_gathered", || {
            timed(|| {
                ring.gather(&layout, &inputs).unwrap();
                stream.synchronize().unwrap();
            })
        }),
    ])
}

/// A hundred kernels, each of which reads what the last wrote.
struct Chain<'a> {
    bench: &'a Bench,
    buffers: [&'a DeviceBuffer; 2],
}

impl Work for Chain<'_> {
    type Error = HipError;

    fn enqueue(&mut self, stream: &Stream, _mode: BindingMode) -> Result<(), HipError> {
        for index in 0..N_KERNELS {
            let [from, to] = [index % 2, (index + 1) % 2].map(|side| address(self.buffers[side]));
            self.bench.scale(stream, from, to, 1.0, COUNT)?;
        }
        Ok(())
    }
}

impl Chain<'_> {
    fn run(&mut self, runner: &mut Runner<u8>) -> Action {
        let addresses = self.buffers.map(address);
        let request = Request { key: &0, direct: Some(&addresses), staged: &[] };
        // SAFETY: the request names both buffers, which outlive the program's work.
        unsafe { runner.run(request, self) }.unwrap().action
    }
}

fn kernels(bench: &Bench) -> Value {
    let stream = bench.stream();
    let buffers = [bench.buffer(4096), bench.buffer(4096)];
    let sides = [&buffers[0], &buffers[1]];
    let executable = raw_graph(bench, &stream, sides);
    let mut runner = Runner::new(&stream, Settings::default());
    let mut chain = Chain { bench, buffers: sides };
    while chain.run(&mut runner) != Action::Replay {}
    let (mut eager, mut replayed, mut launched) =
        (Chain { bench, buffers: sides }, runner, Chain { bench, buffers: sides });
    let raw = stream.raw();
    let sync = || raw!(bench, stream_synchronize(raw));
    let marks = || [(); 2].map(|()| Event::with_timing(&bench.device, Timing::Timed).unwrap());
    let (raw_marks, our_marks) = (marks(), marks());
    let cell = std::cell::RefCell::new(&mut replayed);
    medians(vec![
        measured("raw_eager", || {
            timed(|| {
                raw_chain(bench, raw, sides);
                sync();
            })
        }),
        measured("ours_eager", || {
            timed(|| {
                eager.enqueue(&stream, BindingMode::DirectBind).unwrap();
                stream.synchronize().unwrap();
            })
        }),
        measured("raw_graph", || {
            timed(|| {
                raw!(bench, graph_launch(executable, raw));
                sync();
            })
        }),
        measured("ours_replayed", || {
            timed(|| {
                launched.run(&mut cell.borrow_mut());
                stream.synchronize().unwrap();
            })
        }),
        measured("raw_graph_host", || {
            let took = timed(|| raw!(bench, graph_launch(executable, raw)));
            sync();
            took
        }),
        measured("ours_replayed_host", || {
            let took = timed(|| {
                chain.run(&mut cell.borrow_mut());
            });
            sync();
            took
        }),
        measured("raw_graph_device", || {
            let launch = || raw!(bench, graph_launch(executable, raw));
            device_time(&stream, &raw_marks, launch)
        }),
        measured("ours_replayed_device", || {
            let mut chain = Chain { bench, buffers: sides };
            device_time(&stream, &our_marks, || {
                chain.run(&mut cell.borrow_mut());
            })
        }),
    ])
}

/// Microseconds of the device between two marks.
fn device_time(stream: &Stream, [start, stop]: &[Event; 2], launch: impl FnOnce()) -> f64 {
    start.record(stream).unwrap();
    launch();
    stop.record(stream).unwrap();
    stop.synchronize().unwrap();
    stop.since(start).unwrap().as_secs_f64() * 1e6
}

/// The chain by function pointers.
fn raw_chain(bench: &Bench, stream: hipStream_t, buffers: [&DeviceBuffer; 2]) {
    let function = bench.scale.raw();
    let (mut factor, mut count) = (1.0_f32, COUNT);
    for index in 0..N_KERNELS {
        let mut sides = [index % 2, (index + 1) % 2].map(|side| address(buffers[side]));
        let [from, to] = &mut sides;
        let mut parameters: [*mut c_void; 4] = [
            ptr::from_mut(from).cast(),
            ptr::from_mut(to).cast(),
            ptr::from_mut(&mut factor).cast(),
            ptr::from_mut(&mut count).cast(),
        ];
        let (place, none) = (parameters.as_mut_ptr(), ptr::null_mut());
        raw!(bench, module_launch_kernel(function, 4, 1, 1, 256, 1, 1, 0, stream, place, none));
    }
}

/// The chain as a graph, kept until the program ends.
fn raw_graph(bench: &Bench, stream: &Stream, buffers: [&DeviceBuffer; 2]) -> hipGraphExec_t {
    let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
    let mode = hip_sys::CaptureMode::THREAD_LOCAL;
    raw!(bench, stream_begin_capture(stream.raw(), mode));
    raw_chain(bench, stream.raw(), buffers);
    raw!(bench, stream_end_capture(stream.raw(), &mut graph));
    raw!(bench, graph_instantiate_with_flags(&mut executable, graph, 0));
    executable
}

/// Microseconds a request of 190 inputs of 1 KiB and some 25 µs of work: waited for one by one, and
/// enqueued one after another through one, two and three arenas.
fn requests(bench: &Bench) -> Value {
    let layout = Layout::of(&[1024; N_INPUTS]).unwrap();
    let stream = bench.stream();
    let pageable: Vec<Vec<u8>> = (0..N_INPUTS).map(|_| vec![7; 1024]).collect();
    let inputs: Vec<&[u8]> = pageable.iter().map(Vec::as_slice).collect();
    let batch = |n_arenas, is_serial| {
        let mut ring = StagingRing::new(&stream, layout.n_bytes(), n_arenas).unwrap();
        let (stream, layout, inputs) = (&stream, &layout, &inputs);
        move || {
            let took = timed(|| {
                for _ in 0..REQUESTS {
                    ring.gather(layout, inputs).unwrap();
                    bench.spin(stream, 50_000);
                    if is_serial {
                        stream.synchronize().unwrap();
                    }
                }
                stream.synchronize().unwrap();
            });
            took / f64::from(REQUESTS)
        }
    };
    medians(vec![
        measured("one_by_one", batch(1, true)),
        measured("one_arena", batch(1, false)),
        measured("two_arenas", batch(2, false)),
        measured("three_arenas", batch(3, false)),
    ])
}

/// Gigabytes a second.
fn copies(bench: &Bench) -> Value {
    let stream = bench.stream();
    let raw = stream.raw();
    let device = bench.buffer(COPY_BYTES);
    let pinned = raw_pinned(bench, COPY_BYTES).as_mut_ptr();
    let there = PinnedBuffer::new(&bench.device, COPY_BYTES).unwrap();
    let mut back = PinnedBuffer::new(&bench.device, COPY_BYTES).unwrap();
    #[allow(clippy::cast_precision_loss, reason = "a few millions")]
    let rate = |microseconds: f64| COPY_BYTES as f64 / microseconds / 1e3;
    let out = MemcpyKind::DEVICE_TO_HOST;
    medians(vec![
        measured("raw_in", || {
            rate(timed(|| {
                raw_copy_in(bench, address(&device), pinned, COPY_BYTES, raw);
                raw!(bench, stream_synchronize(raw));
            }))
        }),
        measured("ours_in", || {
            rate(timed(|| {
                stream.copy_in(&device, 0, &there, 0, COPY_BYTES).unwrap();
                stream.synchronize().unwrap();
            }))
        }),
        measured("raw_out", || {
            rate(timed(|| {
                raw!(bench, memcpy_async(pinned.cast(), device.address(), COPY_BYTES, out, raw));
                raw!(bench, stream_synchronize(raw));
            }))
        }),
        measured("ours_out", || {
            rate(timed(|| {
                stream.copy_out(&mut back, 0, &device, 0, COPY_BYTES).unwrap();
                stream.synchronize().unwrap();
            }))
        }),
    ])
}
