//! The `shapeyard` program.

mod atomic_file;
mod axes;
mod backends;
mod background;
mod buckets;
mod cache_args;
mod cli;
mod commands;
mod exit;
mod human;
mod interrupt;
mod loading;
mod migraphx_args;
mod need;
mod output;
mod padding_args;
mod planned;
mod prices;
mod progress;
mod quantity;
mod routing;
mod table;
mod tensor_files;
mod traffic;
mod work_symbols;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::exit::Code;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::MigraphxWorker) {
        return commands::migraphx_worker::run();
    }
    // The panic's message is on stderr by then; only the exit code is missing.
    let done = catch_unwind(AssertUnwindSafe(|| commands::run(&cli)));
    done.map_or(Code::Internal, exit::report).into()
}
