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

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use shapeyard_core::plan::Histogram;
use shapeyard_core::plan::calibrate::{Setting, Split, splits};
use shapeyard_encode::tokens::TextTokenizer;
use shapeyard_encode::units::{self, UnitOptions};

use self::contender::{Kind, Measured};
use self::peers::Peer;
use self::tally::{Tally, Workload};
use crate::child::last_words;
use crate::contest::{Contest, Role};
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

/// What is measured where no model is named.
const MODELS: [&str; 3] = [
    "target/models/minilm-l6/minilm-l6.onnx",
    "target/models/minilm-l6/minilm-l6-int8.onnx",
    "target/models/minilm-l6/minilm-l6.gguf",
];

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each backend of ours first finds its setting on more texts of the same corpus. ONNX Runtime driven directly gets \
the texts in arrival order, one by one, and in our batches. What cannot take part is left out and named. Every contender runs in a process of its own; \
the time is from the first batch to the last normalised vector, with sessions made before.

Examples:
  cargo xtask bench encode
  cargo xtask bench encode --units 2000 --rounds 3
  cargo xtask bench encode --backend rten        the embedded engine alone
  cargo xtask bench encode --threads 1,2         on one thread, and on two
  cargo xtask bench encode --peers               OpenVINO and sentence-transformers beside them
  cargo xtask bench encode --model M.onnx --tokenizer tokenizer.json --corpus src/
  shapeyard bench encode --model M.onnx --tokenizer tokenizer.json --corpus src/")]
pub struct Args {
    /// ONNX and GGUF files of one encoder, each measured for itself; ggml serves GGUF. Where none is named, those
    /// that `cargo xtask models` makes.
    #[arg(long = "model", value_name = "FILE")]
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
    /// Threads that each contender may use; each number is measured for itself. Where none is named, as many as the
    /// machine runs at once
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = at_least_one)]
    threads: Vec<usize>,
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
    /// Which backends serve ours, each with the setting that it finds; single queries go to the first.
    #[arg(
        long = "backend",
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "onnxruntime,rten"
    )]
    backends: Vec<String>,
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
        let models = self.models()?;
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
        match self.threads()[..] {
            [one] => record.set("threads", one),
            ref several => {
                let several: Vec<String> = several.iter().map(usize::to_string).collect();
                record.set("threads", several.join(", "));
            }
        }
        record.set("handicap", self.handicap);
        let mut left_out = Vec::new();
        for model in &models {
            record.set(&format!("{}: BLAKE3", name_of(model)), digest(model)?);
            let peers = if is_gguf(model) { &[][..] } else { &peers };
            for n_threads in self.threads() {
                let (workload, folder) = (&workload, folder.path());
                let lab = Lab { args: self, host, workload, folder, n_threads };
                let reason = lab.model(model, peers, record)?;
                let name = lab.name_of(model);
                left_out.extend(reason.map(|it| format!("{name} cannot be run: {it}")));
            }
        }
        if left_out.is_empty() {
            return Ok(());
        }
        let left_out = left_out.join("; ");
        // One that was asked for by name is no lack of this machine.
        let is_lack = self.models.is_empty() && !record.contests.is_empty();
        ensure!(is_lack, "{left_out}");
        eprintln!("left out: {left_out}");
        record.set("left_out", left_out);
        Ok(())
    }
}

impl Args {
    /// How many threads contenders may use, each number once.
    fn threads(&self) -> Vec<usize> {
        let mut threads = self.threads.clone();
        if threads.is_empty() {
            threads.push(processors());
        }
        threads.sort_unstable();
        threads.dedup();
        threads
    }

    /// The models that are there: all that were named, or else those of the usual that were made.
    fn models(&self) -> Result<Vec<PathBuf>> {
        let missing = self.models.iter().find(|it| !it.is_file());
        let missing = missing.map(|it| BadArgument::new(format!("there is no `{}`", it.display())));
        missing.map_or(Ok(()), Err)?;
        if !self.models.is_empty() {
            return Ok(self.models.clone());
        }
        let usual: Vec<PathBuf> =
            MODELS.iter().map(PathBuf::from).filter(|it| it.is_file()).collect();
        let none = "no --model is named, and there is none of `cargo xtask models`";
        ensure!(!usual.is_empty(), BadArgument::new(none));
        Ok(usual)
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What tells whether two runs had the same model, whatever its file is called.
fn digest(model: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(model).and_then(|file| hasher.update_reader(file).map(drop));
    read.with_context(|| format!("`{}` cannot be read", model.display()))?;
    Ok(hasher.finalize().to_hex()[..16].to_owned())
}

/// The name by which a model's contests are known.
pub(crate) fn name_of(model: &Path) -> String {
    let name = if is_gguf(model) { model.file_name() } else { model.file_stem() };
    name.unwrap_or(model.as_os_str()).to_string_lossy().into_owned()
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
        let tokens = tokenizer.encode_all(&texts, processors())?;
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

/// One run of the suite: what all contenders have in common.
#[derive(Clone, Copy)]
struct Lab<'a> {
    args: &'a Args,
    host: &'a Host,
    workload: &'a Workload,
    folder: &'a Path,
    /// Threads that each contender may use.
    n_threads: usize,
}

/// A backend of ours with what its calibration found.
struct Calibrated {
    backend: String,
    setting: Setting,
    found: Measured,
}

impl Lab<'_> {
    /// The name by which a model's contests are known; with the threads where several numbers are measured.
    fn name_of(self, model: &Path) -> String {
        let name = name_of(model);
        match (self.args.threads().len(), self.n_threads) {
            (1, _) => name,
            (_, 1) => format!("{name}, 1 thread"),
            (_, n) => format!("{name}, {n} threads"),
        }
    }

    /// Measures a model with all its contenders, and single queries of an ONNX file; says why where no backend of ours
    /// runs it.
    fn model(
        self,
        model: &Path,
        peers: &[Box<dyn Peer>],
        record: &mut Record,
    ) -> Result<Option<String>> {
        let name = self.name_of(model);
        let (calibrated, left_out) = self.calibrate(model);
        let Some(first) = calibrated.first() else { return Ok(Some(left_out.join("; "))) };
        let mut contest = self.contest(model, peers, &calibrated, record)?;
        contest.notes.extend(peers.iter().map(|peer| peer.note()));
        let longest = self.workload.lengths.iter().map(|(length, _)| *length).max().unwrap_or(0);
        let queries = self.args.query_lengths.iter().filter(|it| **it > 0 && !is_gguf(model));
        let (short, long): (Vec<usize>, Vec<usize>) =
            queries.copied().partition(|it| *it <= longest);
        let too_long =
            |it: usize| format!("queries of {it} tokens: the longest text has {longest}");
        let left_out = left_out.into_iter().chain(long.into_iter().map(too_long));
        let left_out: Vec<String> = left_out.map(|it| format!("left out: {it}")).collect();
        left_out.iter().for_each(|it| eprintln!("{name}: {it}"));
        contest.notes.extend(left_out);
        for it in &calibrated {
            let way = record::Way { backend: it.backend.clone(), setting: it.setting };
            record
                .set(&record::way_of(&name, &tally::ours(&it.backend)), serde_json::to_value(way)?);
        }
        record.contests.push(contest);
        let tokens = self.folder.join(MEASURED_FILE);
        for length in short {
            let asked = query::Asked { model, tokens: &tokens, length, backend: &first.backend };
            record.contests.push(query::measure(self, &asked)?);
        }
        Ok(None)
    }

    /// The backends that can run the model, and why others cannot.
    fn calibrate(self, model: &Path) -> (Vec<Calibrated>, Vec<String>) {
        let name = self.name_of(model);
        let of_gguf = [String::from("ggml")];
        let backends = if is_gguf(model) { &of_gguf[..] } else { &self.args.backends };
        let (mut calibrated, mut left_out) = (Vec::new(), Vec::new());
        for backend in backends {
            eprintln!("{name}: calibrating {backend}");
            let kind = Kind::Calibrate { backend: backend.clone() };
            let found = self.start(&kind, model).and_then(|found| {
                let setting = found.setting.context("the calibration found no setting")?;
                Ok(Calibrated { backend: backend.clone(), setting, found })
            });
            match found {
                Ok(found) => calibrated.push(found),
                Err(error) => left_out.push(format!("{backend}: {error:#}")),
            }
        }
        (calibrated, left_out)
    }

    fn contest(
        self,
        model: &Path,
        peers: &[Box<dyn Peer>],
        calibrated: &[Calibrated],
        record: &mut Record,
    ) -> Result<Contest> {
        let (name, n_rounds) = (self.name_of(model), self.args.rounds);
        let mut kinds = kinds(model, calibrated, self.n_threads);
        for peer in peers {
            kinds.extend(peer.kinds(model, self.n_threads)?);
        }
        let mut tallies: Vec<Tally> = kinds.into_iter().map(Tally::new).collect();
        let mut reference = Vec::new();
        for round in 0..n_rounds {
            for at in crate::measure::order(round, tallies.len()) {
                let tally = &mut tallies[at];
                let rests = round >= self.args.arrival_rounds && tally.is_arrival();
                if rests || tally.is_left_out() {
                    continue;
                }
                eprintln!("{name}: round {} of {n_rounds}: {}", round + 1, tally.name());
                let measured = match self.start(tally.kind(), model) {
                    Ok(measured) => measured,
                    Err(error) if tally.role() != Role::Ours => {
                        tally.leave_out(&format!("{error:#}"));
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                if let Some((name, version)) = measured.backend.split_once(' ') {
                    record.library(name, version);
                }
                tally.add(&measured, &reference)?;
                if reference.is_empty() {
                    reference = measured.vectors;
                }
            }
        }
        Ok(tally::contest(&name, self.workload, calibrated, tallies))
    }

    /// Runs one contender once.
    fn start(self, kind: &Kind, model: &Path) -> Result<Measured> {
        let twin = twin(model);
        let model = match kind {
            Kind::DirectArrival { .. } | Kind::DirectSorted { .. } => &twin,
            _ => model,
        };
        let is_calibration = matches!(kind, Kind::Calibrate { .. });
        let tokens = if is_calibration { CALIBRATION_FILE } else { MEASURED_FILE };
        let tokens = self.folder.join(tokens);
        let vectors = self.folder.join("vectors.f32");
        let output = self
            .host
            .hidden(CONTENDER)?
            .args(["--kind".as_ref(), serde_json::to_string(kind)?.as_ref() as &std::ffi::OsStr])
            .args(["--model".as_ref(), model.as_os_str()])
            .args(["--tokens".as_ref(), tokens.as_os_str()])
            .args(["--vectors".as_ref(), vectors.as_os_str()])
            .args(["--threads", &self.n_threads.to_string()])
            .args(["--handicap", &self.args.handicap.to_string()])
            .output()?;
        if !output.status.success() {
            bail!("it ended with {}: {}", output.status, last_words(&output.stderr));
        }
        let mut measured: Measured =
            serde_json::from_slice(&output.stdout).context("it printed something else")?;
        measured.vectors = read_vectors(&vectors)?;
        Ok(measured)
    }
}

fn is_gguf(model: &Path) -> bool {
    model.extension().is_some_and(|extension| extension == "gguf")
}

/// The ONNX file of the same encoder.
fn twin(model: &Path) -> PathBuf {
    model.with_extension("onnx")
}

/// Ours, and its rivals: for GGUF files ours and llama.cpp; for ONNX files ONNX Runtime in arrival order. For both, where
/// the ONNX file is there, ONNX Runtime in every split: text by text, which pads nothing and takes nothing of ours,
/// and with our batches.
fn kinds(model: &Path, calibrated: &[Calibrated], n_threads: usize) -> Vec<Kind> {
    let whole = Split { n_sessions: 1, n_threads };
    let ours = |it: &Calibrated| Kind::Ours { setting: it.setting, backend: it.backend.clone() };
    let mut kinds: Vec<Kind> = calibrated.iter().map(ours).collect();
    let Some(first) = calibrated.first() else { return kinds };
    if is_gguf(model) {
        let (split, backend) = (first.setting.split, first.backend.clone());
        kinds.push(Kind::OursArrival { split, n_rows: 32, backend });
        kinds.extend(llama::kinds(n_threads).into_iter().filter(|_| llama::is_there()));
    } else {
        kinds.push(Kind::DirectArrival { split: whole, n_rows: 32 });
    }
    if twin(model).is_file() {
        let budgets = [first.setting.token_budget, TEXT_BY_TEXT];
        for split in splits(n_threads) {
            let with =
                |token_budget| Kind::DirectSorted { setting: Setting { split, token_budget } };
            kinds.extend(budgets.map(with));
        }
    }
    kinds.dedup();
    kinds
}

/// The budget that makes every text a batch of its own.
const TEXT_BY_TEXT: usize = 1;

fn read_vectors(path: &Path) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    fs::remove_file(path)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect())
}
