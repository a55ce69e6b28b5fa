//! Records in files, one JSON object a line.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{Record, SCHEMA};
use crate::suite::BadArgument;

/// Appends a record as one line of JSON.
///
/// # Errors
///
/// What keeps the file from being written.
pub fn append(path: &Path, record: &Record) -> Result<()> {
    let unwritable = || format!("`{}` cannot be written", path.display());
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).with_context(unwritable)?;
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    file.write_all(&line).with_context(unwritable)
}

/// All records of a file; of a folder those of its `.jsonl` files, in order of their names.
///
/// # Errors
///
/// What keeps a file from being read, with the line; and that there is no record at all.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    read_all(path).map_err(|error| BadArgument::new(format!("{error:#}")).into())
}

fn read_all(path: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    if path.is_dir() {
        for file in files_of(path)? {
            records.extend(read_file(&file)?);
        }
    } else {
        records = read_file(path)?;
    }
    ensure!(!records.is_empty(), "`{}` holds no record", path.display());
    Ok(records)
}

fn files_of(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let unreadable = || format!("`{}` cannot be listed", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<Record>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(nth, line)| {
            parse(line).with_context(|| format!("`{}`, line {}", path.display(), nth + 1))
        })
        .collect()
}

/// Says of another form that it is one, rather than which field is missing.
fn parse(line: &str) -> Result<Record> {
    #[derive(Deserialize)]
    struct Form {
        schema: u32,
    }
    let form: Form = serde_json::from_str(line).context("this is no record")?;
    ensure!(form.schema == SCHEMA, "a record of form {}; {SCHEMA} is read", form.schema);
    serde_json::from_str(line).context("this is no record")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|suite| Record::new(suite, "command"));
        append(&folder.path().join("2.jsonl"), &second).unwrap();
        append(&folder.path().join("1.jsonl"), &first).unwrap();
        fs::write(folder.path().join("other.txt"), "no record").unwrap();
        assert_eq!(read(folder.path()).unwrap(), [first, second]);
    }

    #[test]
    fn what_is_no_record_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let says = |text: &str| {
            fs::write(&path, text).unwrap();
            format!("{:#}", read(&path).unwrap_err())
        };
        assert!(says("\n{}").contains("line 2: this is no record"));
        assert!(says("{\"schema\": 1}").contains("a record of form 1; 2 is read"));
        assert!(says("").contains("holds no record"));
    }
}
