//! What the command line says.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use shapeyard_cpu::GgmlWeights;

use crate::commands::{
    bench, cache, calibrate, completions, doctor, encode, inspect, man, plan, run, warm,
};
use crate::migraphx_args::WORKER;
use crate::output::Format;

const AFTER_HELP: &str = "\
Examples:
  shapeyard inspect model.onnx
  shapeyard run model.onnx --input x=x.npy --out outputs.npz
  shapeyard encode model.onnx --tokenizer tokenizer.json src/ docs/ --out embeddings.npy
  shapeyard warm model.onnx --buckets batch=1,2,4,8 sequence=32,64
  shapeyard calibrate model.onnx
  shapeyard plan model.onnx --workload lengths.txt
  shapeyard doctor
  shapeyard bench encode --model model.onnx --tokenizer tokenizer.json --corpus src/
  shapeyard cache ls

Exit codes:
  0    done
  1    done, and the answer is no or not everything could be read
  2    the command line or an input is wrong
  3    no backend, or a library that is missing or failed
  4    a fault of the program itself
  130  interrupted
A reader that closes the pipe early ends the program with 0.";

/// Run models of any shape: inspect them, run them, turn text into embeddings
#[derive(Debug, Parser)]
#[command(name = "shapeyard", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// How results are printed; errors and notes are text on stderr in any case
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// The ONNX Runtime library to load. When it does not work, nothing else is tried
    ///
    /// Without this option the library is looked for at ORT_DYLIB_PATH, in `lib/shapeyard` beside or above
    /// the program, and where the system keeps its libraries. `shapeyard doctor` says what was found.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) onnxruntime: Option<PathBuf>,
    /// The ggml library to load. When it does not work, nothing else is tried
    ///
    /// Without this option the library is looked for at GGML_DYLIB_PATH, in `lib/shapeyard` beside or above
    /// the program, and where the system keeps its libraries.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) ggml: Option<PathBuf>,
    /// The device of ggml that computes, as `shapeyard doctor` names them [default: the processor]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) ggml_device: Option<String>,
    /// Narrower weights for ggml, made of a GGUF file by `shapeyard warm`: f16, q8_0 or q4_k
    ///
    /// f16 halves the file, q8_0 takes about a quarter and q4_k about a sixth of it. Without this option the
    /// weights are used as the file has them.
    #[arg(long, global = true, value_name = "TYPE")]
    pub(crate) ggml_weights: Option<GgmlWeights>,
    /// No notes and no progress, and no report where a file is the result
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(inspect::Args),
    Run(run::Args),
    Encode(encode::Args),
    Calibrate(calibrate::Args),
    Plan(plan::Args),
    Warm(warm::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Cache(cache::Args),
    Completions(completions::Args),
    Man(man::Args),
    /// Compile one program; started by this program itself
    #[command(name = WORKER, hide = true)]
    MigraphxWorker,
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{Command, CommandFactory as _};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The lines of a command's help, and of those below it, that call this program.
    fn examples(command: &Command) -> Vec<String> {
        let help = command.get_after_long_help().or(command.get_after_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let of_help = |line: &str| line.starts_with("  shapeyard ").then(|| line.to_owned());
        let below = command.get_subcommands().flat_map(examples);
        help.lines().filter_map(of_help).chain(below).collect()
    }

    #[test]
    fn every_example_of_the_help_is_understood() {
        let all = examples(&Cli::command());
        assert!(all.len() > 20, "{all:?}");
        for example in all {
            let called = example.split(['|', '>', ';']).next().unwrap_or_default();
            let words = called.split_whitespace().map(|word| word.trim_matches(['\'', '"', '\\']));
            let parsed = Cli::command().try_get_matches_from(words.filter(|it| !it.is_empty()));
            let Err(error) = parsed else { continue };
            // An example may go on in the next line, and so lack what is demanded.
            let goes_on = example.trim_end().ends_with('\\');
            let is_short = error.kind() == ErrorKind::MissingRequiredArgument && goes_on;
            let shows = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            assert!(is_short || shows, "{example}: {error}");
        }
    }
}
