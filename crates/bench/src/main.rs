//! The benchmarks behind `cargo xtask bench`.
//!
//! Every contender of a suite runs in a process of its own, so that its peak memory is its own, and the
//! rounds of all contenders are interleaved, so that a noisy minute hits them alike.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

mod corpus;
mod encode;
mod measure;

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
    /// One contender of `encode`; started by it.
    #[command(hide = true)]
    EncodeContender(encode::contender::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().suite {
        Suite::Encode(args) => encode::run(&args),
        Suite::EncodeContender(args) => encode::contender::run(&args),
    }
}
