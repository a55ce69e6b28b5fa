//! The `prices` suite: what the cost model predicts of an encoding, and what that takes.
//!
//! Two CPU backends of different cost stand for a device and its fallback. On the device's side every program has
//! one shape and is loaded for itself, as on a device; the fallback takes every shape. In each round both are
//! calibrated, the texts are planned by these prices, and every way runs from nothing loaded to the last vector.

mod fixed;
mod runs;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use shapeyard_core::Model;
use shapeyard_core::backend::{Backend, BackendId, LoadJob};
use shapeyard_core::measure::{self, Extent, Unwatched, shapes};
use shapeyard_core::plan::calibrate::splits;
use shapeyard_core::plan::prices::Price;
use shapeyard_core::plan::{
    Histogram, PlanOptions, Policy, Prices, RoutingPlan, Stock, Tail, Workload, plan,
};
use shapeyard_cpu::CpuOptions;
use shapeyard_encode::tokens::{TextTokenizer, Tokens};
use shapeyard_encode::units::{self, UnitOptions};

use self::runs::{Engine, Job, Ran, routed};
use crate::contest::{Contest, Goal, Measured, Role};
use crate::corpus;
use crate::measure::{median, order};
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
the median of the rounds.

Examples:
  cargo xtask bench prices
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
        record.set("tokens", suite.lengths.iter().sum::<usize>());
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
    lengths: Vec<usize>,
    workload: Workload,
}

/// The ways, in the order of the table.
const WAYS: [(&str, Role); 4] = [
    ("both, as planned", Role::Ours),
    ("the device alone", Role::Rival),
    ("the fallback alone", Role::Rival),
    ("the device's engine in any shape", Role::Limit),
];

/// What the rounds of one way showed.
#[derive(Default)]
struct Tally {
    seconds: Vec<f64>,
    predicted: Vec<f64>,
    n_padded_tokens: usize,
    least_cosine: f64,
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
        let workload = Workload::items(rows, length, lengths.clone());
        let backends = shapeyard_cpu::backends(&CpuOptions::default());
        let named = |name: &str| {
            let id = BackendId::from(name.to_owned());
            let found = backends.iter().find(|it| it.id() == id).cloned();
            found.with_context(|| format!("there is no backend `{name}` on the CPU"))
        };
        let (device, fallback) = (named(&args.device)?, named(&args.fallback)?);
        Ok(Self { args, model, device, fallback, texts, lengths, workload })
    }

    fn contest(&self) -> Result<Contest> {
        let mut tallies: [Tally; WAYS.len()] = Default::default();
        let mut notes = Vec::new();
        let mut reference: Option<Ran> = None;
        for round in 0..self.args.rounds {
            eprintln!("prices: round {} of {}: calibrating", round + 1, self.args.rounds);
            let (device, fallback) =
                (self.calibrated(&self.device)?, self.calibrated(&self.fallback)?);
            let both = self.planned(&device, *fallback.price())?;
            let alone = self.planned(&device, FORBIDDEN)?;
            notes.push(format!("round {}: {}", round + 1, said(&both)));
            for at in order(round, WAYS.len()) {
                eprintln!("prices: round {} of {}: {}", round + 1, self.args.rounds, WAYS[at].0);
                let job = self.job();
                let (predicted, ran) = match at {
                    0 => (
                        both.totals.seconds,
                        routed(&device, &fallback, &job, (&both, &self.workload))?,
                    ),
                    1 => (
                        alone.totals.seconds,
                        routed(&device, &fallback, &job, (&alone, &self.workload))?,
                    ),
                    2 => (fallback.predicted(&job), fallback.alone(&job)?),
                    _ => (device.predicted(&job), device.alone(&job)?),
                };
                tallies[at].add(predicted, &ran, reference.as_ref());
                reference.get_or_insert(ran);
            }
        }
        Ok(self.told(tallies, notes))
    }

    fn job(&self) -> Job<'_> {
        Job {
            model: &self.model,
            texts: &self.texts,
            lengths: &self.lengths,
            token_budget: self.args.token_budget,
        }
    }

    /// What the backend costs here and now.
    fn calibrated(&self, backend: &Arc<dyn Backend>) -> Result<Engine> {
        let (rows, length) = (self.workload.rows.clone(), self.workload.length.clone());
        let rows = Extent { symbol: rows, most: 64 };
        let length = Extent { symbol: length, most: self.args.max_length };
        let shapes = shapes(&rows, &length, self.args.token_budget);
        let (job, splits) = (LoadJob::of(&self.model), splits(self.args.threads));
        let asked = (&shapes[..], 3);
        let measured = measure::any_shape(backend.as_ref(), &job, &splits, asked, &Unwatched)?;
        let choice = measured.cheapest(&Histogram::of(&self.lengths), self.args.token_budget);
        let choice = choice.context("nothing was measured")?;
        Ok(Engine { backend: Arc::clone(backend), choice })
    }

    fn planned(&self, device: &Engine, cpu: Price) -> Result<RoutingPlan> {
        let options = PlanOptions {
            lengths: Policy::fitted(self.args.lengths),
            tail: Tail::PowerOfTwo,
            ..PlanOptions::tokens(self.args.token_budget)
        };
        let prices = Prices { device: *device.price(), cpu, ..Prices::default() };
        Ok(plan(&self.workload, &options, &prices, &Stock::default())?)
    }

    fn told(&self, tallies: [Tally; WAYS.len()], notes: Vec<String>) -> Contest {
        let n_tokens = self.lengths.iter().sum::<usize>() as f64;
        let errors = tallies.iter().take(3).map(|it| (it.ratio() - 1.0).abs());
        let error = errors.fold(0.0, f64::max);
        let contenders: Vec<Measured> =
            WAYS.iter().zip(tallies).map(|(&way, tally)| tally.measured(way, n_tokens)).collect();
        let title = format!(
            "{} texts, {} for the device and {} for its fallback",
            self.texts.len(),
            self.args.device,
            self.args.fallback
        );
        let n_rounds = self.args.rounds;
        let mut contest = Contest {
            name: "prices".to_owned(),
            title,
            n_rounds,
            contenders,
            notes,
            ..Contest::default()
        };
        let best = contest.best_ratio();
        let ratio = best.map_or(f64::NAN, |it| it.median);
        contest.goals.push(Goal::at_most(
            "largest error of a prediction, as a share",
            MOST_ERROR,
            error,
        ));
        contest.goals.push(Goal::at_most("both / the better one alone", MOST_RATIO, ratio));
        contest
    }
}

/// What a plan decided, in a line.
fn said(plan: &RoutingPlan) -> String {
    let totals = &plan.totals;
    let on_fallback = totals.n_cpu_tokens as f64 / totals.n_real_tokens.max(1) as f64;
    format!(
        "{} programs, {:.0}% of the tokens on the fallback; {:.2} s predicted",
        plan.buckets.len(),
        100.0 * on_fallback,
        totals.seconds
    )
}

impl Tally {
    fn add(&mut self, predicted: f64, ran: &Ran, reference: Option<&Ran>) {
        self.seconds.push(ran.wall.as_secs_f64());
        self.predicted.push(predicted);
        self.n_padded_tokens = ran.n_padded_tokens;
        let cosine = reference.map_or(1.0, |it| ran.least_cosine(it));
        self.least_cosine =
            if self.seconds.len() == 1 { cosine } else { self.least_cosine.min(cosine) };
    }

    /// Predicted over measured.
    fn ratio(&self) -> f64 {
        let ratios: Vec<f64> = self
            .predicted
            .iter()
            .zip(&self.seconds)
            .map(|(predicted, took)| predicted / took)
            .collect();
        median(&ratios)
    }

    fn measured(self, (name, role): (&str, Role), n_tokens: f64) -> Measured {
        let ratio = self.ratio();
        let mut measured = Measured::new(name, role, self.seconds);
        measured.facts.padding_share = Some(1.0 - n_tokens / self.n_padded_tokens.max(1) as f64);
        measured.facts.least_cosine = Some(self.least_cosine);
        measured.facts.more.insert("predicted / measured".to_owned(), ratio);
        measured.facts.more.insert("predicted s".to_owned(), median(&self.predicted));
        measured
    }
}
