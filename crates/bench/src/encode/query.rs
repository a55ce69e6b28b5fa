//! One text at a time, warm: what a search box waits for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use shapeyard_core::Model;
use shapeyard_core::backend::{LoadJob, SessionOptions};
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::registry::{Choice, Registry};
use shapeyard_cpu::CpuOptions;
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{EncodeOptions, Encoder, Unobserved};

use super::direct;
use crate::calls::{self, Caller};
use crate::child::Child;
use crate::contest::{Contest, Goal, Role};
use crate::suite::Host;

/// Single queries a round.
const N_QUERIES: usize = 20;

/// Ours may take so many times as long as ONNX Runtime driven directly.
const TARGET: f64 = 1.05;

/// One process that answers queries.
///
/// ONNX Runtime allows one environment a process, so ours and the one driven directly cannot share one; and
/// neither meets the other's threads, which go on looking for work for a while.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    who: Who,
    #[arg(long)]
    model: PathBuf,
    /// Tokens of texts.
    #[arg(long)]
    tokens: PathBuf,
    /// Tokens that a query has.
    #[arg(long)]
    length: usize,
    #[arg(long)]
    threads: usize,
    #[arg(long)]
    backend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    Ours,
    /// ONNX Runtime as it comes: its threads look for work a while before they sleep.
    Direct,
    /// ONNX Runtime whose threads sleep at once, which is better where other work runs.
    DirectWithoutSpinning,
}

/// Opens the model, tells the vector of the first query, and then makes as many calls as each line says and
/// tells what they took.
///
/// # Errors
///
/// What it failed of.
pub fn run(args: &Args) -> Result<()> {
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&fs::read(&args.tokens)?)?;
    let texts: Vec<Vec<u32>> = ids.iter().filter_map(|ids| cut(ids, args.length)).collect();
    ensure!(!texts.is_empty(), "no text of the corpus has {} tokens", args.length);
    let mut query: Box<dyn FnMut(usize) -> Result<Vec<f32>>> = match args.who {
        Who::Ours => {
            let ours = Ours::open(args, &texts)?;
            Box::new(move |nth| ours.encode(nth))
        }
        Who::Direct | Who::DirectWithoutSpinning => {
            let spins = args.who == Who::Direct;
            let mut lane = direct::Lane::open(&args.model, args.threads, spins)?;
            let (texts, length) = (texts.clone(), args.length);
            Box::new(move |nth| Ok(lane.encode(&texts, &one(nth, length))?.concat()))
        }
    };
    println!("{}", serde_json::to_string(&query(0)?)?);
    let mut turns = (0..texts.len()).cycle();
    let mut calls = calls::in_process(|| turns.next().map_or(Ok(()), |nth| query(nth).map(drop)));
    for line in std::io::stdin().lines() {
        let mut times = Vec::new();
        calls(line?.trim().parse()?, &mut times)?;
        println!("{}", serde_json::to_string(&times)?);
    }
    Ok(())
}

/// Texts of `length` tokens, one a call, each another: ours from tokens to the normalised vector, and the
/// same by hand.
pub(super) fn measure(
    host: &Host,
    args: &super::Args,
    model: &Path,
    tokens: &Path,
    length: usize,
) -> Result<Contest> {
    let start = |who: &str| -> Result<Child> {
        let mut command = host.hidden(super::QUERY)?;
        command.args(["--who", who]).arg("--model").arg(model).arg("--tokens").arg(tokens);
        command.args(["--length", &length.to_string(), "--threads", &args.threads.to_string()]);
        command.args(["--backend", &args.backend]);
        Child::start(command)
    };
    let contenders = [
        ("ONNX Runtime directly", Role::Rival, "direct"),
        ("ONNX Runtime directly, without spinning", Role::Rival, "direct-without-spinning"),
        ("ours", Role::Ours, "ours"),
    ];
    let (mut callers, mut vectors) = (Vec::new(), Vec::new());
    for (name, role, who) in contenders {
        let mut child = start(who)?;
        vectors.push(child.answer::<Vec<f32>>()?);
        callers.push(Caller::of_rounds(name, role, None, move |n_calls, times| {
            child.order(&n_calls.to_string())?;
            times.extend(child.answer::<Vec<f64>>()?);
            Ok(())
        }));
    }
    for other in &vectors[1..] {
        let is_close = vectors[0].iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4);
        ensure!(is_close && vectors[0].len() == other.len(), "the contenders' vectors differ");
    }
    let name = format!("{}, single query of {length} tokens", super::name_of(model));
    let title = format!("tokens to a normalised vector, 1 session of {} threads", args.threads);
    let mut contest = calls::run(&name, &title, (args.query_rounds, N_QUERIES), &mut callers)?;
    let ratio = contest.best_rival().and_then(|best| contest.ratio_of(best));
    let what = "times ONNX Runtime driven directly, the better one";
    contest.goals = vec![Goal::at_most(what, TARGET, ratio.map_or(f64::NAN, |it| it.median))];
    Ok(contest)
}

/// The beginning of a text that is long enough, with the token that ends it.
fn cut(ids: &[u32], length: usize) -> Option<Vec<u32>> {
    let (last, _) = ids.split_last().filter(|_| ids.len() >= length && length > 1)?;
    Some([&ids[..length - 1], &[*last]].concat())
}

fn one(item: usize, length: usize) -> Batch {
    Batch { items: vec![item], length }
}

/// Ours, ready for queries.
struct Ours {
    encoder: Encoder,
    options: EncodeOptions,
    texts: Vec<[Tokens; 1]>,
}

impl Ours {
    fn open(args: &Args, texts: &[Vec<u32>]) -> Result<Self> {
        let model = Model::open(&args.model)?;
        let split = Split { n_sessions: 1, n_threads: args.threads };
        let registry = Registry::new(shapeyard_cpu::backends(&CpuOptions::default()));
        let choice: Choice = args.backend.parse()?;
        let job = LoadJob::of(&model).for_sessions(SessionOptions::threads(split.n_threads));
        let opened = registry.open(&choice, &job)?;
        let encoder = Encoder::new(opened.backend, Arc::new(model), opened.executable)?;
        let options = EncodeOptions {
            pooling: Pooling::Mean,
            normalise: true,
            pad_id: 0,
            n_threads: split.n_threads,
            split: Some(split),
            token_budget: Some(1),
        };
        let tokens = |ids: &Vec<u32>| {
            [Tokens { ids: ids.clone(), type_ids: vec![0; ids.len()], truncated: false }]
        };
        Ok(Self { encoder, options, texts: texts.iter().map(tokens).collect() })
    }

    fn encode(&self, nth: usize) -> Result<Vec<f32>> {
        let texts = &self.texts[nth];
        let mut embeddings = self.encoder.embeddings(texts, &self.options)?;
        self.encoder.encode(texts, &self.options, &mut embeddings, &Unobserved)?;
        Ok(embeddings.values().to_vec())
    }
}
