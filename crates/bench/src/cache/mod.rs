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

use self::place::Place;
use crate::contest::{Contest, Goal};
use crate::record::Record;
use crate::suite::{BadArgument, Host, Output, Suite, at_least_one};

/// A hit may take so many times as long as plain reading.
const HIT_TARGET: f64 = 1.3;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each measurement runs its contenders in interleaved rounds after one round that does not count, and \
gives the median, the least and the most of each, and how many times as long ours takes. All that is \
read is in the page cache. Everything lies in one temporary folder on a disk, which is removed \
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
    #[arg(long, value_name = "N", default_value_t = 45, value_parser = at_least_one)]
    payload_mb: usize,
    /// Size of the model whose digest is taken.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    model_mib: u64,
    /// Interleaved rounds of `hit`.
    #[arg(long, value_name = "N", default_value_t = 31, value_parser = at_least_one)]
    rounds: usize,
    /// Interleaved rounds of all others.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = at_least_one)]
    long_rounds: usize,
    /// Processes and threads that want one entry at once.
    #[arg(long, value_name = "N", default_value_t = 8)]
    loaders: usize,
    /// Where to make the temporary folder; cargo's target folder unless given.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
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

impl Suite for Args {
    const NAME: &'static str = "cache";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, _: &Host, record: &mut Record) -> Result<()> {
        ensure!(self.loaders > 1, BadArgument::new("--loaders must be at least 2"));
        let folder = self.folder.clone().map_or_else(place::target, Ok)?;
        let file_system = place::file_system(&folder)?;
        eprintln!("making a payload and a model in {} ({file_system})", folder.display());
        let n_payload_bytes = self.payload_mb * 1_000_000;
        let place = Place::make(&folder, n_payload_bytes, self.model_mib << 20)?;
        record.set("payload_bytes", n_payload_bytes);
        record.set("file_system", file_system);
        record.set("page_cache", "warm");
        for what in What::ALL.into_iter().filter(|what| self.only.contains(what)) {
            record.contests.push(measure(self, &place, what)?);
        }
        Ok(())
    }
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
    let what = "a hit, as a multiple of plain reading";
    contest.goals.push(Goal::at_most(what, HIT_TARGET, contest.ratio()));
    contest
}
