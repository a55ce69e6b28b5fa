//! What is to be run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Histogram;

/// Work of varying length: items that are stacked along one symbol and vary along another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// The symbol along which items are stacked, such as `batch`.
    pub rows: String,
    /// The symbol along which items vary, such as `sequence`.
    pub length: String,
    /// The work itself.
    #[serde(flatten)]
    pub work: Work,
}

/// Items to be batched, or requests that came as batches.
///
/// As text: one entry a line, `48` for an item of 48 tokens, `48 12` for twelve of them, `4x48 12` for twelve
/// requests of four rows of 48 tokens; what follows `#` is a comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// The items' lengths in tokens, in the caller's order. They may be stacked in any way.
    Items(Vec<usize>),
    /// The same, counted.
    Histogram(Histogram),
    /// Requests that run one at a time, as they came.
    Requests(Vec<Requests>),
}

/// Requests of one shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requests {
    /// Rows of each.
    pub rows: usize,
    /// The length of every row, in tokens.
    pub length: usize,
    /// How many there were.
    pub count: u64,
}

impl Requests {
    /// Tokens of each.
    #[must_use]
    pub const fn n_tokens(&self) -> u64 {
        (self.rows as u64).saturating_mul(self.length as u64)
    }
}

/// A line that is no work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "line {line}, `{text}`, is no work; write `48` for an item of 48 tokens, `48 12` for twelve, or \
     `4x48 12` for twelve requests of four rows"
)]
pub struct InvalidWork {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
}

impl Workload {
    /// Items of these lengths, in tokens.
    pub fn items(
        rows: impl Into<String>,
        length: impl Into<String>,
        lengths: impl Into<Vec<usize>>,
    ) -> Self {
        Self { rows: rows.into(), length: length.into(), work: Work::Items(lengths.into()) }
    }

    /// The lengths of all items, in the caller's order; of counted items shortest first; of requests row
    /// by row.
    #[must_use]
    pub fn lengths(&self) -> Cow<'_, [usize]> {
        let times =
            |length, n: u64| std::iter::repeat_n(length, usize::try_from(n).unwrap_or(usize::MAX));
        match &self.work {
            Work::Items(lengths) => Cow::Borrowed(lengths),
            Work::Histogram(histogram) => {
                histogram.entries().iter().flat_map(|&(length, n)| times(length, n)).collect()
            }
            Work::Requests(requests) => requests
                .iter()
                .flat_map(|it| times(it.length, it.count.saturating_mul(it.rows as u64)))
                .collect(),
        }
    }
}

impl Work {
    /// The lengths of all rows, counted.
    #[must_use]
    pub fn histogram(&self) -> Cow<'_, Histogram> {
        match self {
            Self::Items(lengths) => Cow::Owned(Histogram::of(lengths)),
            Self::Histogram(histogram) => Cow::Borrowed(histogram),
            Self::Requests(requests) => {
                let rows = |it: &Requests| (it.length, it.count.saturating_mul(it.rows as u64));
                Cow::Owned(requests.iter().map(rows).collect())
            }
        }
    }

    /// Both together, counted: requests with requests, items with items. `None` where the two do not mix.
    #[must_use]
    pub fn with(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Requests(ours), Self::Requests(theirs)) => {
                let mut counts: BTreeMap<(usize, usize), u64> = BTreeMap::new();
                for it in ours.iter().chain(theirs) {
                    let count = counts.entry((it.rows, it.length)).or_default();
                    *count = count.saturating_add(it.count);
                }
                let requests = |((rows, length), count)| Requests { rows, length, count };
                Some(Self::Requests(counts.into_iter().map(requests).collect()))
            }
            (Self::Requests(_), items) => items.is_empty().then(|| self.clone()),
            (items, Self::Requests(_)) => items.is_empty().then(|| other.clone()),
            (ours, theirs) => {
                let (ours, theirs) = (ours.histogram(), theirs.histogram());
                let entries = ours.entries().iter().chain(theirs.entries());
                Some(Self::Histogram(entries.copied().collect()))
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.histogram().entries().is_empty()
    }

    /// The same with every length above `longest` cut to it.
    #[must_use]
    pub fn capped(&self, longest: usize) -> Self {
        match self {
            Self::Items(lengths) => {
                Self::Items(lengths.iter().map(|it| *it.min(&longest)).collect())
            }
            Self::Histogram(histogram) => Self::Histogram(histogram.capped(longest)),
            Self::Requests(requests) => {
                let cut = |it: &Requests| Requests { length: it.length.min(longest), ..*it };
                Self::Requests(requests.iter().map(cut).collect())
            }
        }
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::Items(Vec::new())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Items(lengths) => lengths.iter().try_for_each(|length| writeln!(f, "{length}")),
            Self::Histogram(histogram) => {
                histogram.entries().iter().try_for_each(|(length, n)| writeln!(f, "{length} {n}"))
            }
            Self::Requests(requests) => requests
                .iter()
                .try_for_each(|it| writeln!(f, "{}x{} {}", it.rows, it.length, it.count)),
        }
    }
}

/// What one line says.
struct Entry {
    rows: Option<usize>,
    length: usize,
    count: Option<u64>,
}

impl FromStr for Work {
    type Err = InvalidWork;

    fn from_str(text: &str) -> Result<Self, InvalidWork> {
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let said = line.split('#').next().unwrap_or("").trim();
            if !said.is_empty() {
                let invalid = || InvalidWork { line: number + 1, text: said.to_owned() };
                entries.push(entry(said).ok_or_else(invalid)?);
            }
        }
        let count = |it: &Entry| it.count.unwrap_or(1);
        Ok(if entries.iter().any(|it| it.rows.is_some()) {
            let requests = |it: &Entry| Requests {
                rows: it.rows.unwrap_or(1),
                length: it.length,
                count: count(it),
            };
            Self::Requests(entries.iter().map(requests).collect())
        } else if entries.iter().any(|it| it.count.is_some()) {
            Self::Histogram(entries.iter().map(|it| (it.length, count(it))).collect())
        } else {
            Self::Items(entries.iter().map(|it| it.length).collect())
        })
    }
}

fn entry(said: &str) -> Option<Entry> {
    let mut words = said.split_whitespace();
    let shape = words.next()?;
    let count = words.next().map(str::parse).transpose().ok()?;
    if words.next().is_some() {
        return None;
    }
    let (rows, length) = match shape.split_once('x') {
        None => (None, shape),
        Some((rows, length)) => (Some(rows.parse().ok().filter(|rows| *rows > 0)?), length),
    };
    Some(Entry { rows, length: length.parse().ok()?, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Work {
        text.parse().unwrap()
    }

    #[test]
    fn work_is_read_as_it_is_written() {
        for text in ["48\n7\n48\n", "7 1\n48 12\n", "4x48 12\n1x7 1\n"] {
            assert_eq!(read(text).to_string(), text);
        }
        assert_eq!(read("# lengths\n\n 48 # long\n7"), Work::Items(vec![48, 7]));
        assert_eq!(read(""), Work::default());
        assert_eq!(read("7\n7 2"), Work::Histogram(Histogram::from(vec![(7, 3)])));
    }

    #[test]
    fn counts_are_added_to_counts_of_their_kind() {
        let with = |a: &str, b: &str| read(a).with(&read(b)).map(|it| it.to_string());
        assert_eq!(with("48\n7", "7 3").unwrap(), "7 4\n48 1\n");
        assert_eq!(with("4x48 12", "4x48\n1x7").unwrap(), "1x7 1\n4x48 13\n");
        assert_eq!(with("", "4x48 12").unwrap(), "4x48 12\n");
        assert_eq!(with("48", "4x48 12"), None);
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["1\nx", "1\n-1", "1\n1 2 3", "1\n0x4", "1\n4x", "1\n1.5"] {
            let error = text.parse::<Work>().unwrap_err();
            assert_eq!(error.line, 2, "{error}");
        }
    }

    #[test]
    fn json_tells_the_kinds_apart() {
        for text in ["48\n7\n", "7 1\n48 12\n", "4x48 12\n"] {
            let workload = Workload {
                rows: "batch".to_owned(),
                length: "sequence".to_owned(),
                work: read(text),
            };
            let json = serde_json::to_string(&workload).unwrap();
            assert_eq!(serde_json::from_str::<Workload>(&json).unwrap(), workload, "{json}");
        }
    }

    #[test]
    fn every_kind_has_lengths() {
        let lengths =
            |text| Workload { work: read(text), ..Workload::default() }.lengths().into_owned();
        assert_eq!(lengths("3\n1"), [3, 1]);
        assert_eq!(lengths("3 2\n1 1"), [1, 3, 3]);
        assert_eq!(lengths("2x3 2\n1x1"), [3, 3, 3, 3, 1]);
    }
}
