//! Whether a later run is slower than an earlier one.
//!
//! Not the times are compared but their ratio to those of the other contenders in the same round, so that a
//! faster machine, another machine or a noisy hour does not count. What is faster or slower is told from what
//! differs by chance by `shift`.

mod shift;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;

use self::shift::{Shift, shift};
use crate::contest::{Contest, Measured, Role};
use crate::record::{self, Record};
use crate::suite::{BadArgument, Format, share};

/// What to compare.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each of our contenders is compared by the ratio of its time to that of the others in the same round; a \
contest without others has a yardstick for that. Runs of one suite in one file count together: append a \
second run where the first leaves a difference unsure.

  slower   the ratio grew by more than --fail-over, and not by chance (99%): the exit code is 1
  faster   the opposite
  equal    it did not change by more than --fail-over, and the rounds rule out twice as much
  gone     one of ours took part before and does no more: the exit code is 1
  unsure   it may have, but the rounds differ too much, by noise or because they are few: measure more of \
them; fewer than five a side rule out chance only beside many more

Examples:
  cargo xtask bench plan --record before.jsonl
  cargo xtask bench plan --record after.jsonl
  cargo xtask bench --compare before.jsonl after.jsonl --fail-over 5%
  cargo xtask bench compare before.jsonl after.jsonl --format json")]
pub struct Args {
    /// Records of the earlier run: a file, or a folder of `.jsonl` files.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// Records of the later run.
    #[arg(value_name = "B")]
    after: PathBuf,
    /// How much slower is too slow: `5%` or `0.05`.
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    fail_over: f64,
}

/// Compares, prints, and says whether nothing became slower, and nothing of ours went.
///
/// # Errors
///
/// What keeps the records from being read, and that they have nothing in common.
pub fn run(args: &Args, format: Format) -> Result<bool> {
    let comparison =
        Comparison::of(&record::read(&args.before)?, &record::read(&args.after)?, args.fail_over);
    if comparison.lines.is_empty() {
        bail!(BadArgument::new("the records have no contender of ours in common"));
    }
    match format {
        Format::Text => print!("{comparison}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&comparison)?),
    }
    let is_slower = comparison.lines.iter().any(|line| line.verdict == Verdict::Slower);
    Ok(!is_slower && comparison.only_before.is_empty())
}

/// What became of one contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It takes longer than is allowed.
    Slower,
    /// It takes less time by as much.
    Faster,
    /// It takes as long as before, as far as is asked for; the rounds rule out twice as much.
    Equal,
    /// The rounds differ too much to say.
    Unsure,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Slower => "SLOWER",
            Self::Faster => "faster",
            Self::Equal => "equal",
            Self::Unsure => "unsure",
        })
    }
}

/// One contender of ours, before and after.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Suite and contest.
    pub contest: String,
    /// The contender.
    pub contender: String,
    /// By what share its ratio to the others grew; negative where it became faster.
    pub change: f64,
    /// The least that the rounds allow.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Rounds before and after.
    pub n_rounds: [usize; 2],
    /// What that means.
    pub verdict: Verdict,
}

/// All contenders of ours that two records have.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What share is too much.
    pub fail_over: f64,
    /// One for each contender.
    pub lines: Vec<Line>,
    /// Contenders of ours that the later run has no more.
    pub only_before: Vec<String>,
    /// Contenders of ours that the earlier run did not have.
    pub only_after: Vec<String>,
    /// What makes the figures doubtful.
    pub notes: Vec<String>,
}

/// The logarithms of the ratios of ours to the others, by contest and contender.
type Ratios = BTreeMap<(String, String), Vec<f64>>;

impl Comparison {
    /// Compares records that were made before and after.
    #[must_use]
    pub fn of(before: &[Record], after: &[Record], fail_over: f64) -> Self {
        let shared = shared_others(before, after);
        let [mut earlier, mut later] = [before, after].map(|records| ratios(records, &shared));
        let (mut lines, mut only_before, mut only_after) = (Vec::new(), Vec::new(), Vec::new());
        let names: Vec<_> = earlier.keys().chain(later.keys()).cloned().collect();
        for name in names {
            match (earlier.remove(&name), later.remove(&name)) {
                (Some(a), Some(b)) => lines.extend(line(name, &a, &b, fail_over)),
                (None, None) => {}
                (Some(_), None) => only_before.push(format!("{}: {}", name.0, name.1)),
                (None, Some(_)) => only_after.push(format!("{}: {}", name.0, name.1)),
            }
        }
        let noisy = before.iter().chain(after).filter(|it| it.noise.is_noisy());
        let mut notes: Vec<String> =
            noisy.map(|it| format!("{}: {}", it.suite, it.noise)).collect();
        notes.extend(alone(&shared, &lines));
        notes.extend(after.iter().flat_map(|it| differing(before, it)));
        Self { fail_over, lines, only_before, only_after, notes }
    }
}

/// Contests whose ratios have nothing below the line.
fn alone(shared: &BTreeMap<String, Vec<String>>, lines: &[Line]) -> Vec<String> {
    let is_alone = |it: &&String| shared.get(*it).is_some_and(Vec::is_empty);
    let mut contests: Vec<&String> = lines.iter().map(|it| &it.contest).filter(is_alone).collect();
    contests.dedup();
    let told = |it: &String| {
        format!(
            "{it}: nobody but ours took part in every run, so the times themselves are compared, and another \
             machine or hour counts"
        )
    };
    contests.into_iter().map(told).collect()
}

/// What was set otherwise than in the last earlier run of the suite.
fn differing(before: &[Record], after: &Record) -> Vec<String> {
    let Some(earlier) = before.iter().rfind(|it| it.suite == after.suite) else {
        return Vec::new();
    };
    let shown = |value: Option<&serde_json::Value>| match value {
        Some(value) if value.is_array() => "others".to_owned(),
        Some(value) => value.to_string(),
        None => "none".to_owned(),
    };
    let names: BTreeSet<&String> = earlier.settings.keys().chain(after.settings.keys()).collect();
    let setting = |name: &String| {
        let [then, now] = [earlier, after].map(|it| it.settings.get(name));
        (then != now).then(|| {
            format!("{}: {name}: {} before, {} after", after.suite, shown(then), shown(now))
        })
    };
    let title = |now: &Contest| {
        let then = earlier.contests.iter().find(|it| it.name == now.name)?;
        let name = name_of(after, now);
        (then.title != now.title)
            .then(|| format!("{name}: `{}` before, `{}` after", then.title, now.title))
    };
    let settings = names.into_iter().filter_map(setting);
    settings.chain(after.contests.iter().filter_map(title)).collect()
}

fn line(
    (contest, contender): (String, String),
    a: &[f64],
    b: &[f64],
    fail_over: f64,
) -> Option<Line> {
    let found = shift(a, b)?;
    let [change, least, most] = [found.estimate, found.low, found.high].map(f64::exp_m1);
    // Rounds that do not even rule out twice as much say nothing.
    let is_narrow = most <= 2.0 * fail_over && least >= -2.0 * fail_over;
    let verdict = match () {
        () if !Shift::can_rule_out_chance(a.len(), b.len()) => Verdict::Unsure,
        () if change > fail_over && least > 0.0 => Verdict::Slower,
        // As much faster as the other is slower: the ratio's inverse.
        () if 1.0 / (1.0 + change) - 1.0 > fail_over && most < 0.0 => Verdict::Faster,
        () if change.abs() <= fail_over && is_narrow => Verdict::Equal,
        () => Verdict::Unsure,
    };
    Some(Line { contest, contender, change, least, most, n_rounds: [a.len(), b.len()], verdict })
}

fn name_of(record: &Record, contest: &Contest) -> String {
    format!("{} {}", record.suite, contest.name)
}

/// The contenders that ours may be compared with, by contest: those that took part in every round of every run.
fn shared_others(before: &[Record], after: &[Record]) -> BTreeMap<String, Vec<String>> {
    let mut shared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in before.iter().chain(after) {
        for contest in &record.contests {
            // One that took part in fewer rounds would take the others from the comparison.
            let n_rounds = contest.first_of_ours().map_or(0, |it| it.seconds.len());
            let whole = others(contest).filter(|it| it.seconds.len() == n_rounds);
            let others: Vec<String> = whole.map(|it| it.name.clone()).collect();
            shared
                .entry(name_of(record, contest))
                .and_modify(|known| known.retain(|name| others.contains(name)))
                .or_insert(others);
        }
    }
    shared
}

fn others(contest: &Contest) -> impl Iterator<Item = &Measured> {
    contest.contenders.iter().filter(|it| it.role != Role::Ours)
}

fn ratios(records: &[Record], shared: &BTreeMap<String, Vec<String>>) -> Ratios {
    let mut all = Ratios::new();
    for record in records {
        for contest in &record.contests {
            let name = name_of(record, contest);
            let known = shared.get(&name).map_or(&[][..], Vec::as_slice);
            for ours in contest.contenders.iter().filter(|it| it.role == Role::Ours) {
                // In both runs by the same: by whom it names only where every run has that one.
                let beside = ours.beside.as_ref().filter(|beside| known.contains(*beside));
                let counts = |it: &&Measured| match beside {
                    Some(beside) => it.name == *beside,
                    None => known.contains(&it.name),
                };
                let others: Vec<&Measured> = others(contest).filter(counts).collect();
                all.entry((name.clone(), ours.name.clone()))
                    .or_default()
                    .extend(log_ratios(ours, &others));
            }
        }
    }
    all
}

/// Of each round the logarithm of ours over the geometric mean of the others; of ours alone without others.
fn log_ratios(ours: &Measured, others: &[&Measured]) -> Vec<f64> {
    let round = |(nth, own): (usize, &f64)| {
        let logs: Option<Vec<f64>> =
            others.iter().map(|it| it.seconds.get(nth).map(|it| it.ln())).collect();
        let logs = logs?;
        let mean = if logs.is_empty() { 0.0 } else { logs.iter().sum::<f64>() / logs.len() as f64 };
        Some(own.ln() - mean)
    };
    ours.seconds.iter().enumerate().filter_map(round).filter(|it| it.is_finite()).collect()
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} {:>8} {:>18} {:>9}", "verdict", "change", "99% interval", "rounds")?;
        let percent = |share: f64| format!("{:+.1}%", 100.0 * share);
        for line in &self.lines {
            let verdict = line.verdict;
            let interval = format!("{} to {}", percent(line.least), percent(line.most));
            let rounds = format!("{} / {}", line.n_rounds[0], line.n_rounds[1]);
            let change = percent(line.change);
            write!(f, "{verdict:>8} {change:>8} {interval:>18} {rounds:>9}")?;
            writeln!(f, "  {}: {}", line.contest, line.contender)?;
        }
        for gone in &self.only_before {
            writeln!(f, "GONE: {gone}: the later run has no such contender")?;
        }
        for new in &self.only_after {
            writeln!(f, "not compared: {new}: only after")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        let count = |verdict| self.lines.iter().filter(|it| it.verdict == verdict).count();
        let [slower, faster, equal, unsure] =
            [Verdict::Slower, Verdict::Faster, Verdict::Equal, Verdict::Unsure].map(count);
        let limit = 100.0 * self.fail_over;
        writeln!(
            f,
            "{slower} slower by more than {limit}%, {faster} faster, {equal} equal, {unsure} unsure"
        )
    }
}

#[cfg(test)]
mod tests;
