//! `shapeyard completions`.

use anyhow::Result;
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Code;
use crate::output::Output;

const AFTER_HELP: &str = "\
Examples:
  shapeyard completions bash > ~/.local/share/bash-completion/completions/shapeyard
  shapeyard completions zsh > ~/.zfunc/_shapeyard
  shapeyard completions fish > ~/.config/fish/completions/shapeyard.fish";

/// Print a script that completes commands and options in a shell
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Code> {
    // The generator panics when it cannot write, so it writes to memory.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "shapeyard", &mut script);
    output.raw(&script)?;
    Ok(Code::Done)
}
