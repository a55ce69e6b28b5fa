//! `shapeyard cache verify`.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{DamagedEntry, LayerKind, StorageError, Store, VerifyReport};

use super::damage;
use crate::cache_args::{CacheArgs, Places};
use crate::exit::Code;
use crate::human;
use crate::output::{Output, Report};
use crate::progress::Progress;

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache verify
  shapeyard cache verify --repair
  shapeyard cache verify --base model.bundle --format json | jq '.damaged[].path'

Every payload is read and compared with its checksum. A damaged artifact is never used, whether or \
not it is verified here: it is set aside and made again when it is needed.

Ends with 1 if anything is damaged or cannot be read, repaired or not.";

/// Read every compiled artifact and say what is damaged
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// Set damaged entries aside, with the reason; those in a base stay as they are
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    cache: CacheArgs,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<Code> {
    let opened = args.cache.open_existing(output)?;
    let report = verify(&opened.store, args.repair, output)?;
    let verification = Verification::new(opened.places, args.repair, report);
    let is_clean = verification.damaged.is_empty() && verification.unreadable.is_empty();
    output.result(&verification)?;
    Ok(if is_clean { Code::Done } else { Code::No })
}

fn verify(store: &Store, repair: bool, output: &Output) -> Result<VerifyReport, StorageError> {
    let mut progress = None;
    store.verify_watched(repair, &mut |n_done, n_all| {
        let bar = progress.get_or_insert_with(|| Progress::of(output, n_all, "entries"));
        bar.advance(usize::from(n_done > 0));
    })
}

#[derive(Serialize)]
struct Verification {
    #[serde(flatten)]
    places: Places,
    repair: bool,
    n_sound: usize,
    n_bytes: u64,
    damaged: Vec<DamagedEntry>,
    unreadable: Vec<Unreadable>,
}

#[derive(Serialize)]
struct Unreadable {
    path: PathBuf,
    reason: String,
}

impl Verification {
    fn new(places: Places, repair: bool, report: VerifyReport) -> Self {
        let VerifyReport { n_sound, n_bytes, damaged, unreadable } = report;
        let unreadable = unreadable.into_iter().map(|(path, reason)| Unreadable { path, reason });
        Self { places, repair, n_sound, n_bytes, damaged, unreadable: unreadable.collect() }
    }

    fn became(&self, entry: &DamagedEntry) -> String {
        match &entry.quarantined {
            Some(path) => format!("\n            set aside in {}", path.display()),
            None if !self.repair => String::new(),
            None if entry.layer == LayerKind::Base => {
                "\n            left there, since a base is only read".to_owned()
            }
            None => "\n            left to another process, which is at work on it".to_owned(),
        }
    }
}

impl Report for Verification {
    const COMMAND: &'static str = "cache verify";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let size = human::bytes(self.n_bytes);
        writeln!(out, "sound       {} ({size}) in {}", self.n_sound, self.places.text())?;
        damage::write(&self.damaged, |entry| self.became(entry), out)?;
        for Unreadable { path, reason } in &self.unreadable {
            writeln!(out, "unreadable  {}: {reason}", path.display())?;
        }
        let is_ours = |entry: &DamagedEntry| entry.layer == LayerKind::Writable;
        if !self.repair && self.damaged.iter().any(is_ours) {
            writeln!(out, "`shapeyard cache verify --repair` sets damaged entries aside")?;
        }
        Ok(())
    }
}
