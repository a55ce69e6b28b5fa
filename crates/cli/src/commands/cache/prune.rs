//! `shapeyard cache prune`.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{CollectReport, Collected, Limits};

use super::short;
use crate::cache_args::{CacheArgs, Places};
use crate::exit::Code;
use crate::human;
use crate::output::{Output, Report};
use crate::quantity::{Size, Span};

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache prune --max-size 20GiB --max-age 30d
  shapeyard cache prune --max-size 0B --dry-run
  shapeyard cache prune --rubbish

What is over a limit is removed, longest unused first. An artifact that a process has loaded stays, \
and so does everything in a base. Left-overs go in any case: unfinished work of processes that \
ended, failures that are no longer remembered, damaged entries that were set aside more than 30 days \
ago. Others may load and compile meanwhile.";

/// Remove compiled artifacts that are over a limit, and left-overs
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    what: What,
    /// Only say what would be removed if nothing were in use; left-overs are not counted
    #[arg(long, conflicts_with = "rubbish")]
    dry_run: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct What {
    /// What all artifacts together may have, such as 20GiB or 500MB
    #[arg(long, value_name = "SIZE")]
    max_size: Option<Size>,
    /// How long an artifact may stay unused, such as 30d, 12h or 90min
    #[arg(long, value_name = "TIME")]
    max_age: Option<Span>,
    /// Remove left-overs; without a limit, nothing else
    #[arg(long)]
    rubbish: bool,
}

impl What {
    fn limits(&self) -> Limits {
        Limits {
            max_bytes: self.max_size.map(|Size(n_bytes)| n_bytes),
            max_age: self.max_age.map(|Span(time)| time),
        }
    }
}

pub(super) fn run(args: &Args, output: &Output) -> Result<Code> {
    let opened = args.cache.open(output)?;
    let limits = args.what.limits();
    let report = if args.dry_run {
        opened.store.would_collect(&limits)?
    } else {
        opened.store.collect(&limits)?
    };
    output.result(&Pruned { places: opened.places, dry_run: args.dry_run, report })?;
    Ok(Code::Done)
}

#[derive(Serialize)]
struct Pruned {
    #[serde(flatten)]
    places: Places,
    dry_run: bool,
    #[serde(flatten)]
    report: CollectReport,
}

impl Report for Pruned {
    const COMMAND: &'static str = "cache prune";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let (report, now_ms) = (&self.report, human::now_ms());
        let line = |entry: &Collected, what: &str, out: &mut dyn Write| {
            let (key, size) = (human::line(&short(&entry.name)), human::bytes(entry.n_bytes));
            let unused = human::since(entry.last_used_ms, now_ms);
            writeln!(out, "{what}  {key}  {size}, unused for {unused}")
        };
        let removed = if self.dry_run { "would go" } else { "removed " };
        report.removed.iter().try_for_each(|entry| line(entry, removed, out))?;
        report.in_use.iter().try_for_each(|entry| line(entry, "in use  ", out))?;
        let (n, size) = (report.removed.len(), human::bytes(report.removed_bytes));
        let (n_kept, kept) = (report.n_kept, human::bytes(report.kept_bytes));
        let cache = self.places.cache.display();
        if self.dry_run {
            return writeln!(out, "{n} ({size}) would go and {n_kept} ({kept}) stay in `{cache}`");
        }
        let rubbish = human::count(report.n_rubbish, "left-over");
        writeln!(out, "{n} ({size}) and {rubbish} removed, {n_kept} ({kept}) stay in `{cache}`")
    }
}
