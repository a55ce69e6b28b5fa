//! The page: in short, suite by suite, and what follows from it.

use std::fmt::Write as _;
use std::path::PathBuf;

use shapeyard_core::plan::Prices;

use super::{File, advice, plot};
use crate::contest::{Contest, Role};
use crate::record::Record;
use crate::table;

/// What a suite is about: its title, and words that explain its figures.
struct About {
    suite: &'static str,
    text: &'static str,
    /// Whether each contest is drawn.
    is_drawn: bool,
}

macro_rules! about {
    ($suite:literal, $is_drawn:literal) => {
        About {
            suite: $suite,
            text: include_str!(concat!("about/", $suite, ".md")),
            is_drawn: $is_drawn,
        }
    };
}

/// In the order of the page; other suites follow without words.
const ABOUT: [About; 11] = [
    about!("encode", true),
    about!("coldstart", true),
    about!("serve-mix", true),
    about!("concurrency", true),
    about!("router", true),
    about!("overhead", false),
    about!("io", false),
    about!("cache", false),
    about!("plan", false),
    about!("prices", false),
    about!("sensitivity", false),
];

/// The suite that measures measuring.
const CONTROL: &str = "sensitivity";

const TITLE: &str = "# Performance\n\n";
const NOTE: &str = include_str!("about/note.md");
const HEAD: &str = include_str!("about/head.md");
const ELSEWHERE: &str = include_str!("about/elsewhere.md");
const PAGE: &str = "performance.md";
pub(super) const PLOTS: &str = "plots";

/// The page and its plots. The page that the repository keeps also has figures that no record has.
pub(super) fn write(records: Vec<Record>, prices: Option<Prices>, is_kept: bool) -> Vec<File> {
    let records = &newest(records)[..];
    let head = if is_kept { [NOTE, HEAD].concat() } else { HEAD.to_owned() };
    let mut page = Page { text: format!("{TITLE}{head}"), plots: Vec::new() };
    page.in_short(records);
    for about in &ABOUT {
        page.suite(Some(about), &of_suite(records, about.suite));
    }
    let is_known = |suite: &str| ABOUT.iter().any(|about| about.suite == suite);
    let mut others: Vec<&str> =
        records.iter().map(|it| it.suite.as_str()).filter(|it| !is_known(it)).collect();
    others.dedup();
    for suite in others {
        page.suite(None, &of_suite(records, suite));
    }
    if is_kept {
        page.text.push_str(ELSEWHERE);
    }
    page.text.push_str(&advice::write(records, prices));
    let text = File { path: PAGE.into(), text: page.text };
    std::iter::once(text).chain(page.plots).collect()
}

/// Of each suite on each machine the run that began last; runs by other commands measured something else.
fn newest(records: Vec<Record>) -> Vec<Record> {
    let mut kept: Vec<Record> = Vec::new();
    for record in records {
        let key = |it: &Record| (it.suite.clone(), it.machine.host.clone(), it.command.clone());
        let is_same = |it: &&mut Record| key(it) == key(&record);
        match kept.iter_mut().find(is_same) {
            Some(known) if known.began <= record.began => *known = record,
            Some(_) => {}
            None => kept.push(record),
        }
    }
    kept
}

fn of_suite<'a>(records: &'a [Record], suite: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.suite == suite).collect()
}

struct Page {
    text: String,
    plots: Vec<File>,
}

impl Page {
    /// Appends a line. Writing to a string does not fail.
    fn line(&mut self, line: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{line}");
    }

    fn plot(&mut self, name: &str, alt: &str, svg: String) {
        // Runs of one suite by two commands have contests of one name.
        let names =
            (1..).map(|nth| if nth == 1 { slug(name) } else { format!("{}-{nth}", slug(name)) });
        let mut paths = names.map(|name| PathBuf::from(PLOTS).join(format!("{name}.svg")));
        let is_free = |path: &PathBuf| self.plots.iter().all(|plot| plot.path != *path);
        let path = paths.find(is_free).unwrap_or_default();
        self.line(format_args!("\n![{alt}]({})\n", path.display()));
        self.plots.push(File { path, text: svg });
    }

    fn in_short(&mut self, records: &[Record]) {
        self.line("\n## In short\n");
        let mut machines: Vec<String> = records.iter().map(|it| it.machine.in_short()).collect();
        machines.dedup();
        for machine in machines {
            self.line(format_args!("* Machine: {machine}."));
        }
        self.line(format_args!("* Measured sources: {}.", revisions(records)));
        if let Some(line) = busy(records) {
            self.line(format_args!("* {line}"));
        }
        let is_measured =
            |suite: &str| of_suite(records, suite).iter().any(|it| it.skipped.is_none());
        for record in records.iter().filter(|it| !is_measured(&it.suite)) {
            let reason = record.skipped.as_deref().unwrap_or_default();
            self.line(format_args!("* Not measured: {}: {reason}", record.suite));
        }
        let ratios: Vec<(String, f64)> = records.iter().flat_map(best_ratios).collect();
        self.plot(
            "overview",
            "ours over the best alternative, by contest",
            plot::overview(&ratios),
        );
        self.goals(records);
    }

    fn goals(&mut self, records: &[Record]) {
        let contests = || records.iter().flat_map(|it| it.contests.iter().map(move |c| (it, c)));
        if contests().all(|(_, contest)| contest.goals.is_empty()) {
            return;
        }
        self.line("| suite | contest | goal | at most | found | |");
        self.line("| --- | --- | --- | ---: | ---: | --- |");
        for (record, contest) in contests() {
            for goal in &contest.goals {
                let verdict = if goal.met { "met" } else { "**missed**" };
                let [most, found] = [goal.at_most, goal.found].map(table::number);
                let (suite, name) = (&record.suite, &contest.name);
                let line =
                    format!("| {suite} | {name} | {} | {most} | {found} | {verdict} |", goal.what);
                self.line(line);
            }
        }
    }

    fn suite(&mut self, about: Option<&About>, records: &[&Record]) {
        if records.iter().all(|it| it.skipped.is_some()) {
            return;
        }
        match about {
            Some(about) => self.line(format_args!("\n{}", about.text.trim_end())),
            None => self.line(format_args!("\n## {}", records[0].suite)),
        }
        for record in records.iter().filter(|it| it.skipped.is_none()) {
            self.line(format_args!("\n{}", origin(record)));
            for contest in &record.contests {
                self.contest(record, contest, about.is_some_and(|it| it.is_drawn));
            }
        }
    }

    fn contest(&mut self, record: &Record, contest: &Contest, is_drawn: bool) {
        self.line(format_args!("\n### {}", contest.name));
        let rounds = contest.n_rounds;
        let title = sentence(&contest.title);
        self.line(format_args!("\n{title}; medians of {rounds} rounds."));
        if is_drawn && contest.contenders.len() > 1 {
            let name = format!("{} {} {}", record.suite, contest.name, record.machine.host);
            self.plot(&name, &contest.title, plot::bars(contest));
        } else {
            self.line("");
        }
        self.text.push_str(&table::of(contest).markdown());
        if !contest.notes.is_empty() {
            self.line("");
        }
        for note in &contest.notes {
            self.line(format_args!("* {note}"));
        }
    }
}

/// Each revision with the suites that measured it.
fn revisions(records: &[Record]) -> String {
    let mut revisions: Vec<(String, Vec<&str>)> = Vec::new();
    for record in records.iter().filter(|it| it.skipped.is_none()) {
        let revision = revision(record);
        match revisions.iter_mut().find(|(known, _)| *known == revision) {
            Some((_, suites)) if suites.contains(&record.suite.as_str()) => {}
            Some((_, suites)) => suites.push(&record.suite),
            None => revisions.push((revision, vec![&record.suite])),
        }
    }
    let told = |(revision, suites): &(String, Vec<&str>)| match revisions.len() {
        1 => revision.clone(),
        _ => format!("{revision} ({})", suites.join(", ")),
    };
    revisions.iter().map(told).collect::<Vec<_>>().join("; ")
}

fn revision(record: &Record) -> String {
    let Some(revision) = &record.revision else { return "an unknown revision".to_owned() };
    let dirty = if record.dirty { " with changes" } else { "" };
    format!("revision {revision}{dirty}")
}

/// What busy machines mean for the figures, where there were any.
fn busy(records: &[Record]) -> Option<String> {
    let measured: Vec<&Record> = records.iter().filter(|it| it.skipped.is_none()).collect();
    let noisy: Vec<&Record> = measured.iter().filter(|it| it.noise.is_noisy()).copied().collect();
    let most = noisy.iter().filter_map(|it| it.noise.others_share).fold(0.0, f64::max);
    let (n, n_all) = (noisy.len(), measured.len());
    (n > 0).then(|| {
        format!(
            "**Busy machine:** in {n} of {n_all} suites other work took part of the processors, up to {:.0}% of them. \
             Times are longer there than on a quiet machine, and the most more so than the median. Ratios are of the \
             same round and hold better; but a difference that is smaller than the spread from least to most says \
             nothing, and a goal that is missed there may be met on a quiet machine, and the other way round. Measure \
             again while nothing else runs before you rely on them.",
            100.0 * most
        )
    })
}

/// Where figures come from, on one line.
fn origin(record: &Record) -> String {
    let mut words = vec![format!("`{}`", record.command), record.machine.in_short()];
    words.extend(record.libraries.iter().map(|(name, version)| format!("{name} {version}")));
    words.push(revision(record));
    words.push(record.noise.to_string());
    format!("{}.", words.join("; "))
}

/// Of each contest that has an alternative, ours over the best one.
fn best_ratios(record: &Record) -> Vec<(String, f64)> {
    let about = ABOUT.iter().find(|about| about.suite == record.suite);
    // Configurations of one thing: a user takes the best.
    let takes_best = about.is_some_and(|about| about.is_drawn);
    let best = |contest: &Contest| {
        let ratio = match takes_best {
            true => contest.best_ratio()?,
            false => contest.ratio_of(contest.best(Role::Rival)?)?,
        };
        Some((format!("{}: {}", record.suite, contest.name), ratio.median))
    };
    if record.suite == CONTROL {
        return Vec::new();
    }
    record.contests.iter().filter_map(best).filter(|(_, ratio)| ratio.is_finite()).collect()
}

/// With a capital letter.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// A name of a file that every system takes.
fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::{Goal, Measured};

    fn record(suite: &str) -> Record {
        let contenders = vec![
            Measured::new("ours", Role::Ours, vec![1.0, 1.0]),
            Measured::new("theirs", Role::Rival, vec![2.0, 2.0]),
        ];
        let goals = vec![Goal::at_most("times theirs", 0.4, 0.5)];
        let contest = Contest {
            name: "A/b c".to_owned(),
            contenders,
            goals,
            n_rounds: 2,
            ..Contest::default()
        };
        Record { contests: vec![contest], ..Record::new(suite, "cargo xtask bench it") }
    }

    #[test]
    fn a_page_has_every_contest_once_with_its_command_and_goal() {
        let skipped = Record { skipped: Some("no GPU".to_owned()), ..Record::new("device", "") };
        let records = vec![record("encode"), record("unknown suite"), skipped];
        let files = write(records, None, true);
        let page = &files[0].text;
        assert_eq!(page.matches("### A/b c").count(), 2);
        assert!(page.contains("## unknown suite") && page.contains("`cargo xtask bench it`"));
        assert!(page.contains("| times theirs | 0.400 | 0.500 | **missed** |"));
        assert!(page.contains("* Not measured: device: no GPU"));
        for plot in &files[1..] {
            let path = plot.path.display().to_string();
            assert!(page.contains(&format!("]({path})")), "{path}");
            assert!(path.chars().all(|c| c.is_ascii_alphanumeric() || "-/.".contains(c)));
        }
    }

    #[test]
    fn the_newest_run_of_a_suite_on_a_machine_is_shown_with_its_revision() {
        let run = |began, revision: &str, host: &str| {
            let mut run = record("plan");
            (run.began, run.revision) = (began, Some(revision.to_owned()));
            host.clone_into(&mut run.machine.host);
            run
        };
        let runs = vec![run(2, "new", "here"), run(1, "old", "here"), run(1, "other", "there")];
        let page = &write(runs, None, false)[0].text;
        assert!(page.contains("revision new") && page.contains("revision other"));
        assert!(!page.contains("revision old") && !page.contains("Measured elsewhere"), "{page}");
    }

    #[test]
    fn a_busy_machine_is_told_with_what_it_means() {
        let mut noisy = record("plan");
        noisy.noise.others_share = Some(0.8);
        let page = &write(vec![noisy, record("cache")], None, false)[0].text;
        assert!(
            page.contains("in 1 of 2 suites other work took part of the processors, up to 80%")
        );
        assert!(!write(vec![record("plan")], None, false)[0].text.contains("Busy machine"));
    }
}
