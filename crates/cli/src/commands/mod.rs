//! The commands, one a file.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod calibrate;
pub(crate) mod completions;
pub(crate) mod doctor;
pub(crate) mod encode;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod migraphx_worker;
pub(crate) mod plan;
pub(crate) mod run;
pub(crate) mod warm;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::exit::Code;
use crate::output::Output;

pub(crate) fn run(cli: &Cli) -> Result<Code> {
    let output = Output::new(cli.global.format, cli.global.quiet);
    output.check_paths()?;
    match &cli.command {
        Command::Inspect(args) => inspect::run(args, &output),
        Command::Run(args) => run::run(args, &cli.global, &output),
        Command::Encode(args) => encode::run(args, &cli.global, &output),
        Command::Cache(args) => cache::run(args, &cli.global, &output),
        Command::Calibrate(args) => calibrate::run(args, &cli.global, &output),
        Command::Plan(args) => plan::run(args, &cli.global, &output),
        Command::Bench(args) => bench::run(args, &cli.global),
        Command::Doctor(args) => doctor::run(args, &cli.global, &output),
        Command::Completions(args) => completions::run(args, &output),
        Command::Man(args) => man::run(args, &output),
        Command::Warm(args) => warm::run(args, &cli.global, &output),
        Command::MigraphxWorker => Err(anyhow::anyhow!("a worker is no command of a person's")),
    }
}
