//! The `overhead` suite: what a session adds to MIGraphX's own call.

#![allow(unsafe_code, reason = "the rival is a C API that is called directly; and an allocator")]

mod allocations;
mod contest;
mod lab;
mod raw;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use shapeyard_core::{Request, Tier};

pub(crate) use self::lab::WORKER;

use self::contest::{Contender, Contest, Measured};
use self::lab::{Lab, Subject, views};
use self::raw::Raw;
use crate::record;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every call is timed by itself. A call of MIGraphX itself is a run with parameters that are kept, a look
at where each output lies, and the end of the result; ours also checks the request, copies inputs and
outputs, pads, and reports. What ours adds is the difference of the medians of a round, and of those the
median over all rounds. Allocations are those of Rust code.

MIGraphX computes with its interpreter `ref`, whose own time varies from call to call. On one processor
(--cpu) it starts no threads and varies less. Run it while nothing else runs: the record says how busy
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
    #[arg(long, value_name = "N", default_value_t = 300)]
    rounds: usize,
    /// Calls a round of the model with one input.
    #[arg(long, value_name = "N", default_value_t = 200)]
    calls: usize,
    /// Calls a round of the model with 190 inputs.
    #[arg(long, value_name = "N", default_value_t = 10)]
    long_calls: usize,
    /// Run on this processor alone.
    #[arg(long, value_name = "N")]
    cpu: Option<usize>,
    /// How to print the record.
    #[arg(long, default_value_t, value_enum)]
    format: Format,
    /// Append the record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for a person.
    #[default]
    Text,
    /// One JSON object with the median of every round.
    Json,
}

/// What a run of the suite found.
#[derive(Debug, Serialize)]
struct Record {
    schema: u32,
    suite: &'static str,
    revision: Option<String>,
    processor: String,
    compiler: String,
    /// The only processor that was used.
    cpu: Option<usize>,
    /// Processes that wanted to run, on average over the minute before.
    load_before: Option<f64>,
    contests: Vec<Contest>,
    targets: Vec<Goal>,
}

/// Something that ours should keep to.
#[derive(Debug, Serialize)]
struct Goal {
    what: String,
    at_most: f64,
    found: f64,
    met: bool,
}

impl Goal {
    fn new(what: impl Into<String>, at_most: f64, found: f64) -> Self {
        Self { what: what.into(), at_most, found, met: found <= at_most }
    }
}

/// Measures and prints the record.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0 && args.calls > 0 && args.long_calls > 0, "there has to be a call");
    // All of them: fewer are counted once there is only one to run on.
    let (processor, load_before) = (record::processor(), record::load());
    if let Some(cpu) = args.cpu {
        // Before the library counts the processors.
        stay_on(cpu)?;
    }
    let lab = Lab::open()?;
    let mut targets = Vec::new();
    let small = one_input(args, &lab, &mut targets)?;
    let many = many_inputs(args, &lab, &mut targets)?;
    let record = Record {
        schema: 1,
        suite: "overhead",
        revision: record::revision(),
        processor,
        compiler: lab.compiler,
        cpu: args.cpu,
        load_before,
        contests: vec![small, many],
        targets,
    };
    match args.format {
        Format::Text => record.print(),
        Format::Json => println!("{}", serde_json::to_string_pretty(&record)?),
    }
    args.record.as_ref().map_or(Ok(()), |path| record::append(path, &record))
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
fn one_input(args: &Args, lab: &Lab, targets: &mut Vec<Goal>) -> Result<Contest> {
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
    let contenders = vec![
        Contender::new("MIGraphX, batch 1", 0, || raw_one.call()),
        Contender::new("ours, rebind, batch 1", 0, || rebind.run(&in_one, Tier::Rebind)),
        Contender::new("ours, request bound anew, batch 1", 0, || {
            let request = Request::bind(one.executable.signature(), &row)?;
            binding.run(&request, Tier::Rebind)
        }),
        Contender::new("MIGraphX, batch 2", 3, || raw_two.call()),
        Contender::new("ours, rebind, batch 2", 3, || whole.run(&exact, Tier::Rebind)),
        Contender::new("ours, rebind, batch 1 in 2", 3, || part.run(&padded, Tier::Rebind)),
        Contender::new("ours, cached, batch 2 and 1 in 2 in turn", 3, || {
            turns.next().map_or(Ok(()), |request| cached.run(request, Tier::Cached))
        }),
        // What two copies of one program differ by: less than that says nothing.
        Contender::new("MIGraphX, batch 1, a second copy", 0, || control.call()),
    ];
    let contest = Contest::run(model, (args.rounds, args.calls), contenders)?;
    let added = |at: usize| contest.contenders[at].added_microseconds.median;
    targets.push(Goal::new("rebind, batch 1: microseconds added", 1.0, added(1)));
    targets.push(Goal::new("cached: microseconds added", 3.0, added(6)));
    for at in [1, 4, 5] {
        targets.push(no_allocations(&contest.contenders[at]));
    }
    Ok(contest)
}

/// A model with so many inputs that making parameters costs more than calling.
fn many_inputs(args: &Args, lab: &Lab, targets: &mut Vec<Goal>) -> Result<Contest> {
    let model = "many_inputs.onnx";
    let subject = lab.subject(&args.models.join(model), 1)?;
    let tensors = subject.inputs(1)?;
    let views = views(&tensors);
    let request = Request::bind(subject.executable.signature(), &views)?;
    let (mut kept, mut rebuilt) = (raw(&subject, 1)?, raw(&subject, 1)?);
    let mut rebind = subject.lane()?.after(&request)?;
    let contenders = vec![
        Contender::new("MIGraphX, parameters kept", 0, || kept.call()),
        Contender::new("MIGraphX, parameters made anew", 0, || rebuilt.call_rebuilding()),
        Contender::new("ours, rebind", 0, || rebind.run(&request, Tier::Rebind)),
    ];
    let contest = Contest::run(model, (args.rounds, args.long_calls), contenders)?;
    let ours = &contest.contenders[2];
    targets.push(Goal::new("190 inputs, rebind: times MIGraphX", 1.1, ours.ratio.median));
    targets.push(no_allocations(ours));
    Ok(contest)
}

fn no_allocations(of: &Measured) -> Goal {
    Goal::new(format!("allocations a call: {}", of.name), 0.0, of.allocations_per_call)
}

impl Record {
    fn print(&self) {
        let load = self.load_before.map_or_else(|| "unknown".to_owned(), |it| format!("{it:.2}"));
        let cpu = self.cpu.map_or_else(String::new, |cpu| format!(", on processor {cpu} alone"));
        println!("{}{cpu}; load before {load}; {}, ref", self.processor, self.compiler);
        self.contests.iter().for_each(Contest::print);
        println!();
        for goal in &self.targets {
            let verdict = if goal.met { "met" } else { "missed" };
            println!("{verdict:>6}: {}: {:.2}, at most {}", goal.what, goal.found, goal.at_most);
        }
    }
}
