//! `cargo xtask device-tests`: the suites that want a GPU, in one folder that a machine with one runs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::paths::{self, Layout};
use crate::{process, terminal};

/// Suites by package and name: each runs on a HIP device of either platform.
const SUITES: [(&str, &str); 7] = [
    ("hip-sys", "device"),
    ("hipgraph", "device"),
    ("hipgraph", "graphs"),
    ("hipgraph", "inputs"),
    ("hipgraph", "exhausted"),
    ("migraphx-gpu-double", "device"),
    ("shapeyard-migraphx", "device"),
];

/// What is loaded in MIGraphX's place; tests look for it beside themselves.
const DOUBLE: &str = "migraphx_c_gpu_double";

/// Build the tests that want a GPU into `target/device`, to be run here or copied to where one is
///
/// The folder holds the suites, the double of MIGraphX, the tiny models, and a script `run.sh` that runs
/// one suite after the other and fails if any does, or if there is no device. The machine needs a HIP or
/// CUDA runtime with its run-time compiler, and a C library as new as here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask device-tests                       then copy target/device, and start run.sh there
  cargo xtask device-tests --run                 on a machine with a GPU
  cargo xtask device-tests --release")]
pub(crate) struct Args {
    /// Run them here
    #[arg(long)]
    run: bool,
    /// Build them optimised
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("device tests: build");
    let built = build(layout, args.release)?;
    let folder = layout.target().join("device");
    paths::remove_folder(&folder)?;
    paths::create_folder(&folder)?;
    let names = SUITES.map(|(package, suite)| format!("{package}-{suite}"));
    for ((package, suite), name) in SUITES.iter().zip(&names) {
        copy(built.suite(package, suite)?, &folder.join(name))?;
    }
    let library = built.double.as_deref().context("cargo names no shared library of the double")?;
    let name = library.file_name().context("the double has no name")?;
    copy(library, &folder.join(name))?;
    copy_models(layout, &folder.join("models"))?;
    write_script(&folder.join("run.sh"), &names)?;
    terminal::say(format_args!("{} holds {} suites", layout.shown(&folder), names.len()));
    if args.run { process::run(&mut process::shell(&folder.join("run.sh"))) } else { Ok(()) }
}

/// What cargo made.
#[derive(Debug, Default)]
struct Built {
    /// Manifests, names of suites, and their programs.
    suites: Vec<(String, String, PathBuf)>,
    double: Option<PathBuf>,
}

impl Built {
    fn suite(&self, package: &str, suite: &str) -> Result<&Path> {
        let folder = package.trim_start_matches("shapeyard-");
        let manifest = format!("crates/{folder}/Cargo.toml");
        let found = self
            .suites
            .iter()
            .find(|(path, name, _)| path.replace('\\', "/").ends_with(&manifest) && name == suite);
        let (_, _, program) = found.with_context(|| format!("cargo built no {package} {suite}"))?;
        Ok(program)
    }

    /// Takes a line of cargo's report.
    fn add(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = text(&message["target"]["name"]).unwrap_or_default();
        if let Some(program) = text(&message["executable"]) {
            let manifest = text(&message["manifest_path"]).unwrap_or_default();
            self.suites.push((manifest, name, program.into()));
        } else if name == DOUBLE {
            let files = message["filenames"].as_array().into_iter().flatten().filter_map(text);
            let mut files = files.map(PathBuf::from);
            let suffix = std::env::consts::DLL_SUFFIX.trim_start_matches('.');
            self.double =
                files.find(|file| file.extension().is_some_and(|extension| extension == suffix));
        }
    }
}

fn build(layout: &Layout, release: bool) -> Result<Built> {
    let mut command = process::cargo();
    command.current_dir(layout.root()).args(["test", "--no-run", "--message-format=json"]);
    command.args(release.then_some("--release"));
    let mut packages: Vec<&str> = SUITES.iter().map(|(package, _)| *package).collect();
    packages.dedup();
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    command.args(["--lib", "--test", "*"]).stderr(Stdio::inherit());
    let output = command.output().context("cargo cannot be started")?;
    if !output.status.success() {
        bail!("the suites cannot be built");
    }
    let mut built = Built::default();
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| built.add(line));
    Ok(built)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_models(layout: &Layout, to: &Path) -> Result<()> {
    paths::create_folder(to)?;
    let from = layout.root().join("tests").join("models");
    let entries = fs::read_dir(&from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", from.display()))?.path();
        if let Some(name) = path.file_name() {
            copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

fn write_script(path: &Path, names: &[String]) -> Result<()> {
    let script = script(names);
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))
}

/// One suite after the other, each test alone: some take all memory there is.
fn script(names: &[String]) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# Made by `cargo xtask device-tests`: runs each suite on this machine's GPU.\n\
         cd \"$(dirname \"$0\")\" || exit 1\n\
         # MIGraphX is AMD's: its backend takes another platform only where that is asked for.\n\
         [ -e /dev/kfd ] || export HIP_PLATFORM=\"${HIP_PLATFORM:-nvidia}\"\n\
         export SHAPEYARD_REQUIRE_DEVICE=1 SHAPEYARD_TINY_MODELS=\"$PWD/models\"\n\
         failed=\n",
    );
    for name in names {
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "echo '==> {name}'\n./{name} --test-threads=1 || failed=\"$failed {name}\""
        );
    }
    text.push_str("[ -z \"$failed\" ] || { echo \"failed:$failed\"; exit 1; }\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_the_library_are_found_in_cargos_report() {
        let mut built = Built::default();
        for line in [
            r#"{"reason":"compiler-artifact","manifest_path":"/a/crates/hipgraph/Cargo.toml","target":{"name":"device"},"executable":"/t/device-1"}"#,
            r#"{"reason":"compiler-artifact","manifest_path":"/a/crates/hip-sys/Cargo.toml","target":{"name":"device"},"executable":"/t/device-2"}"#,
            r#"{"reason":"build-finished","success":true}"#,
            "a note",
        ] {
            built.add(line);
        }
        let double = format!(
            r#"{{"target":{{"name":"{DOUBLE}"}},"executable":null,"filenames":["/t/lib.rlib","/t/lib{}"]}}"#,
            std::env::consts::DLL_SUFFIX
        );
        built.add(&double);
        assert_eq!(built.suite("hip-sys", "device").unwrap(), Path::new("/t/device-2"));
        assert!(built.suite("hip-sys", "graphs").is_err());
        assert!(built.double.is_some_and(|path| path.to_string_lossy().contains("/t/lib")));
    }

    #[test]
    fn a_suite_that_fails_fails_the_script() {
        let script = script(&["a-device".to_owned()]);
        assert!(script.contains("./a-device --test-threads=1 || failed"), "{script}");
        assert!(script.trim_end().ends_with("exit 1; }"), "{script}");
    }
}
