//! Streams, memory and captures on a real device. Without one each test says so and is skipped; with
//! `SHAPEYARD_REQUIRE_DEVICE` set it fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "launches of kernels and graphs")]

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use common::{address, bench_or_skip, read_floats, write_floats};
use hip_sys::{Fault, HipError, StreamFlags};
use hipgraph::{
    CaptureError, Device, DeviceBuffer, Event, ExecutableGraph, GatherError, PinnedBuffer,
    StagingRing, Stream, Timing, Until,
};

const COUNT: i32 = 1000;
const N_BYTES: usize = 4000;
/// Some tens of milliseconds.
const LONG: i64 = 60_000_000;

fn ones(factor: f32) -> Vec<f32> {
    vec![factor; 1000]
}

/// The stream does what it is told, and is no longer recording.
fn assert_usable(bench: &common::Bench, stream: &Stream) {
    assert!(!stream.is_capturing().unwrap());
    let (from, to) = (bench.buffer(N_BYTES), bench.buffer(N_BYTES));
    write_floats(stream, &from, &ones(2.0));
    bench.scale(stream, address(&from), address(&to), 3.0, COUNT).unwrap();
    assert_eq!(read_floats(stream, &to, 1000), ones(6.0));
}

#[test]
fn the_callers_device_is_restored() {
    let bench = bench_or_skip!("the_callers_device_is_restored");
    let hip = bench.device.hip();
    let current = || {
        let mut device = -1;
        // SAFETY: the place is ours.
        unsafe { hip.get_device(&mut device) }.unwrap();
        device
    };
    let last = hip.device_count().unwrap() - 1;
    let other = Device::new(Arc::clone(hip), last).unwrap();
    assert_eq!(current(), 0);
    let pinned = other.pin().unwrap();
    assert_eq!(current(), i32::try_from(last).unwrap());
    let stream = Stream::new(&bench.device).unwrap();
    let buffer = DeviceBuffer::new(&bench.device, 64).unwrap();
    stream.write(&buffer, 0, &[1; 64]).unwrap();
    drop((buffer, stream));
    assert_eq!(current(), i32::try_from(last).unwrap(), "whatever was called between");
    drop(pinned);
    assert_eq!(current(), 0);
}

#[test]
fn a_fresh_thread_launches_kernels() {
    let bench = bench_or_skip!("a_fresh_thread_launches_kernels");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_usable(&bench, &bench.stream()));
        }
    });
}

#[test]
fn a_range_beyond_a_buffer_is_refused_before_the_call() {
    let bench = bench_or_skip!("a_range_beyond_a_buffer_is_refused_before_the_call");
    let (stream, buffer) = (bench.stream(), bench.buffer(100));
    let error = stream.write(&buffer, 60, &[0; 50]).unwrap_err();
    assert_eq!((error.fault, error.call), (Fault::InvalidValue, "checked before the call"));
    assert!(stream.fill(&buffer, 101, 0, 0).is_err());
    stream.fill(&buffer, 100, 0, 0).unwrap();
}

#[test]
fn timed_events_measure_the_device() {
    let bench = bench_or_skip!("timed_events_measure_the_device");
    let stream = bench.stream();
    let event = || Event::with_timing(&bench.device, Timing::Timed).unwrap();
    let (start, between, stop) = (event(), event(), event());
    assert!(stop.is_done().unwrap(), "what was never recorded has passed");
    start.record(&stream).unwrap();
    bench.spin(&stream, LONG / 20);
    between.record(&stream).unwrap();
    bench.spin(&stream, LONG);
    stop.record(&stream).unwrap();
    // A launch may wait for others on the device, and be over by now.
    match stop.since(&start) {
        Err(error) => assert_eq!(error.fault, Fault::NotReady),
        Ok(_) => assert!(stop.is_done().unwrap()),
    }
    stop.synchronize().unwrap();
    // Of two kernels the one with twenty times the cycles takes longer.
    let (short, long) = (between.since(&start).unwrap(), stop.since(&between).unwrap());
    assert!(Duration::ZERO < short && short < long, "{short:?} and {long:?}");
    assert!(stop.since(&start).unwrap() >= long);
}

#[test]
fn pinned_memory_waits_for_its_copies() {
    let bench = bench_or_skip!("pinned_memory_waits_for_its_copies");
    let stream = bench.stream();
    let device = bench.buffer(1 << 20);
    let mut there = PinnedBuffer::new(&bench.device, 1 << 20).unwrap();
    let mut back = PinnedBuffer::new(&bench.device, 1 << 20).unwrap();
    for round in 1..5_u8 {
        there.bytes_mut().unwrap().fill(round);
        bench.spin(&stream, LONG / 4);
        stream.copy_in(&device, 0, &there, 0, 1 << 20).unwrap();
        stream.copy_out(&mut back, 0, &device, 0, 1 << 20).unwrap();
        // Were it not waited for, the copy would take these.
        there.bytes_mut().unwrap().fill(0xee);
        assert!(back.bytes().unwrap().iter().all(|byte| *byte == round), "round {round}");
    }
}

#[test]
fn pitfall_58_another_thread_may_allocate_and_copy_during_a_capture() {
    let bench = bench_or_skip!("pitfall_58_another_thread_may_allocate_and_copy_during_a_capture");
    let stream = bench.stream();
    let (from, to) = (bench.buffer(N_BYTES), bench.buffer(N_BYTES));
    write_floats(&stream, &from, &ones(1.0));
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let other = bench.stream();
            barrier.wait();
            for _ in 0..50 {
                let buffer = bench.buffer(1 << 20);
                let mut bytes = [0; 64];
                other.write(&buffer, 0, &[7; 64]).unwrap();
                other.read(&buffer, 0, &mut bytes).unwrap();
                assert_eq!(bytes, [7; 64]);
                drop(PinnedBuffer::new(&bench.device, 4096).unwrap());
            }
            barrier.wait();
        });
        let (graph, ()) = stream
            .capture(|stream| {
                barrier.wait();
                for _ in 0..50 {
                    bench.scale(stream, address(&from), address(&to), 4.0, COUNT)?;
                }
                barrier.wait();
                Ok::<(), HipError>(())
            })
            .unwrap();
        assert_eq!(graph.n_nodes(), 50);
        // SAFETY: the buffers are alive.
        unsafe { graph.launch(&stream) }.unwrap();
        assert_eq!(read_floats(&stream, &to, 1000), ones(4.0));
    });
}

#[test]
fn pitfall_57_a_spoilt_capture_leaves_the_stream_usable() {
    let bench = bench_or_skip!("pitfall_57_a_spoilt_capture_leaves_the_stream_usable");
    let stream = bench.stream();
    // A wait cannot be recorded; its error is swallowed here, as a library may do.
    let answer = stream.capture(|stream| {
        let _refused = stream.synchronize();
        Ok::<(), HipError>(())
    });
    let Err(CaptureError::End(error)) = answer else { panic!("{answer:?}") };
    assert!(error.fault.is_of_capture(), "{error}");
    assert_usable(&bench, &stream);
    // The same where the recorded code reports it.
    let answer = stream.capture(Stream::synchronize);
    assert!(matches!(answer, Err(CaptureError::Record(_))), "{answer:?}");
    assert_usable(&bench, &stream);
}

/// Allocation by the capturing thread itself.
#[test]
fn pitfall_57_what_is_dropped_during_a_capture_does_not_spoil_it() {
    let bench = bench_or_skip!("pitfall_57_what_is_dropped_during_a_capture_does_not_spoil_it");
    let (stream, other) = (bench.stream(), bench.stream());
    let (from, to) = (bench.buffer(N_BYTES), bench.buffer(N_BYTES));
    write_floats(&stream, &from, &ones(1.0));
    let unused = bench.buffer(1 << 16);
    let used = bench.buffer(1 << 16);
    other.fill(&used, 0, 1 << 16, 1).unwrap();
    let (graph, ()) = stream
        .capture(|stream| {
            drop((unused, used));
            bench.scale(stream, address(&from), address(&to), 5.0, COUNT)
        })
        .unwrap();
    // SAFETY: the buffers are alive.
    unsafe { graph.launch(&stream) }.unwrap();
    assert_eq!(read_floats(&stream, &to, 1000), ones(5.0));
}

#[test]
fn a_panic_during_a_capture_ends_it() {
    let bench = bench_or_skip!("a_panic_during_a_capture_ends_it");
    let stream = bench.stream();
    let caught = panic::catch_unwind(AssertUnwindSafe(|| {
        let _never = stream.capture(|_| -> Result<(), HipError> { panic!("in the captured code") });
    }));
    assert!(caught.is_err());
    assert_usable(&bench, &stream);
}

#[test]
fn pitfalls_66_67_default_streams_and_nested_captures_are_refused() {
    let bench = bench_or_skip!("pitfalls_66_67_default_streams_and_nested_captures_are_refused");
    // SAFETY: the default stream is always there.
    let default = unsafe { Stream::borrowed(&bench.device, ptr::null_mut()) };
    let answer = default.capture(|_| Ok::<(), HipError>(()));
    assert!(matches!(answer, Err(CaptureError::DefaultStream)));
    let stream = bench.stream();
    let (graph, nested) = stream
        .capture(|stream| {
            let nested = stream.capture(|_| Ok::<(), HipError>(()));
            Ok::<_, HipError>(matches!(nested, Err(CaptureError::Nested)))
        })
        .unwrap();
    assert!(nested && graph.n_nodes() == 0);
    assert_usable(&bench, &stream);
}

#[test]
fn pitfall_59_a_graph_dropped_in_flight_ends_before_its_memory_goes() {
    let bench = bench_or_skip!("pitfall_59_a_graph_dropped_in_flight_ends_before_its_memory_goes");
    let stream = bench.stream();
    let out = bench.buffer(N_BYTES);
    for round in 1..6_u8 {
        let factor = f32::from(round);
        let from = Arc::new(bench.buffer(N_BYTES));
        write_floats(&stream, &from, &ones(1.0));
        let (mut graph, ()) = stream
            .capture(|stream| {
                bench.spin(stream, LONG / 2);
                bench.scale(stream, address(&from), address(&out), factor, COUNT)
            })
            .unwrap();
        graph.keep(from);
        // SAFETY: the graph keeps its input, and the output outlives it.
        unsafe { graph.launch(&stream) }.unwrap();
        drop(graph);
        // Whoever gets the memory next overwrites it.
        let next = bench.buffer(N_BYTES);
        stream.fill(&next, 0, N_BYTES, 0xff).unwrap();
        assert_eq!(read_floats(&stream, &out, 1000), ones(factor));
    }
}

#[test]
fn pitfalls_65_73_a_callers_stream_may_be_destroyed_before_what_was_used_on_it() {
    let bench = bench_or_skip!(
        "pitfalls_65_73_a_callers_stream_may_be_destroyed_before_what_was_used_on_it"
    );
    let hip = bench.device.hip();
    for _ in 0..20 {
        let mut raw = ptr::null_mut();
        // SAFETY: the place is ours.
        unsafe { hip.stream_create_with_flags(&mut raw, StreamFlags::NON_BLOCKING) }.unwrap();
        // SAFETY: it is destroyed after its last use.
        let stream = unsafe { Stream::borrowed(&bench.device, raw) };
        let (from, to) = (bench.buffer(N_BYTES), bench.buffer(N_BYTES));
        let pinned = PinnedBuffer::new(&bench.device, N_BYTES).unwrap();
        let (graph, ()) = stream
            .capture(|one| bench.scale(one, address(&from), address(&to), 2.0, COUNT))
            .unwrap();
        bench.spin(&stream, LONG / 20);
        stream.copy_in(&from, 0, &pinned, 0, N_BYTES).unwrap();
        // SAFETY: the buffers are alive.
        unsafe { graph.launch(&stream) }.unwrap();
        // SAFETY: nothing is given to it after this.
        unsafe { hip.stream_destroy(raw) }.unwrap();
        drop(pinned);
        drop((graph, from, to));
    }
    assert_usable(&bench, &bench.stream());
}

#[test]
fn pitfall_73_everything_may_be_dropped_in_any_order_with_work_in_flight() {
    let bench =
        bench_or_skip!("pitfall_73_everything_may_be_dropped_in_any_order_with_work_in_flight");
    for order in 0..6 {
        let stream = bench.stream();
        let (from, to) = (bench.buffer(N_BYTES), bench.buffer(N_BYTES));
        bench.spin(&stream, LONG / 10);
        stream.fill(&from, 0, N_BYTES, 0).unwrap();
        stream.fill(&to, 0, N_BYTES, 1).unwrap();
        let mut parts: Vec<Box<dyn Send>> = vec![Box::new(stream), Box::new(from), Box::new(to)];
        parts.rotate_left(order % 3);
        if order >= 3 {
            parts.reverse();
        }
        // Another thread drops them, as an owner's thread may end anywhere.
        thread::spawn(move || parts.into_iter().for_each(drop)).join().unwrap();
    }
    assert_usable(&bench, &bench.stream());
}

#[test]
fn pitfall_74_out_of_memory_is_typed_and_changes_nothing() {
    let bench = bench_or_skip!("pitfall_74_out_of_memory_is_typed_and_changes_nothing");
    let stream = bench.stream();
    let (free_before, total) = bench.device.memory().unwrap();
    let error = DeviceBuffer::new(&bench.device, total * 2).unwrap_err();
    assert_eq!(error.fault, Fault::OutOfMemory, "{error}");
    let mut ring = StagingRing::new(&stream, 2);
    let to = bench.buffer(64);
    ring.reserve(total * 4);
    let error = ring.send(&to, 0, 64, Until::Copied, |_| Ok::<(), GatherError>(())).unwrap_err();
    let is_typed = matches!(&error, GatherError::Hip(error) if error.fault == Fault::OutOfMemory);
    assert!(is_typed, "{error}");
    let (free_after, _) = bench.device.memory().unwrap();
    assert!(free_before.abs_diff(free_after) < 1 << 30, "{free_before} and {free_after}");
    assert_usable(&bench, &stream);
}

#[test]
fn pitfall_62_another_stream_reads_after_the_event() {
    let bench = bench_or_skip!("pitfall_62_another_stream_reads_after_the_event");
    let (writer, reader) = (bench.stream(), bench.stream());
    let (from, to) = (bench.buffer(N_BYTES), bench.buffer(N_BYTES));
    let done = Event::new(&bench.device).unwrap();
    for round in 1..20_u8 {
        let factor = f32::from(round);
        write_floats(&writer, &from, &ones(1.0));
        bench.spin(&writer, LONG / 20);
        bench.scale(&writer, address(&from), address(&to), factor, COUNT).unwrap();
        done.record(&writer).unwrap();
        reader.wait(&done).unwrap();
        assert_eq!(read_floats(&reader, &to, 1000), ones(factor));
    }
}

#[test]
fn pitfalls_70_77_one_buffer_may_be_input_twice_and_output_and_answers_are_bit_equal() {
    let bench = bench_or_skip!(
        "pitfalls_70_77_one_buffer_may_be_input_twice_and_output_and_answers_are_bit_equal"
    );
    let stream = bench.stream();
    let buffer = bench.buffer(N_BYTES);
    let (graph, ()): (ExecutableGraph, ()) = stream
        .capture(|stream| {
            bench.scale(stream, address(&buffer), address(&buffer), 0.1, COUNT)?;
            bench.accumulate(stream, address(&buffer), address(&buffer), COUNT)
        })
        .unwrap();
    let values: Vec<f32> = (0_u16..1000).map(|index| f32::from(index) / 7.0).collect();
    let mut first = None;
    for _ in 0..100 {
        write_floats(&stream, &buffer, &values);
        // SAFETY: the buffer is alive.
        unsafe { graph.launch(&stream) }.unwrap();
        let answer = read_floats(&stream, &buffer, 1000);
        assert_eq!(*first.get_or_insert_with(|| answer.clone()), answer);
    }
    assert_eq!(first.unwrap()[7], values[7] * 0.1 * 2.0);
}

/// Memory is given in pieces, so many graphs are measured.
#[test]
fn a_graph_takes_no_more_than_it_is_accounted_for() {
    const N_GRAPHS: usize = 64;
    const N_NODES: usize = 1000;
    let bench = bench_or_skip!("a_graph_takes_no_more_than_it_is_accounted_for");
    let (stream, from, to) = (bench.stream(), bench.buffer(1024), bench.buffer(1024));
    let (before, _) = bench.device.memory().unwrap();
    let graphs: Vec<ExecutableGraph> = (0..N_GRAPHS)
        .map(|_| {
            let record = |stream: &Stream| {
                (0..N_NODES)
                    .try_for_each(|_| bench.scale(stream, address(&from), address(&to), 2.0, COUNT))
            };
            let (graph, ()) = stream.capture(record).unwrap();
            // SAFETY: both buffers are alive.
            unsafe { graph.launch(&stream) }.unwrap();
            graph
        })
        .collect();
    stream.synchronize().unwrap();
    let (after, _) = bench.device.memory().unwrap();
    let of_one = before.saturating_sub(after) / (N_GRAPHS * N_NODES);
    eprintln!("{of_one} bytes a node");
    assert!(graphs.iter().all(|graph| graph.n_nodes() == N_NODES));
    assert!(of_one <= ExecutableGraph::NODE_BYTES, "{of_one} bytes a node");
}
