//! `shapeyard man`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::exit::{BadInput, Code};
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  shapeyard man --out ~/.local/share/man/man1";

/// Write manual pages, one for each command
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The folder to write to; it is made where it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Code> {
    let refused =
        || BadInput::new(format!("manual pages cannot be written to `{}`", args.out.display()));
    fs::create_dir_all(&args.out).with_context(refused)?;
    clap_mangen::generate_to(Cli::command(), &args.out).with_context(refused)?;
    output.note(format_args!("manual pages are in {}", args.out.display()));
    Ok(Code::Done)
}
