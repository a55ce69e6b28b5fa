//! One contender in a process of its own: loads the model, encodes the texts once, says what it took.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shapeyard_core::backend::{LoadJob, SessionOptions, Status, Waiting};
use shapeyard_core::plan::calibrate::{Setting, Split};
use shapeyard_core::plan::{Batch, token_budget};
use shapeyard_core::registry::{Choice, Registry};
use shapeyard_core::{Backend, Model};
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::Tokens;
use shapeyard_encode::{EncodeOptions, EncodeReport, Encoder, Tried, Unobserved};

use super::arrival::Arrival;
use super::openvino::{self, Precision};
use super::{direct, llama, sentence_transformers};
use crate::contest::{Counts, slowed};
use crate::measure::{cpu_time, peak_memory};
use crate::suite::Host;

/// Who encodes, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Ours, finding its setting.
    Calibrate { backend: String },
    /// Ours, with a setting.
    Ours { setting: Setting, backend: String },
    /// Ours, texts as they come: what padding costs it.
    OursArrival { split: Split, n_rows: usize, backend: String },
    /// ONNX Runtime through its own interface, texts as they come.
    DirectArrival { split: Split, n_rows: usize },
    /// ONNX Runtime through its own interface, with the batches that ours makes.
    DirectSorted { setting: Setting },
    /// llama.cpp through its own interface, longest first; a budget of 1 makes every text a batch.
    Llama { setting: Setting, flash: bool },
    /// OpenVINO through its Python package, with batches made as ours are.
    Openvino { setting: Setting, precision: Precision },
    /// sentence-transformers through its own interface, on the texts themselves.
    SentenceTransformers { model: PathBuf, texts: PathBuf, n_threads: usize, n_rows: usize },
}

/// One contender; the suite starts it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    kind: String,
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    tokens: PathBuf,
    /// Where to write the vectors, as raw f32.
    #[arg(long)]
    vectors: PathBuf,
    #[arg(long)]
    threads: usize,
    /// For ours with a setting.
    #[arg(long)]
    handicap: f64,
}

/// What one run took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// From the first batch to the last vector; sessions were made before.
    pub(super) wall: Duration,
    /// Processor time over the same span.
    pub(super) cpu: Duration,
    /// The most memory that the process had, in bytes.
    pub(super) peak_memory: u64,
    /// Tokens run, padding counted.
    pub(super) n_padded_tokens: usize,
    /// Which setting a calibration found.
    pub(super) setting: Option<Setting>,
    /// What a calibration tried.
    pub(super) tried: Vec<(Setting, f64)>,
    /// The backend, and its version.
    pub(super) backend: String,
    /// What happened to the batches of ours.
    #[serde(default)]
    pub(super) counts: Counts,
    /// Numbers in a vector.
    pub(super) n_dims: usize,
    #[serde(skip)]
    pub(super) vectors: Vec<f32>,
}

/// What happened to the batches of an encoding.
fn counts(report: &EncodeReport) -> Result<Counts> {
    let mut counts = Counts::default();
    for (tier, n) in &report.tiers {
        counts.add_tier(*tier, *n as u64)?;
    }
    for it in &report.routes {
        counts.add_route(it.route, it.n_batches as u64)?;
    }
    Ok(counts)
}

/// Runs one contender and prints what it took, as JSON.
///
/// # Errors
///
/// What it failed of.
pub fn run(host: &Host, args: &Args) -> Result<()> {
    let kind: Kind = serde_json::from_str(&args.kind)?;
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&fs::read(&args.tokens)?)?;
    let measured = match &kind {
        Kind::Calibrate { backend } => ours(host, args, ids, Way::calibrating(backend))?,
        Kind::Ours { setting, backend } => {
            ours(host, args, ids, Way { setting: Some(*setting), ..Way::calibrating(backend) })?
        }
        Kind::OursArrival { split, n_rows, backend } => {
            let setting = Some(Setting { split: *split, token_budget: usize::MAX });
            ours(host, args, ids, Way { backend, setting, in_order: Some(*n_rows) })?
        }
        Kind::DirectArrival { split, n_rows } => {
            let batches = direct::in_order(&lengths(&ids), *n_rows);
            direct::run(&args.model, &ids, *split, &batches)?
        }
        Kind::DirectSorted { setting } => {
            direct::run(&args.model, &ids, setting.split, &sorted(&ids, *setting))?
        }
        Kind::Llama { setting, flash } => {
            return llama::run(&args.model, &args.tokens, &args.vectors, *setting, *flash);
        }
        Kind::Openvino { setting, precision } => {
            let Args { model, tokens, vectors, .. } = args;
            let batches = sorted(&ids, *setting);
            return openvino::run(model, tokens, vectors, &batches, setting.split, *precision);
        }
        Kind::SentenceTransformers { model, texts, n_threads, n_rows } => {
            let files = (model.as_path(), texts.as_path());
            let Args { tokens, vectors, .. } = args;
            return sentence_transformers::run(files, tokens, vectors, *n_threads, *n_rows);
        }
    };
    let bytes: Vec<u8> = measured.vectors.iter().flat_map(|x| x.to_ne_bytes()).collect();
    fs::write(&args.vectors, bytes)?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn lengths(ids: &[Vec<u32>]) -> Vec<usize> {
    ids.iter().map(Vec::len).collect()
}

fn sorted(ids: &[Vec<u32>], setting: Setting) -> Vec<Batch> {
    token_budget::pack(&lengths(ids), setting.token_budget)
}

/// How ours encodes.
#[derive(Clone, Copy)]
struct Way<'a> {
    backend: &'a str,
    /// Found on the texts where there is none.
    setting: Option<Setting>,
    /// So many texts a batch as they come, rather than batches of its own.
    in_order: Option<usize>,
}

impl<'a> Way<'a> {
    const fn calibrating(backend: &'a str) -> Self {
        Self { backend, setting: None, in_order: None }
    }
}

fn ours(host: &Host, args: &Args, ids: Vec<Vec<u32>>, way: Way<'_>) -> Result<Measured> {
    let Way { backend, setting, in_order } = way;
    let texts: Vec<Tokens> = ids
        .into_iter()
        .map(|ids| Tokens { type_ids: vec![0; ids.len()], ids, truncated: false })
        .collect();
    let model = Model::open(&args.model)?;
    let registry = Registry::new(shapeyard_cpu::backends(&host.cpu));
    let choice: Choice = backend.parse()?;
    let n_threads = setting.map_or(args.threads, |setting| setting.split.n_threads);
    let job = LoadJob::of(&model).for_sessions(SessionOptions::threads(n_threads));
    let opened = registry.open(&choice, &job)?;
    let version = match opened.backend.probe().status {
        Status::Usable { version, .. } => version,
        Status::Unusable { reason, .. } => bail!("a backend that was opened is unusable: {reason}"),
    };
    let backend: Arc<dyn Backend> = match in_order {
        Some(n_rows) => Arc::new(Arrival { backend: opened.backend, n_rows }),
        None => opened.backend,
    };
    let encoder = Encoder::new(backend, Arc::new(model), opened.executable)?;
    let options = EncodeOptions {
        pooling: Pooling::Mean,
        normalise: true,
        pad_id: 0,
        n_threads: args.threads,
        split: setting.map(|setting| setting.split),
        token_budget: setting.map(|setting| setting.token_budget),
        // The others run them too.
        share_equal: false,
        waiting: Waiting::Sleep,
    };
    let mut embeddings = encoder.embeddings(&texts, &options)?;
    let before = cpu_time();
    let report = encoder.encode(&texts, &options, &mut embeddings, &Unobserved)?;
    let handicap = if setting.is_some() { args.handicap } else { 0.0 };
    let wall = slowed(report.times.calibrate + report.times.run, handicap);
    let cpu = cpu_time().checked_sub(before).context("processor time ran backwards")?;
    let tried = |it: &Tried| (it.setting, it.tokens_per_second);
    Ok(Measured {
        wall,
        cpu,
        peak_memory: peak_memory()?,
        n_padded_tokens: report.totals.n_padded_tokens,
        setting: Some(report.setting),
        tried: report.tried.iter().map(tried).collect(),
        backend: format!("{} {version}", report.backend),
        counts: counts(&report)?,
        n_dims: embeddings.n_dims(),
        vectors: embeddings.values().to_vec(),
    })
}
