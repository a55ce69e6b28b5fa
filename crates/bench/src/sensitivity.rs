//! The `sensitivity` suite: whether comparing finds a slowdown of a tenth, and nothing where nothing changed.
//!
//! The same real work is measured by three processes, as three runs would be: twice as it is and once with ours
//! kept busy for a tenth longer on purpose. What is compared are the records that they leave in files.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use shapeyard_core::plan::Histogram;
use shapeyard_core::plan::fitted::lengths;

use crate::compare::{Comparison, Line, Verdict};
use crate::contest::{Contender, Contest, Goal, timed};
use crate::record::{self, Record};
use crate::suite::{Host, Output, Suite, at_least_one, share};

/// How much longer the slowed one takes.
const HANDICAP: f64 = 0.10;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --handicap three processes measure the same work, twice as it is and once slowed by a tenth, and their \
records are compared. With it one run is measured, as by hand:

  cargo xtask bench sensitivity --handicap 0 --record a.jsonl
  cargo xtask bench sensitivity --handicap 0 --record b.jsonl
  cargo xtask bench sensitivity --handicap 10% --record c.jsonl
  cargo xtask bench --compare a.jsonl b.jsonl --fail-over 5%
  cargo xtask bench --compare a.jsonl c.jsonl --fail-over 5%

Examples:
  cargo xtask bench sensitivity
  cargo xtask bench sensitivity --rounds 901")]
pub(crate) struct Args {
    /// Interleaved rounds of each run
    #[arg(long, value_name = "N", default_value_t = 301, value_parser = at_least_one)]
    rounds: usize,
    /// A growth of the ratio that is too much
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share)]
    fail_over: f64,
    /// Measure one run, with ours kept busy for so much longer
    #[arg(long, value_name = "SHARE", value_parser = share)]
    handicap: Option<f64>,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "sensitivity";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        if let Some(handicap) = self.handicap {
            record.set("handicap", handicap);
            record.contests = vec![work(handicap, self.rounds)?];
            return Ok(());
        }
        record.set("handicap", HANDICAP);
        record.set("fail_over", self.fail_over);
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let runs = [("before", 0.0), ("again", 0.0), ("slowed", HANDICAP)];
        let [before, again, slowed] = runs.map(|(name, handicap)| {
            let file = folder.path().join(format!("{name}.jsonl"));
            self.start(host, handicap, &file)?;
            record::read(&file)
        });
        let (before, again, slowed) = (before?, again?, slowed?);
        let same = self.compared(&before, &again)?;
        let slower = self.compared(&before, &slowed)?;
        record.contests =
            [before, again, slowed].concat().into_iter().flat_map(|it| it.contests).collect();
        for (contest, (name, _)) in record.contests.iter_mut().zip(runs) {
            contest.name = name.to_owned();
        }
        let Some(last) = record.contests.last_mut() else { bail!("nothing was measured") };
        last.notes =
            [("again", &same), ("slowed", &slower)].map(|(name, line)| told(name, line)).into();
        let wrong = |line: &Line, right| f64::from(u8::from(line.verdict != right));
        last.goals = vec![
            Goal::at_most(
                "nothing changed: verdicts other than equal",
                0.0,
                wrong(&same, Verdict::Equal),
            ),
            Goal::at_most(
                "a tenth slower: verdicts other than slower",
                0.0,
                wrong(&slower, Verdict::Slower),
            ),
        ];
        Ok(())
    }
}

impl Args {
    /// One run in a process of its own, which leaves its record in the file.
    fn start(&self, host: &Host, handicap: f64, file: &Path) -> Result<()> {
        let mut command = host.hidden(Self::NAME)?;
        command.args(["--rounds", &self.rounds.to_string(), "--handicap", &handicap.to_string()]);
        let status = command.arg("--record").arg(file).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "a run ended with {status}");
        Ok(())
    }

    fn compared(&self, before: &[Record], after: &[Record]) -> Result<Line> {
        let comparison = Comparison::of(before, after, self.fail_over);
        match <[Line; 1]>::try_from(comparison.lines) {
            Ok([line]) => Ok(line),
            Err(lines) => bail!("{} contenders were compared, not one", lines.len()),
        }
    }
}

/// Fitting lengths, beside the same once more.
fn work(handicap: f64, n_rounds: usize) -> Result<Contest> {
    let histogram: Histogram = (1..=600).map(|length| (length, 1 + length as u64 % 7)).collect();
    let fit = || Ok(timed(|| Ok(lengths(&histogram, 16)))?.1);
    let contenders = vec![
        Contender::new("fitting 600 lengths", fit).handicapped(handicap),
        Contender::new("the same work", fit),
    ];
    Contest::run("work", "16 lengths fitted to 600", n_rounds, contenders)
}

fn told(name: &str, line: &Line) -> String {
    let [change, least, most] = [line.change, line.least, line.most].map(|share| 100.0 * share);
    format!("{name}: {}, {change:+.1}% ({least:+.1}% to {most:+.1}%)", line.verdict)
}
