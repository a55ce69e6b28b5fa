//! What every suite is, and how its record reaches a person and a file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::record::{self, Record, Watch};

/// The program that suites run in.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// What a person types before the suite's name.
    pub call: &'static str,
    /// Words that lead from this program's name to the suites and their hidden commands.
    pub words: &'static [&'static str],
}

impl Host {
    /// A command that starts this program's hidden command of that name.
    ///
    /// # Errors
    ///
    /// Where the system does not tell which program this is.
    pub fn hidden(&self, name: &str) -> Result<Command> {
        let own = std::env::current_exe().context("this program does not know its own path")?;
        let mut command = Command::new(own);
        command.args(self.words).arg(name);
        Ok(command)
    }

    /// The line that a person types to measure the same again.
    fn line(&self) -> String {
        let words = std::env::args_os().skip(1 + self.words.len());
        let words = measured_words(words.collect());
        [self.call.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Where a record goes is no part of what is measured.
fn measured_words(words: Vec<OsString>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter().map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--record" | "--format" if !word.contains('=') => drop(words.next()),
            "--record" | "--format" => {}
            _ => kept.push(word),
        }
    }
    kept
}

/// How a record is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tables for a person.
    #[default]
    Text,
    /// One JSON object with every single time.
    Json,
}

/// What every suite takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Output {
    /// How to print the record.
    #[arg(long, default_value_t, value_enum)]
    pub format: Format,
    /// Append the record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// Something that cannot be measured on this machine, which is no failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skipped(pub String);

/// A suite. Its arguments are its type, so that the command line fills it.
///
/// To join: a folder or file in this crate with a `clap::Args` that flattens [`Output`] and implements this
/// trait; a variant and a line in the `Suite` of `main.rs`; a line in `all.rs`, which says how it is run
/// quickly. Its contests are measured by [`crate::contest::Contest::run`], or filled by the suite itself
/// where a round is not a closure: equal places of two contenders' `seconds` must be the same round. Then
/// tables, files, comparing and the report know them.
pub trait Suite {
    /// What it is called on the command line.
    const NAME: &'static str;

    /// Where its record goes.
    fn output(&self) -> &Output;

    /// Measures, and puts contests, settings and libraries into the record.
    ///
    /// # Errors
    ///
    /// [`Skipped`] where this machine lacks what is measured; anything else is a failure.
    fn measure(&self, host: &Host, record: &mut Record) -> Result<()>;

    /// Measures, prints the record and appends it where it is wanted.
    ///
    /// # Errors
    ///
    /// What the suite failed of, or what keeps the record from being written.
    fn run(&self, host: &Host) -> Result<()> {
        let mut record = Record::new(Self::NAME, host.line());
        let watch = Watch::start();
        match self.measure(host, &mut record) {
            Ok(()) => {}
            Err(error) => match error.downcast::<Skipped>() {
                Ok(Skipped(reason)) => record.skipped = Some(reason),
                Err(error) => return Err(error),
            },
        }
        record.finish(&watch);
        match self.output().format {
            Format::Text => record.print(),
            Format::Json => println!("{}", serde_json::to_string_pretty(&record)?),
        }
        self.output().record.as_ref().map_or(Ok(()), |path| record::append(path, &record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_record_goes_is_not_what_it_measures() {
        let words = "plan --record a.jsonl --rounds 3 --format=json".split(' ').map(OsString::from);
        assert_eq!(measured_words(words.collect()), ["plan", "--rounds", "3"]);
    }
}
