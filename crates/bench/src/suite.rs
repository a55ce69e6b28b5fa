//! What every suite is, and how its record reaches a person and a file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use shapeyard_core::Model;
use shapeyard_cpu::CpuOptions;
use shapeyard_migraphx::WorkerProgram;

use crate::record::{self, Record, Watch};

/// Names ONNX Runtime's library.
pub(crate) const ONNXRUNTIME_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Names the script that programs are started by where they see no MIGraphX otherwise.
const RUN_VARIABLE: &str = "SHAPEYARD_MIGRAPHX_RUN";

/// The program that suites run in.
#[derive(Clone, Debug)]
pub struct Host {
    /// What a person types before the suite's name.
    pub call: &'static str,
    /// Words that lead from this program's name to the suites and their hidden commands.
    pub words: &'static [&'static str],
    /// The word after this program's name that makes it MIGraphX's worker.
    pub migraphx_worker: &'static str,
    /// What the backends on the processor were told.
    pub cpu: CpuOptions,
    /// The same as options of this program, which stand before the words.
    pub options: Vec<OsString>,
    /// How results are printed.
    pub format: Format,
}

impl Host {
    /// A command that starts this program's hidden command of that name.
    ///
    /// # Errors
    ///
    /// Where the system does not tell which program this is.
    pub fn hidden(&self, name: &str) -> Result<Command> {
        let [program, rest @ ..] = &own()?[..] else { bail!("this program has no name") };
        let mut command = Command::new(program);
        command.args(rest).args(&self.options).args(self.words).arg(name);
        if let Some(library) = &self.cpu.onnxruntime {
            command.env(ONNXRUNTIME_VARIABLE, library);
        }
        Ok(command)
    }

    /// This program as MIGraphX's worker.
    ///
    /// # Errors
    ///
    /// As [`Self::hidden`].
    pub fn worker(&self) -> Result<WorkerProgram> {
        let [program, rest @ ..] = &own()?[..] else { bail!("this program has no name") };
        let words = rest.iter().cloned().chain([self.migraphx_worker.into()]);
        Ok(WorkerProgram::new(program, words))
    }

    /// The line that a person types to measure the same again.
    fn line(&self) -> String {
        let mut words = std::env::args_os().skip(1);
        // Options of the whole program, which may as well stand behind.
        let mut before: Vec<OsString> = Vec::new();
        for word in self.words {
            before.extend(words.by_ref().take_while(|it| it != word));
        }
        let words = measured_words(words.chain(before).collect());
        [self.call.to_owned()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// How this program is started, in a way that works inside MIGraphX's root too.
fn own() -> Result<Vec<OsString>> {
    match std::env::var_os(RUN_VARIABLE) {
        // There the system says that the program is the dynamic linker.
        Some(run) => {
            let own = std::env::args_os().next();
            Ok(vec![run, own.context("this program was started without a name")?])
        }
        None => {
            let own = std::env::current_exe().context("this program does not know its own path")?;
            Ok(vec![own.into_os_string()])
        }
    }
}

/// Where a record goes is no part of what is measured, and neither is where a machine has its files.
fn measured_words(words: Vec<OsString>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter().map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.split_once('=').map_or(word.as_str(), |(name, _)| name) {
            "--record" | "--format" if !word.contains('=') => drop(words.next()),
            "--record" | "--format" => {}
            name if word.contains('=') && name.starts_with("--") => {
                let value = word[name.len() + 1..].to_owned();
                kept.push(format!("{name}={}", without_folders(value)));
            }
            _ => kept.push(without_folders(word)),
        }
    }
    kept
}

/// The last part of a path from the root; anything else as it is.
fn without_folders(word: String) -> String {
    let path = Path::new(&word);
    match path.file_name().filter(|_| path.is_absolute()) {
        Some(name) => name.to_string_lossy().into_owned(),
        None => word,
    }
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

/// A number of rounds, threads or the like: without one there is nothing to measure.
///
/// # Errors
///
/// That it is no number or 0, for a person.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "a whole number from 1 on".to_owned())
}

/// A share such as `5%` or `0.05`.
///
/// # Errors
///
/// That it is none or negative, for a person.
pub fn share(text: &str) -> Result<f64, String> {
    let (digits, unit) = text.strip_suffix('%').map_or((text, 1.0), |it| (it, 100.0));
    let share = digits.trim().parse::<f64>().map(|it| it / unit);
    let share = share.ok().filter(|it| it.is_finite() && *it >= 0.0);
    share.ok_or_else(|| "a share such as `5%` or `0.05`, not negative".to_owned())
}

/// Opens the model that is to be measured, before anything is.
///
/// # Errors
///
/// That it is none, as a bad argument.
pub fn open_model(path: &Path) -> Result<Model> {
    let told = |error| BadArgument::new(format!("`{}`: {error}", path.display()));
    Ok(Model::open(path).map_err(told)?)
}

/// What every suite takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Output {
    /// Append the record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// An argument that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadArgument(String);

impl BadArgument {
    /// One that says what is wrong.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Something that cannot be measured on this machine, which is no failure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skipped(pub String);

/// A suite. Its arguments are its type, so that the command line fills it.
///
/// To join: a folder or file in this crate with a `clap::Args` that flattens [`Output`] and implements this
/// trait; a variant and a line in the `Command` of `main.rs`; a line in `all.rs`, which says how it is run
/// quickly; and, for words about it on the page, `report/about/NAME.md` with its line in `report/page.rs`. Its contests are measured by [`crate::contest::Contest::run`], or filled by the suite itself
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

    /// Measures, prints the record and appends it where it is wanted. Of a suite that fails in the middle too: the
    /// contests that it had finished.
    ///
    /// # Errors
    ///
    /// What the suite failed of; that the record cannot be written, before anything is measured.
    fn run(&self, host: &Host) -> Result<()> {
        if let Some(path) = &self.output().record {
            record::check_writable(path)?;
        }
        let mut record = Record::new(Self::NAME, host.line());
        let watch = Watch::start();
        let mut failure = None;
        if let Err(error) = self.measure(host, &mut record) {
            match error.downcast::<Skipped>() {
                Ok(Skipped(reason)) => record.skipped = Some(reason),
                // What was measured before it is kept, with a word that more was to come.
                Err(error) if !record.contests.is_empty() => {
                    record.set("failed", format!("{error:#}"));
                    failure = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(reason) = &record.skipped {
            eprintln!("{}: skipped: {reason}", Self::NAME);
        }
        record.finish(&watch);
        match host.format {
            Format::Text => record.print(),
            Format::Json => println!("{}", serde_json::to_string_pretty(&record)?),
        }
        self.output().record.as_ref().map_or(Ok(()), |path| record::append(path, &record))?;
        failure.map_or(Ok(()), Err)
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

    #[test]
    fn shares_are_read_with_and_without_a_sign() {
        assert_eq!(["5%", "0.05", "0"].map(share), [Ok(0.05), Ok(0.05), Ok(0.0)]);
        assert!(share("-1%").is_err() && share("five").is_err() && share("NaN").is_err());
    }

    #[test]
    fn a_command_tells_neither_its_record_nor_folders_of_the_machine() {
        let words = ["io", "--record", "io.jsonl", "--format=json", "--models", "tests/models"];
        let folder = std::env::temp_dir().join("libmigraphx_c.so");
        let mut joined = OsString::from("--library=");
        joined.push(&folder);
        let words = words.into_iter().map(Into::into).chain([folder.into_os_string(), joined]);
        let words = measured_words(words.collect());
        let library = "libmigraphx_c.so";
        assert_eq!(words[..4], ["io", "--models", "tests/models", library]);
        assert_eq!(words[4], format!("--library={library}"));
    }

    #[test]
    fn nothing_is_no_number_of_rounds() {
        assert_eq!(at_least_one("3"), Ok(3));
        assert!(["0", "-1", "many"].iter().all(|text| at_least_one(text).is_err()));
    }
}
