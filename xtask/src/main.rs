//! The project's own tool: `cargo xtask <command>` works from a fresh clone with nothing but Rust.
//!
//! This file only says which commands there are; each command is a file of its own.

mod availability;
mod bench;
mod bindings;
mod ci;
mod demo;
mod device_tests;
mod digest;
mod fixtures;
mod fuzz;
mod ggml;
mod lint;
mod metadata;
mod migraphx_root;
mod models;
mod paths;
mod process;
mod python;
mod runtime;
mod setup;
mod terminal;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::paths::Layout;

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                    see it work: embed this repository's own sources
  cargo xtask demo --hide-onnxruntime the same, as on a machine without ONNX Runtime
  cargo xtask test                    every test, and at the end what could not be run here
  cargo xtask test -- -p shapeyard-core
  cargo xtask device-tests            the suites that want a GPU, to be run where one is
  cargo xtask bench encode            measure one suite (`bench help` lists them)
  cargo xtask ci                      what has to pass before a change goes in

Everything that a command makes lies below the target folder; `cargo clean` takes it away.
`cargo xtask <command> --help` says more about one command.";

/// Set-up, tests, benchmarks and checks of Shapeyard.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    Models(models::Args),
    TinyModels(fixtures::Args),
    MigraphxRoot(migraphx_root::Args),
    Bindings(bindings::Args),
    Demo(demo::Args),
    Test(test::Args),
    DeviceTests(device_tests::Args),
    Lint(lint::Args),
    Tidy(tidy::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    match dispatch(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref() {
            Some(process::Ended(code)) => ExitCode::from(*code),
            None => {
                terminal::error(&error);
                ExitCode::FAILURE
            }
        },
    }
}

fn dispatch(command: &Command) -> Result<()> {
    let layout = Layout::find()?;
    match command {
        Command::Setup(args) => setup::run(&layout, args),
        Command::Models(args) => models::run(&layout, args),
        Command::TinyModels(args) => fixtures::run(&layout, args),
        Command::MigraphxRoot(args) => migraphx_root::run(&layout, args),
        Command::Bindings(args) => bindings::run(&layout, args),
        Command::Demo(args) => demo::run(&layout, args),
        Command::Test(args) => test::run(&layout, args),
        Command::DeviceTests(args) => device_tests::run(&layout, args),
        Command::Lint(args) => lint::run(&layout, args, &command_names()),
        Command::Tidy(args) => tidy::run(&layout, args, &command_names()),
        Command::Bench(args) => bench::run(&layout, args),
        Command::Fuzz(args) => fuzz::run(&layout, args),
        Command::Ci(args) => ci::run(&layout, args, &command_names()),
    }
}

/// The commands as a user types them, for the check that the documentation names no other.
fn command_names() -> Vec<String> {
    Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_named_as_they_are_typed() {
        assert!(command_names().contains(&"tiny-models".to_owned()));
    }

    #[test]
    fn every_command_teaches_by_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains(&format!("cargo xtask {}", command.get_name())),
                "`{}` has no example",
                command.get_name()
            );
        }
    }
}
