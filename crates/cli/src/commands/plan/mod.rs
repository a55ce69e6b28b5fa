//! `shapeyard plan`.

mod ground;
mod plot;
mod present;
mod text;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use shapeyard_core::Signature;
use shapeyard_core::model::Digest;
use shapeyard_core::plan::{
    self, InvalidSteps, Objective, PlanOptions, Policy, Prices, RoutingPlan, Work, Workload,
};

use self::ground::{Ground, Sources};
use self::present::Present;
use crate::atomic_file::AtomicFile;
use crate::axes::AxisArgs;
use crate::buckets::Axis;
use crate::cache_args::CacheArgs;
use crate::cli::Global;
use crate::exit::{BadInput, Code};
use crate::migraphx_args::MigraphxArgs;
use crate::output::{self, Output};
use crate::padding_args::PaddingArgs;
use crate::quantity::{Size, Span};
use crate::work_symbols::WorkSymbolArgs;

const AFTER_HELP: &str = "\
Examples:
  shapeyard plan model.onnx --workload lengths.txt
  shapeyard plan model.onnx --workload lengths.txt --buckets auto:4 --plot lengths.svg
  shapeyard plan model.onnx --workload traffic.txt --buckets pow2 --row-counts 1,4,16
  shapeyard plan model.onnx --workload lengths.txt --prices prices.json --passes 100 --explain
  shapeyard plan model.onnx --from-traffic served.txt --present batch=1,8 sequence=64,512
  shapeyard plan model.onnx --workload lengths.txt --max-programs 8 --max-compile 10min --out plan.json
  shapeyard warm model.onnx --plan plan.json

A workload is a text file with one entry a line: `48` is an item of 48 tokens, `48 12` twelve of them, and \
`4x48 12` twelve requests of four rows of 48 tokens; what follows `#` is a comment.

--buckets says which lengths get programs: `auto:8` those 8 that suit the workload best, or fewer \
where these cost less; `auto:8..512` the same with 512 as the longest; `pow2` powers of two up to \
the longest there is; `..512` up to 512; `16..512:16` steps of 16; `16,32,64` these. How many rows \
a program has follows from --token-budget, and from --row-counts where the workload is requests.

Prices are those that `shapeyard calibrate` has measured of this model on this machine; the report says of \
which backend, when, and how far they were off. --prices gives others, in seconds, each of them 0 where it is \
missing:
  {\"device\": {\"load\": 0.3, \"launch\": 1e-3, \"token\": 5e-6, \"token_length\": 0},
   \"cpu\": {\"load\": 0.15, \"launch\": 5e-4, \"token\": 5e-5, \"token_length\": 0},
   \"compile\": {\"fixed\": 8, \"token\": 0}, \"memory\": {\"fixed\": 3.4e7, \"token\": 0}}
`memory` is in bytes; `token` is for each token of a batch, or of a program's shape, and `token_length` for \
each token and each token of its row. Where nothing was measured those above are assumed: padding and shares \
are right then, and seconds say nothing.

No runtime library is needed.";

/// Say which shapes of a model a workload is worth compiling, where each batch runs, and why
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX file
    model: PathBuf,
    /// The lengths or shapes to plan for
    #[arg(long, value_name = "FILE", required_unless_present = "from_traffic")]
    workload: Option<PathBuf>,
    /// Shapes that were served: plan for them, and say what that would save beside the programs there are
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    from_traffic: Option<PathBuf>,
    /// The programs there are, such as batch=1,8 sequence=128 [default: those in the cache]
    #[arg(long, value_name = "SYMBOL=N,...", num_args = 1..)]
    present: Vec<Axis>,
    /// Which lengths get programs: auto:N, pow2, ..MAX, FIRST..MAX:STEP or a list
    #[arg(long, value_name = "WHICH", default_value_t = Policy::default())]
    buckets: Policy,
    /// Which numbers of rows get programs, where the workload is requests; written like --buckets
    #[arg(long, value_name = "WHICH", default_value_t = PlanOptions::default().rows)]
    row_counts: Policy,
    /// Tokens a batch may have, padding counted, where the workload is items
    #[arg(long, value_name = "N", default_value_t = PlanOptions::default().token_budget)]
    token_budget: usize,
    /// Cut longer items to so many tokens
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Run each item as it comes, alone
    #[arg(long)]
    latency: bool,
    /// Programs there may be
    #[arg(long, value_name = "N")]
    max_programs: Option<usize>,
    /// How long compiling may take in all, such as 10min
    #[arg(long, value_name = "TIME")]
    max_compile: Option<Span>,
    /// How much device memory programs may take in all, such as 4GiB
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Size>,
    #[command(flatten)]
    padding: PaddingArgs,
    /// How often the workload will run; each program has to pay for its compilation by then
    #[arg(long, value_name = "N")]
    passes: Option<u64>,
    /// What runs cost, as JSON [default: as measured by `shapeyard calibrate`, else assumed]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    symbols: WorkSymbolArgs,
    /// Draw the lengths and the programs over them
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Write the plan as JSON, for `shapeyard warm --plan`
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
    /// Say where each batch runs, and why
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    axes: AxisArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    migraphx: MigraphxArgs,
}

/// A plan and what it was made of.
#[derive(Debug, Serialize)]
struct Planned {
    model: String,
    /// The model's content, which `shapeyard warm --plan` compares.
    model_digest: Digest,
    workload: String,
    rows_symbol: String,
    length_symbol: String,
    options: PlanOptions,
    prices: Prices,
    prices_from: Sources,
    plan: RoutingPlan,
    /// The programs that are there, where the plan is compared with them.
    present: Option<Present>,
    #[serde(skip)]
    is_explained: bool,
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let model = Arc::new(args.axes.open(&args.model)?);
    let workload = workload(args, model.signature())?;
    let options = args.options();
    let Ground { prices, sources, stock } = Ground::of(args, global, (&model, &workload), output)?;
    if let Some(warning) = sources.warning() {
        output.note(warning);
    }
    // Before the work, so that a folder that takes no files is told at once.
    let plot = create(args.plot.as_deref(), "plot")?;
    let out = create(args.out.as_deref(), "plan")?;
    let invalid = |error: InvalidSteps| BadInput::new(error.to_string());
    let plan = plan::plan(&workload, &options, &prices, &stock).map_err(invalid)?;
    let is_compared = args.from_traffic.is_some() || !stock.compiled.is_empty();
    let present = is_compared
        .then(|| Present::beside(&plan, &workload, &options, &prices, &stock))
        .transpose()
        .map_err(invalid)?;
    if let Some(file) = plot {
        write(file, plot::svg(&workload, &plan).as_bytes(), "plot")?;
    }
    let planned = Planned {
        model: model.path().display().to_string(),
        model_digest: model.digest()?,
        workload: args.work_file().display().to_string(),
        rows_symbol: workload.rows,
        length_symbol: workload.length,
        options,
        prices,
        prices_from: sources,
        plan,
        present,
        is_explained: args.explain,
    };
    if let Some(file) = out {
        write(file, &output::json(&planned)?, "plan")?;
    }
    output.result(&planned)?;
    Ok(Code::Done)
}

fn create(path: Option<&Path>, what: &str) -> Result<Option<AtomicFile>> {
    let made = path.map(AtomicFile::create).transpose();
    made.with_context(|| BadInput::new(format!("the {what} cannot be written")))
}

fn write(mut file: AtomicFile, bytes: &[u8], what: &str) -> Result<()> {
    let written = file.write_all(bytes).and_then(|()| file.commit());
    written.with_context(|| BadInput::new(format!("the {what} cannot be written")))
}

impl Args {
    /// The file with the work.
    fn work_file(&self) -> &Path {
        // One of them is there: the command line is refused without.
        let file = self.workload.as_deref().or(self.from_traffic.as_deref());
        file.unwrap_or_else(|| Path::new(""))
    }

    fn options(&self) -> PlanOptions {
        let objective = if self.latency { Objective::Latency } else { Objective::Throughput };
        let seconds = |Span(time): Span| Duration::as_secs_f64(&time);
        PlanOptions {
            token_budget: self.token_budget,
            lengths: self.buckets.clone(),
            rows: self.row_counts.clone(),
            max_buckets: self.max_programs,
            compile_seconds: self.max_compile.map(seconds),
            device_bytes: self.max_memory.map(|Size(n_bytes)| n_bytes),
            padding: self.padding.limit(),
            objective,
            n_runs: self.passes,
            ..PlanOptions::default()
        }
    }
}

fn workload(args: &Args, signature: &Signature) -> Result<Workload> {
    let file = args.work_file();
    let text = read(file, "workload")?;
    let work: Work =
        text.parse().map_err(|error| BadInput::new(format!("`{}`: {error}", file.display())))?;
    let work = args.max_length.map_or_else(|| work.clone(), |longest| work.capped(longest));
    let symbols = args.symbols.of(signature)?;
    if symbols.is_empty() {
        let shape = "every axis of the model's inputs is fixed or has no name";
        return Err(BadInput::new(format!("{shape}, so that there is nothing to plan")).into());
    }
    Ok(Workload { rows: symbols.rows, length: symbols.length, work })
}

fn read(path: &Path, what: &str) -> Result<String, BadInput> {
    fs::read_to_string(path).map_err(|error| {
        BadInput::new(format!("the {what} `{}` cannot be read: {error}", path.display()))
    })
}
