//! Starting other programs, with errors that show the command line.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};

use anyhow::{Context as _, Result, anyhow, bail};

/// How much of a failed program's error output is repeated in our message.
const QUOTED_LINES: usize = 6;

/// The cargo that runs us, so that a toolchain chosen by the caller holds for every stage.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A script for the system's shell.
pub(crate) fn shell(script: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg(script);
    command
}

/// Runs to the end with our own output, and fails when the program does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| cannot_start(&line))?;
    if status.success() { Ok(()) } else { bail!("`{line}` {}", ending(status)) }
}

/// How a program ended that had told a person by itself what is wrong.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) u8);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Ended {}

/// Runs to the end with our own output; a failure ends us in the same way, without more words.
pub(crate) fn run_as_ours(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(&shown(command)))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or_else(|| Err(anyhow!("it {}", ending(status))), |code| Err(Ended(code).into()))
}

/// Runs to the end in silence; a failure repeats the last lines that the program said.
pub(crate) fn run_quietly(command: &mut Command) -> Result<Output> {
    let line = shown(command);
    let output = command.output().with_context(|| cannot_start(&line))?;
    if output.status.success() {
        return Ok(output);
    }
    bail!("`{line}` {}:\n{}", ending(output.status), last_lines(&output.stderr))
}

/// What the program said on its standard output, without the last line break.
pub(crate) fn text(command: &mut Command) -> Result<String> {
    let output = run_quietly(command)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Whether a program can be started and ends well; it says nothing here.
pub(crate) fn works(command: &mut Command) -> Result<bool> {
    match command.output() {
        Ok(output) => Ok(output.status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| cannot_start(&shown(command))),
    }
}

/// What a program says on its standard output; nothing where there is no such program, or it fails.
pub(crate) fn said(command: &mut Command) -> Result<String> {
    match command.output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(_) => Ok(String::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| cannot_start(&shown(command))),
    }
}

/// The command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program());
    std::iter::once(name).chain(command.get_args()).map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty() || word.contains(char::is_whitespace) {
        format!("'{word}'")
    } else {
        word.into_owned()
    }
}

fn cannot_start(line: &str) -> String {
    format!("cannot start `{line}`; is the program installed and on the PATH?")
}

fn ending(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => "was ended by a signal".to_owned(),
    }
}

fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_is_typed() {
        let mut command = Command::new("cargo");
        command.args(["test", "--", "a name", ""]);
        assert_eq!(shown(&command), "cargo test -- 'a name' ''");
    }

    #[test]
    fn a_program_that_is_absent_does_not_work() {
        assert!(!works(&mut Command::new("shapeyard-no-such-program")).unwrap());
    }

    #[test]
    fn an_error_quotes_only_the_end() {
        let said = (1..=20).map(|n| format!("line {n}\n\n")).collect::<String>();
        let quoted = last_lines(said.as_bytes());
        assert!(quoted.starts_with("line 15\n") && quoted.ends_with("line 20"), "{quoted}");
    }
}
