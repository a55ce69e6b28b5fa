//! `cargo xtask device-tests`: the suites that want a GPU, in one folder that a machine with one runs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::ggml::{self, Part};
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

/// Suites that run ggml, on the device that `SHAPEYARD_GGML_DEVICE` names.
const GGML_SUITES: [(&str, &str); 3] =
    [("shapeyard-cpu", "ggml"), ("shapeyard-cpu", "gguf"), ("shapeyard-cpu", "minilm")];

/// What is loaded in MIGraphX's place; tests look for it beside themselves.
const DOUBLE: &str = "migraphx_c_gpu_double";

/// Build the tests that want a GPU into `target/device`, to be run here or copied to where one is
///
/// The folder holds the suites, the double of MIGraphX, the tiny models, and a script `run.sh` that runs
/// one suite after the other, or those that it is given, and fails if any does, or if there is no device. The
/// machine needs a HIP or CUDA runtime with its run-time compiler, and a C library as new as here.
///
/// With `--ggml` the folder also holds the suites of ggml, its sources, and a script `build-ggml.sh`, which
/// has to be run there first: it takes cmake, a compiler for C++ and the GPU's own, and no network.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask device-tests                       then copy target/device, and start run.sh there
  cargo xtask device-tests --run                 on a machine with a GPU
  cargo xtask device-tests --release
  cargo xtask device-tests --ggml cuda           then build-ggml.sh there, and run.sh")]
pub(crate) struct Args {
    /// Run them here
    #[arg(long)]
    run: bool,
    /// Build them optimised
    #[arg(long)]
    release: bool,
    /// Pack the suites of ggml too, and its sources with the part for these GPUs
    #[arg(long, value_name = "KIND")]
    ggml: Option<Part>,
}

impl Args {
    fn suites(&self) -> Vec<(&'static str, &'static str)> {
        let ggml = self.ggml.map_or(&[][..], |_| &GGML_SUITES);
        [&SUITES, ggml].concat()
    }
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("device tests: build");
    let suites = args.suites();
    let built = build(layout, &suites, args.release)?;
    let folder = layout.target().join("device");
    paths::remove_folder(&folder)?;
    paths::create_folder(&folder)?;
    let names = copy_programs(&built, &suites, &folder)?;
    let models = layout.root().join("tests").join("models");
    paths::copy_folder(&models, &folder.join("models"), &|_| false)?;
    if let Some(part) = args.ggml {
        ggml::pack(layout, part, &folder)?;
    }
    write_script(&folder.join("run.sh"), &names, args.ggml)?;
    terminal::say(format_args!("{} holds {} suites", layout.shown(&folder), names.len()));
    let scripts = args.ggml.map(|_| "build-ggml.sh").into_iter().chain(["run.sh"]);
    for script in scripts.filter(|_| args.run) {
        process::run(&mut process::shell(&folder.join(script)))?;
    }
    Ok(())
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

fn build(layout: &Layout, suites: &[(&str, &str)], release: bool) -> Result<Built> {
    let mut command = process::cargo();
    command.current_dir(layout.root()).args(["test", "--no-run", "--message-format=json"]);
    command.args(release.then_some("--release"));
    let mut packages: Vec<&str> = suites.iter().map(|(package, _)| *package).collect();
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

/// Copies the suites and the double; answers the suites' names there.
fn copy_programs(built: &Built, suites: &[(&str, &str)], to: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (package, suite) in suites {
        let name = format!("{package}-{suite}");
        copy_program(built.suite(package, suite)?, &to.join(&name))?;
        names.push(name);
    }
    let library = built.double.as_deref().context("cargo names no shared library of the double")?;
    let name = library.file_name().context("the double has no name")?;
    copy_program(library, &to.join(name))?;
    Ok(names)
}

/// Copies a program less what only a debugger reads, which is most of it, where there is a tool for that.
fn copy_program(from: &Path, to: &Path) -> Result<()> {
    paths::copy_file(from, to)?;
    if process::works(Command::new("strip").arg("--version"))? {
        process::run_quietly(Command::new("strip").arg(to))?;
    }
    Ok(())
}

fn write_script(path: &Path, names: &[String], ggml: Option<Part>) -> Result<()> {
    let script = script(names, ggml);
    fs::write(path, script).with_context(|| format!("cannot write {}", path.display()))
}

/// One suite after the other, each test alone: some take all memory there is.
fn script(names: &[String], ggml: Option<Part>) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# Made by `cargo xtask device-tests`: runs each suite, or those that are named, on this \
         machine's GPU.\n\
         cd \"$(dirname \"$0\")\" || exit 1\n\
         # MIGraphX is AMD's: its backend takes another platform only where that is asked for.\n\
         [ -e /dev/kfd ] || export HIP_PLATFORM=\"${HIP_PLATFORM:-nvidia}\"\n\
         export SHAPEYARD_REQUIRE_DEVICE=1 SHAPEYARD_TINY_MODELS=\"$PWD/models\"\n",
    );
    text.extend(ggml.map(ggml_settings));
    // Writing to a text cannot fail.
    let _ = writeln!(text, "[ $# -gt 0 ] || set -- {}", names.join(" "));
    text.push_str(
        "failed=\nfor name in \"$@\"; do\n    echo \"==> $name\"\n    \
         \"./$name\" --test-threads=1 || failed=\"$failed $name\"\ndone\n",
    );
    text.push_str("[ -z \"$failed\" ] || { echo \"failed:$failed\"; exit 1; }\n");
    text
}

/// Where the library is, and which of its devices computes. cuBLAS would round the factors of products of
/// f32 to TF32, as ggml tells it to, and the suites compare with the processor's.
fn ggml_settings(part: Part) -> String {
    let (suffix, device) = (std::env::consts::DLL_SUFFIX, part.first_device());
    format!(
        "export GGML_DYLIB_PATH=\"${{GGML_DYLIB_PATH:-${{GGML_BUILD:-$PWD/ggml/build}}/out/libggml{suffix}}}\"\n\
         export SHAPEYARD_GGML_DEVICE=\"${{SHAPEYARD_GGML_DEVICE:-{device}}}\" NVIDIA_TF32_OVERRIDE=0\n"
    )
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
        let script = script(&["a-device".to_owned(), "b-device".to_owned()], None);
        assert!(script.contains("set -- a-device b-device\n"), "{script}");
        assert!(script.contains("\"./$name\" --test-threads=1 || failed"), "{script}");
        assert!(script.trim_end().ends_with("exit 1; }"), "{script}");
        assert!(!script.contains("GGML"), "{script}");
    }

    #[test]
    fn suites_of_ggml_are_told_library_and_device() {
        let script = script(&["a-ggml".to_owned()], Some(Part::Cuda));
        assert!(script.contains("${SHAPEYARD_GGML_DEVICE:-CUDA0}"), "{script}");
        assert!(script.contains("${GGML_BUILD:-$PWD/ggml/build}/out/libggml"), "{script}");
    }
}
