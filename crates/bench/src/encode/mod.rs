//! The `encode` suite: the same texts, model and threads, by ours and by ONNX Runtime driven directly.

pub(crate) mod contender;
mod direct;
mod record;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use shapeyard_core::plan::calibrate::{Setting, Split, splits};
use shapeyard_encode::tokens::TextTokenizer;
use shapeyard_encode::units::{self, UnitOptions};

use self::contender::{Kind, Measured};
use self::record::{Contender, Record, Workload};
use crate::corpus;

/// The tokens of the texts that are measured.
const MEASURED: &str = "measured.json";

/// The tokens of the texts that ours finds its setting on, more of the same corpus.
const CALIBRATION: &str = "calibration.json";
const CALIBRATION_FACTOR: usize = 4;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// ONNX files of one encoder, each measured for itself.
    #[arg(long = "model", value_name = "FILE", default_values = [
        "target/models/minilm-l6/minilm-l6.onnx",
        "target/models/minilm-l6/minilm-l6-int8.onnx",
    ])]
    models: Vec<PathBuf>,
    /// The encoder's tokenizer.
    #[arg(long, value_name = "FILE", default_value = "target/models/minilm-l6/tokenizer.json")]
    tokenizer: PathBuf,
    /// Folders of text; the sources of this project's dependencies where none is named.
    #[arg(long, value_name = "DIR")]
    corpus: Vec<PathBuf>,
    /// Texts, taken evenly from the corpus.
    #[arg(long, default_value_t = 600)]
    units: usize,
    /// Tokens that a text is cut to.
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Threads that each contender may use.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Interleaved rounds of all contenders.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which backend serves ours.
    #[arg(long, default_value = "onnxruntime")]
    backend: String,
    /// Append the record to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Measures every model in turn and prints a table for each.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let workload = prepare(args, folder.path())?;
    println!(
        "{} texts, {} tokens (median {}, cut at {}), {} threads, {} rounds",
        workload.n_units,
        workload.n_tokens,
        workload.median_length,
        args.max_length,
        args.threads,
        args.rounds
    );
    for model in &args.models {
        let record = measure(args, model, &workload, folder.path())?;
        record.print();
        if let Some(path) = &args.record {
            crate::record::append(path, &record)?;
        }
    }
    Ok(())
}

/// Cuts the corpus into texts and writes their tokens where contenders find them.
fn prepare(args: &Args, folder: &Path) -> Result<Workload> {
    let folders = if args.corpus.is_empty() { corpus::folders()? } else { args.corpus.clone() };
    let collected = units::collect(&folders, &UnitOptions::default())?.units;
    ensure!(args.units > 0, "--units must be at least 1");
    let n_units = args.units.min(collected.len());
    let tokenizer = TextTokenizer::open(&args.tokenizer, args.max_length)?;
    let write = |name: &str, n_units: usize| -> Result<Vec<usize>> {
        let nth = |nth: usize| collected[nth * collected.len() / n_units].text.as_str();
        let texts: Vec<&str> = (0..n_units).map(nth).collect();
        let tokens = tokenizer.encode_all(&texts, args.threads)?;
        let ids: Vec<&[u32]> = tokens.iter().map(|tokens| tokens.ids.as_slice()).collect();
        fs::write(folder.join(name), serde_json::to_vec(&ids)?)?;
        Ok(ids.iter().map(|ids| ids.len()).collect())
    };
    let mut lengths = write(MEASURED, n_units)?;
    write(CALIBRATION, (CALIBRATION_FACTOR * n_units).min(collected.len()))?;
    let n_tokens = lengths.iter().sum();
    lengths.sort_unstable();
    Ok(Workload {
        n_units,
        n_tokens,
        median_length: lengths[n_units / 2],
        max_length: args.max_length,
        n_threads: args.threads,
        n_rounds: args.rounds,
    })
}

fn measure(args: &Args, model: &Path, workload: &Workload, folder: &Path) -> Result<Record> {
    let start = |kind: &Kind| -> Result<Measured> {
        let tokens = if *kind == Kind::Calibrate { CALIBRATION } else { MEASURED };
        let tokens = folder.join(tokens);
        let vectors = folder.join("vectors.f32");
        let output = Command::new(std::env::current_exe()?)
            .arg("encode-contender")
            .args(["--kind".as_ref(), serde_json::to_string(kind)?.as_ref() as &std::ffi::OsStr])
            .args(["--model".as_ref(), model.as_os_str()])
            .args(["--tokens".as_ref(), tokens.as_os_str()])
            .args(["--vectors".as_ref(), vectors.as_os_str()])
            .args(["--threads", &args.threads.to_string(), "--backend", &args.backend])
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
    eprintln!("{}: calibrating", model.display());
    let calibrated = start(&Kind::Calibrate)?;
    let setting = calibrated.setting.context("the calibration found no setting")?;
    let mut contenders: Vec<Contender> =
        kinds(setting, args.threads).into_iter().map(Contender::new).collect();
    let mut reference = Vec::new();
    for round in 0..args.rounds {
        for contender in &mut contenders {
            eprintln!(
                "{}: round {} of {}: {}",
                model.display(),
                round + 1,
                args.rounds,
                contender.name()
            );
            let measured = start(contender.kind())?;
            contender.add(&measured, &reference);
            if reference.is_empty() {
                reference = measured.vectors;
            }
        }
    }
    Ok(Record::new(model, workload.clone(), &calibrated, setting, contenders))
}

/// Ours, ONNX Runtime in arrival order, and ONNX Runtime with our batches in every split.
fn kinds(setting: Setting, n_threads: usize) -> Vec<Kind> {
    let whole = Split { n_sessions: 1, n_threads };
    let sorted = splits(n_threads)
        .into_iter()
        .map(|split| Kind::DirectSorted { setting: Setting { split, ..setting } });
    [Kind::Ours { setting }, Kind::DirectArrival { split: whole, n_rows: 32 }]
        .into_iter()
        .chain(sorted)
        .collect()
}

fn read_vectors(path: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    fs::remove_file(path)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect())
}
