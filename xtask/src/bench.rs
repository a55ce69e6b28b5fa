//! `cargo xtask bench`: the measurements, with everything that they need prepared.

use std::process::Command;

use anyhow::Result;

use crate::paths::Layout;
use crate::runtime::Runtime;
use crate::{process, terminal};

/// Measure one suite in an optimised build; arguments after its name go to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench help                         the suites
  cargo xtask bench encode --help                what this suite takes
  cargo xtask bench encode")]
pub(crate) struct Args {
    /// The suite, as the crate `bench` names it, and its arguments
    // One list: an option after the suite is the suite's, `--help` included.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    suite: Vec<String>,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    let mut command = process::cargo();
    command.current_dir(layout.root());
    command.args(["run", "--release", "--package", "shapeyard-bench", "--"]);
    command.args(&args.suite).env("SHAPEYARD_REVISION", revision(layout));
    if asks_for_help(&args.suite) {
        return process::run(&mut command);
    }
    terminal::heading("bench: set-up");
    let runtime = Runtime::prepare(layout, false)?;
    for lack in runtime.lacks() {
        terminal::say(format_args!("without {lack}"));
    }
    terminal::heading(format_args!("bench: {}", args.suite.join(" ")));
    process::run(runtime.apply(&mut command))
}

/// A reader need not wait for models.
fn asks_for_help(suite: &[String]) -> bool {
    suite.iter().any(|word| ["help", "--help", "-h"].contains(&word.as_str()))
}

/// Which sources were measured; a copy without its history is said to be that.
fn revision(layout: &Layout) -> String {
    let mut git = Command::new("git");
    git.current_dir(layout.root()).args(["describe", "--always", "--dirty"]);
    process::text(&mut git).unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn options_after_the_suite_are_the_suites() {
        let line = Line::try_parse_from(["bench", "encode", "--rounds", "3", "--help"]).unwrap();
        assert_eq!(line.args.suite, ["encode", "--rounds", "3", "--help"]);
        assert!(asks_for_help(&line.args.suite));
    }
}
