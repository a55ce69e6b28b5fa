//! `cargo xtask ci`: what has to pass before a change goes in.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::paths::Layout;
use crate::{lint, terminal, test};

/// Run lint and test, each to its end, and say how long each took
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask ci
  cargo xtask ci --strict                        what cannot run here is a failure")]
pub(crate) struct Args {
    /// Fail when a test could not be run here
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args, commands: &[String]) -> Result<()> {
    let test_args = test::Args::whole_suite(args.strict);
    let stages = [
        Stage::time("lint", || lint::run(layout, &lint::Args::default(), commands)),
        Stage::time("test", || test::run(layout, &test_args)),
    ];
    terminal::say("");
    for stage in &stages {
        terminal::say(stage.line());
    }
    let failed: Vec<&str> =
        stages.iter().filter(|stage| stage.result.is_err()).map(|stage| stage.name).collect();
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// One part of the run, with how it went.
#[derive(Debug)]
struct Stage {
    name: &'static str,
    took: Duration,
    result: Result<()>,
}

impl Stage {
    fn time(name: &'static str, work: impl FnOnce() -> Result<()>) -> Self {
        let start = Instant::now();
        let result = work();
        Self { name, took: start.elapsed(), result }
    }

    fn line(&self) -> String {
        let seconds = self.took.as_secs_f64();
        match &self.result {
            Ok(()) => format!("{}: passed in {seconds:.0} s", self.name),
            Err(error) => format!("{}: FAILED after {seconds:.0} s: {error:#}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_stage_says_why() {
        let stage = Stage::time("lint", || bail!("clippy found something"));
        assert!(
            stage.line().contains("FAILED") && stage.line().ends_with("clippy found something")
        );
    }
}
