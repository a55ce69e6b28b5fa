//! The `concurrency` suite: many threads at one engine on static programs, with batches of every size, and
//! with batches of the one size that a program has.

mod clients;
mod place;
pub(crate) mod rows;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use shapeyard_core::plan::Steps;
use shapeyard_migraphx::Target;

use self::clients::{Batches, Tally};
use self::place::{Contender, Place};
use crate::contest::{Contest, Facts, Goal, Measured, Role};
use crate::measure::Percentiles;
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one};

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The contenders take turns in rounds, after one round of a second that does not count. Every row of every \
answer is compared with the answer that it has alone, and a request that wants a compile fails: it is \
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
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    threads: usize,
    /// Sessions of the engine; one a processor unless given.
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Copies of each program, one contender for each.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_value = "1,2", value_parser = at_least_one)]
    instances: Vec<usize>,
    /// How long each contender runs, all rounds together.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = at_least_one)]
    seconds: usize,
    /// Interleaved rounds.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

fn target(name: &str) -> Result<Target, String> {
    let known = [Target::Gpu, Target::Ref, Target::Cpu];
    let found = known.into_iter().find(|target| target.name() == name);
    found.ok_or_else(|| "there are `gpu`, `ref` and `cpu`".to_owned())
}

impl Suite for Args {
    const NAME: &'static str = "concurrency";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let n_sessions = self.sessions.unwrap_or(processors).max(1);
        let place = Place::make(self, host.worker()?)?;
        record.library("migraphx", &place.compiler);
        record.set_file("model", &self.model);
        record.set("target", self.target.name());
        record.set("extent", self.extent);
        record.set("batches", place.batches.clone());
        record.set("threads", self.threads);
        record.set("sessions", n_sessions);
        record.set("compile_seconds", place.compile_time.as_secs_f64());
        for &instances in &self.instances {
            let contenders = contenders_of(&place, instances, n_sessions, self.threads)?;
            let tallies = rounds(&place, &contenders, self)?;
            record.contests.push(contest(instances, &contenders, &tallies));
        }
        Ok(())
    }
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
        make(format!("batches of 1 to {most}"), Batches::UpTo(most), None)?,
        make(format!("batches of {most}"), Batches::Fixed(most), None)?,
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
    let time = Duration::from_secs_f64(args.seconds as f64 / args.rounds as f64);
    for round in 1..=args.rounds {
        for (contender, tallies) in contenders.iter().zip(&mut tallies) {
            eprintln!("round {round}: {}, {} instance(s)", contender.name, contender.instances);
            tallies.push(clients::run(contender, &place.rows, args.threads, time, round)?);
        }
    }
    Ok(tallies)
}

/// What takes the time is a row; rows a second of processor time are what other work hardly changes.
fn contest(instances: usize, contenders: &[Contender], tallies: &[Vec<Tally>]) -> Contest {
    let contenders: Vec<Measured> =
        contenders.iter().zip(tallies).map(|(it, tallies)| measured(it, tallies)).collect();
    let sum = |of: fn(&Tally) -> usize| tallies.iter().flatten().map(of).sum::<usize>();
    let (n_rows, n_equal) = (sum(|it| it.n_rows), sum(|it| it.n_equal_rows));
    let wanted: f64 = contenders.iter().filter_map(|it| it.facts.more.get(WANTED)).sum();
    let copies = if instances == 1 { "copy" } else { "copies" };
    Contest {
        name: format!("{instances} {copies}"),
        title: format!("seconds a row, {instances} {copies} of each program"),
        n_warm_up: 1,
        n_rounds: tallies.first().map_or(0, Vec::len),
        contenders,
        goals: vec![Goal::at_most("requests that wanted a compile", 0.0, wanted)],
        notes: vec![format!(
            "{n_rows} rows were compared with their answers alone; {n_equal} equal them to the byte"
        )],
    }
}

/// Counts the requests that wanted a program which was not there.
const WANTED: &str = "compiles wanted";

fn measured(contender: &Contender, tallies: &[Tally]) -> Measured {
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (n_rows, n_padded) = (sum(|it| it.n_rows), sum(|it| it.n_padded_rows));
    let cpu_seconds: f64 = tallies.iter().map(|it| it.cpu_seconds).sum();
    let seconds_a_row = tallies.iter().map(|it| it.seconds / it.n_rows as f64).collect();
    let latencies: Vec<f64> =
        tallies.iter().flat_map(|it| it.latencies_ms.iter().map(|ms| ms / 1e3)).collect();
    let role = match contender.batches {
        Batches::UpTo(_) if contender.is_padded_to_one => Role::Rival,
        Batches::UpTo(_) => Role::Ours,
        Batches::Fixed(_) => Role::Limit,
    };
    let more = [
        ("rows/CPU s", n_rows as f64 / cpu_seconds),
        (WANTED, contender.n_wanted_compiles() as f64),
    ];
    Measured {
        calls: Some(Percentiles::of(&latencies)),
        facts: Facts {
            work: Some((1.0, "rows".to_owned())),
            padding_share: Some(n_padded as f64 / (n_rows + n_padded) as f64),
            more: more.map(|(name, value)| (name.to_owned(), value)).into(),
            ..Facts::default()
        },
        ..Measured::new(&contender.name, role, seconds_a_row)
    }
}
