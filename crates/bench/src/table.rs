//! A contest as a table, for a terminal and for a page.

use std::fmt::Write as _;

use crate::contest::{Contest, Facts, Measured, Role};

/// Rows of cells under heads; the first column is text, all others are numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// How a fact is shown.
type Column = (&'static str, fn(&Measured) -> Option<String>);

const FACTS: [Column; 7] = [
    ("CPU s", |it| it.facts.cpu_seconds.map(number)),
    ("", rate),
    ("padding", |it| it.facts.padding_share.map(percent)),
    ("peak MiB", |it| it.facts.peak_memory_bytes.map(|it| (it >> 20).to_string())),
    ("cosine", |it| it.facts.least_cosine.map(|it| format!("{it:.4}"))),
    ("allocations", |it| it.facts.allocations.map(number)),
    ("routes", |it| counts(&it.facts)),
];

/// Times in the unit that suits their size, what each is to ours, and the facts that are known of any.
#[must_use]
pub fn of(contest: &Contest) -> Table {
    let all = &contest.contenders;
    let unit = Unit::of(all.iter().map(|it| it.rounds.median).fold(0.0, f64::max));
    let has_beside = all.iter().any(|it| it.beside.is_some());
    let ratio_head = if has_beside { "this / beside" } else { "ours / this" };
    let mut columns: Vec<(String, Vec<String>)> = vec![
        (String::new(), all.iter().map(name).collect()),
        (
            format!("median {}", unit.name),
            all.iter().map(|it| unit.show(it.rounds.median)).collect(),
        ),
        ("least".to_owned(), all.iter().map(|it| unit.show(it.rounds.least)).collect()),
        ("most".to_owned(), all.iter().map(|it| unit.show(it.rounds.most)).collect()),
        (ratio_head.to_owned(), all.iter().map(|it| ratio(contest, it, has_beside)).collect()),
    ];
    columns.extend(call_columns(all));
    for (head, show) in FACTS {
        let cells: Vec<Option<String>> = all.iter().map(show).collect();
        if cells.iter().any(Option::is_some) {
            let head = if head.is_empty() { rate_head(all) } else { head.to_owned() };
            columns.push((head, cells.into_iter().map(Option::unwrap_or_default).collect()));
        }
    }
    columns.extend(more_columns(all));
    let heads = columns.iter().map(|(head, _)| head.clone()).collect();
    let rows = (0..all.len()).map(|at| columns.iter().map(|(_, it)| it[at].clone()).collect());
    Table { heads, rows: rows.collect() }
}

fn name(measured: &Measured) -> String {
    match &measured.beside {
        Some(beside) => format!("{} (beside: {beside})", measured.name),
        None => measured.name.clone(),
    }
}

fn ratio(contest: &Contest, measured: &Measured, has_beside: bool) -> String {
    let says_nothing =
        measured.role == Role::Yardstick || (has_beside && measured.beside.is_none());
    match contest.ratio_of(measured) {
        Some(ratio) if !says_nothing => format!("{:.2}", ratio.median),
        _ => String::new(),
    }
}

fn call_columns(all: &[Measured]) -> Vec<(String, Vec<String>)> {
    let largest =
        all.iter().filter_map(|it| it.calls.as_ref()).map(|it| it.p90).fold(0.0, f64::max);
    let unit = Unit::of(largest);
    let column = |head: &str, of: fn(&crate::measure::Percentiles) -> f64| {
        let cell = |it: &Measured| it.calls.as_ref().map_or(String::new(), |it| unit.show(of(it)));
        (format!("{head} {}", unit.name), all.iter().map(cell).collect())
    };
    if all.iter().all(|it| it.calls.is_none()) {
        return Vec::new();
    }
    vec![column("each: median", |it| it.median), column("each: p99", |it| it.p99)]
}

fn rate(measured: &Measured) -> Option<String> {
    let (n, _) = measured.facts.work.as_ref()?;
    Some(number(n / measured.rounds.median))
}

fn rate_head(all: &[Measured]) -> String {
    let work = all.iter().find_map(|it| it.facts.work.as_ref());
    work.map_or(String::new(), |(_, what)| format!("{what}/s"))
}

fn counts(facts: &Facts) -> Option<String> {
    let all = facts.counts.routes.iter().chain(&facts.counts.tiers);
    let words: Vec<String> = all.map(|(name, n)| format!("{name} {n}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn more_columns(all: &[Measured]) -> Vec<(String, Vec<String>)> {
    let mut names: Vec<&String> = Vec::new();
    for name in all.iter().flat_map(|it| it.facts.more.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cells = |name: &String| {
        all.iter()
            .map(|it| it.facts.more.get(name).copied().map_or(String::new(), number))
            .collect()
    };
    names.into_iter().map(|name| (name.clone(), cells(name))).collect()
}

/// A unit of time.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// Its symbol.
    pub name: &'static str,
    /// How many of it make a second.
    pub per_second: f64,
}

impl Unit {
    /// The one in which so many seconds are a number of up to three digits before the point.
    #[must_use]
    pub fn of(seconds: f64) -> Self {
        match seconds {
            it if it < 1e-3 => Self { name: "µs", per_second: 1e6 },
            it if it < 1.0 => Self { name: "ms", per_second: 1e3 },
            _ => Self { name: "s", per_second: 1.0 },
        }
    }

    /// So many seconds in this unit, without its symbol.
    #[must_use]
    pub fn show(&self, seconds: f64) -> String {
        number(seconds * self.per_second)
    }
}

/// A number with three significant digits, and never fewer than those before the point.
#[must_use]
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let digits = value.abs().log10().floor();
    // `as` saturates, and takes a NaN for 0.
    let decimals = (2.0 - digits).clamp(0.0, 9.0) as usize;
    let text = format!("{value:.decimals$}");
    if value.abs() >= 10_000.0 { grouped(&text) } else { text }
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |it| ("-", it));
    let mut out = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

impl Table {
    /// Numbers first, names last, as a terminal shows them best.
    #[must_use]
    pub fn text(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.heads[at].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.heads.len()).map(width).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.heads).chain(&self.rows) {
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                // Writing to a string does not fail.
                let _ = write!(text, "{cell:>width$}  ");
            }
            let _ = writeln!(text, "{}", row[0]);
        }
        text
    }

    /// The same as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|it| it.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let rule = format!("| --- |{}\n", " ---: |".repeat(self.heads.len().saturating_sub(1)));
        let rows = self.rows.iter().map(|row| line(row));
        [line(&self.heads), rule].into_iter().chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.0123, 1.0, 12.34, 123.4, 1234.0, 1_234_567.0, -12_345.0].map(number);
        assert_eq!(shown, ["0", "0.0123", "1.00", "12.3", "123", "1234", "1,234,567", "-12,345"]);
    }

    #[test]
    fn a_table_has_the_columns_that_somebody_fills() {
        let mut ours = Measured::new("ours", Role::Ours, vec![0.010, 0.012, 0.011]);
        ours.facts.padding_share = Some(0.125);
        ours.facts.work = Some((22.0, "texts".to_owned()));
        let rival = Measured::new("a | b", Role::Rival, vec![0.022, 0.022, 0.022]);
        let contest = Contest { contenders: vec![ours, rival], ..Contest::default() };
        assert_eq!(
            of(&contest).markdown(),
            "|  | median ms | least | most | ours / this | texts/s | padding |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n\
             | ours | 11.0 | 10.0 | 12.0 | 1.00 | 2000 | 12.5% |\n\
             | a \\| b | 22.0 | 22.0 | 22.0 | 0.50 |  |  |\n"
        );
        assert!(of(&contest).text().lines().all(|line| line.chars().count() < 80));
    }
}
