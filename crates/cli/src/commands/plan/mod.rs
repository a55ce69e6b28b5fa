//! `shapeyard plan`.

mod plot;
mod text;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use shapeyard_core::plan::prices::{PerProgram, Price};
use shapeyard_core::plan::{
    self, Objective, PaddingLimit, PlanOptions, Policy, Prices, RoutingPlan, Stock, Work, Workload,
};
use shapeyard_core::{Model, Signature};

use crate::atomic_file::AtomicFile;
use crate::exit::{BadInput, Code};
use crate::output::Output;
use crate::quantity::{Size, Span};
use crate::work_symbols::WorkSymbolArgs;

const AFTER_HELP: &str = "\
Examples:
  shapeyard plan model.onnx --workload lengths.txt
  shapeyard plan model.onnx --workload lengths.txt --policy fitted:4 --plot lengths.svg
  shapeyard plan model.onnx --workload traffic.txt --policy ..512 --rows 1,4,16
  shapeyard plan model.onnx --workload lengths.txt --prices prices.json --passes 100 --format json

A workload is a text file with one entry a line: `48` is an item of 48 tokens, `48 12` twelve of them, and
`4x48 12` twelve requests of four rows of 48 tokens; what follows `#` is a comment.

A policy says which lengths get programs: `fitted:8` those 8 that suit the workload best, `fitted:8..512`
the same with 512 as the longest, `..512` powers of two, `16..512:16` steps of 16, `16,32,64` these.

Prices are seconds, as JSON, each of them 0 where it is missing:
  {\"device\": {\"load\": 0.3, \"launch\": 1e-3, \"token\": 5e-6, \"token_length\": 0},
   \"cpu\": {\"load\": 0.15, \"launch\": 5e-4, \"token\": 5e-5, \"token_length\": 0},
   \"compile\": {\"fixed\": 8, \"token\": 0}, \"memory\": {\"fixed\": 3.4e7, \"token\": 0}}
`memory` is in bytes; `token` is for each token of a batch, or of a program's shape, and `token_length` for
each token and each token of its row. Without measured prices those above are assumed: padding and shares
are right then, and seconds say nothing.

No runtime library is needed.";

/// What is assumed where nothing was measured.
const ASSUMED: Prices = Prices {
    device: Price { load: 0.3, launch: 1e-3, token: 5e-6, token_length: 0.0 },
    cpu: Price { load: 0.15, launch: 0.5e-3, token: 50e-6, token_length: 0.0 },
    compile: PerProgram { fixed: 8.0, token: 0.0 },
    memory: PerProgram { fixed: 34e6, token: 0.0 },
};

/// Say which shapes of a model a workload is worth compiling, where each batch runs, and why
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX file
    model: PathBuf,
    /// The lengths or shapes to plan for
    #[arg(long, value_name = "FILE")]
    workload: PathBuf,
    /// Which lengths get programs: fitted:N, ..MAX, FIRST..MAX:STEP or a list
    #[arg(long, value_name = "POLICY", default_value_t = Policy::default())]
    policy: Policy,
    /// Which numbers of rows get programs, where the workload is requests; written like a policy
    #[arg(long, value_name = "POLICY", default_value_t = PlanOptions::default().rows)]
    rows: Policy,
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
    /// The most of a batch that may be padding, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    max_padding: f64,
    /// How often the workload will run; each program has to pay for its compilation by then
    #[arg(long, value_name = "N")]
    passes: Option<u64>,
    /// What runs cost, as JSON
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    #[command(flatten)]
    symbols: WorkSymbolArgs,
    /// Draw the lengths and the programs over them
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// A plan and what it was made of.
#[derive(Debug, Serialize)]
struct Planned {
    model: String,
    workload: String,
    rows_symbol: String,
    length_symbol: String,
    options: PlanOptions,
    prices: Prices,
    prices_are_assumed: bool,
    plan: RoutingPlan,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Code> {
    let model = Model::open(&args.model)?;
    let workload = workload(args, model.signature())?;
    let options = args.options()?;
    let prices = args.prices.as_deref().map(prices).transpose()?;
    if prices.is_none() {
        output.note("prices are assumed; give measured ones by --prices");
    }
    // Before the work, so that a folder that takes no files is told at once.
    let plot = args
        .plot
        .as_deref()
        .map(AtomicFile::create)
        .transpose()
        .with_context(|| BadInput::new("the plot cannot be written"))?;
    let plan = plan::plan(&workload, &options, &prices.unwrap_or(ASSUMED), &Stock::default())
        .map_err(|error| BadInput::new(error.to_string()))?;
    if let Some(mut file) = plot {
        let svg = plot::svg(&workload, &plan);
        let written = file.write_all(svg.as_bytes()).and_then(|()| file.commit());
        written.with_context(|| BadInput::new("the plot cannot be written"))?;
    }
    output.result(&Planned {
        model: model.path().display().to_string(),
        workload: args.workload.display().to_string(),
        rows_symbol: workload.rows,
        length_symbol: workload.length,
        options,
        prices: prices.unwrap_or(ASSUMED),
        prices_are_assumed: prices.is_none(),
        plan,
    })?;
    Ok(Code::Done)
}

impl Args {
    fn options(&self) -> Result<PlanOptions, BadInput> {
        if !(0.0..=100.0).contains(&self.max_padding) {
            return Err(BadInput::new("--max-padding is a percentage, from 0 to 100"));
        }
        let objective = if self.latency { Objective::Latency } else { Objective::Throughput };
        let seconds = |Span(time): Span| Duration::as_secs_f64(&time);
        Ok(PlanOptions {
            token_budget: self.token_budget,
            lengths: self.policy.clone(),
            rows: self.rows.clone(),
            max_buckets: self.max_programs,
            compile_seconds: self.max_compile.map(seconds),
            device_bytes: self.max_memory.map(|Size(n_bytes)| n_bytes),
            padding: PaddingLimit { share: self.max_padding / 100.0, tokens: 0 },
            objective,
            n_runs: self.passes,
            ..PlanOptions::default()
        })
    }
}

fn workload(args: &Args, signature: &Signature) -> Result<Workload> {
    let text = read(&args.workload, "workload")?;
    let work: Work = text
        .parse()
        .map_err(|error| BadInput::new(format!("`{}`: {error}", args.workload.display())))?;
    let work = args.max_length.map_or_else(|| work.clone(), |longest| work.capped(longest));
    let symbols = args.symbols.of(signature)?;
    if symbols.is_empty() {
        let shape = "every axis of the model's inputs is fixed or has no name";
        return Err(BadInput::new(format!("{shape}, so that there is nothing to plan")).into());
    }
    Ok(Workload { rows: symbols.rows, length: symbols.length, work })
}

fn prices(path: &Path) -> Result<Prices, BadInput> {
    let text = read(path, "prices")?;
    let prices = serde_json::from_str(&text);
    prices.map_err(|error| BadInput::new(format!("`{}` holds no prices: {error}", path.display())))
}

fn read(path: &Path, what: &str) -> Result<String, BadInput> {
    fs::read_to_string(path).map_err(|error| {
        BadInput::new(format!("the {what} `{}` cannot be read: {error}", path.display()))
    })
}
