//! `cargo xtask test`: every test, and an honest list of what this machine could not run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::availability::Availability;
use crate::fixtures::{self, Mode};
use crate::migraphx_root::{self, Content, MigraphxRoot};
use crate::paths::{self, Layout};
use crate::runtime::Runtime;
use crate::{ggml, process, terminal};

/// The packages whose tests call the real MIGraphX.
const INSIDE_MIGRAPHX: [&str; 4] =
    ["migraphx-sys", "shapeyard-migraphx", "shapeyard-cli", "shapeyard-tests"];

/// Where a test that cannot run here appends a line `name: reason`.
const SKIP_LOG_VARIABLE: &str = "SHAPEYARD_SKIP_LOG";

/// How much of a reason is shown.
const MOST_REASON_CHARS: usize = 100;

/// Run every test of the workspace, with ONNX Runtime and the real model where they can be had
///
/// Unit, integration and documentation tests run and the examples are built. What a machine lacks
/// is no failure: the last lines name each thing that was not run, and why.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test
  cargo xtask test --hide-onnxruntime            the suite with the embedded engine alone
  cargo xtask test --strict                      what cannot run here is a failure
  cargo xtask test -- -p shapeyard-core padding  arguments for `cargo test`")]
pub(crate) struct Args {
    /// Run as if ONNX Runtime were not installed
    #[arg(long)]
    hide_onnxruntime: bool,
    /// Test optimised builds
    #[arg(long)]
    release: bool,
    /// Fail when something could not be run here
    #[arg(long)]
    strict: bool,
    /// Arguments for `cargo test`; with `-p` only those packages are tested
    #[arg(last = true, value_name = "ARGS")]
    more: Vec<String>,
}

impl Args {
    /// Every test, as a check before a change goes in.
    pub(crate) fn whole_suite(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("test: set-up");
    let runtime = Runtime::prepare(layout, args.hide_onnxruntime)?;
    let mut lacks = runtime.lacks();
    let checked = fixtures::tiny_models(layout, Mode::Check)?;
    lacks.extend(checked.lack("the check of the tiny models"));
    lacks.extend(ggml::library(layout, None)?.lack("ggml"));
    let migraphx = migraphx_root::prepare(layout, Content::Reference)?;
    lacks.extend(migraphx.lack("the tests against the real MIGraphX"));
    let log = SkipLog::create(layout)?;
    let tested = cargo_tests(layout, &runtime, &migraphx, args, &log);
    lacks.extend(log.lines()?);
    summarise(&lacks);
    tested?;
    if args.strict && !lacks.is_empty() {
        bail!("{} could not be run here, and --strict allows none", things(lacks.len()));
    }
    Ok(())
}

/// Runs the packages that need the real MIGraphX inside its root, and all others as they are.
fn cargo_tests(
    layout: &Layout,
    runtime: &Runtime,
    migraphx: &Availability<MigraphxRoot>,
    args: &Args,
    log: &SkipLog,
) -> Result<()> {
    let cargo_test = |selection: &[&str], root: Option<&MigraphxRoot>| {
        terminal::heading(format_args!("test: cargo test {}", selection.join(" ")));
        let mut command = process::cargo();
        command.current_dir(layout.root()).arg("test").args(selection);
        if args.release {
            command.arg("--release");
        }
        command.args(["--all-features", "--no-fail-fast"]).args(&args.more);
        if let Some(root) = root {
            root.apply(&mut command);
        }
        process::run(runtime.apply(&mut command).env(SKIP_LOG_VARIABLE, &log.path))
    };
    let root = match migraphx {
        Availability::Ready(root) => Some(root),
        Availability::Missing(_) => None,
    };
    if names_packages(&args.more) {
        let named = |package: &&str| args.more.iter().any(|arg| arg.ends_with(*package));
        return cargo_test(&[], root.filter(|_| INSIDE_MIGRAPHX.iter().any(named)));
    }
    let excluded: Vec<&str> = INSIDE_MIGRAPHX.iter().flat_map(|it| ["--exclude", it]).collect();
    let inside: Vec<&str> = INSIDE_MIGRAPHX.iter().flat_map(|it| ["--package", it]).collect();
    // Both run in any case; the first error is the one that is told.
    let outside = cargo_test(&[&["--workspace"], excluded.as_slice()].concat(), None);
    outside.and(cargo_test(&inside, root))
}

/// Cargo would take `--workspace` over a package that the user named.
fn names_packages(args: &[String]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| {
        let short = arg.starts_with("-p") && !arg.starts_with("--");
        short || arg == "--package" || arg.starts_with("--package=")
    })
}

/// The file in which tests say that they were skipped; many processes append to it.
#[derive(Debug)]
struct SkipLog {
    path: PathBuf,
}

impl SkipLog {
    fn create(layout: &Layout) -> Result<Self> {
        paths::create_folder(&layout.setup())?;
        let path = layout.setup().join("skipped-tests.txt");
        fs::write(&path, "").with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path })
    }

    fn lines(&self) -> Result<Vec<String>> {
        read_lines(&self.path)
    }
}

fn read_lines(path: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(by_package(&text))
}

/// One line for each package and reason: a machine without a device skips dozens of tests for it. Sorted,
/// since the order in which threads finish says nothing.
fn by_package(text: &str) -> Vec<String> {
    let mut tests: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (test, reason) = line.split_once(": ").unwrap_or((line, "it does not say why"));
        let package = test.split(' ').next().unwrap_or(test);
        tests.entry((package, reason)).or_default().insert(test);
    }
    let line = |((package, reason), tests): (&(&str, &str), &BTreeSet<&str>)| {
        let what = match tests.first() {
            Some(test) if tests.len() == 1 => (*test).to_owned(),
            _ => format!("{} tests of {package}", tests.len()),
        };
        format!("{what}: {}", shortened(reason))
    };
    tests.iter().map(line).collect()
}

/// The start of a reason: the places where a library was looked for fill a screen.
fn shortened(reason: &str) -> String {
    match reason.char_indices().nth(MOST_REASON_CHARS) {
        Some((end, _)) => format!("{}…", reason[..end].trim_end()),
        None => reason.to_owned(),
    }
}

fn summarise(lacks: &[String]) {
    terminal::say("");
    if lacks.is_empty() {
        terminal::say("Everything ran; nothing was skipped.");
        return;
    }
    terminal::say("Not run here:");
    for lack in lacks {
        terminal::say(format_args!("  {lack}"));
    }
    terminal::say(format_args!("{} not run here.", things(lacks.len())));
}

fn things(count: usize) -> String {
    if count == 1 { "1 thing".to_owned() } else { format!("{count} things") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_named_package_takes_the_place_of_the_workspace() {
        assert!(names_packages(&words("-p shapeyard-core")));
        assert!(names_packages(&words("--package=shapeyard-core")));
        assert!(!names_packages(&words("padding -- --package -p")));
        assert!(!names_packages(&words("--profile release")));
    }

    #[test]
    fn skips_are_listed_once_and_by_package() {
        let log =
            "b: no GPU\n\nhip-sys one: no device\na: no model\nhip-sys two: no device\nb: no GPU\n";
        let wanted = ["a: no model", "b: no GPU", "2 tests of hip-sys: no device"];
        assert_eq!(by_package(log), wanted);
        assert_eq!(by_package("hip-sys one: no device\n"), ["hip-sys one: no device"]);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let lines = by_package(&format!("a: {}\n", "é".repeat(500)));
        assert_eq!(lines, [format!("a: {}…", "é".repeat(MOST_REASON_CHARS))]);
    }
}
