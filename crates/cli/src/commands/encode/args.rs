//! What `shapeyard encode` takes.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use shapeyard_core::backend::{SessionOptions, Waiting};
use shapeyard_core::plan::calibrate::Split;
use shapeyard_encode::EncodeOptions;
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::TextTokenizer;
use shapeyard_encode::units::{Cut, UnitOptions};

use crate::axes::AxisArgs;
use crate::backends::{BackendArgs, up_to_a_thousand};
use crate::loading::Loaded;
use crate::traffic::TrafficArgs;

const AFTER_HELP: &str = "\
Examples:
  shapeyard encode model.onnx --tokenizer tokenizer.json src/ docs/ --out embeddings.npy
  shapeyard encode model.onnx --tokenizer tokenizer.json texts.jsonl --normalize --out e.safetensors
  shapeyard encode model.onnx --tokenizer tokenizer.json . --chunk-lines 0 --max-length 256 --out e.npy
  shapeyard encode model.onnx --tokenizer tokenizer.json . --sessions 2 --token-budget 512 --out e.npy
  shapeyard encode model.onnx --tokenizer tokenizer.json . --backend migraphx --target ref --out e.npy
  shapeyard encode model.onnx --tokenizer tokenizer.json . --compile-background --out e.npy
  shapeyard encode model.onnx --tokenizer tokenizer.json . --compile-background --plan plan.json --out e.npy

A folder gives its text files; hidden files, what git ignores, links and binary files are left out. Every \
file is cut into units where functions, sections and paragraphs begin, or after --chunk-lines lines. A \
.jsonl or .ndjson file has a record a line, an object with a string `text`. Each unit has its row in OUT; OUT.units.jsonl says, a line a unit, which row that is \
and where the unit came from.

Batches and sessions are chosen on the job: the first part of the work is done with different settings, \
and the fastest does the rest. --token-budget and --sessions decide instead. A model made INT8 by dynamic \
quantisation takes one scale for a whole batch, so that units of a batch move each other a little; \
--token-budget 1 keeps them apart.

After Ctrl-C, or an error on the way, what was done is kept in OUT.partial, and the same command with \
--resume goes on from there.

migraphx runs programs from the cache, where `shapeyard warm` puts them: batches get their lengths \
and rows. Under --backend auto the next backend answers what no program does, or what is cheaper there by the \
prices of `shapeyard calibrate`; with --compile-background programs that are lacking are made meanwhile. Under \
--backend migraphx texts longer than all programs end the command with 3, which says what to warm.

Ends with 1 if files of a folder could not be read or are longer than --max-file-bytes. \
What could be read is encoded.";

/// Turn text files, folders and records into embeddings
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX file of a text encoder
    pub(super) model: PathBuf,
    /// The files and folders to encode
    #[arg(required = true, value_name = "PATHS")]
    pub(super) paths: Vec<PathBuf>,
    /// The `tokenizer.json` of the model
    #[arg(long, value_name = "FILE")]
    pub(super) tokenizer: PathBuf,
    /// Where embeddings go: a .npy file, or a .safetensors file with one tensor `embeddings`
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    /// Lines of a unit; 0 makes every file one unit [default: cut where functions, types, sections and
    /// paragraphs begin]
    #[arg(long, value_name = "N")]
    pub(super) chunk_lines: Option<usize>,
    /// Files longer than this are left out, in bytes; records have no limit
    #[arg(long, value_name = "BYTES", default_value_t = UnitOptions::default().max_file_bytes)]
    pub(super) max_file_bytes: u64,
    /// Tokens of a unit, special ones included; what is longer is cut off and counted
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(super) max_length: usize,
    /// Tokens of a batch, padding included [default: found on the job]
    #[arg(long, value_name = "N")]
    pub(super) token_budget: Option<NonZeroUsize>,
    /// Sessions that run side by side and share the threads [default: found on the job; with migraphx, as
    /// many as --instances]
    #[arg(long, value_name = "N", value_parser = up_to_a_thousand)]
    pub(super) sessions: Option<NonZeroUsize>,
    /// How a unit's token vectors become one: mean, cls (the first) or none (all are kept)
    #[arg(long, value_name = "HOW", default_value_t)]
    pub(super) pool: Pooling,
    /// Scale every vector to length 1
    #[arg(long)]
    pub(super) normalize: bool,
    /// Go on from what an interrupted run of the same command has kept
    #[arg(long)]
    pub(super) resume: bool,
    #[command(flatten)]
    pub(super) traffic: TrafficArgs,
    #[command(flatten)]
    pub(super) axes: AxisArgs,
    #[command(flatten)]
    pub(super) backend: BackendArgs,
}

impl Args {
    pub(super) fn unit_options(&self) -> UnitOptions {
        let cut = self.chunk_lines.map_or(Cut::Blocks, Cut::after_lines);
        UnitOptions { cut, max_file_bytes: self.max_file_bytes }
    }

    /// How threads are shared out, where that was said.
    fn split(&self) -> Option<Split> {
        self.sessions.map(|sessions| self.split_of(sessions))
    }

    fn split_of(&self, sessions: NonZeroUsize) -> Split {
        let n_threads = (self.backend.n_threads() / sessions.get()).max(1);
        Split { n_sessions: sessions.get(), n_threads }
    }

    /// What sessions will be asked for, as far as that is known before settings are tried.
    pub(super) fn session_options(&self) -> SessionOptions {
        let n_threads = self.split().map_or(self.backend.n_threads(), |split| split.n_threads);
        SessionOptions::threads(n_threads)
    }

    pub(super) fn encode_options(
        &self,
        tokenizer: &TextTokenizer,
        loaded: &Loaded,
    ) -> EncodeOptions {
        // More sessions than copies of a program would only wait for each other, unless others answer too.
        let is_static = loaded.backend.id() == shapeyard_migraphx::ID && loaded.router.is_none();
        let split = is_static.then(|| self.split_of(self.backend.migraphx.instances()));
        EncodeOptions {
            pooling: self.pool,
            normalise: self.normalize,
            pad_id: tokenizer.pad_id(),
            n_threads: self.backend.n_threads(),
            split: self.split().or(split),
            token_budget: self.token_budget.map(NonZeroUsize::get),
            share_equal: true,
            // Batches are many, and sessions side by side.
            waiting: Waiting::Sleep,
        }
    }
}
