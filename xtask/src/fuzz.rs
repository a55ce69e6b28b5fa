//! `cargo xtask fuzz`: the fuzz targets of core, which need flags that a stable cargo does not give.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::paths::Layout;
use crate::{process, terminal};

/// Feed broken input to the parsers of `core`, with cargo-fuzz
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                               every target, a minute each
  cargo xtask fuzz onnx --seconds 600")]
pub(crate) struct Args {
    /// The target; all of them, one after the other, when left out
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    let folder = layout.root().join("crates").join("core").join("fuzz");
    let known = targets(&folder)?;
    let chosen = choose(&known, args.target.as_deref())?;
    if !process::works(process::cargo().args(["fuzz", "--version"]))? {
        bail!("cargo-fuzz is not installed; `cargo install --locked cargo-fuzz` installs it");
    }
    for target in chosen {
        terminal::heading(format_args!("fuzz: {target}"));
        process::run(&mut fuzz(layout, &folder, target, args.seconds))?;
    }
    Ok(())
}

fn fuzz(layout: &Layout, folder: &Path, target: &str, seconds: u32) -> Command {
    let mut command = process::cargo();
    command.current_dir(layout.root()).args(["fuzz", "run", "--fuzz-dir"]).arg(folder);
    command.args([target, "--", &format!("-max_total_time={seconds}")]);
    // The sanitizer's flags are those of a nightly compiler; the pinned one has them too.
    command.env("RUSTC_BOOTSTRAP", "1");
    command
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let folder: PathBuf = folder.join("fuzz_targets");
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn choose<'a>(known: &'a [String], wanted: Option<&str>) -> Result<Vec<&'a String>> {
    let Some(wanted) = wanted else { return Ok(known.iter().collect()) };
    match known.iter().find(|name| *name == wanted) {
        Some(name) => Ok(vec![name]),
        None => bail!("there is no fuzz target `{wanted}`; there are: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_answered_with_the_known_ones() {
        let known = ["model".to_owned(), "plan".to_owned()];
        assert_eq!(choose(&known, None).unwrap().len(), 2);
        assert_eq!(choose(&known, Some("plan")).unwrap(), ["plan"]);
        let error = choose(&known, Some("plam")).unwrap_err().to_string();
        assert!(error.contains("model, plan"), "{error}");
    }
}
