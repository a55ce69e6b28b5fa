//! Files, folders and records cut into pieces of text, each with the place that it came from.
//!
//! What git ignores and what is hidden is passed over without a word; every other file that gives no
//! text is listed with the reason.

mod cut;
mod error;
mod file;
mod folder;
mod records;
mod skipped;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cut::Cut;
pub use error::UnitError;
pub use skipped::{SkipReason, Skipped};
pub use source::{Source, Span};

use file::Refusal;

/// What the name of a list of units ends in. A folder's lists are not read: they name texts and hold none.
pub const LIST_END: &str = ".units.jsonl";

/// A piece of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Where it came from.
    pub source: Source,
    /// The text, line ends included.
    pub text: String,
}

/// How files are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitOptions {
    /// Where text files are cut.
    pub cut: Cut,
    /// Larger files are not read. Records have no limit.
    pub max_file_bytes: u64,
}

impl Default for UnitOptions {
    fn default() -> Self {
        Self { cut: Cut::Blocks, max_file_bytes: 8 << 20 }
    }
}

/// What files and folders gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// The units: paths in the order given, a folder's files by name, a file's units from top to bottom.
    pub units: Vec<Unit>,
    /// Files of folders that gave no unit.
    pub skipped: Vec<Skipped>,
}

impl Collected {
    /// Whether something could not be read or was too large, as opposed to not being text.
    #[must_use]
    pub fn has_unreadable(&self) -> bool {
        self.skipped.iter().any(|skipped| skipped.reason.is_failure())
    }
}

/// Cuts files and the files of folders into units.
///
/// `*.jsonl` and `*.ndjson` hold one record a line, an object with a string `text`, and every record is a
/// unit, also one whose text is empty; in a folder such a file is skipped where its first line is no record. Every other file is text that is cut as the options say, and there
/// what is blank makes no unit.
///
/// # Errors
///
/// [`UnitError`]: for a path that was named itself, for a line among records that is none, and when there is no unit.
pub fn collect(paths: &[PathBuf], options: &UnitOptions) -> Result<Collected, UnitError> {
    let mut collected = Collected::default();
    for path in paths {
        let metadata = fs::metadata(path).map_err(|source| UnitError::of_io(path, source))?;
        if metadata.is_dir() {
            collect_folder(path, options, &mut collected)?;
        } else {
            collect_named(path, options, &mut collected.units)?;
        }
    }
    if collected.units.is_empty() {
        let n_skipped = collected.skipped.len();
        return Err(UnitError::Nothing { looked_at: paths.to_vec(), n_skipped });
    }
    Ok(collected)
}

fn collect_named(
    path: &Path,
    options: &UnitOptions,
    units: &mut Vec<Unit>,
) -> Result<(), UnitError> {
    if path.to_str().is_none() {
        return Err(UnitError::NameNotText { path: path.to_owned() });
    }
    let text =
        file::read(path, limit(path, options)).map_err(|refusal| refusal.into_error(path))?;
    add(path, path, &text, options, units)
}

fn collect_folder(
    root: &Path,
    options: &UnitOptions,
    collected: &mut Collected,
) -> Result<(), UnitError> {
    for found in folder::files(root) {
        let found = match found {
            Ok(found) => found,
            Err(skipped) if skipped.path == root => return Err(skipped.into_error()),
            Err(skipped) => {
                collected.skipped.push(skipped);
                continue;
            }
        };
        let text = if is_list(&found.path) {
            Err(Refusal::Content(SkipReason::UnitList))
        } else {
            file::read(&found.path, limit(&found.path, options))
                .and_then(|text| check_records(&found.path, text))
        };
        match text {
            Ok(text) => add(&found.path, &found.shown, &text, options, &mut collected.units)?,
            Err(refusal) => {
                let reason = Refusal::into_reason(refusal);
                collected.skipped.push(Skipped { path: found.shown, reason });
            }
        }
    }
    Ok(())
}

/// Lines of JSON in a folder may be anything: they are records where the first one is.
fn check_records(path: &Path, text: String) -> Result<String, Refusal> {
    let first = records::parse(&text).next().filter(|_| is_records(path));
    match first {
        Some(Err(bad)) => {
            Err(Refusal::Content(SkipReason::NotRecords { reason: bad.into_reason() }))
        }
        Some(Ok(_)) | None => Ok(text),
    }
}

fn add(
    path: &Path,
    shown: &Path,
    text: &str,
    options: &UnitOptions,
    units: &mut Vec<Unit>,
) -> Result<(), UnitError> {
    let mut push = |span: Span, text: &str| {
        let source = Source { path: shown.to_owned(), span };
        units.push(Unit { source, text: text.to_owned() });
    };
    if is_records(path) {
        for record in records::parse(text) {
            let record = record.map_err(|bad| bad.into_error(shown))?;
            push(Span::Record { index: record.index, line: record.line }, &record.text);
        }
    } else {
        let pieces = options.cut.pieces(text).into_iter();
        pieces
            .filter(|(_, text)| !text.trim().is_empty())
            .for_each(|(span, text)| push(span, text));
    }
    Ok(())
}

/// Records have no limit: a collection of texts in one file is long as a matter of course.
fn limit(path: &Path, options: &UnitOptions) -> u64 {
    if is_records(path) { u64::MAX } else { options.max_file_bytes }
}

fn is_list(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(LIST_END.as_bytes()))
}

fn is_records(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension
        .is_some_and(|it| it.eq_ignore_ascii_case("jsonl") || it.eq_ignore_ascii_case("ndjson"))
}

#[cfg(test)]
mod tests;
