//! The `concurrency` suite: many threads at one engine on static programs, with batches of every size, and
//! with batches of the one size that a program has.

mod clients;
mod place;
mod rows;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use shapeyard_core::plan::Steps;
use shapeyard_migraphx::Target;

use self::clients::{Batches, Tally};
use self::place::{Contender, Place};
use crate::measure::{median, spread};
use crate::record;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The contenders take turns in rounds, after one round of a second that does not count. Every row of every
answer is compared with the answer that it has alone, and a request that wants a compile fails: it is
counted, and there must be none. Run it while nothing else runs.

Examples:
  cargo xtask bench concurrency
  cargo xtask bench concurrency --seconds 6 --threads 8 --extent 16
  cargo xtask bench concurrency --model tests/models/dense.onnx --instances 1
  cargo xtask bench concurrency --format json > concurrency.json")]
pub(crate) struct Args {
    /// The model; every input and output has rows along its first axis.
    #[arg(long, value_name = "FILE", default_value = "tests/models/encoder.onnx")]
    model: PathBuf,
    /// What runs it: `ref`, MIGraphX's plain interpreter, or `gpu`.
    #[arg(long, value_name = "NAME", default_value = "ref", value_parser = target)]
    target: Target,
    /// Batches that have a program; requests have 1 to the largest.
    #[arg(long, value_name = "STEPS", default_value = "..16")]
    batches: Steps,
    /// The extent of every symbol that is not the batch.
    #[arg(long, value_name = "N", default_value_t = 8)]
    extent: usize,
    /// Threads that each wait for their request before they send the next.
    #[arg(long, value_name = "N", default_value_t = 16)]
    threads: usize,
    /// Sessions of the engine; one a processor unless given.
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Copies of each program, one contender for each.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "1,2")]
    instances: Vec<usize>,
    /// How long each contender runs, all rounds together.
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Interleaved rounds.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u32,
    /// How to print the record.
    #[arg(long, default_value_t, value_enum)]
    format: Format,
    /// Append the record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for a person.
    #[default]
    Text,
    /// One JSON object with every round.
    Json,
}

fn target(name: &str) -> Result<Target, String> {
    let known = [Target::Gpu, Target::Ref, Target::Cpu];
    let found = known.into_iter().find(|target| target.name() == name);
    found.ok_or_else(|| "there are `gpu`, `ref` and `cpu`".to_owned())
}

/// What a run of the suite found.
#[derive(Debug, Serialize)]
struct Record {
    schema: u32,
    suite: &'static str,
    revision: Option<String>,
    processor: String,
    load_before: Option<f64>,
    model: PathBuf,
    target: Target,
    extent: usize,
    batches: Vec<usize>,
    n_threads: usize,
    n_sessions: usize,
    compile_seconds: f64,
    contenders: Vec<Measured>,
}

/// What one contender did in all rounds.
#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    instances: usize,
    n_requests: usize,
    n_rows: usize,
    n_padded_rows: usize,
    /// Requests that wanted a program which was not there.
    n_wanted_compiles: usize,
    /// Rows whose bytes are those of the answer that they have alone; the others are near it.
    n_equal_rows: usize,
    rows_per_second: f64,
    /// What other work on the machine hardly changes.
    rows_per_cpu_second: f64,
    /// Largest less smallest, as a share of the median.
    spread: f64,
    /// Rows a second of processor time, as a share of the first contender with as many instances.
    share: f64,
    median_latency_ms: f64,
    p99_latency_ms: f64,
    rounds: Vec<f64>,
}

/// Measures and prints the record.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.threads > 0 && args.rounds > 0, "there has to be a thread and a round");
    ensure!(!args.instances.contains(&0) && !args.instances.is_empty(), "--instances start at 1");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let n_sessions = args.sessions.unwrap_or(processors).max(1);
    let load_before = record::load();
    let place = Place::make(args).context("no programs were made")?;
    let mut contenders = Vec::new();
    for &instances in &args.instances {
        contenders.extend(contenders_of(&place, instances, n_sessions, args.threads)?);
    }
    let tallies = rounds(&place, &contenders, args)?;
    let record = Record {
        schema: 1,
        suite: "concurrency",
        revision: record::revision(),
        processor: record::processor(),
        load_before,
        model: args.model.clone(),
        target: args.target,
        extent: args.extent,
        batches: place.batches.clone(),
        n_threads: args.threads,
        n_sessions,
        compile_seconds: place.compile_time.as_secs_f64(),
        contenders: measured(&contenders, &tallies),
    };
    match args.format {
        Format::Text => record.print(),
        Format::Json => println!("{}", serde_json::to_string_pretty(&record)?),
    }
    args.record.as_ref().map_or(Ok(()), |path| record::append(path, &record))
}

fn contenders_of(
    place: &Place,
    instances: usize,
    n_sessions: usize,
    n_threads: usize,
) -> Result<Vec<Contender>> {
    let most = place.most_rows();
    let make = |name: String, batches, only| {
        place.contender(name, batches, only, (instances, n_sessions, n_threads))
    };
    Ok(vec![
        make(format!("batches of {most}"), Batches::Fixed(most), None)?,
        make(format!("batches of 1 to {most}"), Batches::UpTo(most), None)?,
        make(
            format!("batches of 1 to {most}, all padded to {most}"),
            Batches::UpTo(most),
            Some(most),
        )?,
    ])
}

fn rounds(place: &Place, contenders: &[Contender], args: &Args) -> Result<Vec<Vec<Tally>>> {
    let mut tallies = vec![Vec::new(); contenders.len()];
    for contender in contenders {
        clients::run(contender, &place.rows, args.threads, Duration::from_secs(1), 0)?;
    }
    let time = Duration::from_secs(args.seconds) / args.rounds;
    for round in 1..=args.rounds {
        for (contender, tallies) in contenders.iter().zip(&mut tallies) {
            eprintln!("round {round}: {}, {} instance(s)", contender.name, contender.instances);
            tallies.push(clients::run(contender, &place.rows, args.threads, time, round)?);
        }
    }
    Ok(tallies)
}

fn measured(contenders: &[Contender], tallies: &[Vec<Tally>]) -> Vec<Measured> {
    let mut all: Vec<Measured> = Vec::new();
    for (contender, tallies) in contenders.iter().zip(tallies) {
        let mut it = Measured::new(contender, tallies);
        let first = all.iter().find(|first| first.instances == it.instances);
        it.share = first.map_or(1.0, |first| it.rows_per_cpu_second / first.rows_per_cpu_second);
        all.push(it);
    }
    all
}

impl Measured {
    fn new(contender: &Contender, tallies: &[Tally]) -> Self {
        let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum();
        let rounds: Vec<f64> = tallies.iter().map(Tally::rows_per_second).collect();
        let cpu_seconds: f64 = tallies.iter().map(|it| it.cpu_seconds).sum();
        let mut latencies: Vec<f64> =
            tallies.iter().flat_map(|it| it.latencies_ms.clone()).collect();
        latencies.sort_by(f64::total_cmp);
        let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        Self {
            name: contender.name.clone(),
            instances: contender.instances,
            n_requests: sum(|it| it.latencies_ms.len()),
            n_rows: sum(|it| it.n_rows),
            n_padded_rows: sum(|it| it.n_padded_rows),
            n_wanted_compiles: contender.n_wanted_compiles(),
            n_equal_rows: sum(|it| it.n_equal_rows),
            rows_per_second: median(&rounds),
            rows_per_cpu_second: sum(|it| it.n_rows) as f64 / cpu_seconds,
            spread: spread(&rounds),
            share: f64::NAN,
            median_latency_ms: median(&latencies),
            p99_latency_ms: p99,
            rounds,
        }
    }

    fn print(&self) {
        let padding = 100.0 * self.n_padded_rows as f64 / (self.n_rows + self.n_padded_rows) as f64;
        println!(
            "{:>9} {:>10.0} {:>7.1}% {:>10.0} {:>6.2} {:>8.1}% {:>9.2} {:>9.2} {:>9}  {}",
            self.instances,
            self.rows_per_second,
            100.0 * self.spread,
            self.rows_per_cpu_second,
            self.share,
            padding,
            self.median_latency_ms,
            self.p99_latency_ms,
            self.n_wanted_compiles,
            self.name,
        );
    }
}

impl Record {
    fn print(&self) {
        let load = self.load_before.map_or_else(|| "unknown".to_owned(), |it| format!("{it:.2}"));
        println!("{}; load before {load}", self.processor);
        println!(
            "{} on `{}`, {} threads, {} sessions; programs of {:?} compiled in {:.1} s",
            self.model.display(),
            self.target,
            self.n_threads,
            self.n_sessions,
            self.batches,
            self.compile_seconds,
        );
        println!(
            "{:>9} {:>10} {:>8} {:>10} {:>6} {:>9} {:>9} {:>9} {:>9}",
            "instances",
            "rows/s",
            "spread",
            "rows/CPU s",
            "share",
            "padding",
            "median ms",
            "p99 ms",
            "compiles",
        );
        self.contenders.iter().for_each(Measured::print);
        let rows: usize = self.contenders.iter().map(|it| it.n_rows).sum();
        let equal: usize = self.contenders.iter().map(|it| it.n_equal_rows).sum();
        println!(
            "{rows} rows were compared with their answers alone; {equal} equal them to the byte"
        );
    }
}
