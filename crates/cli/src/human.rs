//! Numbers as people read them.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A number of bytes, such as `90.4 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if n < 1000 {
        return format!("{n} bytes");
    }
    let mut value = n as f64 / 1000.0;
    let mut unit = 0;
    // What would be rounded to 1000 belongs to the next unit.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time with three digits, such as `12.3 ms`.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s >= 100.0 => format!("{s:.0} s"),
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        s => format!("{:.1} µs", s * 1e6),
    }
}

/// Seconds as a time with three digits; what no clock shows is for ever.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        0.0 => "0".to_owned(),
        s if s > 0.0 && s < 0.95e-6 => format!("{:.1} ns", s * 1e9),
        s => Duration::try_from_secs_f64(s).map_or_else(|_| "for ever".to_owned(), time),
    }
}

/// A count with its noun, such as `2 files`.
pub(crate) fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A long time in its largest unit, such as `3 days`.
pub(crate) fn span(time: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match time.as_secs() {
        s if s >= 2 * DAY => format!("{} days", s / DAY),
        s if s >= HOUR => format!("{} h", s / HOUR),
        s if s >= MINUTE => format!("{} min", s / MINUTE),
        s => format!("{s} s"),
    }
}

/// How long ago something was, such as `3 days`; both in milliseconds since 1970.
pub(crate) fn since(then_ms: u64, now_ms: u64) -> String {
    span(Duration::from_millis(now_ms.saturating_sub(then_ms)))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The start of a text for a table's column, where all of it would push the others off the screen.
pub(crate) fn start(text: &str, most_chars: usize) -> String {
    match text.char_indices().nth(most_chars) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// Text from a file that others may have written, in one line: what would move a terminal's cursor is
/// escaped.
pub(crate) fn line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a string does not fail.
            let _ = write!(line, "{}", c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The name that JSON has for it.
pub(crate) fn name(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(90_421_111), "90.4 MB");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(time(Duration::from_micros(12_345)), "12.35 ms");
        assert_eq!(time(Duration::from_secs(75)), "75.00 s");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
    }

    #[test]
    fn long_times_have_one_unit() {
        let spans =
            [(59, "59 s"), (60, "1 min"), (7_199, "1 h"), (90_000, "25 h"), (172_800, "2 days")];
        for (seconds, text) in spans {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(since(9_000, 5_000), "0 s", "a clock that was set back");
    }

    #[test]
    fn text_from_files_moves_no_cursor() {
        assert_eq!(line("a\u{1b}[2Jb\n\u{0}é"), "a\\u{1b}[2Jb\\n\\u{0}é");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(start("ééé", 3), "ééé");
        assert_eq!(start("éé ééé", 3), "éé…");
    }
}
