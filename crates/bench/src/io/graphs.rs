//! A chain of kernels, enqueued and replayed.

use anyhow::{Context as _, Result, ensure};
use hip_sys::{HipError, hipGraphExec_t};
use hipgraph::{
    Action, BindingMode, DeviceBuffer, Event, Request, Runner, Settings, Stream, Timing, Work,
};

use super::lab::{Lab, N_FLOATS, N_KERNELS, address};
use super::ratio;
use crate::calls::{self, Caller, n_warm};
use crate::contest::{Contest, Goal, Role};

/// Runs until a graph serves: warm runs, the capture, and one that replays.
const MOST_WARM_RUNS: usize = 10;

/// The kernels of this suite, by `hipgraph` and by the runtime's own calls.
pub(super) fn kernels(lab: &Lab, n: (usize, usize)) -> Result<Contest> {
    let stream = Stream::new(&lab.device)?;
    let raw = stream.raw();
    let n_bytes = N_FLOATS as usize * size_of::<f32>();
    let buffers =
        [DeviceBuffer::new(&lab.device, n_bytes)?, DeviceBuffer::new(&lab.device, n_bytes)?];
    let sides = [&buffers[0], &buffers[1]];
    lab.raw_chain(raw, sides)?;
    lab.raw_wait(raw)?;
    let graph = lab.raw_graph(raw, || lab.raw_chain(raw, sides))?;
    let mut chain = Chain { lab, sides };
    let addresses = sides.map(address);
    let mut replayed = Replayed::new(&stream, &mut chain, addresses)?;
    let mut callers = [
        Caller::rival("raw: a graph", || {
            lab.raw_launch(graph, raw)?;
            lab.raw_wait(raw)
        }),
        Caller::ours("ours: replayed", 0, || {
            replayed.run()?;
            Ok(stream.synchronize()?)
        }),
        Caller::rival("raw: each kernel enqueued", || {
            lab.raw_chain(raw, sides)?;
            lab.raw_wait(raw)
        }),
        Caller::ours("ours: each kernel enqueued", 2, || {
            lab.chain(&stream, sides)?;
            Ok(stream.synchronize()?)
        }),
    ];
    let title = format!("{N_KERNELS} kernels of {N_FLOATS} floats, waited for");
    let mut contest = calls::run("kernels", &title, n, &mut callers)?;
    contest.goals = vec![
        Goal::at_most("replayed, over ours enqueued", 0.4, ratio(&contest, 1, 3)),
        Goal::at_most("replayed, over raw calls that enqueue", 0.4, ratio(&contest, 1, 2)),
    ];
    Ok(contest)
}

/// What the device itself takes for a replay of some work, beside a graph of the same work that is launched
/// by the runtime's own call.
pub(super) fn device_time<W: Work>(
    lab: &Lab,
    (stream, graph): (&Stream, hipGraphExec_t),
    work: &mut W,
    addresses: [usize; 2],
    n: (usize, usize),
) -> Result<Contest> {
    let raw = stream.raw();
    let mut replayed = Replayed::new(stream, work, addresses)?;
    let [first, second] = [Marks::new(lab)?, Marks::new(lab)?];
    let mut callers = [
        Caller::of_rounds("raw: a graph", Role::Rival, None, |n_calls, times: &mut Vec<f64>| {
            first.round(stream, n_calls, times, || lab.raw_launch(graph, raw))
        }),
        Caller::of_rounds(
            "ours: replayed",
            Role::Ours,
            Some(0),
            |n_calls, times: &mut Vec<f64>| second.round(stream, n_calls, times, || replayed.run()),
        ),
    ];
    let title = "a program's kernels between two marks of the device";
    let mut contest = calls::run("device-time", title, n, &mut callers)?;
    contest.goals = vec![Goal::at_most(
        "replayed, over a raw graph, on the device",
        1.05,
        ratio(&contest, 1, 0),
    )];
    Ok(contest)
}

/// Work that has been captured.
struct Replayed<'a, W> {
    runner: Runner<()>,
    work: &'a mut W,
    addresses: [usize; 2],
}

impl<'a, W: Work> Replayed<'a, W> {
    fn new(stream: &Stream, work: &'a mut W, addresses: [usize; 2]) -> Result<Self> {
        let runner = Runner::new(stream, Settings::default());
        let mut replayed = Self { runner, work, addresses };
        for _ in 0..MOST_WARM_RUNS {
            if replayed.any()? == Action::Replay {
                return Ok(replayed);
            }
        }
        let reason = replayed.runner.off_reason();
        Err(anyhow::anyhow!("no graph serves: {reason:?}")).context("nothing is replayed")
    }

    fn any(&mut self) -> Result<Action> {
        let request = Request { key: &(), direct: Some(&self.addresses), staged: &[] };
        // SAFETY: the request names the buffers that the work binds, which outlive it.
        let ran = unsafe { self.runner.run(request, self.work) };
        Ok(ran.map_err(|error| anyhow::anyhow!("{error}"))?.action)
    }

    fn run(&mut self) -> Result<()> {
        ensure!(self.any()? == Action::Replay, "a run was not replayed");
        Ok(())
    }
}

struct Chain<'a> {
    lab: &'a Lab,
    sides: [&'a DeviceBuffer; 2],
}

impl Work for Chain<'_> {
    type Error = HipError;

    fn enqueue(&mut self, stream: &Stream, _mode: BindingMode) -> Result<(), HipError> {
        self.lab.chain(stream, self.sides)
    }
}

/// Two marks on a stream.
struct Marks([Event; 2]);

impl Marks {
    fn new(lab: &Lab) -> Result<Self> {
        let mark = || Event::with_timing(&lab.device, Timing::Timed);
        Ok(Self([mark()?, mark()?]))
    }

    /// What the device takes between them, in seconds, for so many calls.
    fn round(
        &self,
        stream: &Stream,
        n_calls: usize,
        times: &mut Vec<f64>,
        mut call: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let [start, stop] = &self.0;
        (0..n_warm(n_calls)).try_for_each(|_| call())?;
        for _ in 0..n_calls {
            stream.synchronize()?;
            start.record(stream)?;
            call()?;
            stop.record(stream)?;
            stop.synchronize()?;
            times.push(stop.since(start)?.as_secs_f64());
        }
        Ok(())
    }
}
