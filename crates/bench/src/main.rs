//! The benchmarks behind `cargo xtask bench`.
//!
//! The rounds of all contenders are interleaved, so that a noisy minute hits them alike. Where memory is
//! compared, every contender runs in a process of its own, so that its peak is its own.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

mod cache;
mod concurrency;
mod contest;
mod corpus;
mod encode;
mod measure;
mod overhead;
mod plan;
mod record;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "shapeyard-bench",
    about = "Measures Shapeyard beside its alternatives in one run"
)]
struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
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
    /// One process of `cache`; started by it.
    #[command(hide = true)]
    CacheWorker(cache::worker::Args),
    /// One contender of `encode`; started by it.
    #[command(hide = true)]
    EncodeContender(encode::contender::Args),
    /// What compiles for suites on MIGraphX; started by them.
    #[command(hide = true, name = overhead::WORKER)]
    MigraphxWorker,
}

fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().suite {
        Suite::Cache(args) => cache::run(&args)?,
        Suite::CacheWorker(args) => cache::worker::run(&args)?,
        Suite::Concurrency(args) => concurrency::run(&args)?,
        Suite::Encode(args) => encode::run(&args)?,
        Suite::EncodeContender(args) => encode::contender::run(&args)?,
        Suite::Overhead(args) => overhead::run(&args)?,
        Suite::Plan(args) => plan::run(&args)?,
        Suite::MigraphxWorker => return Ok(shapeyard_migraphx::worker::main()),
    }
    Ok(ExitCode::SUCCESS)
}
