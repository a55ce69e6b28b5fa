//! The program behind `cargo xtask bench`: every suite, and what is done with their records.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

mod cache;
mod concurrency;
mod overhead;
mod plan;
mod sensitivity;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use shapeyard_bench::suite::{Host, Suite as _};
use shapeyard_bench::{calls, child, compare, contest, encode, measure, record, report, suite};

const HOST: Host = Host { call: "cargo xtask bench", words: &[] };

#[derive(Debug, Parser)]
#[command(
    name = "shapeyard-bench",
    about = "Measures Shapeyard beside its alternatives in one run"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Texts to vectors: ours, and ONNX Runtime driven directly.
    Encode(encode::Args),
    /// Artifacts on disk: the store, and plain reading and writing of files.
    Cache(cache::Args),
    /// Plans and routes: how long it takes to decide what runs where.
    Plan(plan::Args),
    /// Many threads with batches of every size, on static programs; and with batches of one size.
    Concurrency(concurrency::Args),
    /// A session on MIGraphX, and MIGraphX called directly.
    Overhead(overhead::Args),
    /// Whether comparing finds a slowdown of a tenth, and nothing where nothing changed.
    Sensitivity(sensitivity::Args),
    /// Whether a later run is slower than an earlier one.
    #[command(long_flag = "compare")]
    Compare(compare::Args),
    /// Records as a page with plots, ending in what follows from them.
    Report(report::Args),
    /// One process of `cache`; started by it.
    #[command(hide = true)]
    CacheWorker(cache::worker::Args),
    /// One contender of `encode`; started by it.
    #[command(hide = true, name = encode::CONTENDER)]
    EncodeContender(encode::contender::Args),
    /// One process of single queries; started by `encode`.
    #[command(hide = true, name = encode::QUERY)]
    QueryContender(encode::query::Args),
    /// What compiles for suites on MIGraphX; started by them.
    #[command(hide = true, name = overhead::WORKER)]
    MigraphxWorker,
}

fn main() -> Result<ExitCode> {
    match Args::parse().command {
        Command::Cache(args) => args.run(&HOST)?,
        Command::Concurrency(args) => args.run(&HOST)?,
        Command::Encode(args) => args.run(&HOST)?,
        Command::Overhead(args) => args.run(&HOST)?,
        Command::Plan(args) => args.run(&HOST)?,
        Command::Sensitivity(args) => args.run(&HOST)?,
        Command::Compare(args) => {
            return Ok(if compare::run(&args)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Report(args) => report::run(&args)?,
        Command::CacheWorker(args) => cache::worker::run(&args)?,
        Command::EncodeContender(args) => encode::contender::run(&args)?,
        Command::QueryContender(args) => encode::query::run(&args)?,
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
