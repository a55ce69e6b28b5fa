//! `shapeyard run`.

mod destination;
mod inputs;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::value_parser;
use shapeyard_core::backend::{SessionOptions, Waiting};
use shapeyard_core::plan::{Requests, Work};
use shapeyard_core::{Outputs, Request, RunError, RunReport, Session, Signature, TensorView};

use self::destination::Destination;
use self::inputs::{Inputs, NamedFile};
use self::report::{Finished, Repeats};
use crate::axes::AxisArgs;
use crate::backends::BackendArgs;
use crate::background::Watched;
use crate::cli::Global;
use crate::exit::{Code, Interrupted};
use crate::interrupt::Interrupt;
use crate::loading::Loading;
use crate::need::Need;
use crate::output::Output;
use crate::progress::Progress;
use crate::traffic::TrafficArgs;
use crate::work_symbols::{WorkSymbolArgs, WorkSymbols};

const AFTER_HELP: &str = "\
Examples:
  shapeyard run model.onnx --input x=x.npy --out y.npy
  shapeyard run model.onnx --input ids=ids.npy --input mask=mask.npy --out outputs.safetensors
  shapeyard run model.onnx --inputs inputs.npz --out outputs/
  shapeyard run model.onnx --inputs inputs.npz --out outputs.npz --repeat 20 --threads 1
  shapeyard run model.onnx --inputs inputs.npz --out outputs.npz --repeat 20 --spin
  shapeyard run model.onnx --input x=x.npy --out y.npz --backend rten --format json
  shapeyard run model.onnx --input x=x.npy --out y.npy --backend migraphx --compile-missing
  shapeyard run model.onnx --inputs inputs.npz --out o.npz --repeat 1000 --compile-background
  shapeyard run model.onnx --inputs inputs.npz --out o.npz --compile-background --plan plan.json
  shapeyard run model.onnx --inputs inputs.npz --out o.npz --record-traffic traffic.txt

Inputs are bound by name. A .npy may have either byte order and either order of axes. Types are never \
converted: what the model takes as f32 has to be f32.

migraphx runs programs from the cache, where `shapeyard warm` puts them: a request is padded into \
the smallest that holds it, or split over several. One that none holds ends with 3 and says what to \
warm; under --backend auto another backend answers it. onnxruntime loads its rewritten model from there if it was warmed.";

/// The time of every run is kept, and more of them say nothing new.
const MOST_REPEATS: i64 = 1_000_000;

/// Run a model on tensors from files
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX file
    model: PathBuf,
    /// An input from a .npy file; once for each input
    #[arg(long = "input", value_name = "NAME=FILE.npy", value_parser = OsStringValueParser::new().try_map(NamedFile::parse))]
    input: Vec<NamedFile>,
    /// Inputs from a .npz or .safetensors file, by the names that they have there
    #[arg(long = "inputs", value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// Where outputs go: a .npz or .safetensors file, a .npy file for a single output, or a folder, which
    /// gets NAME.npy for each
    #[arg(long, value_name = "FILE|DIR")]
    out: PathBuf,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    axes: AxisArgs,
    /// Run so many times and report the times; outputs are those of the last run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=MOST_REPEATS))]
    repeat: u32,
    /// Let onnxruntime's threads look for work without a pause while they wait for each other, instead of
    /// sleeping: answers come sooner where nothing else runs, and later where other work wants the processors
    #[arg(long)]
    spin: bool,
    #[command(flatten)]
    backend: BackendArgs,
}

impl Args {
    fn session_options(&self) -> SessionOptions {
        let waiting = if self.spin { Waiting::Spin } else { Waiting::Sleep };
        SessionOptions::threads(self.backend.n_threads()).waiting(waiting)
    }
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let model = Arc::new(args.axes.open(&args.model)?);
    let signature = model.signature();
    let inputs = Inputs::read(signature, &args.input, &args.inputs)?;
    let views = inputs.views();
    let request = Request::bind(signature, &views).map_err(|error| inputs.explain(&error))?;
    let destination = Destination::new(&args.out, signature)?;
    let traffic = args.traffic.open()?;
    let requests = requests(signature, &request, args.repeat)?;
    let work = Work::Requests(vec![requests]);
    traffic.iter().try_for_each(|file| file.check(&work))?;
    let interrupt = Interrupt::listen()?;
    let loading = Loading {
        args: &args.backend,
        choice: args.backend.choice()?,
        axes: &args.axes,
        global,
        model: &model,
        output,
        interrupt: &interrupt,
    };
    let Requests { rows, length, .. } = requests;
    let need = Need::Request { shape: signature.bucket(request.extents()), rows, length };
    let loaded = loading.open(&need, args.session_options())?;
    interrupt.check("nothing was written")?;

    let mut session = loaded.executable.session(&loaded.sessions)?;
    let mut outputs = Outputs::new();
    let progress = Progress::of(output, args.repeat as usize, "runs");
    let watched = loaded.router.as_ref().filter(|_| args.backend.compile_background);
    let start = |router| Watched::start(router, progress.clone(), *output);
    let watched = watched.map(start).transpose()?;
    let watch = Watch { progress: &progress, interrupt: &interrupt };
    let repeated = repeat(session.as_mut(), &request, &mut outputs, args.repeat, &watch);
    let compiled = watched.map(Watched::finish);
    progress.finish();
    let (run_report, repeats) = repeated.map_err(|error| explain(error, &loading))?;

    let results: Vec<(&str, TensorView<'_>)> = signature
        .outputs
        .iter()
        .zip(outputs.tensors())
        .map(|(spec, tensor)| (spec.name.as_str(), tensor.view()))
        .collect();
    let files = destination.write(&results)?;
    traffic.iter().try_for_each(|file| file.add(&work))?;
    let listed = inputs.listed();
    let finished = Finished::new(&model, &loaded, &run_report, &listed, &results, files, repeats);
    output.beside(&finished.with_compiled(compiled))?;
    Ok(Code::Done)
}

/// The runs as work to plan by.
fn requests(signature: &Signature, request: &Request<'_>, n: u32) -> Result<Requests> {
    let WorkSymbols { rows, length } = WorkSymbolArgs::default().of(signature)?;
    let extent = |name: &str| signature.symbol(name).and_then(|it| request.extents().get(it));
    let (rows, length) = (extent(&rows).unwrap_or(1).max(1), extent(&length).unwrap_or(1).max(1));
    Ok(Requests { rows, length, count: u64::from(n) })
}

/// A request that found no program gets the command that compiles one.
fn explain(error: Error, loading: &Loading<'_>) -> Error {
    match error.downcast_ref::<RunError>() {
        Some(RunError::NotReady { wanted, nearest }) => loading.cold(wanted, nearest).into(),
        _ if loading.interrupt.is_set() => {
            Interrupted { left: "nothing was written".into() }.into()
        }
        _ => error,
    }
}

/// Whoever waits for the runs.
struct Watch<'a> {
    progress: &'a Progress,
    interrupt: &'a Interrupt,
}

/// Runs a request again and again; gives the last report and all times.
fn repeat(
    session: &mut dyn Session,
    request: &Request<'_>,
    outputs: &mut Outputs,
    n: u32,
    watch: &Watch<'_>,
) -> Result<(RunReport, Repeats)> {
    let mut times: Vec<Duration> = Vec::new();
    loop {
        let started = Instant::now();
        let report = session.run(request, outputs)?;
        times.push(started.elapsed());
        watch.progress.advance(1);
        watch.interrupt.check("nothing was written")?;
        if times.len() >= n as usize {
            return Ok((report, Repeats::of(times)));
        }
    }
}
