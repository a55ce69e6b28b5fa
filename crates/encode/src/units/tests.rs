use std::path::{Path, PathBuf};

use super::*;

/// A folder with files of these contents.
fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn collect_one(path: &Path) -> Result<Collected, UnitError> {
    collect(&[path.to_owned()], &UnitOptions::default())
}

fn below(folder: &Path, collected: &Collected) -> Vec<String> {
    let shown = |unit: &Unit| unit.source.to_string();
    let start = format!("{}/", folder.display());
    collected.units.iter().map(|unit| shown(unit).replace(&start, "")).collect()
}

#[test]
fn a_folder_gives_its_text_by_name() {
    let folder = folder(&[
        ("b.txt", b"one\ntwo\n"),
        ("a/z.md", b"three"),
        ("records.jsonl", b"{\"text\": \"x\"}\n\n{\"text\": \" \"}\n{\"text\": \"y\"}\n"),
        ("e.npy.units.jsonl", b"{\"row\": 0}\n"),
        ("blank.txt", b" \n\n"),
        ("picture.png", b"\x89PNG\0"),
        ("latin.txt", b"na\xefve"),
        (".hidden", b"no"),
        (".gitignore", b"ignored.txt\n"),
        ("ignored.txt", b"no"),
    ]);
    let collected = collect_one(folder.path()).unwrap();
    let wanted =
        ["a/z.md:1-1", "b.txt:1-2", "records.jsonl:1", "records.jsonl:3", "records.jsonl:4"];
    assert_eq!(below(folder.path(), &collected), wanted);
    let reasons: Vec<String> =
        collected.skipped.iter().map(|skipped| skipped.reason.to_string()).collect();
    assert_eq!(
        reasons,
        ["a list of units", "not text: invalid UTF-8 at byte 2", "not text: a NUL at byte 4"]
    );
    assert!(!collected.has_unreadable());
}

#[test]
fn chunks_have_so_many_lines() {
    let text: String = (1..=90).map(|n| format!("line {n}\n")).collect();
    let folder = folder(&[("a.txt", text.as_bytes())]);
    let units = |chunk_lines| {
        let cut = Cut::after_lines(chunk_lines);
        let options = UnitOptions { cut, ..UnitOptions::default() };
        collect(&[folder.path().join("a.txt")], &options).unwrap().units
    };
    let spans: Vec<Span> = units(40).iter().map(|unit| unit.source.span).collect();
    let lines = |first, last| Span::Lines { first, last };
    assert_eq!(spans, [lines(1, 40), lines(41, 80), lines(81, 90)]);
    assert_eq!(units(0)[0].source.span, Span::Whole);
    assert_eq!(units(0)[0].text, text);
}

#[test]
fn a_file_that_is_named_must_be_text() {
    let folder = folder(&[("nul", b"a\0"), ("latin", b"\xff"), ("empty", b"")]);
    let error = |name: &str| collect_one(&folder.path().join(name)).unwrap_err();
    assert!(matches!(error("nul"), UnitError::NotText { found: "a NUL", at: 1, .. }));
    assert!(matches!(error("latin"), UnitError::NotText { at: 0, .. }));
    assert!(matches!(error("empty"), UnitError::Nothing { n_skipped: 0, .. }));
    assert!(matches!(error("missing"), UnitError::Missing { .. }));
}

#[test]
fn records_have_no_limit_and_other_files_are_missed() {
    let folder =
        folder(&[("a.txt", b"123456789"), ("b.jsonl", b"{\"text\": \"1\"}"), ("c", b"ok")]);
    let options = UnitOptions { max_file_bytes: 8, ..UnitOptions::default() };
    let named = |name: &str| collect(&[folder.path().join(name)], &options);
    assert!(matches!(named("a.txt").unwrap_err(), UnitError::TooLarge { limit: 8, .. }));
    assert_eq!(named("b.jsonl").unwrap().units.len(), 1);
    let collected = collect(&[folder.path().to_owned()], &options).unwrap();
    assert_eq!(below(folder.path(), &collected), ["b.jsonl:1", "c:1-1"]);
    let reasons: Vec<_> = collected.skipped.iter().map(|skipped| &skipped.reason).collect();
    assert_eq!(reasons, [&SkipReason::TooLarge { limit: 8 }]);
    assert!(collected.has_unreadable());
}

#[test]
fn a_bad_record_is_named_by_file_and_line() {
    let folder = folder(&[("a.jsonl", b"{\"text\": \"x\"}\n{\"text\": 1}\n")]);
    let message = collect_one(folder.path()).unwrap_err().to_string();
    assert!(message.contains("a.jsonl:2: invalid type"), "{message}");
}

#[test]
fn other_lines_of_json_in_a_folder_are_listed_and_named_they_are_an_error() {
    let folder = folder(&[("a.txt", b"x"), ("b.jsonl", b"{\"suite\": 1}\n{\"text\": \"y\"}\n")]);
    let collected = collect_one(folder.path()).unwrap();
    assert_eq!(below(folder.path(), &collected), ["a.txt:1-1"]);
    let [skipped] = &collected.skipped[..] else { panic!("{:?}", collected.skipped) };
    assert!(
        skipped.to_string().contains("b.jsonl: holds no records: missing field `text`"),
        "{skipped}"
    );
    assert!(!collected.has_unreadable());
    let named = collect_one(&folder.path().join("b.jsonl")).unwrap_err().to_string();
    assert!(named.contains("b.jsonl:1: missing field `text`"), "{named}");
}

#[test]
fn nothing_names_what_was_looked_at() {
    let folder = folder(&[("a.png", b"\0")]);
    let error = collect_one(folder.path()).unwrap_err();
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    assert!(matches!(error, UnitError::Nothing { n_skipped: 1, .. }));
    assert!(collect(&[], &UnitOptions::default()).is_err());
}

#[test]
fn paths_keep_the_order_in_which_they_were_named() {
    let folder = folder(&[("a", b"x"), ("b", b"y")]);
    let paths: Vec<PathBuf> = ["b", "a", "b"].map(|name| folder.path().join(name)).to_vec();
    let collected = collect(&paths, &UnitOptions::default()).unwrap();
    assert_eq!(below(folder.path(), &collected), ["b:1-1", "a:1-1", "b:1-1"]);
}

#[cfg(unix)]
#[test]
fn links_are_listed_and_not_followed_unless_named() {
    use std::os::unix::fs::symlink;
    let folder = folder(&[("real/a.txt", b"x")]);
    symlink(folder.path(), folder.path().join("real/loop")).unwrap();
    symlink(folder.path().join("real"), folder.path().join("named")).unwrap();
    let collected = collect_one(&folder.path().join("named")).unwrap();
    assert_eq!(below(folder.path(), &collected), ["named/a.txt:1-1"]);
    assert_eq!(collected.skipped[0].reason, SkipReason::Link);
}

#[test]
fn spans_read_back_and_are_shown() {
    for (span, shown) in [
        (Span::Lines { first: 1, last: 40 }, "src/lib.rs:1-40"),
        (Span::Record { index: 2, line: 4 }, "src/lib.rs:4"),
        (Span::Whole, "src/lib.rs"),
    ] {
        let source = Source { path: "src/lib.rs".into(), span };
        assert_eq!(source.to_string(), shown);
        let json = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<Source>(&json).unwrap(), source);
    }
}
