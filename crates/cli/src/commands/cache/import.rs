//! `shapeyard cache import`.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::BundleReport;

use super::bundle::Copied;
use crate::cache_args::CacheArgs;
use crate::exit::{BadInput, Code};
use crate::output::{Output, Report};

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache import model.bundle
  shapeyard cache import model.bundle --cache /var/cache/shapeyard

Only import what you trust: compiled artifacts are programs. Every payload is verified on the way.

Ends with 1 if something is damaged, and so was not copied.";

/// Copy the compiled artifacts of a bundle into the cache
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct Args {
    /// The bundle's folder
    folder: PathBuf,
    #[command(flatten)]
    cache: CacheArgs,
}

pub(super) fn run(args: &Args, output: &Output) -> Result<Code> {
    let opened = args.cache.open(output)?;
    let report = opened.store.import(&args.folder)?;
    if report == BundleReport::default() {
        let folder = args.folder.display();
        return Err(BadInput::new(format!(
            "`{folder}` is no bundle or an empty one: it has no entries in v1/entries, as `shapeyard cache export` makes them"
        ))
        .into());
    }
    let from = vec![args.folder.clone()];
    let imported = Imported(Copied { from, to: opened.places.cache, report });
    output.result(&imported)?;
    Ok(imported.0.code())
}

#[derive(Serialize)]
struct Imported(Copied);

impl Report for Imported {
    const COMMAND: &'static str = "cache import";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.write(out)
    }
}
