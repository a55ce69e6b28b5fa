//! Records in files, one JSON object a line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
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
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    let written = opened(path).and_then(|mut file| file.write_all(&line));
    written.with_context(|| format!("`{}` cannot be written", path.display()))
}

/// Whether [`append`] will find the file writable, asked before minutes are spent on what it would keep.
///
/// # Errors
///
/// What keeps it from being opened, as a bad argument.
pub fn check_writable(path: &Path) -> Result<()> {
    let told = |error| BadArgument::new(format!("`{}` cannot be written: {error}", path.display()));
    Ok(opened(path).map(drop).map_err(told)?)
}

fn opened(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A temporary file that others may read once it has its name.
fn new_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Puts what a suite found in the place of what the same suite had found on the same machine; the file is whole at
/// every moment.
///
/// # Errors
///
/// What keeps the file from being read or written.
pub fn replace(path: &Path, new: &[Record]) -> Result<()> {
    let is_replaced = |old: &Record| {
        new.iter().any(|it| (&it.suite, &it.machine.host) == (&old.suite, &old.machine.host))
    };
    let kept = if path.exists() { read_file(path)? } else { Vec::new() };
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable = || format!("`{}` cannot be replaced", path.display());
    let mut file = new_file(folder).with_context(unwritable)?;
    for record in kept.iter().filter(|it| !is_replaced(it)).chain(new) {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        file.write_all(&line).with_context(unwritable)?;
    }
    file.persist(path).map(drop).with_context(unwritable)
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
    fn only_the_same_suites_of_the_same_machine_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut elsewhere = Record::new("plan", "it");
        "elsewhere".clone_into(&mut elsewhere.machine.host);
        let all = [Record::new("plan", "it"), elsewhere.clone(), Record::new("cache", "it")];
        all.iter().for_each(|it| append(&path, it).unwrap());
        let new = Record::new("plan", "again");
        replace(&path, std::slice::from_ref(&new)).unwrap();
        assert_eq!(read(&path).unwrap(), [elsewhere, all[2].clone(), new]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_before_anything_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_writable(&folder.path().join("new.jsonl")).is_ok());
        let error = check_writable(&folder.path().join("none/a.jsonl")).unwrap_err();
        assert!(error.downcast_ref::<BadArgument>().is_some());
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
