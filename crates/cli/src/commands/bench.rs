//! `shapeyard bench`.

use std::ffi::OsString;

use anyhow::{Result, ensure};
use shapeyard_bench::command::Command;
use shapeyard_bench::suite::{self, Host};

use crate::backends::cpu_options;
use crate::cli::Global;
use crate::exit::{BadInput, Code};
use crate::migraphx_args::WORKER;
use crate::output::Format;

const AFTER_HELP: &str = "\
All contenders of a contest do the same work in rounds that take turns. --record keeps what was found, with \
machine, libraries, settings and every round; `report` makes a page of it that ends in what to run, and \
`compare` says whether a later run is slower. ONNX Runtime is also driven directly, for which its library has \
to be named, by --onnxruntime or ORT_DYLIB_PATH.

Examples:
  shapeyard bench encode --model model.onnx --tokenizer tokenizer.json --corpus src/ --record a.jsonl
  shapeyard bench coldstart --model model.onnx --extents batch=1,sequence=64
  shapeyard bench serve-mix --model model.onnx --threads 32
  shapeyard bench report a.jsonl --out report
  shapeyard bench compare a.jsonl b.jsonl --fail-over 5%";

/// Measure a model of your own beside ONNX Runtime driven directly
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<Code> {
    ensure!(
        global.ggml_weights.is_none(),
        BadInput::new("bench measures a file as it is; give it a GGUF file that has such weights")
    );
    let host = Host {
        call: "shapeyard bench",
        words: &["bench"],
        migraphx_worker: WORKER,
        options: options(global),
        cpu: cpu_options(global),
        format: match global.format {
            Format::Text => suite::Format::Text,
            Format::Json => suite::Format::Json,
        },
    };
    Ok(if args.command.run(&host)? { Code::Done } else { Code::No })
}

/// What says the same to a process of a contender.
fn options(global: &Global) -> Vec<OsString> {
    let library = global.ggml.as_ref().map(|path| ["--ggml".into(), path.into()]);
    let device = global.ggml_device.as_ref().map(|name| ["--ggml-device".into(), name.into()]);
    library.into_iter().chain(device).flatten().collect()
}
