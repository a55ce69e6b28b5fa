//! The `router` suite: what requests wait for while a program is compiled, and what routing adds to a call.

mod calls;
mod clients;
mod place;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use shapeyard_core::Executable;
use shapeyard_core::router::Stage;

use self::clients::{Answer, Crowd};
use self::place::Place;
use crate::contest::{Contest, Facts, Goal, Measured, Role};
use crate::measure::{Percentiles, median, quantile};
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one};

/// How many times as long as alone requests may take while a program is compiled.
const SLOWER_TARGET: f64 = 1.5;
/// How soon after a program is ready the first answer comes from it, in milliseconds.
const FIRST_TARGET_MS: f64 = 100.0;
/// How long requests go on after the program is ready.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
In each round a model without a program is served by rten alone, and then by a router over MIGraphX and rten \
that has a program compiled meanwhile, for as long as that takes. The compile is MIGraphX's own, in a process of \
its own at low priority; so that it takes long, that process first sleeps. Every row of every answer is compared \
with the answer that it has alone. Run it while nothing else runs.

Examples:
  cargo xtask bench router
  cargo xtask bench router --rounds 5 --threads 8
  cargo xtask bench router --sleep 2 --rounds 1
  cargo xtask bench router --record router.jsonl")]
pub(crate) struct Args {
    /// The model; every input and output has rows along its first axis.
    #[arg(long, value_name = "FILE", default_value = "tests/models/encoder.onnx")]
    model: PathBuf,
    /// Rows of the program; requests have 1 to so many.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    rows: usize,
    /// The extent of every symbol that is not the batch.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    extent: usize,
    /// Threads that each wait for their request before they send the next.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    threads: usize,
    /// How long the process that compiles sleeps first, in seconds.
    #[arg(long, value_name = "N", default_value_t = 20)]
    sleep: u64,
    /// Interleaved rounds.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "router";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        let place = Place::make(self, host)?;
        record.library("migraphx", &place.compiler);
        record.set_file("model", &self.model);
        record.set("rows", self.rows);
        record.set("extent", self.extent);
        record.set("threads", self.threads);
        record.set("sleep_seconds", self.sleep);
        record.contests.push(compiling(self, &place)?);
        record.contests.push(calls::contest(self.rounds)?);
        Ok(())
    }
}

/// What one round found.
struct Round {
    alone: Vec<Answer>,
    /// Answers before the program was ready.
    meanwhile: Vec<Answer>,
    /// From the program's readiness to the first answer that came from it, in milliseconds.
    first_ms: f64,
    compile_seconds: f64,
}

fn compiling(args: &Args, place: &Place) -> Result<Contest> {
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        eprintln!("round {n}: requests while a program is compiled");
        rounds.push(round(args, place, n)?);
    }
    let p99s = |of: fn(&Round) -> &Vec<Answer>| -> Vec<f64> {
        rounds.iter().map(|round| p99(of(round))).collect()
    };
    let (alone, routed) = (p99s(|it| &it.alone), p99s(|it| &it.meanwhile));
    let ratios: Vec<f64> = routed.iter().zip(&alone).map(|(ours, theirs)| ours / theirs).collect();
    let first_ms = rounds.iter().map(|it| it.first_ms).fold(0.0, f64::max);
    let n_answers: usize = rounds.iter().map(|it| it.alone.len() + it.meanwhile.len()).sum();
    let compiles: Vec<f64> = rounds.iter().map(|it| it.compile_seconds).collect();
    let contender = |name: &str, role, seconds: Vec<f64>, of: fn(&Round) -> &Vec<Answer>| {
        let calls: Vec<f64> =
            rounds.iter().flat_map(|round| of(round).iter().map(|it| it.seconds)).collect();
        Measured {
            calls: Some(Percentiles::of(&calls)),
            facts: Facts { work: Some((1.0, "requests".to_owned())), ..Facts::default() },
            ..Measured::new(name, role, seconds)
        }
    };
    Ok(Contest {
        name: "compiling".to_owned(),
        title: "99th percentile of what a request takes, in seconds".to_owned(),
        n_warm_up: 1,
        n_rounds: args.rounds,
        contenders: vec![
            contender("a router, while a program is compiled", Role::Ours, routed, |it| {
                &it.meanwhile
            }),
            contender("rten alone", Role::Rival, alone, |it| &it.alone),
        ],
        goals: vec![
            Goal::at_most(
                "99th percentile while compiling, over alone",
                SLOWER_TARGET,
                median(&ratios),
            ),
            Goal::at_most(
                "ms from ready to the first answer by the program",
                FIRST_TARGET_MS,
                first_ms,
            ),
        ],
        notes: vec![format!(
            "the compile took {:.1} s; all rows of {n_answers} answers are those that they have alone",
            median(&compiles)
        )],
    })
}

fn round(args: &Args, place: &Place, n: usize) -> Result<Round> {
    let crowd = Crowd { rows: &place.rows, n_threads: args.threads, most_rows: args.rows, seed: n };
    let alone = crowd.run(&place.alone()?, || {
        std::thread::sleep(Duration::from_secs(args.sleep.max(1)));
        Ok(())
    })?;
    let router = place.router()?;
    let events = router.events();
    let start = Instant::now();
    let mut ready = None;
    let executable = Arc::clone(&router) as Arc<dyn Executable>;
    let answers = crowd.run(&executable, || {
        let is_end = |stage: &Stage| matches!(stage, Stage::Failed { .. } | Stage::Ready { .. });
        let event = events.iter().find(|event| is_end(&event.stage));
        ready = Some(Instant::now());
        let event = event.context("the router stopped compiling")?;
        ensure!(matches!(event.stage, Stage::Ready { .. }), "{event}");
        std::thread::sleep(AFTERWARDS);
        Ok(())
    })?;
    let ready = ready.context("no program was ready")?;
    let by_program = answers.1.iter().filter(|it| it.by_program).map(|it| it.done).min();
    let first = by_program.context("no answer came from the program")?;
    let meanwhile: Vec<Answer> = answers.1.into_iter().filter(|it| it.done < ready).collect();
    ensure!(!meanwhile.is_empty(), "no request was answered while the program was compiled");
    Ok(Round {
        alone: alone.1,
        meanwhile: meanwhile.into_iter().filter(|it| !it.by_program).collect(),
        first_ms: first.saturating_duration_since(ready).as_secs_f64() * 1e3,
        compile_seconds: (ready - start).as_secs_f64(),
    })
}

fn p99(answers: &[Answer]) -> f64 {
    let mut seconds: Vec<f64> = answers.iter().map(|it| it.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    quantile(&seconds, 0.99)
}
