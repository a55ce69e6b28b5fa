//! Which graph answers, on a real device. Without one each test says so and is skipped; with
//! `SHAPEYARD_REQUIRE_DEVICE` set it fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "runs with addresses of the device")]

mod common;

use std::ptr;
use std::thread;

use common::{Bench, address, bench_or_skip, read_floats, write_floats};
use hip_sys::HipError;
use hipgraph::{
    Action, BindingMode, DeviceBuffer, EagerReason, OffReason, Ran, Request, Runner, Settings,
    Stream, Work,
};

const COUNT: i32 = 256;
const N_BYTES: usize = 1024;

/// What a run of the tests does with its input and its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `out = in * factor`.
    Scale,
    /// `out = 0; out += in`.
    ResetAndAdd,
    /// `out += in`: another answer each time.
    Add,
    /// A call in it cannot be recorded.
    Unrecordable,
}

struct Run<'a> {
    bench: &'a Bench,
    kind: Kind,
    factor: f32,
    /// Addresses of the input and the output in each mode.
    direct: [usize; 2],
    staged: [usize; 2],
}

impl Work for Run<'_> {
    type Error = HipError;

    fn enqueue(&mut self, stream: &Stream, mode: BindingMode) -> Result<(), HipError> {
        let [from, to] = self.addresses(mode);
        match self.kind {
            Kind::Scale => self.bench.scale(stream, from, to, self.factor, COUNT),
            Kind::ResetAndAdd => {
                self.bench.scale(stream, from, to, 0.0, COUNT)?;
                self.bench.accumulate(stream, from, to, COUNT)
            }
            Kind::Add => self.bench.accumulate(stream, from, to, COUNT),
            Kind::Unrecordable => {
                self.bench.scale(stream, from, to, self.factor, COUNT)?;
                stream.synchronize()
            }
        }
    }

    fn outputs(&self, mode: BindingMode) -> Vec<(usize, usize)> {
        vec![(self.addresses(mode)[1], N_BYTES)]
    }
}

impl Run<'_> {
    fn addresses(&self, mode: BindingMode) -> [usize; 2] {
        match mode {
            BindingMode::DirectBind => self.direct,
            BindingMode::Staged => self.staged,
        }
    }

    /// One request; `direct` says whether the caller's addresses may be bound.
    fn run(&mut self, runner: &mut Runner<u32>, key: u32, direct: bool) -> Ran {
        let (given, staged) = (self.direct, self.staged);
        let direct = direct.then_some(given.as_slice());
        // SAFETY: the request names every address, and the buffers outlive the test's work.
        unsafe { runner.run(Request { key: &key, direct, staged: &staged }, self) }.unwrap()
    }
}

/// Buffers of the caller and of ours, and what is in the inputs.
struct Buffers {
    direct: [DeviceBuffer; 2],
    staged: [DeviceBuffer; 2],
}

impl Buffers {
    fn new(bench: &Bench, stream: &Stream) -> Self {
        let pair = || [bench.buffer(N_BYTES), bench.buffer(N_BYTES)];
        let buffers = Self { direct: pair(), staged: pair() };
        write_floats(stream, &buffers.direct[0], &[1.0; 256]);
        write_floats(stream, &buffers.staged[0], &[10.0; 256]);
        buffers.clear(stream);
        buffers
    }

    fn clear(&self, stream: &Stream) {
        for pair in [&self.direct, &self.staged] {
            stream.fill(&pair[1], 0, N_BYTES, 0).unwrap();
        }
    }

    fn work<'a>(&self, bench: &'a Bench, kind: Kind) -> Run<'a> {
        let addresses = |pair: &[DeviceBuffer; 2]| [address(&pair[0]), address(&pair[1])];
        let (direct, staged) = (addresses(&self.direct), addresses(&self.staged));
        Run { bench, kind, factor: 3.0, direct, staged }
    }

    /// The first value of each mode's output.
    fn outputs(&self, stream: &Stream) -> [f32; 2] {
        [&self.direct, &self.staged].map(|pair| {
            let values = read_floats(stream, &pair[1], 256);
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
            values[0]
        })
    }
}

const WARMING: Action = Action::Eager(EagerReason::Warming);

#[test]
fn pitfall_52_a_replay_never_crosses_modes() {
    let bench = bench_or_skip!("pitfall_52_a_replay_never_crosses_modes");
    let stream = bench.stream();
    let mut runner = Runner::new(&stream, Settings::default());
    let buffers = Buffers::new(&bench, &stream);
    let mut work = buffers.work(&bench, Kind::Scale);
    for round in 0..40 {
        let is_direct = round % 2 == 0;
        buffers.clear(&stream);
        let ran = work.run(&mut runner, 1, is_direct);
        let expected = if is_direct { [3.0, 0.0] } else { [0.0, 30.0] };
        assert_eq!(buffers.outputs(&stream), expected, "round {round}: {ran:?}");
        assert_eq!(ran.mode == BindingMode::DirectBind, is_direct);
    }
    let counts = runner.statistics();
    assert_eq!((counts.eager, counts.captures, counts.replays), (4, 2, 34));
}

/// The million runs are in the tests of the state machine.
#[test]
fn pitfalls_53_54_addresses_that_drift_are_captured_anew_and_those_that_jump_are_staged() {
    let bench = bench_or_skip!(
        "pitfalls_53_54_addresses_that_drift_are_captured_anew_and_those_that_jump_are_staged"
    );
    let stream = bench.stream();
    let mut settings = Settings::default();
    settings.probation_runs = 8;
    let mut runner = Runner::new(&stream, settings);
    let buffers = Buffers::new(&bench, &stream);
    let outputs: Vec<DeviceBuffer> = (0..4).map(|_| bench.buffer(N_BYTES)).collect();
    let mut work = buffers.work(&bench, Kind::Scale);
    for round in 0..5000_usize {
        let output = &outputs[round / 100 % 4];
        stream.fill(output, 0, N_BYTES, 0).unwrap();
        work.direct[1] = address(output);
        let ran = work.run(&mut runner, 1, true);
        assert_eq!(ran.mode, BindingMode::DirectBind);
        if round % 50 == 0 {
            assert_eq!(read_floats(&stream, output, 256), [3.0; 256], "round {round}");
        }
    }
    assert_eq!(runner.statistics().falls, 0);
    let mut modes = Vec::new();
    for round in 0..40_usize {
        let output = &outputs[round % 4];
        stream.fill(output, 0, N_BYTES, 0).unwrap();
        work.direct[1] = address(output);
        let ran = work.run(&mut runner, 1, true);
        let answer = match ran.mode {
            BindingMode::DirectBind => read_floats(&stream, output, 256)[0],
            BindingMode::Staged => buffers.outputs(&stream)[1] / 10.0,
        };
        assert_eq!(answer, 3.0, "round {round}: {ran:?}");
        modes.push(ran.mode);
    }
    assert!(runner.statistics().falls >= 2, "{modes:?}");
    assert!(modes.contains(&BindingMode::DirectBind) && modes.contains(&BindingMode::Staged));
}

#[test]
fn pitfall_55_our_own_buffers_that_move_are_captured_anew() {
    let bench = bench_or_skip!("pitfall_55_our_own_buffers_that_move_are_captured_anew");
    let stream = bench.stream();
    let mut runner = Runner::new(&stream, Settings::default());
    let buffers = Buffers::new(&bench, &stream);
    let mut work = buffers.work(&bench, Kind::Scale);
    for _ in 0..4 {
        work.run(&mut runner, 1, false);
    }
    let larger = bench.buffer(N_BYTES * 2);
    work.staged[1] = address(&larger);
    assert_eq!(work.run(&mut runner, 1, false).action, Action::Capture);
    assert_eq!(read_floats(&stream, &larger, 256), [30.0; 256]);
    assert_eq!(work.run(&mut runner, 1, false).action, Action::Replay);
}

#[test]
fn pitfall_56_a_run_that_adds_up_answers_the_same_from_the_first() {
    let bench = bench_or_skip!("pitfall_56_a_run_that_adds_up_answers_the_same_from_the_first");
    let stream = bench.stream();
    let mut runner = Runner::new(&stream, Settings::default());
    let buffers = Buffers::new(&bench, &stream);
    let mut work = buffers.work(&bench, Kind::ResetAndAdd);
    for round in 0..10 {
        let ran = work.run(&mut runner, 1, true);
        assert_eq!(buffers.outputs(&stream)[0], 1.0, "round {round}: {ran:?}");
    }
    // Without the reset each run counts once, the captured one too.
    let mut work = buffers.work(&bench, Kind::Add);
    buffers.clear(&stream);
    for round in 1..10_u8 {
        let ran = work.run(&mut runner, 2, true);
        assert_eq!(buffers.outputs(&stream)[0], f32::from(round), "round {round}: {ran:?}");
    }
}

/// The comparison finds a replay that answers otherwise.
#[test]
fn pitfalls_56_68_a_replay_that_answers_otherwise_is_found_and_never_serves() {
    let bench =
        bench_or_skip!("pitfalls_56_68_a_replay_that_answers_otherwise_is_found_and_never_serves");
    let stream = bench.stream();
    let mut settings = Settings::default();
    settings.checks = 2;
    let mut runner = Runner::new(&stream, settings);
    let buffers = Buffers::new(&bench, &stream);
    let mut good = buffers.work(&bench, Kind::Scale);
    let actions: Vec<Action> = (0..6).map(|_| good.run(&mut runner, 1, true).action).collect();
    let expected =
        [WARMING, WARMING, Action::Capture, Action::Check, Action::Check, Action::Replay];
    assert_eq!(actions, expected);
    let mut bad = buffers.work(&bench, Kind::Add);
    let ran: Vec<Ran> = (0..6).map(|_| bad.run(&mut runner, 2, true)).collect();
    assert!(ran[3].fallback.as_deref().unwrap().contains("another answer"), "{ran:?}");
    assert_eq!(ran[5].action, Action::Eager(EagerReason::Condemned));
}

#[test]
fn pitfall_57_a_capture_that_fails_is_answered_eagerly_and_rests() {
    let bench = bench_or_skip!("pitfall_57_a_capture_that_fails_is_answered_eagerly_and_rests");
    let stream = bench.stream();
    let mut settings = Settings::default();
    settings.rest_runs = 3;
    let mut runner = Runner::new(&stream, settings);
    let buffers = Buffers::new(&bench, &stream);
    let mut work = buffers.work(&bench, Kind::Unrecordable);
    let mut other = buffers.work(&bench, Kind::Scale);
    let mut actions = Vec::new();
    for round in 0..7 {
        buffers.clear(&stream);
        let ran = work.run(&mut runner, 1, true);
        assert_eq!(ran.fallback.is_some(), ran.action == Action::Capture, "{ran:?}");
        assert_eq!(buffers.outputs(&stream)[0], 3.0, "round {round}: {ran:?}");
        actions.push(ran.action);
        other.run(&mut runner, 2, true);
    }
    let resting = Action::Eager(EagerReason::Resting);
    let expected = [WARMING, WARMING, Action::Capture, resting, resting, resting, Action::Capture];
    assert_eq!(actions, expected);
    assert_eq!(runner.statistics().replays, 4, "only that key rests");
    // It has become recordable.
    work.kind = Kind::Scale;
    let actions: Vec<Action> = (0..8).map(|_| work.run(&mut runner, 1, true).action).collect();
    assert_eq!(actions[6..], [Action::Capture, Action::Replay]);
}

/// A larger and a smaller bucket in turn.
#[test]
fn pitfall_60_buckets_in_turn_each_have_their_own_graph() {
    let bench = bench_or_skip!("pitfall_60_buckets_in_turn_each_have_their_own_graph");
    let stream = bench.stream();
    let mut runner = Runner::new(&stream, Settings::default());
    let buffers = Buffers::new(&bench, &stream);
    let mut runs = [3, 4].map(|factor| {
        let mut run = buffers.work(&bench, Kind::Scale);
        run.factor = f32::from(u8::try_from(factor).unwrap());
        run
    });
    for round in 0..50 {
        let index = round % 2;
        let ran = runs[index].run(&mut runner, u32::try_from(index).unwrap(), true);
        assert_eq!(buffers.outputs(&stream)[0], runs[index].factor, "round {round}: {ran:?}");
    }
    assert_eq!(runner.statistics().replays, 50 - 6);
}

/// Graphs that make room may still be in flight.
#[test]
fn pitfall_59_graphs_that_make_room_end_first() {
    let bench = bench_or_skip!("pitfall_59_graphs_that_make_room_end_first");
    let stream = bench.stream();
    let mut settings = Settings::default();
    settings.capacity = 1;
    settings.warm_runs = 0;
    let mut runner = Runner::new(&stream, settings);
    let buffers = Buffers::new(&bench, &stream);
    for round in 0..60_u32 {
        let mut work = buffers.work(&bench, Kind::Scale);
        work.factor = f32::from(u8::try_from(round % 3 + 1).unwrap());
        bench.spin(&stream, 500_000);
        work.run(&mut runner, round % 3, true);
        assert_eq!(buffers.outputs(&stream)[0], work.factor);
    }
    assert_eq!(runner.statistics().evictions, 59);
}

#[test]
fn pitfall_66_on_the_default_stream_graphs_are_off_with_a_reason() {
    let bench = bench_or_skip!("pitfall_66_on_the_default_stream_graphs_are_off_with_a_reason");
    // SAFETY: the default stream is always there.
    let stream = unsafe { Stream::borrowed(&bench.device, ptr::null_mut()) };
    let mut runner = Runner::new(&stream, Settings::default());
    assert_eq!(runner.off_reason(), Some(OffReason::DefaultStream));
    let buffers = Buffers::new(&bench, &stream);
    let mut work = buffers.work(&bench, Kind::Scale);
    for _ in 0..5 {
        let ran = work.run(&mut runner, 1, true);
        assert_eq!(ran.action, Action::Eager(EagerReason::Disabled));
        assert_eq!(buffers.outputs(&stream)[0], 3.0);
    }
}

#[test]
fn pitfall_63_lanes_of_many_threads_answer_as_one() {
    let bench = bench_or_skip!("pitfall_63_lanes_of_many_threads_answer_as_one");
    for n_lanes in [2, 8] {
        thread::scope(|scope| {
            for lane in 0..n_lanes {
                let bench = &bench;
                scope.spawn(move || lane_of_runs(bench, lane));
            }
        });
    }
}

fn lane_of_runs(bench: &Bench, lane: u32) {
    let stream = bench.stream();
    let mut runner = Runner::new(&stream, Settings::default());
    let buffers = Buffers::new(bench, &stream);
    let mut seed = lane + 1;
    for round in 0..2500 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (key, is_direct) = (seed >> 28, seed & 0x800_0000 != 0);
        let mut work = buffers.work(bench, Kind::Scale);
        work.factor = f32::from(u8::try_from(key + 1).unwrap());
        let ran = work.run(&mut runner, key, is_direct);
        let [direct, staged] = buffers.outputs(&stream);
        let answer = if is_direct { direct } else { staged / 10.0 };
        assert_eq!(answer, work.factor, "lane {lane}, round {round}: {ran:?}");
    }
    assert!(runner.statistics().replays > 2000);
}
