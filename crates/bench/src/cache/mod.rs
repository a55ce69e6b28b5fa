//! The `cache` suite: the store beside plain reading and writing of files.

mod crowd;
mod digest;
mod hit;
mod place;
mod publish;
pub(crate) mod worker;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use self::place::Place;
use crate::contest::Contest;
use crate::record::{self, Format};

/// A hit may take so many times as long as plain reading.
const HIT_TARGET: f64 = 1.3;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each measurement runs its contenders in interleaved rounds after one round that does not count, and
gives the median, the least and the most of each, and how many times as long ours takes. All that is
read is in the page cache. Everything lies in one temporary folder on a disk, which is removed
afterwards. Run it while nothing else runs: the record says how busy the machine was.

Examples:
  cargo xtask bench cache
  cargo xtask bench cache --only hit --payload-mb 450
  cargo xtask bench cache --only digest --model-mib 1024
  cargo xtask bench cache --format json > cache.json")]
pub(crate) struct Args {
    /// Measure only these.
    #[arg(long, value_delimiter = ',', value_name = "LIST", default_values_t = What::ALL)]
    only: Vec<What>,
    /// Size of the artifact, in millions of bytes that cannot be compressed.
    #[arg(long, value_name = "N", default_value_t = 45)]
    payload_mb: usize,
    /// Size of the model whose digest is taken.
    #[arg(long, value_name = "N", default_value_t = 256)]
    model_mib: u64,
    /// Interleaved rounds of `hit`.
    #[arg(long, value_name = "N", default_value_t = 31)]
    rounds: usize,
    /// Interleaved rounds of all others.
    #[arg(long, value_name = "N", default_value_t = 9)]
    long_rounds: usize,
    /// Processes and threads that want one entry at once.
    #[arg(long, value_name = "N", default_value_t = 8)]
    loaders: usize,
    /// Where to make the temporary folder; cargo's target folder unless given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// How to print the record.
    #[arg(long, default_value_t, value_enum)]
    format: Format,
    /// Append the record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// An entry that is there.
    Hit,
    /// An entry that is made and kept.
    Publish,
    /// Many processes that load one entry.
    Processes,
    /// Many threads that load one entry.
    Threads,
    /// Many processes that want what is not there yet.
    Race,
    /// The digest of a large model.
    Digest,
}

impl What {
    const ALL: [Self; 6] =
        [Self::Hit, Self::Publish, Self::Processes, Self::Threads, Self::Race, Self::Digest];
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_possible_value().map_or(Ok(()), |value| f.write_str(value.get_name()))
    }
}

/// What a run of the suite found.
#[derive(Debug, Serialize)]
struct Record {
    schema: u32,
    suite: &'static str,
    revision: Option<String>,
    processor: String,
    file_system: String,
    /// Processes that wanted to run, on average over the minute before.
    load_before: Option<f64>,
    n_payload_bytes: usize,
    page_cache: &'static str,
    hit_target: f64,
    contests: Vec<Contest>,
}

/// Measures what was asked for and prints the record.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.rounds > 0 && args.long_rounds > 0, "there has to be a round");
    ensure!(args.loaders > 1, "--loaders must be at least 2");
    ensure!(args.payload_mb > 0 && args.model_mib > 0, "there has to be something to load");
    let folder = args.folder.clone().map_or_else(place::target, Ok)?;
    let file_system = place::file_system(&folder)?;
    let load_before = record::load();
    eprintln!("making a payload and a model in {} ({file_system})", folder.display());
    let n_payload_bytes = args.payload_mb * 1_000_000;
    let place = Place::make(&folder, n_payload_bytes, args.model_mib << 20)?;
    let contests = What::ALL.into_iter().filter(|what| args.only.contains(what));
    let contests = contests.map(|what| measure(args, &place, what)).collect::<Result<_>>()?;
    let record = Record {
        schema: 1,
        suite: "cache",
        revision: record::revision(),
        processor: record::processor(),
        file_system,
        load_before,
        n_payload_bytes,
        page_cache: "warm",
        hit_target: HIT_TARGET,
        contests,
    };
    match args.format {
        Format::Text => record.print(),
        Format::Json => println!("{}", serde_json::to_string_pretty(&record)?),
    }
    args.record.as_ref().map_or(Ok(()), |path| record::append(path, &record))
}

fn measure(args: &Args, place: &Place, what: What) -> Result<Contest> {
    let (n_rounds, n_loaders) = (args.long_rounds, args.loaders);
    let contest = match what {
        What::Hit => hit::measure(place, args.rounds).map(with_target),
        What::Publish => publish::measure(place, n_rounds),
        What::Processes => crowd::processes(place, n_loaders, n_rounds),
        What::Threads => crowd::threads(place, n_loaders, n_rounds),
        What::Race => crowd::race(place, n_loaders, n_rounds),
        What::Digest => digest::measure(place, n_rounds),
    };
    contest.with_context(|| format!("`{what}` could not be measured"))
}

fn with_target(mut contest: Contest) -> Contest {
    let ratio = contest.ratio();
    let verdict = if ratio <= HIT_TARGET { "met" } else { "missed" };
    contest.notes.push(format!("target: at most {HIT_TARGET} x plain reading; {verdict}"));
    contest
}

impl Record {
    fn print(&self) {
        let load = self.load_before.map_or_else(|| "unknown".to_owned(), |it| format!("{it:.2}"));
        println!("{}; {}; load before {load}", self.processor, self.file_system);
        println!("payload {} MB, page cache {}", self.n_payload_bytes / 1_000_000, self.page_cache);
        self.contests.iter().for_each(Contest::print);
    }
}
