//! The `overhead` suite: what a session adds to MIGraphX's own call.

#![allow(unsafe_code, reason = "the rival is a C API that is called directly; and an allocator")]

mod allocations;
mod lab;
pub(crate) mod raw;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CpuSet, sched_setaffinity};
use shapeyard_core::{Request, Tier};

use self::lab::{Lab, Subject, views};
use self::raw::Raw;
use crate::calls::{self, ADDS, Caller};
use crate::contest::{Contest, Goal, Measured};
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one};

/// Calls whose requests for memory are counted.
const N_COUNTED: usize = 100;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every call is timed by itself. A call of MIGraphX itself is a run with parameters that are kept, a look \
at where each output lies, and the end of the result; ours also checks the request, copies inputs and \
outputs, pads, and reports. What ours adds is the difference of the medians of a round, and of those the \
median over all rounds. Allocations are those of Rust code.

MIGraphX computes with its interpreter `ref`, whose own time varies from call to call. On one processor \
(--cpu) it starts no threads and varies less. Run it while nothing else runs: the record says how busy \
the machine was.

Examples:
  cargo xtask bench overhead
  cargo xtask bench overhead --cpu 1
  cargo xtask bench overhead --format json > overhead.json")]
pub(crate) struct Args {
    /// Folder of the tiny models.
    #[arg(long, value_name = "DIR", default_value = "tests/models")]
    models: PathBuf,
    /// Interleaved rounds of all contenders; many short ones, so that both sides of a difference lie close.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = at_least_one)]
    rounds: usize,
    /// Calls a round of the model with one input.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = at_least_one)]
    calls: usize,
    /// Calls a round of the model with 190 inputs.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    long_calls: usize,
    /// Run on this processor alone.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "overhead";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        if let Some(cpu) = self.cpu {
            // Before the library counts the processors.
            stay_on(cpu)?;
            record.set("cpu", cpu);
        }
        let lab = Lab::open(host.worker()?)?;
        record.library("migraphx", &lab.compiler);
        record.set("target", "ref");
        record.contests.push(one_input(self, &lab)?);
        record.contests.push(many_inputs(self, &lab)?);
        Ok(())
    }
}

fn stay_on(cpu: usize) -> Result<()> {
    ensure!(cpu < CpuSet::MAX_CPU, "there is no processor {cpu}");
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("processor {cpu} cannot be used"))
}

/// MIGraphX itself on the program of a subject, with inputs that fill it.
fn raw(subject: &Subject, n_rows: usize) -> Result<Raw> {
    let tensors = subject.inputs(n_rows)?;
    let mut raw = Raw::load(subject.payload(), &subject.named(&views(&tensors)))?;
    let views = views(&tensors);
    let request = Request::bind(subject.executable.signature(), &views)?;
    subject.lane()?.after(&request)?.check(&raw.answers()?)?;
    Ok(raw)
}

/// A model that does next to nothing: all that is measured is calling it.
fn one_input(args: &Args, lab: &Lab) -> Result<Contest> {
    let (model, path) = ("add_one.onnx", args.models.join("add_one.onnx"));
    let (one, two) = (lab.subject(&path, 1)?, lab.subject(&path, 2)?);
    let (row, rows) = (one.inputs(1)?, two.inputs(2)?);
    let (row, rows) = (views(&row), views(&rows));
    let in_one = Request::bind(one.executable.signature(), &row)?;
    let [padded, exact] = [&row, &rows].map(|it| Request::bind(two.executable.signature(), it));
    let (padded, exact) = (padded?, exact?);
    let (mut raw_one, mut raw_two) = (raw(&one, 1)?, raw(&two, 2)?);
    let mut control = raw(&one, 1)?;
    let mut rebind = one.lane()?.after(&in_one)?;
    let mut binding = one.lane()?.after(&in_one)?;
    let mut whole = two.lane()?.after(&exact)?;
    let mut part = two.lane()?.after(&padded)?;
    let mut cached = two.lane()?.after(&exact)?.after(&padded)?;
    let mut turns = [&exact, &padded].into_iter().cycle();
    let mut callers = [
        Caller::rival("MIGraphX, batch 1", || raw_one.call()),
        Caller::ours("ours, rebind, batch 1", 0, || rebind.run(&in_one, Tier::Rebind)),
        Caller::ours("ours, request bound anew, batch 1", 0, || {
            let request = Request::bind(one.executable.signature(), &row)?;
            binding.run(&request, Tier::Rebind)
        }),
        Caller::rival("MIGraphX, batch 2", || raw_two.call()),
        Caller::ours("ours, rebind, batch 2", 3, || whole.run(&exact, Tier::Rebind)),
        Caller::ours("ours, rebind, batch 1 in 2", 3, || part.run(&padded, Tier::Rebind)),
        Caller::ours("ours, cached, batch 2 and 1 in 2 in turn", 3, || {
            turns.next().map_or(Ok(()), |request| cached.run(request, Tier::Cached))
        }),
        // What two copies of one program differ by: less than that says nothing.
        Caller::control("MIGraphX, batch 1, a second copy", 0, || control.call()),
    ];
    let mut contest = measured(model, (args.rounds, args.calls), &mut callers)?;
    let added = |at: usize| contest.contenders[at].facts.more.get(ADDS).copied();
    let added = |at| added(at).unwrap_or(f64::NAN);
    let mut goals = vec![
        Goal::at_most("rebind, batch 1: microseconds added", 1.0, added(1)),
        Goal::at_most("cached: microseconds added", 3.0, added(6)),
    ];
    goals.extend([1, 4, 5].map(|at| no_allocations(&contest.contenders[at])));
    contest.goals = goals;
    Ok(contest)
}

/// A model with so many inputs that making parameters costs more than calling.
fn many_inputs(args: &Args, lab: &Lab) -> Result<Contest> {
    let model = "many_inputs.onnx";
    let subject = lab.subject(&args.models.join(model), 1)?;
    let tensors = subject.inputs(1)?;
    let views = views(&tensors);
    let request = Request::bind(subject.executable.signature(), &views)?;
    let (mut kept, mut rebuilt) = (raw(&subject, 1)?, raw(&subject, 1)?);
    let mut rebind = subject.lane()?.after(&request)?;
    let mut callers = [
        Caller::rival("MIGraphX, parameters kept", || kept.call()),
        Caller::control("MIGraphX, parameters made anew", 0, || rebuilt.call_rebuilding()),
        Caller::ours("ours, rebind", 0, || rebind.run(&request, Tier::Rebind)),
    ];
    let mut contest = measured(model, (args.rounds, args.long_calls), &mut callers)?;
    let ours = &contest.contenders[2];
    let ratio = contest.ratio_of(ours).map_or(f64::NAN, |it| it.median);
    contest.goals = vec![Goal::at_most("rebind: times MIGraphX", 1.1, ratio), no_allocations(ours)];
    Ok(contest)
}

/// Times calls, then counts their requests for memory.
fn measured(model: &str, rounds: (usize, usize), callers: &mut [Caller<'_>]) -> Result<Contest> {
    let mut contest = calls::run(model, "a program that is called", rounds, callers)?;
    let mut times = Vec::with_capacity(N_COUNTED);
    for (measured, caller) in contest.contenders.iter_mut().zip(callers) {
        let (calls, n) = allocations::during(|| caller.round(N_COUNTED, &mut times));
        calls?;
        let n_calls = N_COUNTED + calls::n_warm(N_COUNTED);
        measured.facts.allocations = Some(n as f64 / n_calls as f64);
    }
    Ok(contest)
}

fn no_allocations(of: &Measured) -> Goal {
    let found = of.facts.allocations.unwrap_or(f64::NAN);
    Goal::at_most(format!("allocations a call: {}", of.name), 0.0, found)
}
