//! `cargo xtask bench`: the measurements, with everything that they need prepared.

use anyhow::Result;

use crate::paths::Layout;
use crate::runtime::Runtime;
use crate::{process, terminal};

/// Measure one suite in an optimised build; arguments after its name go to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench encode
  cargo xtask bench encode --help                what this suite takes
  cargo xtask bench help                         the suites")]
pub(crate) struct Args {
    /// The suite, as the crate `bench` names it
    suite: String,
    /// Arguments of the suite
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    more: Vec<String>,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("bench: set-up");
    let runtime = Runtime::prepare(layout, false)?;
    for lack in runtime.lacks() {
        terminal::say(format_args!("without {lack}"));
    }
    terminal::heading(format_args!("bench: {}", args.suite));
    let mut command = process::cargo();
    command.current_dir(layout.root());
    command.args(["run", "--release", "--package", "shapeyard-bench", "--", &args.suite]);
    command.args(&args.more).env("SHAPEYARD_REVISION", revision(layout));
    process::run(runtime.apply(&mut command))
}

/// Which sources were measured; a copy without its history is said to be that.
fn revision(layout: &Layout) -> String {
    let mut git = std::process::Command::new("git");
    git.current_dir(layout.root()).args(["describe", "--always", "--dirty"]);
    process::text(&mut git).unwrap_or_else(|_| "unknown".to_owned())
}
