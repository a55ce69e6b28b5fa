//! `shapeyard cache export`.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use shapeyard_core::model::Digest;

use super::bundle::Copied;
use super::find::{self, Found};
use crate::cache_args::{CacheArgs, Opened};
use crate::exit::{BadInput, Code};
use crate::human;
use crate::output::{Output, Report};

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache export model.bundle
  shapeyard cache export model.bundle 3f2a9c 77c0de
  shapeyard cache export everything --base model.bundle

A bundle is shipped beside a model and used where it lies, with --base, or copied into a cache with \
`shapeyard cache import`. One that is there gains what it lacks. Every payload is verified on the way.

Ends with 1 if something is damaged, and so was not copied.";

/// Copy compiled artifacts into a bundle that can be shipped beside a model
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// The bundle's folder; it is made where it does not exist
    folder: PathBuf,
    /// Starts of the digests of those to copy [default: all]
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    cache: CacheArgs,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<Code> {
    let opened = args.cache.open(output)?;
    let digests = if args.keys.is_empty() { all(&opened)? } else { chosen(&opened, &args.keys)? };
    let report = opened.store.export(&digests, &args.folder)?;
    let from = std::iter::once(opened.places.cache).chain(opened.places.bases).collect();
    let exported = Exported(Copied { from, to: args.folder.clone(), report });
    output.result(&exported)?;
    Ok(exported.0.code())
}

fn all(opened: &Opened) -> Result<Vec<Digest>> {
    let entries = opened.store.list()?;
    let digests: BTreeSet<String> = entries.into_iter().map(|entry| entry.name).collect();
    if digests.is_empty() {
        let places = opened.places.text();
        return Err(BadInput::new(format!("there is nothing to export in {places}")).into());
    }
    // What has another name than a digest is no entry; `verify` tells of it.
    Ok(digests.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Each once, in the order in which they were named.
fn chosen(opened: &Opened, keys: &[String]) -> Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for key in keys {
        let digest = exportable(&find::one(opened, key)?)?;
        if !digests.contains(&digest) {
            digests.push(digest);
        }
    }
    Ok(digests)
}

fn exportable(found: &Found) -> Result<Digest, BadInput> {
    let name = human::line(&found.name);
    if found.entries.is_empty() {
        return Err(BadInput::new(format!(
            "{name} could not be made, so there is nothing to export; `shapeyard cache show {name}` says why"
        )));
    }
    let no_digest =
        || BadInput::new(format!("`{name}` is no entry; `shapeyard cache verify` says more"));
    found.name.parse().map_err(|_| no_digest())
}

#[derive(Serialize)]
struct Exported(Copied);

impl Report for Exported {
    const COMMAND: &'static str = "cache export";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.write(out)
    }
}
