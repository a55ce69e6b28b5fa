//! `shapeyard cache`: looking at compiled artifacts and looking after them.

mod bundle;
mod damage;
mod explain;
mod export;
mod find;
mod import;
mod ls;
mod prune;
mod show;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use crate::cli::Global;
use crate::exit::Code;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  shapeyard cache ls
  shapeyard cache show 3f2a9c
  shapeyard cache explain model.onnx --buckets batch=1,2,4 sequence=32,64
  shapeyard cache verify --repair
  shapeyard cache prune --max-size 20GiB --max-age 30d
  shapeyard cache export model.bundle

The folder is that of --cache, else SHAPEYARD_CACHE, else shapeyard in XDG_CACHE_HOME, else \
~/.cache/shapeyard. One that does not exist is an empty cache. No compiler and no GPU is needed.";

/// Look at compiled artifacts, check them, explain misses, make room, ship them
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Ls(ls::Args),
    Show(show::Args),
    Explain(Box<explain::Args>),
    Verify(verify::Args),
    Prune(prune::Args),
    Export(export::Args),
    Import(import::Args),
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    match &args.command {
        Command::Ls(args) => ls::run(args, output),
        Command::Show(args) => show::run(args, output),
        Command::Explain(args) => explain::run(args, global, output),
        Command::Verify(args) => verify::run(args, output),
        Command::Prune(args) => prune::run(args, output),
        Command::Export(args) => export::run(args, output),
        Command::Import(args) => import::run(args, output),
    }
}

/// The start of a digest that a person can tell from others and type.
fn short(digest: impl std::fmt::Display) -> String {
    digest.to_string().chars().take(12).collect()
}

/// The shape of an artifact.
fn bucket(key: &shapeyard_cache::Key) -> String {
    let bucket = key.bucket();
    if bucket.is_empty() { "any".to_owned() } else { crate::human::line(&bucket.to_string()) }
}
