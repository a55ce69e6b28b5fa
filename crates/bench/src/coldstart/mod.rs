//! The `coldstart` suite: how long a new process takes to its first answer, and to full speed.

pub mod contender;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use self::contender::{Ready, Who};
use crate::child::Child;
use crate::contest::{Contest, Measured, Role};
use crate::measure::{median, order};
use crate::record::Record;
use crate::suite::{BadArgument, Host, Output, Suite, at_least_one, open_model};

/// The hidden command of this program that starts cold.
pub const CONTENDER: &str = "coldstart-contender";

/// Answers in a row that make full speed.
const N_IN_A_ROW: usize = 3;
/// How many times as long as the usual an answer at full speed may take.
const FULL_SPEED: f64 = 1.1;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A process starts, opens the model and answers. The first answer is counted from the start of the process; full \
speed is reached with the first of three answers in a row that take at most 1.1 times as long as the median \
of the last half. `nothing cached` has an empty store; `cached` finds there what an earlier process left, for \
backends that keep something. Backends that are not usable here are left out, and named.

Examples:
  cargo xtask bench coldstart
  cargo xtask bench coldstart --rounds 3 --answers 30
  shapeyard bench coldstart --model M.onnx --extents batch=1,sequence=64")]
pub struct Args {
    /// A model for backends that take any shape.
    #[arg(long, value_name = "FILE", default_value = "target/models/minilm-l6/minilm-l6.onnx")]
    model: PathBuf,
    /// A model for MIGraphX's interpreter `ref`, which is slow.
    #[arg(long, value_name = "FILE", default_value = "tests/models/encoder.onnx")]
    static_model: PathBuf,
    /// Extents of the request.
    #[arg(
        long,
        value_name = "SYMBOL=N",
        value_delimiter = ',',
        default_value = "batch=1,sequence=16"
    )]
    extents: Vec<String>,
    /// Answers of each process.
    #[arg(long, value_name = "N", default_value_t = 60)]
    answers: usize,
    /// Threads that each process may use.
    #[arg(long, value_name = "N", default_value_t = std::thread::available_parallelism().map_or(1, usize::from), value_parser = at_least_one)]
    threads: usize,
    /// Interleaved rounds of all contenders.
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = at_least_one)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

/// One contender: who, and whether an earlier process left something.
struct Contender<'a> {
    name: String,
    who: Who,
    model: &'a Path,
    /// What an earlier process filled.
    store: Option<TempDir>,
    times: Vec<Times>,
}

/// What one process took, in seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    first: f64,
    full_speed: f64,
    warm: f64,
}

impl Suite for Args {
    const NAME: &'static str = "coldstart";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        let least = 2 * N_IN_A_ROW;
        let too_few = || BadArgument::new(format!("--answers must be at least {least}"));
        ensure!(self.answers >= least, too_few());
        for model in [&self.model, &self.static_model] {
            open_model(model)?;
        }
        record.set("model", super::encode::name_of(&self.model));
        record.set("static_model", super::encode::name_of(&self.static_model));
        record.set("extents", self.extents.join(","));
        record.set("threads", self.threads);
        record.set("answers", self.answers);
        let dynamic = [Who::Onnxruntime, Who::Direct, Who::Rten, Who::Ggml];
        let any_shape = self.contests(host, record, &self.model, &dynamic)?;
        let fixed_shape = self.contests(host, record, &self.static_model, &[Who::Migraphx])?;
        record.contests = [any_shape, fixed_shape].concat();
        Ok(())
    }
}

impl Args {
    /// First answer, full speed and warm answer of one model; nothing where nobody can run it.
    fn contests(
        &self,
        host: &Host,
        record: &mut Record,
        model: &Path,
        all: &[Who],
    ) -> Result<Vec<Contest>> {
        let (mut contenders, mut left_out) = (Vec::new(), Vec::new());
        for &who in all {
            // The first run warms the page cache and fills a store; it does not count.
            let store = tempfile::tempdir().context("no temporary folder")?;
            let ready = match self.run(host, who, model, store.path(), true) {
                Ok((ready, _)) => ready,
                Err(error) => {
                    left_out.push(format!("left out: {}: {error:#}", who.name()));
                    continue;
                }
            };
            if who != Who::Direct {
                record.library(&ready.backend, &ready.version);
            }
            let named = |state: &str, store| Contender {
                name: format!("{}{state}", who.name()),
                who,
                model,
                store,
                times: Vec::new(),
            };
            let state = if ready.keeps { ", nothing cached" } else { "" };
            contenders.push(named(state, None));
            contenders.extend(ready.keeps.then(|| named(", cached", Some(store))));
        }
        for round in 0..self.rounds {
            for at in order(round, contenders.len()) {
                let it = &mut contenders[at];
                eprintln!("round {} of {}: {}", round + 1, self.rounds, it.name);
                let empty = tempfile::tempdir().context("no temporary folder")?;
                let store = it.store.as_ref().unwrap_or(&empty);
                let (_, times) = self.run(host, it.who, it.model, store.path(), false)?;
                it.times.push(times);
            }
        }
        if contenders.is_empty() {
            eprintln!("{}", left_out.join("\n"));
            record.set(&format!("{}: nobody", super::encode::name_of(model)), left_out.join("; "));
            return Ok(Vec::new());
        }
        let name = super::encode::name_of(model);
        let contest = |what: &str, title: &str, of: fn(&Times) -> f64| Contest {
            name: format!("{name}, {what}"),
            title: format!("{title}, {}", self.extents.join(",")),
            n_warm_up: 1,
            n_rounds: self.rounds,
            contenders: contenders.iter().map(|it| it.measured(of)).collect(),
            notes: left_out.clone(),
            ..Contest::default()
        };
        Ok(vec![
            contest("first answer", "from the start of the process", |it| it.first),
            contest("full speed", "from the start of the process", |it| it.full_speed),
            contest("warm answer", "one answer at full speed", |it| it.warm),
        ])
    }

    /// Starts one process and lets it answer; one that fills the store leaves there what the next may use.
    fn run(
        &self,
        host: &Host,
        who: Who,
        model: &Path,
        store: &Path,
        fills: bool,
    ) -> Result<(Ready, Times)> {
        let mut command = host.hidden(CONTENDER)?;
        command.args(fills.then_some("--fills"));
        command.args(["--who", who.name()]).arg("--model").arg(model).arg("--store").arg(store);
        command.args(["--extents", &self.extents.join(",")]);
        command.args(["--threads", &self.threads.to_string()]);
        command.args(["--answers", &self.answers.to_string()]);
        let start = Instant::now();
        let mut child = Child::start(command)?;
        let ready: Ready = child.answer()?;
        let first = start.elapsed().as_secs_f64();
        let later: Vec<f64> = child.answer()?;
        Ok((ready, Times::of(first, &later)))
    }
}

impl Times {
    /// `later` are the answers after the first.
    fn of(first: f64, later: &[f64]) -> Self {
        let warm = median(&later[later.len() / 2..]);
        let is_fast = |it: &f64| *it <= FULL_SPEED * warm;
        let begin = later.windows(N_IN_A_ROW).position(|it| it.iter().all(is_fast));
        let slow = &later[..begin.unwrap_or(later.len())];
        Self { first, full_speed: first + slow.iter().sum::<f64>(), warm }
    }
}

impl Contender<'_> {
    fn measured(&self, of: fn(&Times) -> f64) -> Measured {
        let role = if self.who == Who::Direct { Role::Rival } else { Role::Ours };
        Measured::new(self.name.clone(), role, self.times.iter().map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_speed_begins_with_three_usual_answers() {
        let later = [5.0, 1.0, 4.0, 1.0, 1.05, 1.0, 1.0, 1.0, 9.0, 1.0];
        let times = Times::of(10.0, &later);
        assert_eq!((times.first, times.full_speed, times.warm), (10.0, 20.0, 1.0));
    }
}
