//! Results on stdout, notes on stderr.

use std::env;
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::exit::BadInput;

/// The version of the JSON that commands print: it grows when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object, for programs
    Json,
}

/// A command's result.
pub(crate) trait Report: Serialize {
    /// The command, as it is called.
    const COMMAND: &'static str;

    /// The result for people.
    fn text(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Stdout takes no more.
#[derive(Debug, thiserror::Error)]
#[error("stdout cannot be written")]
pub(crate) struct StdoutError(#[source] pub(crate) io::Error);

/// Where results and notes go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
}

#[derive(Serialize)]
struct Envelope<'a, R> {
    schema: u32,
    command: &'static str,
    #[serde(flatten)]
    report: &'a R,
}

/// A result for programs.
pub(crate) fn json<R: Report>(report: &R) -> io::Result<Vec<u8>> {
    let envelope = Envelope { schema: SCHEMA, command: R::COMMAND, report };
    let mut text = serde_json::to_vec_pretty(&envelope)?;
    text.push(b'\n');
    Ok(text)
}

impl Output {
    pub(crate) const fn new(format: Format, quiet: bool) -> Self {
        Self { format, quiet }
    }

    /// Refuses paths that JSON could not show, before any work is done and its report lost.
    pub(crate) fn check_paths(&self) -> Result<(), BadInput> {
        let mut given = env::args_os().chain(env::var_os("SHAPEYARD_CACHE"));
        match given.find(|path| self.format == Format::Json && path.to_str().is_none()) {
            Some(path) => Err(BadInput::new(format!(
                "`{}` is not UTF-8, which JSON cannot hold; use `--format text` or another name",
                path.display()
            ))),
            None => Ok(()),
        }
    }

    /// Whether a person may want to see how far it got.
    pub(crate) fn shows_progress(&self) -> bool {
        !self.quiet && self.format == Format::Text
    }

    /// Prints a result that was asked for.
    pub(crate) fn result<R: Report>(&self, report: &R) -> Result<(), StdoutError> {
        let mut text = Vec::new();
        match self.format {
            Format::Text => report.text(&mut text).map_err(StdoutError)?,
            Format::Json => text = json(report).map_err(StdoutError)?,
        }
        self.raw(&text)
    }

    /// Prints what there is to say where the result is a file.
    pub(crate) fn beside<R: Report>(&self, report: &R) -> Result<(), StdoutError> {
        if self.quiet && self.format == Format::Text { Ok(()) } else { self.result(report) }
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), StdoutError> {
        let mut stdout = anstream::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(StdoutError)
    }

    /// Says something that is neither result nor error.
    pub(crate) fn note(&self, note: impl fmt::Display) {
        if !self.quiet {
            anstream::eprintln!("note: {note}");
        }
    }
}
