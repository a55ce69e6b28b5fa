//! Walking what was named, and cutting it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use serde::Deserialize;

use super::{Collected, Skipped, Source, Span, Unit, UnitError, UnitOptions};

/// Cuts files into units. Folders are walked in the order of names; hidden files and what a `.gitignore`
/// names are left out, and links are not followed. `*.jsonl` and `*.ndjson` hold a record a line, with its
/// text in the field `text`; every other file is cut by lines. Pieces of white space are left out.
///
/// A file that was found in a folder and is no text, or cannot be read, is in [`Collected::skipped`]; one
/// that was named itself is an error.
///
/// # Errors
///
/// [`UnitError`].
pub fn collect(paths: &[PathBuf], options: &UnitOptions) -> Result<Collected, UnitError> {
    let mut collected = Collected::default();
    for path in paths {
        let unreadable = |source| UnitError::Unreadable { path: path.clone(), source };
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            walk(path, options, &mut collected)?;
        } else {
            let bytes = fs::read(path).map_err(unreadable)?;
            let text = text(bytes).ok_or_else(|| UnitError::NotText { path: path.clone() })?;
            cut(path, &text, options, &mut collected.units)?;
        }
    }
    if collected.units.is_empty() {
        return Err(UnitError::NoText { paths: paths.to_vec() });
    }
    Ok(collected)
}

fn walk(folder: &Path, options: &UnitOptions, found: &mut Collected) -> Result<(), UnitError> {
    let mut builder = WalkBuilder::new(folder);
    // A `.gitignore` counts also where a copy of the files is no repository.
    builder.require_git(false).sort_by_file_path(Path::cmp);
    for entry in builder.build() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                found.skipped.push(refused(folder, &error));
                continue;
            }
        };
        if entry.file_type().is_some_and(|kind| kind.is_file()) {
            let path = entry.path();
            let shown = path.strip_prefix(".").unwrap_or(path);
            match read(path, options) {
                Ok(text) => cut(shown, &text, options, &mut found.units)?,
                Err((reason, unreadable)) => {
                    found.skipped.push(Skipped { path: shown.to_owned(), reason, unreadable });
                }
            }
        }
    }
    Ok(())
}

/// An entry that the walk itself could not read: a folder without permission, mostly.
fn refused(folder: &Path, error: &ignore::Error) -> Skipped {
    let path = match error {
        ignore::Error::WithPath { path, .. } => path.clone(),
        ignore::Error::WithDepth { err, .. } => match err.as_ref() {
            ignore::Error::WithPath { path, .. } => path.clone(),
            _ => folder.to_owned(),
        },
        _ => folder.to_owned(),
    };
    Skipped { path, reason: error.to_string(), unreadable: true }
}

/// The text of a file in a folder; else why there is none, and whether the system refused.
fn read(path: &Path, options: &UnitOptions) -> Result<String, (String, bool)> {
    let refused = |error: io::Error| (error.to_string(), true);
    let n_bytes = fs::metadata(path).map_err(refused)?.len();
    if n_bytes > options.max_file_bytes {
        return Err((
            format!("it has {n_bytes} bytes, more than {}", options.max_file_bytes),
            false,
        ));
    }
    text(fs::read(path).map_err(refused)?).ok_or_else(|| ("it is no UTF-8 text".to_owned(), false))
}

/// The bytes as text, unless they are something else: NUL is valid UTF-8, but in no text.
fn text(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn cut(
    path: &Path,
    text: &str,
    options: &UnitOptions,
    units: &mut Vec<Unit>,
) -> Result<(), UnitError> {
    let is_records = path.extension().is_some_and(|end| end == "jsonl" || end == "ndjson");
    if is_records {
        return records(path, text, units);
    }
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let n_lines = if options.chunk_lines == 0 { lines.len() } else { options.chunk_lines };
    for (nth, chunk) in lines.chunks(n_lines.max(1)).enumerate() {
        let first = nth * n_lines + 1;
        let text = chunk.concat();
        if !text.trim().is_empty() {
            let span = Span::Lines { first, last: first + chunk.len() - 1 };
            units.push(Unit { source: Source { path: path.to_owned(), span }, text });
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Record {
    text: String,
}

fn records(path: &Path, text: &str, units: &mut Vec<Unit>) -> Result<(), UnitError> {
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim().is_empty() {
            continue;
        }
        let Record { text } = serde_json::from_str(content).map_err(|error| UnitError::Record {
            path: path.to_owned(),
            line,
            reason: error.to_string(),
        })?;
        let source = Source { path: path.to_owned(), span: Span::Record { line } };
        units.push(Unit { source, text });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn sources(collected: &Collected, folder: &Path) -> Vec<String> {
        let below = |unit: &Unit| {
            let path = unit.source.path.strip_prefix(folder).unwrap().to_owned();
            Source { path, span: unit.source.span }.to_string()
        };
        collected.units.iter().map(below).collect()
    }

    #[test]
    fn a_folder_gives_its_texts_in_order_and_says_what_it_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "b.txt", "1\n2\n3\n");
        write(root, "a/x.md", "one\n");
        write(root, "a/blank.md", " \n\n");
        write(root, "image.bin", [0, 1, 2]);
        write(root, "latin1.txt", [b'a', 0xe9]);
        write(root, "large.txt", "x".repeat(100));
        write(root, "target/made.txt", "ignored\n");
        write(root, ".hidden", "hidden\n");
        write(root, ".gitignore", "target/\n");
        let options = UnitOptions { chunk_lines: 2, max_file_bytes: 50 };
        let collected = collect(&[root.to_owned()], &options).unwrap();
        assert_eq!(sources(&collected, root), ["a/x.md:1-1", "b.txt:1-2", "b.txt:3-3"]);
        let skipped: Vec<_> =
            collected.skipped.iter().map(|s| s.path.file_name().unwrap().to_owned()).collect();
        assert_eq!(skipped, ["image.bin", "large.txt", "latin1.txt"]);
        assert!(collected.skipped.iter().all(|skipped| !skipped.unreadable));
    }

    #[test]
    fn records_give_a_unit_each() {
        let folder = tempfile::tempdir().unwrap();
        let good =
            write(folder.path(), "r.jsonl", "{\"text\":\"a\"}\n\n{\"id\":1,\"text\":\"b\"}\n");
        let collected = collect(&[good], &UnitOptions::default()).unwrap();
        assert_eq!(sources(&collected, folder.path()), ["r.jsonl:1", "r.jsonl:3"]);
        for bad in
            ["{\"text\":\"a\"}\n{\"txt\":\"b\"}\n", "{\"text\":\"a\"}\n{\"text\":1}", "x\n[1"]
        {
            let path = write(folder.path(), "bad.jsonl", bad);
            let error = collect(&[path], &UnitOptions::default()).unwrap_err();
            assert!(matches!(error, UnitError::Record { .. }), "{error}");
        }
    }

    #[test]
    fn what_is_named_must_be_text() {
        let folder = tempfile::tempdir().unwrap();
        let options = UnitOptions::default();
        let binary = write(folder.path(), "x.bin", [0]);
        assert!(matches!(collect(&[binary], &options), Err(UnitError::NotText { .. })));
        let nowhere = folder.path().join("nowhere");
        assert!(matches!(collect(&[nowhere], &options), Err(UnitError::Unreadable { .. })));
        let blank = write(folder.path(), "blank.txt", "\n");
        let error = collect(&[blank], &options).unwrap_err();
        assert!(error.to_string().starts_with("there is no text in `"), "{error}");
        assert!(matches!(collect(&[], &options), Err(UnitError::NoText { .. })));
    }

    proptest! {
        #[test]
        fn pieces_together_are_the_file(
            text in "([a-z]{0,3}|\r|\n){0,40}",
            chunk_lines in 0usize..5,
        ) {
            let mut units = Vec::new();
            let options = UnitOptions { chunk_lines, ..UnitOptions::default() };
            cut(Path::new("x.txt"), &text, &options, &mut units).unwrap();
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            let mut left_out = lines.clone();
            for unit in units.iter().rev() {
                let Span::Lines { first, last } = unit.source.span else { unreachable!() };
                prop_assert_eq!(lines[first - 1..last].concat(), unit.text.as_str());
                prop_assert!(chunk_lines == 0 || last - first < chunk_lines);
                left_out.drain(first - 1..last);
            }
            prop_assert!(left_out.concat().trim().is_empty());
        }
    }
}
