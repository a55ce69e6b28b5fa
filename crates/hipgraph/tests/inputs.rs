//! How inputs get to a real device. Without one each test says so and is skipped; with
//! `SHAPEYARD_REQUIRE_DEVICE` set it fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "launches of kernels and graphs")]

mod common;

use common::{address, bench_or_skip, bytes_of, read_floats, write_floats};
use hip_sys::PointerKind;
use hipgraph::{CaptureError, GatherError, Layout, PinnedBuffer, StagingRing};

/// Some tens of milliseconds.
const LONG: i64 = 60_000_000;

/// With two arenas and a stream that is behind, the third gather has to wait.
#[test]
fn pitfall_61_no_arena_is_filled_before_its_copy_ended() {
    let bench = bench_or_skip!("pitfall_61_no_arena_is_filled_before_its_copy_ended");
    let stream = bench.stream();
    let layout = Layout::of(&[5000, 300]).unwrap();
    for n_arenas in [1, 2, 3] {
        let mut ring = StagingRing::new(&stream, n_arenas);
        let arena = bench.buffer(layout.n_bytes());
        let rounds = 12_u8;
        let kept = bench.buffer(usize::from(rounds) * 8192);
        for round in 0..rounds {
            bench.spin(&stream, LONG / 10);
            ring.gather(&arena, &layout, &[&[round; 5000], &[round + 100; 300]]).unwrap();
            let to = address(&kept) + usize::from(round) * 8192;
            let count = i32::try_from(layout.n_bytes() / 4).unwrap();
            // A factor of one copies the bits; none of these bytes makes a number that is none.
            bench.scale(&stream, address(&arena), to, 1.0, count).unwrap();
        }
        for round in 0..rounds {
            let mut bytes = vec![0; layout.n_bytes()];
            stream.read(&kept, usize::from(round) * 8192, &mut bytes).unwrap();
            let [first, second] = layout.slots() else { panic!("two slots") };
            assert!(bytes[first.range()].iter().all(|byte| *byte == round), "{round}");
            let end = second.range().end - 4;
            assert!(bytes[second.offset..end].iter().all(|byte| *byte == round + 100), "{round}");
        }
    }
}

#[test]
fn pitfalls_71_72_a_hundred_and_ninety_inputs_cross_in_one_copy() {
    let bench = bench_or_skip!("pitfalls_71_72_a_hundred_and_ninety_inputs_cross_in_one_copy");
    let stream = bench.stream();
    let layout = Layout::of(&[64; 190]).unwrap();
    let mut ring = StagingRing::new(&stream, 2);
    let arena = bench.buffer(1 << 20);
    // Slices at odd addresses, as parts of a caller's memory may be.
    let memory: Vec<u8> = (0..=255).cycle().take(190 * 65 + 1).collect();
    let inputs: Vec<&[u8]> = (0..190).map(|index| &memory[index * 65 + 1..][..64]).collect();
    let n_bytes = ring.gather(&arena, &layout, &inputs).unwrap();
    assert_eq!(n_bytes, 189 * 256 + 64, "what is used, and not the whole arena");
    let mut back = vec![0; n_bytes];
    stream.read(&arena, 0, &mut back).unwrap();
    for (slot, input) in layout.slots().iter().zip(&inputs) {
        assert_eq!(&back[slot.range()], *input);
    }
    // A copy in a graph would read the arena when it is launched, at whoever's turn.
    let answer = stream.capture(|_| ring.gather(&arena, &layout, &inputs));
    let Err(CaptureError::Record(error)) = answer else { panic!("{answer:?}") };
    assert_eq!(error, GatherError::Capturing);
    assert_eq!(ring.gather(&arena, &layout, &inputs).unwrap(), n_bytes);
}

#[test]
fn inputs_that_do_not_fit_are_refused_before_anything_is_enqueued() {
    let bench = bench_or_skip!("inputs_that_do_not_fit_are_refused_before_anything_is_enqueued");
    let stream = bench.stream();
    let layout = Layout::of(&[8, 8]).unwrap();
    let mut ring = StagingRing::new(&stream, 2);
    let arena = bench.buffer(264);
    let count = ring.gather(&arena, &layout, &[&[0; 8]]).unwrap_err();
    assert!(matches!(count, GatherError::Count { n_inputs: 1, n_slots: 2, .. }));
    let long = ring.gather(&arena, &layout, &[&[0; 8], &[0; 9]]).unwrap_err();
    assert!(matches!(long, GatherError::TooLong { input: 1, n_bytes: 9, slot_bytes: 8, .. }));
    let large = ring.gather(&arena, &Layout::of(&[300]).unwrap(), &[&[0; 300]]).unwrap_err();
    assert!(matches!(large, GatherError::Capacity { offset: 0, n_bytes: 300, capacity: 264, .. }));
    assert_eq!(ring.gather(&arena, &layout, &[&[1; 3], &[]]).unwrap(), 3, "only real bytes");
    assert_eq!(ring.gather(&arena, &layout, &[&[], &[]]).unwrap(), 0);
}

/// Each kind is told by its address, and gets to the device in its own way.
#[test]
fn pitfall_69_memory_of_every_kind_in_one_run() {
    let bench = bench_or_skip!("pitfall_69_memory_of_every_kind_in_one_run");
    let stream = bench.stream();
    let kind = |address: usize| bench.device.hip().pointer_attributes(address).unwrap().kind;
    let layout = Layout::of(&[1024]).unwrap();
    let mut ring = StagingRing::new(&stream, 2);
    let arena = bench.buffer(layout.n_bytes());
    let (sent, bound) = (bench.buffer(1024), bench.buffer(1024));
    let outputs = [(); 4].map(|()| bench.buffer(1024));
    for round in 1..30_u8 {
        let values = [1.0, 2.0, 3.0, 4.0].map(|factor| vec![f32::from(round) * factor; 256]);
        let ordinary = bytes_of(&values[0]);
        let pinned = [1, 2].map(|index| {
            let mut buffer = PinnedBuffer::new(&bench.device, 1024).unwrap();
            buffer.bytes_mut().unwrap().copy_from_slice(&bytes_of(&values[index]));
            buffer
        });
        write_floats(&stream, &bound, &values[3]);
        assert_eq!(kind(ordinary.as_ptr().addr()), PointerKind::Unregistered);
        assert_eq!(kind(pinned[0].address().addr()), PointerKind::Host);
        assert_eq!(kind(address(&bound)), PointerKind::Device);
        ring.gather(&arena, &layout, &[&ordinary]).unwrap();
        stream.copy_in(&sent, 0, &pinned[0], 0, 1024).unwrap();
        // The device reads the second one where it is.
        let from = [address(&arena), address(&sent), pinned[1].address().addr(), address(&bound)];
        for (from, to) in from.into_iter().zip(&outputs) {
            bench.scale(&stream, from, address(to), 2.0, 256).unwrap();
        }
        for (output, values) in outputs.iter().zip(&values) {
            let expected: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
            assert_eq!(read_floats(&stream, output, 256), expected, "round {round}");
        }
    }
}

/// A large input is not gathered: it is sent from where it is, between small ones that are.
#[test]
fn a_large_pinned_input_is_sent_by_itself() {
    const LARGE: usize = 64 << 20;
    let bench = bench_or_skip!("a_large_pinned_input_is_sent_by_itself");
    let stream = bench.stream();
    let layout = Layout::of(&[64; 8]).unwrap();
    let mut ring = StagingRing::new(&stream, 2);
    let arena = bench.buffer(layout.n_bytes());
    let device = bench.buffer(LARGE);
    let mut pinned = PinnedBuffer::new(&bench.device, LARGE).unwrap();
    for round in 1..4_u8 {
        let pattern: Vec<u8> = (0..=250).map(|byte| byte ^ round).collect();
        let bytes = pinned.bytes_mut().unwrap();
        bytes.chunks_mut(251).for_each(|chunk| chunk.copy_from_slice(&pattern[..chunk.len()]));
        stream.copy_in(&device, 0, &pinned, 0, LARGE).unwrap();
        let small = [[round; 64]; 8];
        ring.gather(&arena, &layout, &small.each_ref().map(|input| &input[..])).unwrap();
        let mut back = vec![0; LARGE];
        stream.read(&device, 0, &mut back).unwrap();
        assert!(back == pinned.bytes().unwrap(), "round {round}");
        let mut first = [0; 64];
        stream.read(&arena, 0, &mut first).unwrap();
        assert_eq!(first, [round; 64]);
    }
}

/// Only real rows are sent, so the fourth row is what an earlier request left there.
#[test]
fn pitfall_60_batches_of_4_3_4_3_through_one_graph() {
    const ROW: usize = 256;
    let bench = bench_or_skip!("pitfall_60_batches_of_4_3_4_3_through_one_graph");
    let stream = bench.stream();
    let layout = Layout::of(&[4 * ROW]).unwrap();
    let mut ring = StagingRing::new(&stream, 2);
    let arena = bench.buffer(layout.n_bytes());
    let output = bench.buffer(4 * ROW);
    let (from, to) = (address(&arena), address(&output));
    stream.fill(&arena, 0, 4 * ROW, 0).unwrap();
    let record = |stream: &hipgraph::Stream| bench.scale(stream, from, to, 2.0, 256);
    record(&stream).unwrap();
    let (graph, ()) = stream.capture(record).unwrap();
    for round in 0..100_u8 {
        let n_rows = if round % 2 == 0 { 4 } else { 3 };
        let values = vec![f32::from(round) + 0.5; n_rows * ROW / 4];
        assert_eq!(ring.gather(&arena, &layout, &[&bytes_of(&values)]).unwrap(), n_rows * ROW);
        // SAFETY: the arena and the output are alive.
        unsafe { graph.launch(&stream) }.unwrap();
        let rows = read_floats(&stream, &output, values.len());
        assert!(rows.iter().all(|value| *value == values[0] * 2.0), "round {round}");
    }
}

/// What was copied out stays as it was, although the next run writes the same memory of the device.
#[test]
fn pitfall_76_a_result_stays_while_the_next_run_goes_on() {
    let bench = bench_or_skip!("pitfall_76_a_result_stays_while_the_next_run_goes_on");
    let stream = bench.stream();
    let (from, to) = (bench.buffer(1024), bench.buffer(1024));
    write_floats(&stream, &from, &[1.0; 256]);
    let mut results = Vec::new();
    for round in 0..20_u8 {
        let mut result = PinnedBuffer::new(&bench.device, 1024).unwrap();
        bench.spin(&stream, LONG / 50);
        bench.scale(&stream, address(&from), address(&to), f32::from(round), 256).unwrap();
        stream.copy_out(&mut result, 0, &to, 0, 1024).unwrap();
        results.push(result);
    }
    for (round, result) in (0..20_u8).zip(&results) {
        let expected = bytes_of(&[f32::from(round); 256]);
        assert_eq!(result.bytes().unwrap(), expected, "round {round}");
    }
}
