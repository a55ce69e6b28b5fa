//! `cargo xtask tiny-models`: the small models that lie in the repository for the tests.

use anyhow::{Context as _, Result};

use crate::availability::Availability;
use crate::paths::Layout;
use crate::python::{self, Python};
use crate::{process, terminal};

/// Write the tiny models of `tests/models` again, or check that they are what the script writes
///
/// The files are kept in the repository, so that tests need no Python; this keeps them honest.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask tiny-models                        after a change of the script
  cargo xtask tiny-models --check                write nothing, name every file that differs")]
pub(crate) struct Args {
    /// Compare instead of writing
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("tiny models");
    let mode = if args.check { Mode::Check } else { Mode::Write };
    tiny_models(layout, mode)?.require().context("the tiny models cannot be made or checked")
}

/// What to do with the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Check,
    Write,
}

/// Runs the script; files that differ are an error, a machine without Python is a lack.
pub(crate) fn tiny_models(layout: &Layout, mode: Mode) -> Result<Availability<()>> {
    let python = match Python::find()? {
        Availability::Ready(python) => python,
        Availability::Missing(reason) => return Ok(Availability::Missing(reason)),
    };
    {
        let _guard = layout.lock()?;
        if let Availability::Missing(reason) = python.install(layout, python::TOOLS)? {
            return Ok(Availability::Missing(reason));
        }
    }
    let mut script = python.script(layout, "make_tiny_models.py")?;
    script.args(["--out", "tests/models"]);
    if mode == Mode::Check {
        script.arg("--check");
    }
    process::run(&mut script)?;
    Ok(Availability::Ready(()))
}
