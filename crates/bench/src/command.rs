//! The commands that take a user's own model and records, for every program that has them.

use anyhow::Result;
use clap::Subcommand;

use crate::suite::{Host, Suite as _};
use crate::{coldstart, compare, encode, report, serve_mix};

/// A suite on a model, or what is done with records.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Texts to vectors: ours, and ONNX Runtime driven directly.
    Encode(encode::Args),
    /// From the start of a process to its first answer and to full speed.
    Coldstart(coldstart::Args),
    /// Many threads with random shapes at once.
    ServeMix(serve_mix::Args),
    /// Whether a later run is slower than an earlier one.
    #[command(long_flag = "compare")]
    Compare(compare::Args),
    /// Records as a page with plots, ending in what follows from them.
    Report(report::Args),
    /// One contender of `encode`; started by it.
    #[command(hide = true, name = encode::CONTENDER)]
    EncodeContender(encode::contender::Args),
    /// One process of single queries; started by `encode`.
    #[command(hide = true, name = encode::QUERY)]
    QueryContender(encode::query::Args),
    /// One process of `coldstart`; started by it.
    #[command(hide = true, name = coldstart::CONTENDER)]
    ColdstartContender(coldstart::contender::Args),
    /// One process of `serve-mix`; started by it.
    #[command(hide = true, name = serve_mix::CONTENDER)]
    ServeContender(serve_mix::contender::Args),
}

impl Command {
    /// Does it; false is a comparison that finds a slowdown, or a page that is not what its
    /// records say.
    ///
    /// # Errors
    ///
    /// What it failed of.
    pub fn run(&self, host: &Host) -> Result<bool> {
        match self {
            Self::Encode(args) => args.run(host)?,
            Self::Coldstart(args) => args.run(host)?,
            Self::ServeMix(args) => args.run(host)?,
            Self::Compare(args) => return compare::run(args, host.format),
            Self::Report(args) => return report::run(args),
            Self::EncodeContender(args) => encode::contender::run(host, args)?,
            Self::QueryContender(args) => encode::query::run(host, args)?,
            Self::ColdstartContender(args) => coldstart::contender::run(host, args)?,
            Self::ServeContender(args) => serve_mix::contender::run(host, args)?,
        }
        Ok(true)
    }
}
