//! `cargo xtask lint`: everything that can be said about the code without running it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::paths::Layout;
use crate::{process, terminal, tidy};

const HOW_TO_INSTALL: &str =
    "`cargo xtask lint --install` builds it below the target folder in some minutes";

/// Check format, lints, documentation, the rules of the layout, the page of the benchmarks, licences and sources
///
/// Every check runs, and those that failed are named at the end. cargo-deny is optional: where it is
/// not installed, this is said.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lint
  cargo xtask lint --install                     build cargo-deny first, for the check of licences")]
pub(crate) struct Args {
    /// Install cargo-deny below the target folder when it is not there
    #[arg(long)]
    install: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args, commands: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    for (name, mut command) in cargo_checks(layout) {
        terminal::heading(format_args!("lint: {name}"));
        note_failure(process::run(&mut command), name, &mut failed);
    }
    terminal::heading("lint: tidy");
    note_failure(tidy::run(layout, &tidy::Args::default(), commands), "tidy", &mut failed);
    terminal::heading("lint: the page of the benchmarks");
    note_failure(process::run(&mut page_check(layout)), "the page", &mut failed);
    terminal::heading("lint: licences, bans and sources");
    note_failure(deny(layout, args.install), "cargo deny", &mut failed);
    if failed.is_empty() { Ok(()) } else { bail!("lint failed: {}", failed.join(", ")) }
}

/// A check that fails does not hide what the next one finds.
fn note_failure(result: Result<()>, name: &'static str, failed: &mut Vec<&'static str>) {
    if let Err(error) = result {
        terminal::error(&error);
        failed.push(name);
    }
}

fn cargo_checks(layout: &Layout) -> [(&'static str, Command); 3] {
    let cargo = |args: &[&str]| {
        let mut command = process::cargo();
        command.current_dir(layout.root()).args(args);
        command
    };
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    [
        ("format", cargo(&["fmt", "--all", "--check"])),
        ("clippy", cargo(&clippy)),
        ("documentation", doc),
    ]
}

/// Whether docs/performance.md is what docs/records say.
fn page_check(layout: &Layout) -> Command {
    let mut command = process::cargo();
    command.current_dir(layout.root());
    command.args(["run", "--quiet", "--package", "shapeyard-bench", "--", "report", "--check"]);
    command
}

fn deny(layout: &Layout, install: bool) -> Result<()> {
    let Some(program) = find_deny(layout, install)? else {
        terminal::say(format_args!(
            "Not run: `cargo deny check`, since cargo-deny is not installed; {HOW_TO_INSTALL}."
        ));
        return Ok(());
    };
    let mut command = Command::new(program);
    command.current_dir(layout.root());
    command.args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]);
    process::run(&mut command)
}

/// The user's own cargo-deny, or else the one that `--install` built.
fn find_deny(layout: &Layout, install: bool) -> Result<Option<PathBuf>> {
    let installed = layout.setup().join("bin").join("cargo-deny");
    for program in [PathBuf::from("cargo-deny"), installed.clone()] {
        if process::works(Command::new(&program).arg("--version"))? {
            return Ok(Some(program));
        }
    }
    if !install {
        return Ok(None);
    }
    let mut cargo = process::cargo();
    process::run(cargo.args(["install", "--locked", "cargo-deny", "--root"]).arg(layout.setup()))?;
    Ok(Some(installed))
}
