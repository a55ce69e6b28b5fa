//! The program behind `cargo xtask bench`: every suite, and what is done with their records.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

mod all;
mod cache;
mod concurrency;
mod io;
mod overhead;
mod plan;
mod prices;
mod router;
mod sensitivity;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use shapeyard_bench::suite::{BadArgument, Format, Host, Suite as _};
use shapeyard_bench::{
    calls, child, command, compare, contest, corpus, inputs, measure, random, record, report, suite,
};
use shapeyard_cpu::CpuOptions;

/// The hidden command of this program that compiles.
const WORKER: &str = "migraphx-worker";

#[derive(Debug, Parser)]
#[command(
    name = "shapeyard-bench",
    about = "Measures Shapeyard beside its alternatives in one run"
)]
struct Args {
    /// How to print what was found.
    #[arg(long, global = true, default_value_t, value_enum)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

/// One line for each suite of the project's own parts; those on a user's model are in [`command`].
#[derive(Debug, Subcommand)]
enum Command {
    /// Every suite, one after the other, and a page of what they found.
    All(all::Args),
    #[command(flatten)]
    OnModels(command::Command),
    /// Artifacts on disk: the store, and plain reading and writing of files.
    Cache(cache::Args),
    /// Plans and routes: how long it takes to decide what runs where.
    Plan(plan::Args),
    /// What the cost model predicts of an encoding, and what it takes.
    Prices(prices::Args),
    /// Many threads with batches of every size, on static programs; and with batches of one size.
    Concurrency(concurrency::Args),
    /// Copies, graphs and sessions on a device, beside the runtime's own calls.
    Io(io::Args),
    /// A session on MIGraphX, and MIGraphX called directly.
    Overhead(overhead::Args),
    /// What requests wait for while a program is compiled, and what routing adds to a call.
    Router(router::Args),
    /// Whether comparing finds a slowdown of a tenth, and nothing where nothing changed.
    Sensitivity(sensitivity::Args),
    /// One process of `cache`; started by it.
    #[command(hide = true)]
    CacheWorker(cache::worker::Args),
    /// What compiles for suites on MIGraphX; started by them.
    #[command(hide = true, name = WORKER)]
    MigraphxWorker,
}

/// The command line or an input is wrong.
const BAD_INPUT: u8 = 2;
/// What was to be measured failed.
const FAILED: u8 = 3;

/// A comparison that finds a slowdown, a page that is not what its records say, and a suite of `all` that failed
/// end with 1.
fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        let is_bad_input = error.downcast_ref::<BadArgument>().is_some();
        ExitCode::from(if is_bad_input { BAD_INPUT } else { FAILED })
    })
}

fn run(args: &Args) -> Result<ExitCode> {
    let host = Host {
        call: "cargo xtask bench",
        words: &[],
        migraphx_worker: WORKER,
        cpu: CpuOptions::default(),
        options: Vec::new(),
        format: args.format,
    };
    match &args.command {
        Command::All(args) => return all::run(args, &host),
        Command::OnModels(command) if !command.run(&host)? => return Ok(ExitCode::FAILURE),
        Command::OnModels(_) => {}
        Command::Cache(args) => args.run(&host)?,
        Command::Concurrency(args) => args.run(&host)?,
        Command::Io(args) => args.run(&host)?,
        Command::Overhead(args) => args.run(&host)?,
        Command::Plan(args) => args.run(&host)?,
        Command::Prices(args) => args.run(&host)?,
        Command::Router(args) => args.run(&host)?,
        Command::Sensitivity(args) => args.run(&host)?,
        Command::CacheWorker(args) => cache::worker::run(args)?,
        Command::MigraphxWorker => return Ok(shapeyard_migraphx::worker::main()),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Args::command().debug_assert();
    }
}
