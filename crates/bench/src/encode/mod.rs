//! The `encode` suite: the same texts, model and threads, by ours and by what is driven directly: ONNX Runtime
//! for an ONNX file; for a GGUF file llama.cpp, and ONNX Runtime with the ONNX file of the same name beside.

mod arrival;
pub mod contender;
mod direct;
mod llama;
mod openvino;
mod peers;
pub mod query;
mod sentence_transformers;
mod tally;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use shapeyard_core::plan::Histogram;
use shapeyard_core::plan::calibrate::{Setting, Split, splits};
use shapeyard_encode::tokens::TextTokenizer;
use shapeyard_encode::units::{self, UnitOptions};

use self::contender::{Kind, Measured};
use self::peers::Peer;
use self::tally::{Tally, Workload};
use crate::contest::Contest;
use crate::corpus;
use crate::record::{self, Record};
use crate::suite::{BadArgument, Host, Output, Suite, at_least_one, share};

/// The hidden command of this program that runs one contender.
pub const CONTENDER: &str = "encode-contender";

/// The hidden command of this program that answers single queries.
pub const QUERY: &str = "query-contender";

/// The tokens of the texts that are measured.
const MEASURED_FILE: &str = "measured.json";

/// The texts themselves, for those who insist on them.
const TEXTS_FILE: &str = "texts.json";

/// The tokens of the texts that ours finds its setting on, more of the same corpus.
const CALIBRATION_FILE: &str = "calibration.json";
const CALIBRATION_FACTOR: usize = 4;
/// Fewer texts leave too little for each trial, and of more nothing new is learnt.
const CALIBRATION: std::ops::RangeInclusive<usize> = 800..=2600;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ours first finds its setting on more texts of the same corpus. Every contender runs in a process of its own; \
the time is from the first batch to the last normalised vector, with sessions made before.

Examples:
  cargo xtask bench encode
  cargo xtask bench encode --units 2000 --rounds 3
  cargo xtask bench encode --peers               OpenVINO and sentence-transformers beside them
  cargo xtask bench encode --model M.onnx --tokenizer tokenizer.json --corpus src/
  shapeyard bench encode --model M.onnx --tokenizer tokenizer.json --corpus src/")]
pub struct Args {
    /// ONNX and GGUF files of one encoder, each measured for itself; ggml serves GGUF.
    #[arg(long = "model", value_name = "FILE", default_values = [
        "target/models/minilm-l6/minilm-l6.onnx",
        "target/models/minilm-l6/minilm-l6-int8.onnx",
        "target/models/minilm-l6/minilm-l6.gguf",
    ])]
    models: Vec<PathBuf>,
    /// The encoder's tokenizer.
    #[arg(long, value_name = "FILE", default_value = "target/models/minilm-l6/tokenizer.json")]
    tokenizer: PathBuf,
    /// Folders of text; the sources of this project's dependencies where none is named.
    #[arg(long, value_name = "DIR")]
    corpus: Vec<PathBuf>,
    /// Texts, taken evenly from the corpus.
    #[arg(long, default_value_t = 600, value_parser = at_least_one)]
    units: usize,
    /// Tokens that a text is cut to.
    #[arg(long, default_value_t = 512, value_parser = at_least_one)]
    max_length: usize,
    /// Threads that each contender may use.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from), value_parser = at_least_one)]
    threads: usize,
    /// Interleaved rounds of all contenders.
    #[arg(long, default_value_t = 3, value_parser = at_least_one)]
    rounds: usize,
    /// Rounds in which ONNX Runtime also takes the texts in arrival order, which lasts several times as long
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    arrival_rounds: usize,
    /// Lengths of single queries, in tokens; none where it is 0.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "16,128")]
    query_lengths: Vec<usize>,
    /// Interleaved rounds of 20 queries.
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = at_least_one)]
    query_rounds: usize,
    /// Which backend serves ours.
    #[arg(long, default_value = "onnxruntime")]
    backend: String,
    /// Measure OpenVINO and sentence-transformers too, on ONNX files, as far as Python imports them; `cargo xtask`
    /// installs the first
    #[arg(long)]
    peers: bool,
    /// The same encoder as sentence-transformers saves it, for --peers
    #[arg(long, value_name = "DIR", requires = "peers")]
    sentence_transformers: Option<PathBuf>,
    /// Keep ours busy for so much longer, on purpose: what `compare` has to find
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    handicap: f64,
    #[command(flatten)]
    output: Output,
}

impl Suite for Args {
    const NAME: &'static str = "encode";

    fn output(&self) -> &Output {
        &self.output
    }

    fn measure(&self, host: &Host, record: &mut Record) -> Result<()> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let texts = folder.path().join(TEXTS_FILE);
        let peers = match self.peers {
            true => peers::find(self.sentence_transformers.as_deref(), texts)?,
            false => Vec::new(),
        };
        let workload = prepare(self, folder.path())?;
        record.set("texts", workload.n_units);
        record.set("tokens", workload.n_tokens);
        record.set("median_length", workload.median_length);
        record.set("lengths", serde_json::to_value(&workload.lengths)?);
        record.set("max_length", self.max_length);
        record.set("threads", self.threads);
        record.set("handicap", self.handicap);
        for model in &self.models {
            let peers = if is_gguf(model) { &[][..] } else { &peers };
            let mut contest = measure(self, host, model, peers, &workload, folder.path(), record)?;
            contest.notes.extend(peers.iter().map(|peer| peer.note()));
            record.contests.push(contest);
            if !is_gguf(model) {
                record.contests.extend(queries(self, host, model, folder.path())?);
            }
        }
        Ok(())
    }
}

/// The name by which a model's contests are known.
pub(crate) fn name_of(model: &Path) -> String {
    let name = if is_gguf(model) { model.file_name() } else { model.file_stem() };
    name.unwrap_or(model.as_os_str()).to_string_lossy().into_owned()
}

fn queries(args: &Args, host: &Host, model: &Path, folder: &Path) -> Result<Vec<Contest>> {
    let tokens = folder.join(MEASURED_FILE);
    let lengths = args.query_lengths.iter().filter(|length| **length > 0);
    lengths.map(|&length| query::measure(host, args, model, &tokens, length)).collect()
}

/// Cuts the corpus into texts and writes their tokens where contenders find them.
fn prepare(args: &Args, folder: &Path) -> Result<Workload> {
    let folders = if args.corpus.is_empty() { corpus::folders()? } else { args.corpus.clone() };
    let collected = units::collect(&folders, &UnitOptions::default())?.units;
    ensure!(!collected.is_empty(), BadArgument::new("the corpus holds no text"));
    let n_units = args.units.min(collected.len());
    let tokenizer = TextTokenizer::open(&args.tokenizer, args.max_length)?;
    let write = |name: &str, n_units: usize| -> Result<Vec<usize>> {
        let nth = |nth: usize| collected[nth * collected.len() / n_units].text.as_str();
        let texts: Vec<&str> = (0..n_units).map(nth).collect();
        let tokens = tokenizer.encode_all(&texts, args.threads)?;
        let ids: Vec<&[u32]> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
        fs::write(folder.join(name), serde_json::to_vec(&ids)?)?;
        if name == MEASURED_FILE {
            fs::write(folder.join(TEXTS_FILE), serde_json::to_vec(&texts)?)?;
        }
        Ok(ids.iter().map(|ids| ids.len()).collect())
    };
    let mut lengths = write(MEASURED_FILE, n_units)?;
    let n_calibration = CALIBRATION_FACTOR * n_units;
    let n_calibration = n_calibration.clamp(*CALIBRATION.start(), *CALIBRATION.end());
    write(CALIBRATION_FILE, n_calibration.min(collected.len()))?;
    let n_tokens = lengths.iter().sum();
    lengths.sort_unstable();
    let counts = Histogram::of(&lengths).entries().to_vec();
    Ok(Workload { n_units, n_tokens, median_length: lengths[n_units / 2], lengths: counts })
}

fn measure(
    args: &Args,
    host: &Host,
    model: &Path,
    peers: &[Box<dyn Peer>],
    workload: &Workload,
    folder: &Path,
    record: &mut Record,
) -> Result<Contest> {
    let twin = twin(model);
    let backend = if is_gguf(model) { "ggml" } else { &args.backend };
    let start = |kind: &Kind| -> Result<Measured> {
        let model = match kind {
            Kind::DirectArrival { .. } | Kind::DirectSorted { .. } => &twin,
            _ => model,
        };
        let tokens = if *kind == Kind::Calibrate { CALIBRATION_FILE } else { MEASURED_FILE };
        let tokens = folder.join(tokens);
        let vectors = folder.join("vectors.f32");
        let output = host
            .hidden(CONTENDER)?
            .args(["--kind".as_ref(), serde_json::to_string(kind)?.as_ref() as &std::ffi::OsStr])
            .args(["--model".as_ref(), model.as_os_str()])
            .args(["--tokens".as_ref(), tokens.as_os_str()])
            .args(["--vectors".as_ref(), vectors.as_os_str()])
            .args(["--threads", &args.threads.to_string(), "--backend", backend])
            .args(["--handicap", &args.handicap.to_string()])
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            bail!("the contender {kind:?} ended with {}", output.status);
        }
        let mut measured: Measured = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the contender {kind:?} printed something else"))?;
        measured.vectors = read_vectors(&vectors)?;
        Ok(measured)
    };
    let name = name_of(model);
    eprintln!("{name}: calibrating");
    let calibrated = start(&Kind::Calibrate)?;
    let setting = calibrated.setting.context("the calibration found no setting")?;
    record.set(&record::setting_of(&name), serde_json::to_value(setting)?);
    record.set(&record::backend_of(&name), backend);
    let mut kinds = kinds(model, setting, args.threads);
    for peer in peers {
        kinds.extend(peer.kinds(model, args.threads)?);
    }
    let mut tallies: Vec<Tally> = kinds.into_iter().map(Tally::new).collect();
    let mut reference = Vec::new();
    for round in 0..args.rounds {
        for at in crate::measure::order(round, tallies.len()) {
            let tally = &mut tallies[at];
            if round >= args.arrival_rounds && tally.is_arrival() {
                continue;
            }
            eprintln!("{name}: round {} of {}: {}", round + 1, args.rounds, tally.name());
            let measured = start(tally.kind())?;
            if let Some((name, version)) = measured.backend.split_once(' ') {
                record.library(name, version);
            }
            tally.add(&measured, &reference)?;
            if reference.is_empty() {
                reference = measured.vectors;
            }
        }
    }
    Ok(tally::contest(&name, workload, &calibrated, tallies))
}

fn is_gguf(model: &Path) -> bool {
    model.extension().is_some_and(|extension| extension == "gguf")
}

/// The ONNX file of the same encoder.
fn twin(model: &Path) -> PathBuf {
    model.with_extension("onnx")
}

/// Ours, and its rivals: for GGUF files ours and llama.cpp, for ONNX files ONNX Runtime, in arrival order and others,
/// and ONNX Runtime with our batches in every split.
fn kinds(model: &Path, setting: Setting, n_threads: usize) -> Vec<Kind> {
    let whole = Split { n_sessions: 1, n_threads };
    let mut kinds = vec![Kind::Ours { setting }];
    if is_gguf(model) {
        kinds.push(Kind::OursArrival { split: setting.split, n_rows: 32 });
        kinds.extend(llama::kinds(n_threads).into_iter().filter(|_| llama::is_there()));
    } else {
        kinds.push(Kind::DirectArrival { split: whole, n_rows: 32 });
    }
    if twin(model).is_file() {
        let with = |split| Kind::DirectSorted { setting: Setting { split, ..setting } };
        kinds.extend(splits(n_threads).into_iter().map(with));
    }
    kinds
}

fn read_vectors(path: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    fs::remove_file(path)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect())
}
