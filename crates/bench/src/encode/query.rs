//! One text at a time, warm: what a search box waits for.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use shapeyard_core::Model;
use shapeyard_core::backend::{LoadJob, SessionOptions, Waiting};
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::Split;
use shapeyard_core::registry::{Choice, Registry};
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{EncodeOptions, Encoder, Unobserved};

use super::direct;
use crate::calls::{self, Caller};
use crate::child::Child;
use crate::contest::{Contest, Goal, Role, slowed};
use crate::measure::median;
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
    /// For ours.
    #[arg(long)]
    handicap: f64,
}

/// Who answers, and what the threads of its one session do while they wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Who {
    Spinning,
    Sleeping,
    /// ONNX Runtime as it comes, which spins.
    DirectSpinning,
    DirectSleeping,
}

/// What calls took, in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Took {
    calls: Vec<f64>,
    /// The part of each that was not spent in the model.
    around: Vec<f64>,
}

/// Answers the query of that number: its vector, and how long the model itself ran.
type Answer = Box<dyn FnMut(usize) -> Result<(Vec<f32>, Duration)>>;

/// Opens the model, tells the vector of the first query, and then makes as many calls as each line says and
/// tells what they took.
///
/// # Errors
///
/// What it failed of.
pub fn run(host: &Host, args: &Args) -> Result<()> {
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&fs::read(&args.tokens)?)?;
    let texts: Vec<Vec<u32>> = ids.iter().filter_map(|ids| cut(ids, args.length)).collect();
    ensure!(!texts.is_empty(), "no text of the corpus has {} tokens", args.length);
    let n_texts = texts.len();
    let mut answer: Answer = match args.who {
        Who::Spinning => ours(host, args, &texts, Waiting::Spin)?,
        Who::Sleeping => ours(host, args, &texts, Waiting::Sleep)?,
        Who::DirectSpinning => by_hand(args, texts, true)?,
        Who::DirectSleeping => by_hand(args, texts, false)?,
    };
    println!("{}", serde_json::to_string(&answer(0)?.0)?);
    let is_ours = matches!(args.who, Who::Spinning | Who::Sleeping);
    let handicap = if is_ours { args.handicap } else { 0.0 };
    let mut turns = (0..n_texts).cycle();
    for line in std::io::stdin().lines() {
        let n_calls = line?.trim().parse()?;
        let mut took = Took::default();
        for call in 0..calls::n_warm(n_calls) + n_calls {
            let nth = turns.next().unwrap_or(0);
            let start = Instant::now();
            let (_, inside) = answer(nth)?;
            let all = slowed(start.elapsed(), handicap);
            if call >= calls::n_warm(n_calls) {
                took.calls.push(all.as_secs_f64());
                took.around.push(all.saturating_sub(inside).as_secs_f64());
            }
        }
        println!("{}", serde_json::to_string(&took)?);
    }
    Ok(())
}

/// What is asked, and who of ours answers.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) model: &'a Path,
    /// A file of texts' tokens.
    pub(super) tokens: &'a Path,
    /// Tokens of a query.
    pub(super) length: usize,
    pub(super) backend: &'a str,
}

/// Texts of `length` tokens, one a call, each another: ours from tokens to the normalised vector, and the
/// same by hand.
pub(super) fn measure(lab: super::Lab<'_>, asked: &Asked<'_>) -> Result<Contest> {
    let Asked { model, tokens, length, backend } = *asked;
    let (args, threads) = (lab.args, lab.n_threads.to_string());
    let start = |who: &str| -> Result<Child> {
        let mut command = lab.host.hidden(super::QUERY)?;
        command.args(["--who", who]).arg("--model").arg(model).arg("--tokens").arg(tokens);
        command.args(["--length", &length.to_string(), "--threads", &threads]);
        command.args(["--backend", backend, "--handicap", &args.handicap.to_string()]);
        Child::start(command)
    };
    // Each of ours beside the one that waits as it does: what is left is what ours adds.
    let contenders = [
        ("ONNX Runtime directly, spinning", Role::Rival, None, "direct-spinning"),
        ("ONNX Runtime directly, sleeping", Role::Rival, None, "direct-sleeping"),
        ("spinning", Role::Ours, Some("direct-spinning"), "spinning"),
        ("sleeping", Role::Ours, Some("direct-sleeping"), "sleeping"),
    ];
    let around = contenders.each_ref().map(|_| RefCell::new(Vec::new()));
    let (mut callers, mut vectors, mut whos) = (Vec::new(), Vec::new(), Vec::new());
    let mut notes = Vec::new();
    for (name, role, beside, who) in contenders {
        let started = start(who).and_then(|mut child| Ok((child.answer::<Vec<f32>>()?, child)));
        let (vector, mut child) = match started {
            Ok(started) => started,
            Err(error) if role != Role::Ours => {
                notes.push(format!("left out: {name}: {error:#}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        let around = &around[whos.len()];
        let beside = beside.and_then(|beside| whos.iter().position(|who| *who == beside));
        whos.push(who);
        vectors.push(vector);
        let name = match role {
            Role::Ours => format!("{}, {name}", super::tally::ours(backend)),
            _ => name.to_owned(),
        };
        callers.push(Caller::of_rounds(&name, role, beside, move |n_calls, times| {
            child.order(&n_calls.to_string())?;
            let took: Took = child.answer()?;
            times.extend(took.calls);
            around.borrow_mut().extend(took.around);
            Ok(())
        }));
    }
    for other in &vectors[1..] {
        let is_close = vectors[0].iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4);
        ensure!(is_close && vectors[0].len() == other.len(), "the contenders' vectors differ");
    }
    let name = format!("{}, single query of {length} tokens", lab.name_of(model));
    let split = Split { n_sessions: 1, n_threads: lab.n_threads };
    let title = format!("tokens to a normalised vector, {split}");
    let mut contest = calls::run(&name, &title, (args.query_rounds, N_QUERIES), &mut callers)?;
    for (measured, around) in contest.contenders.iter_mut().zip(&around) {
        let around = 1e6 * median(&around.borrow());
        measured.facts.more.insert("around the model µs".to_owned(), around);
    }
    let what = "the better of ours, times the better of ONNX Runtime driven directly";
    let ratio = contest.best_ratio().map(|it| it.median);
    contest.goals = ratio.map(|ratio| Goal::at_most(what, TARGET, ratio)).into_iter().collect();
    contest.notes = notes;
    Ok(contest)
}

/// The beginning of a text that is long enough, with the token that ends it.
fn cut(ids: &[u32], length: usize) -> Option<Vec<u32>> {
    let (last, _) = ids.split_last().filter(|_| ids.len() >= length && length > 1)?;
    Some([&ids[..length - 1], &[*last]].concat())
}

/// ONNX Runtime through its own interface.
fn by_hand(args: &Args, texts: Vec<Vec<u32>>, spins: bool) -> Result<Answer> {
    let mut lane = direct::Lane::open(&args.model, args.threads, spins)?;
    let length = args.length;
    Ok(Box::new(move |nth| {
        let (rows, inside) = lane.encode(&texts, &Batch { items: vec![nth], length })?;
        Ok((rows.concat(), inside))
    }))
}

fn ours(host: &Host, args: &Args, texts: &[Vec<u32>], waiting: Waiting) -> Result<Answer> {
    let model = Model::open(&args.model)?;
    let split = Split { n_sessions: 1, n_threads: args.threads };
    let registry = Registry::new(shapeyard_cpu::backends(&host.cpu));
    let choice: Choice = args.backend.parse()?;
    let sessions = SessionOptions::threads(split.n_threads).waiting(waiting);
    let opened = registry.open(&choice, &LoadJob::of(&model).for_sessions(sessions))?;
    let encoder = Encoder::new(opened.backend, Arc::new(model), opened.executable)?;
    let options = EncodeOptions {
        pooling: Pooling::Mean,
        normalise: true,
        pad_id: 0,
        n_threads: split.n_threads,
        split: Some(split),
        token_budget: Some(1),
        share_equal: true,
        waiting,
    };
    let tokens = |ids: &Vec<u32>| {
        [Tokens { ids: ids.clone(), type_ids: vec![0; ids.len()], truncated: false }]
    };
    let texts: Vec<[Tokens; 1]> = texts.iter().map(tokens).collect();
    Ok(Box::new(move |nth| {
        let mut embeddings = encoder.embeddings(&texts[nth], &options)?;
        let report = encoder.encode(&texts[nth], &options, &mut embeddings, &Unobserved)?;
        Ok((embeddings.values().to_vec(), report.times.model))
    }))
}
