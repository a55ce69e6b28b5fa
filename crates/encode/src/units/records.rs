//! Files with one record a line.

use std::path::Path;

use serde::Deserialize;

use super::UnitError;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Which record, counted from 0; blank lines are none.
    pub(super) index: usize,
    /// Its line, counted from 1.
    pub(super) line: usize,
    /// Its text.
    pub(super) text: String,
}

/// A line that is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadRecord {
    line: usize,
    reason: String,
}

impl BadRecord {
    /// What is wrong with it, in words.
    pub(super) fn into_reason(self) -> String {
        self.reason
    }

    pub(super) fn into_error(self, path: &Path) -> UnitError {
        UnitError::Record { path: path.to_owned(), line: self.line, reason: self.reason }
    }
}

#[derive(Deserialize)]
struct Line {
    text: String,
}

/// The records of a file's text.
pub(super) fn parse(text: &str) -> impl Iterator<Item = Result<Record, BadRecord>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.enumerate().map(|(index, (line_index, line))| {
        let line_number = line_index + 1;
        match serde_json::from_str::<Line>(line) {
            Ok(Line { text }) => Ok(Record { index, line: line_number, text }),
            Err(error) => Err(BadRecord { line: line_number, reason: reason(&error) }),
        }
    })
}

/// The parser's words without its own line number, which is always 1.
fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} at column {column}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_no_records() {
        let records: Vec<_> =
            parse("\u{feff}{\"text\": \"a\"}\r\n\n{\"id\": 7, \"text\": \"b\\n\"}").collect();
        let record = |index, line, text: &str| Ok(Record { index, line, text: text.to_owned() });
        assert_eq!(records, [record(0, 1, "a"), record(1, 3, "b\n")]);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, wanted) in [
            ("{\"text\": 1}", "invalid type"),
            ("{\"body\": \"a\"}", "missing field `text`"),
            ("{\"text\": \"a", "EOF"),
            ("[]", "invalid length 0"),
            ("{\"text\": \"a\"} x", "trailing characters"),
        ] {
            let bad = parse(line).next().unwrap().unwrap_err();
            assert!(bad.reason.contains(wanted), "{line}: {}", bad.reason);
            assert!(!bad.reason.contains("line"), "{}", bad.reason);
        }
    }
}
