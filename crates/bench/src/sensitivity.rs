//! The `sensitivity` suite: whether comparing finds a slowdown of a tenth, and nothing where nothing changed.
//!
//! The same real work is measured three times, as three runs would be: twice as it is and once with ours kept
//! busy for a tenth longer on purpose.

use anyhow::{Result, bail, ensure};
use shapeyard_core::plan::Histogram;
use shapeyard_core::plan::fitted::lengths;

use crate::compare::{Comparison, Line};
use crate::contest::{Contender, Contest, Goal, timed};
use crate::record::Record;
use crate::suite::{Host, Output, Suite};

/// How much longer the handicapped one takes.
const HANDICAP: f64 = 0.10;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask bench sensitivity
  cargo xtask bench sensitivity --rounds 101")]
pub(crate) struct Args {
    /// Interleaved rounds of each run.
    #[arg(long, value_name = "N", default_value_t = 31)]
    rounds: usize,
    /// A growth of the ratio that is too much.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05)]
    fail_over: f64,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "sensitivity";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, _: &Host, record: &mut Record) -> Result<()> {
        ensure!(self.rounds > 0, "there has to be a round");
        record.set("handicap", HANDICAP);
        record.set("fail_over", self.fail_over);
        let [before, again, slowed] =
            [("before", 0.0), ("again", 0.0), ("slowed", HANDICAP)].map(|it| self.work(it));
        let (before, again, mut slowed) = (before?, again?, slowed?);
        let same = self.compared(&before, &again)?;
        let slower = self.compared(&before, &slowed)?;
        for (what, line) in [("again", &same), ("slowed", &slower)] {
            let [change, least, most] =
                [line.change, line.least, line.most].map(|share| 100.0 * share);
            slowed.notes.push(format!(
                "{what}: {:?}, {change:+.1}% ({least:+.1}% to {most:+.1}%)",
                line.verdict
            ));
        }
        slowed.goals = vec![
            Goal::at_most("nothing changed: share found", self.fail_over, same.change.abs()),
            Goal::at_most(
                "a tenth slower: the least that the rounds allow, below nothing",
                0.0,
                -slower.least,
            ),
        ];
        record.contests = vec![before, again, slowed];
        Ok(())
    }
}

impl Args {
    /// Fitting lengths, beside the same once more.
    fn work(&self, (name, handicap): (&str, f64)) -> Result<Contest> {
        let histogram: Histogram =
            (1..=600).map(|length| (length, 1 + length as u64 % 7)).collect();
        let fit = || Ok(timed(|| Ok(lengths(&histogram, 16)))?.1);
        let contenders = vec![
            Contender::new("fitting 600 lengths", fit).handicapped(handicap),
            Contender::new("the same work", fit),
        ];
        Contest::run(name, "16 lengths fitted to 600", self.rounds, contenders)
    }

    fn compared(&self, before: &Contest, after: &Contest) -> Result<Line> {
        let record = |contest: &Contest| {
            let contest = Contest { name: "work".to_owned(), ..contest.clone() };
            Record { contests: vec![contest], ..Record::new(Self::NAME, "") }
        };
        let comparison = Comparison::of(&[record(before)], &[record(after)], self.fail_over);
        match <[Line; 1]>::try_from(comparison.lines) {
            Ok([line]) => Ok(line),
            Err(lines) => bail!("{} contenders were compared, not one", lines.len()),
        }
    }
}
