//! `shapeyard cache ls`.

use std::cmp::Reverse;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{EntryInfo, FailureRecord, Quarantined, Store};

use super::{bucket, damage, short};
use crate::cache_args::{CacheArgs, Places};
use crate::exit::Code;
use crate::human;
use crate::output::{Output, Report};
use crate::table::Table;

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache ls
  shapeyard cache ls --base model.bundle
  shapeyard cache ls --format json | jq '.entries[].manifest.key.compiler'

The most recently used come first. Payloads are not read: `shapeyard cache verify` does that. \
`shapeyard cache show` has every field in full. An entry in a base was last used when it was put \
there, as far as anybody knows.";

/// How much of a compiler's name is shown: some name every feature of the processor.
const COMPILER_CHARS: usize = 24;

/// So many failures and damaged entries are named for people.
const N_SUMMARISED: usize = 10;

/// List compiled artifacts, remembered failures and damaged entries that were set aside
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    #[command(flatten)]
    cache: CacheArgs,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<Code> {
    let opened = args.cache.open(output)?;
    output.result(&Listing::of(&opened.store, opened.places)?)?;
    Ok(Code::Done)
}

#[derive(Serialize)]
struct Listing {
    #[serde(flatten)]
    places: Places,
    n_bytes: u64,
    /// The most recently used first.
    entries: Vec<EntryInfo>,
    failures: Vec<FailureRecord>,
    quarantined: Vec<SetAside>,
}

/// A damaged entry that was set aside.
#[derive(Serialize)]
struct SetAside {
    folder: String,
    /// Absent where it could not be kept.
    reason: Option<Quarantined>,
}

impl Listing {
    fn of(store: &Store, places: Places) -> Result<Self> {
        let mut entries = store.list()?;
        entries.sort_by_key(|entry| Reverse(entry.last_used_ms));
        let quarantined = store.quarantined()?.into_iter();
        Ok(Self {
            places,
            n_bytes: entries.iter().map(|entry| entry.n_bytes).sum(),
            entries,
            failures: store.failures()?,
            quarantined: quarantined.map(|(folder, reason)| SetAside { folder, reason }).collect(),
        })
    }
}

impl Report for Listing {
    const COMMAND: &'static str = "cache ls";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let now_ms = human::now_ms();
        if self.entries.is_empty() {
            writeln!(out, "no entries in {}", self.places.text())?;
        } else {
            table(&self.entries, now_ms).write(out)?;
            let count = entries(self.entries.len());
            let size = human::bytes(self.n_bytes);
            writeln!(out, "\n{count}, {size}, in {}", self.places.text())?;
        }
        write_failures(&self.failures, now_ms, out)?;
        write_set_aside(&self.quarantined, now_ms, out)
    }
}

fn entries(n: usize) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") }
}

fn table(entries: &[EntryInfo], now_ms: u64) -> Table<11> {
    let mut table = Table::new([
        "KEY",
        "MODEL",
        "BUCKET",
        "BACKEND",
        "COMPILER",
        "PRECISION",
        "SIZE",
        "AGE",
        "LAST USED",
        "LAYER",
        "DAMAGE",
    ]);
    for entry in entries {
        table.row(row(entry, now_ms));
    }
    table
}

fn row(entry: &EntryInfo, now_ms: u64) -> [String; 11] {
    let of_key = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), human::line);
    let key = entry.manifest.as_ref().map(|manifest| &manifest.key);
    let made = entry.manifest.as_ref().map(|manifest| manifest.created_at_ms);
    let dash = || "-".to_owned();
    [
        human::line(&short(&entry.name)),
        key.map_or_else(dash, |key| short(key.model())),
        key.map_or_else(dash, bucket),
        of_key(key.map(|key| key.backend().as_str())),
        human::start(&of_key(key.and_then(|key| key.compiler())), COMPILER_CHARS),
        of_key(key.and_then(|key| key.precision())),
        human::bytes(entry.n_bytes),
        made.map_or_else(dash, |made| human::since(made, now_ms)),
        format!("{} ago", human::since(entry.last_used_ms, now_ms)),
        damage::layer(entry.layer).to_owned(),
        damage::of(entry),
    ]
}

fn write_failures(failures: &[FailureRecord], now_ms: u64, out: &mut dyn Write) -> io::Result<()> {
    if failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}:", human::count(failures.len(), "remembered failure"))?;
    for failure in failures.iter().take(N_SUMMARISED) {
        let (key, shape) = (short(failure.digest), bucket(&failure.key));
        let reason = human::line(failure.text.lines().next().unwrap_or_default());
        let left = human::since(now_ms, failure.expires_at_ms);
        writeln!(out, "  {key}  {shape}: {reason} (for another {left})")?;
    }
    write_rest(failures.len(), out)
}

fn write_set_aside(set_aside: &[SetAside], now_ms: u64, out: &mut dyn Write) -> io::Result<()> {
    if set_aside.is_empty() {
        return Ok(());
    }
    let count = if set_aside.len() == 1 {
        "1 damaged entry was".to_owned()
    } else {
        format!("{} damaged entries were", set_aside.len())
    };
    writeln!(out, "\n{count} set aside:")?;
    for SetAside { folder, reason } in set_aside.iter().take(N_SUMMARISED) {
        let why = match reason {
            Some(reason) => {
                format!("{} ({} ago)", reason.damage, human::since(reason.since_ms, now_ms))
            }
            None => "the reason was not kept".to_owned(),
        };
        writeln!(out, "  {}: {}", human::line(&short(folder)), human::line(&why))?;
    }
    write_rest(set_aside.len(), out)
}

fn write_rest(n: usize, out: &mut dyn Write) -> io::Result<()> {
    match n.saturating_sub(N_SUMMARISED) {
        0 => Ok(()),
        rest => writeln!(out, "  and {rest} more; --format json gives all"),
    }
}
