//! `cargo xtask demo`: from nothing to embeddings of this repository's own sources.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;

use crate::paths::{self, Layout};
use crate::runtime::Runtime;
use crate::{process, terminal};

/// Embed this repository's own sources with the real model: set-up, build and run in one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo --backend rten                the embedded engine, asked for by name
  cargo xtask demo --hide-onnxruntime            a machine without ONNX Runtime: who serves?
  cargo xtask demo -- --help                     what else `shapeyard encode` takes")]
pub(crate) struct Args {
    /// The backend to use; without it the program chooses and says so
    #[arg(long, value_enum)]
    backend: Option<Backend>,
    /// Run as if ONNX Runtime were not installed
    #[arg(long)]
    hide_onnxruntime: bool,
    /// More arguments for `shapeyard encode`
    #[arg(last = true, value_name = "ARGS")]
    more: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Backend {
    Auto,
    Onnxruntime,
    Rten,
    Ggml,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Onnxruntime => "onnxruntime",
            Self::Rten => "rten",
            Self::Ggml => "ggml",
        }
    }
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("demo: set-up");
    let runtime = Runtime::prepare(layout, args.hide_onnxruntime)?;
    runtime.encoder()?;
    runtime.lacks().iter().for_each(terminal::say);
    terminal::heading("demo: build");
    let build = ["build", "--release", "--package", "shapeyard-cli"];
    process::run(process::cargo().current_dir(layout.root()).args(build))?;
    let output = layout.target().join("demo").join("embeddings.npy");
    paths::create_folder(&layout.target().join("demo"))?;
    let mut encode = encode(layout, &runtime, args, &output)?;
    terminal::heading(format_args!("demo: {}", process::shown(&encode)));
    process::run(runtime.apply(&mut encode))?;
    terminal::say(format_args!("The embeddings are in {}.", layout.shown(&output)));
    Ok(())
}

/// Paths are relative to the root where they can be, so that the shown line can be typed.
fn encode(layout: &Layout, runtime: &Runtime, args: &Args, output: &Path) -> Result<Command> {
    let encoder = runtime.encoder()?;
    let program = layout.target().join("release").join("shapeyard");
    let mut command = Command::new(program.with_extension(std::env::consts::EXE_EXTENSION));
    command.current_dir(layout.root()).arg("encode").arg(layout.shown(&encoder.float32));
    command.arg("--tokenizer").arg(layout.shown(&encoder.tokenizer));
    command.arg(".").arg("--out").arg(layout.shown(output));
    if let Some(backend) = args.backend {
        command.args(["--backend", backend.name()]);
    }
    command.args(&args.more);
    Ok(command)
}
