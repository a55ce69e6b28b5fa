//! The `prices` suite: what the cost model predicts of an encoding, and what that takes.
//!
//! Two CPU backends of different cost stand for a device and its fallback. On the device's side every program has
//! one shape and is loaded for itself, as on a device; the fallback takes every shape. In each round both are
//! calibrated, the texts are planned by these prices, and every way runs from nothing loaded to the last vector.
//! Texts are tokens before: what is predicted is loading and running.

mod clock;
mod fixed;
mod runs;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, BackendId, LoadJob};
use shapeyard_core::measure::{self, Extent, shapes};
use shapeyard_core::plan::calibrate::splits;
use shapeyard_core::plan::prices::Price;
use shapeyard_core::plan::{PlanOptions, Policy, Prices, RoutingPlan, Stock, Tail, Workload, plan};
use shapeyard_cpu::CpuOptions;
use shapeyard_encode::tokens::{TextTokenizer, Tokens};
use shapeyard_encode::units::{self, UnitOptions};

use self::clock::Clock;
use self::runs::{Engine, Job, Ran, run};
use crate::contest::{Contest, Goal, Measured, Role};
use crate::corpus;
use crate::measure::{Percentiles, median, order};
use crate::record::Record;
use crate::suite::{Host, Output, Suite, at_least_one};

/// The most that a prediction may be off.
const MOST_ERROR: f64 = 0.15;

/// The most that routing may take, over the faster of the two alone: noise.
const MOST_RATIO: f64 = 1.05;

/// A price at which nothing is left to the fallback.
const FORBIDDEN: Price = Price { load: 0.0, launch: 1e6, token: 1.0, token_length: 0.0 };

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each round calibrates both backends, plans, and runs every way, in another order. `predicted / measured` is \
the median of the rounds. On two quiet processors three rounds of 2,000 texts take some ten minutes. Beside other \
work times on the wall say little; --clock cpu predicts and measures processor time instead.

Examples:
  cargo xtask bench prices
  cargo xtask bench prices --rounds 1 --units 200 --clock cpu
  cargo xtask bench prices --rounds 1 --lengths 16
  cargo xtask bench prices --model target/models/minilm-l6/minilm-l6-int8.onnx --format json")]
pub(crate) struct Args {
    /// The ONNX file of an encoder.
    #[arg(long, value_name = "FILE", default_value = "target/models/minilm-l6/minilm-l6.onnx")]
    model: PathBuf,
    /// The encoder's tokenizer.
    #[arg(long, value_name = "FILE", default_value = "target/models/minilm-l6/tokenizer.json")]
    tokenizer: PathBuf,
    /// Who stands for the device.
    #[arg(long, default_value = "onnxruntime")]
    device: String,
    /// Who stands for its fallback.
    #[arg(long, default_value = "rten")]
    fallback: String,
    /// Texts, taken evenly from the sources of this project's dependencies.
    #[arg(long, default_value_t = 2000, value_parser = at_least_one)]
    units: usize,
    /// Tokens that a text is cut to.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Lengths that programs may have.
    #[arg(long, default_value_t = 8)]
    lengths: usize,
    /// Tokens of a batch.
    #[arg(long, default_value_t = 1024)]
    token_budget: usize,
    /// Threads to use in all.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from), value_parser = at_least_one)]
    threads: usize,
    /// Interleaved rounds.
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// What is predicted and measured.
    #[arg(long, value_enum, default_value_t)]
    clock: Clock,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "prices";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, _: &Host, record: &mut Record) -> Result<()> {
        let suite = Prepared::new(self)?;
        record.set("texts", suite.texts.len());
        record.set("tokens", suite.n_tokens());
        for (name, value) in [
            ("max_length", self.max_length),
            ("lengths", self.lengths),
            ("token_budget", self.token_budget),
            ("threads", self.threads),
        ] {
            record.set(name, value);
        }
        for backend in [&suite.device, &suite.fallback] {
            record.library_of(backend.as_ref());
        }
        record.contests.push(suite.contest()?);
        Ok(())
    }
}

/// The texts, and who encodes them.
struct Prepared<'a> {
    args: &'a Args,
    model: Arc<Model>,
    device: Arc<dyn Backend>,
    fallback: Arc<dyn Backend>,
    texts: Vec<Tokens>,
    workload: Workload,
}

/// The ways, in the order of the table.
const WAYS: [(&str, Role); 4] = [
    ("both, as planned", Role::Ours),
    ("the device alone", Role::Rival),
    ("the fallback alone", Role::Rival),
    ("the device's engine in any shape", Role::Limit),
];

/// Those whose predictions have to be right: those that somebody would choose among.
const N_PREDICTED: usize = 3;

/// What the rounds of one way showed.
#[derive(Default)]
struct Tally {
    seconds: Vec<f64>,
    cpu_seconds: Vec<f64>,
    predicted: Vec<f64>,
    n_padded_tokens: usize,
    cosines: Vec<f64>,
}

impl<'a> Prepared<'a> {
    fn new(args: &'a Args) -> Result<Self> {
        let collected = units::collect(&corpus::folders()?, &UnitOptions::default())?.units;
        let n_units = args.units.min(collected.len());
        let nth = |nth: usize| collected[nth * collected.len() / n_units].text.as_str();
        let words: Vec<&str> = (0..n_units).map(nth).collect();
        let tokenizer = TextTokenizer::open(&args.tokenizer, args.max_length)?;
        let texts = tokenizer.encode_all(&words, args.threads)?;
        let lengths: Vec<usize> = texts.iter().map(|it| it.ids.len()).collect();
        let model = Arc::new(Model::open(&args.model)?);
        let (rows, length) = shapeyard_encode::axes(model.signature())?;
        let workload = Workload::items(rows, length, lengths);
        let backends = shapeyard_cpu::backends(&CpuOptions::default());
        let named = |name: &str| {
            let id = BackendId::from(name.to_owned());
            let found = backends.iter().find(|it| it.id() == id).cloned();
            found.with_context(|| format!("there is no backend `{name}` on the CPU"))
        };
        let (device, fallback) = (named(&args.device)?, named(&args.fallback)?);
        Ok(Self { args, model, device, fallback, texts, workload })
    }

    fn n_tokens(&self) -> usize {
        self.workload.lengths().iter().sum()
    }

    fn contest(&self) -> Result<Contest> {
        let mut tallies: [Tally; WAYS.len()] = Default::default();
        let mut notes = Vec::new();
        let mut reference: Option<Ran> = None;
        for round in 0..self.args.rounds {
            let say = |what: &str| eprintln!("prices: round {}: {what}", round + 1);
            say("calibrating");
            let device = self.calibrated(&self.device)?;
            let fallback = self.calibrated(&self.fallback)?;
            // Whose share of each way is the device's, and whose the fallback's.
            let engines = [&fallback, &fallback, &fallback, &device];
            let plans = [
                self.planned(&device, *fallback.price(), None)?,
                self.planned(&device, FORBIDDEN, None)?,
                self.planned(&device, *fallback.price(), Some(0))?,
                self.planned(&device, *device.price(), Some(0))?,
            ];
            notes.push(format!("round {}: {}", round + 1, said(&plans[0], &device, &fallback)));
            for at in order(round, WAYS.len()) {
                say(WAYS[at].0);
                let ran = run(&device, engines[at], &self.job(), &plans[at])?;
                tallies[at].add(plans[at].totals.seconds, &ran, reference.as_ref());
                reference.get_or_insert(ran);
            }
        }
        Ok(self.told(tallies, notes))
    }

    fn job(&self) -> Job<'_> {
        let (model, texts, workload) = (&self.model, &self.texts, &self.workload);
        Job { model, texts, workload, clock: self.args.clock }
    }

    /// What the backend costs here and now.
    fn calibrated(&self, backend: &Arc<dyn Backend>) -> Result<Engine> {
        let (rows, length) = (self.workload.rows.clone(), self.workload.length.clone());
        let rows = Extent { symbol: rows, most: 64 };
        let length = Extent { symbol: length, most: self.args.max_length };
        let shapes = shapes(&rows, &length, self.args.token_budget);
        let (job, splits) = (LoadJob::of(&self.model), splits(self.args.threads));
        let (asked, clock) = ((&shapes[..], 3), &self.args.clock);
        let measured = measure::any_shape(backend.as_ref(), &job, &splits, asked, clock)?;
        let lengths = self.workload.work.histogram();
        let choice = measured.cheapest(&lengths, self.args.token_budget);
        let choice = choice.context("nothing was measured")?;
        Ok(Engine { backend: Arc::clone(backend), choice })
    }

    fn planned(
        &self,
        device: &Engine,
        cpu: Price,
        max_buckets: Option<usize>,
    ) -> Result<RoutingPlan> {
        let options = PlanOptions {
            lengths: Policy::fitted(self.args.lengths),
            tail: Tail::PowerOfTwo,
            max_buckets,
            ..PlanOptions::tokens(self.args.token_budget)
        };
        let prices = Prices { device: *device.price(), cpu, ..Prices::default() };
        Ok(plan(&self.workload, &options, &prices, &Stock::default())?)
    }

    fn told(&self, tallies: [Tally; WAYS.len()], notes: Vec<String>) -> Contest {
        let errors = tallies.iter().take(N_PREDICTED).map(|it| (median(&it.ratios()) - 1.0).abs());
        let error = errors.fold(0.0, f64::max);
        let n_tokens = self.n_tokens() as f64;
        let contenders =
            WAYS.iter().zip(tallies).map(|(&way, tally)| tally.measured(way, n_tokens)).collect();
        let Args { device, fallback, clock, rounds, .. } = self.args;
        let time = if *clock == Clock::Cpu { ", processor time" } else { "" };
        let n_texts = self.texts.len();
        let mut contest = Contest {
            name: "prices".to_owned(),
            title: format!(
                "{n_texts} texts, {device} for the device and {fallback} for its fallback{time}"
            ),
            n_rounds: *rounds,
            contenders,
            notes,
            ..Contest::default()
        };
        let best = contest.best_ratio();
        let ratio = best.map_or(f64::NAN, |it| it.median);
        contest.goals = vec![
            Goal::at_most("largest error of a prediction, as a share", MOST_ERROR, error),
            Goal::at_most("both / the better one alone", MOST_RATIO, ratio),
        ];
        contest
    }
}

/// What a plan decided, and what its prices are worth, in a line.
fn said(plan: &RoutingPlan, device: &Engine, fallback: &Engine) -> String {
    let totals = &plan.totals;
    let on_fallback = totals.n_cpu_tokens as f64 / totals.n_real_tokens.max(1) as f64;
    let of = |engine: &Engine| {
        let percent = 100.0 * engine.choice.fit.median_error;
        format!("{} on {}, fitted within {percent:.0}%", engine.backend.id(), engine.choice.split)
    };
    format!(
        "{} programs, {:.0}% of the tokens on the fallback; {}; {}",
        plan.buckets.len(),
        100.0 * on_fallback,
        of(device),
        of(fallback)
    )
}

impl Tally {
    fn add(&mut self, predicted: f64, ran: &Ran, reference: Option<&Ran>) {
        self.seconds.push(ran.took.as_secs_f64());
        self.cpu_seconds.push(ran.cpu_time.as_secs_f64());
        self.predicted.push(predicted);
        self.n_padded_tokens = ran.n_padded_tokens;
        self.cosines.push(reference.map_or(1.0, |it| ran.least_cosine(it)));
    }

    /// Predicted over measured, of every round.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.predicted.iter().zip(&self.seconds);
        pairs.map(|(predicted, took)| predicted / took).collect()
    }

    fn measured(self, (name, role): (&str, Role), n_tokens: f64) -> Measured {
        let ratios = Percentiles::of(&self.ratios());
        let mut measured = Measured::new(name, role, self.seconds);
        let facts = &mut measured.facts;
        facts.cpu_seconds = Some(median(&self.cpu_seconds));
        facts.padding_share = Some(1.0 - n_tokens / self.n_padded_tokens.max(1) as f64);
        facts.least_cosine = Some(self.cosines.into_iter().fold(f64::INFINITY, f64::min));
        for (name, value) in [
            ("predicted s", median(&self.predicted)),
            ("predicted / measured", ratios.median),
            ("predicted / measured, least", ratios.least),
            ("predicted / measured, most", ratios.most),
        ] {
            facts.more.insert(name.to_owned(), value);
        }
        measured
    }
}
