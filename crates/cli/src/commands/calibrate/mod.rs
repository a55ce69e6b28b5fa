//! `shapeyard calibrate`.

mod report;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use shapeyard_cache::{CachedArtifacts, MeasuredOf, Store, this_machine};
use shapeyard_core::Model;
use shapeyard_core::backend::{Artifact, Backend, LoadJob, Optimisation, ShapeSupport};
use shapeyard_core::measure::{self, Extent, MeasureError, Shape, Watch, shapes};
use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::calibrate::{Split, splits};
use shapeyard_core::plan::prices::Measurements;
use shapeyard_core::registry::{Choice, PassedOver};

use self::report::{Calibrated, OfBackend};
use crate::axes::AxisArgs;
use crate::backends::{self, up_to_a_thousand};
use crate::cache_args::CacheArgs;
use crate::cli::Global;
use crate::exit::{BadInput, Code, Interrupted};
use crate::human;
use crate::interrupt::Interrupt;
use crate::migraphx_args::MigraphxArgs;
use crate::output::Output;
use crate::prices::measured_of;
use crate::progress::Progress;
use crate::work_symbols::{WorkSymbolArgs, WorkSymbols};

const AFTER_HELP: &str = "\
Examples:
  shapeyard calibrate model.onnx
  shapeyard calibrate model.onnx --backend onnxruntime --max-length 256
  shapeyard calibrate model.onnx --threads 4 --rounds 9 --format json
  shapeyard calibrate model.onnx --backend migraphx --target ref --cache model.cache

Runs the model on every backend that is usable here, in batches of a few shapes and with threads shared out \
in every even way, and fits prices to what was measured: so long to load, so long for each batch, for each \
token, and for each token and each token of its row. ERROR says how far these prices are from what was measured, \
in the median and at most. Inputs are made up; what a run takes does not depend on them.

The prices are kept in the cache, for this content of the model, this version of the backend and this machine. \
`shapeyard plan` uses them, and `encode` adds what it sees. The machine should have nothing else to do \
meanwhile: a price that was measured beside other work is too high.

migraphx is measured in the programs that are in the cache (`shapeyard warm`), with their compiles and sizes.

Ends with 1 if a backend that is usable could not be measured.";

/// Sessions that are tried at most, as `encode` does.
const MOST_SESSIONS: usize = 4;

/// Measure what a model costs here: to load, to run, to compile
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX or GGUF file
    model: PathBuf,
    /// Who is measured: auto, which is every backend that is usable, or one of migraphx, onnxruntime, rten and ggml
    #[arg(long, value_name = "NAME", default_value = "auto")]
    backend: Choice,
    /// Threads to use in all [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = up_to_a_thousand)]
    threads: Option<NonZeroUsize>,
    /// The longest rows to measure, in tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_length: usize,
    /// The most rows of a batch to measure
    #[arg(long, value_name = "N", default_value_t = 16)]
    max_rows: usize,
    /// Tokens of a batch at most, but for single rows
    #[arg(long, value_name = "N", default_value_t = 2048)]
    token_budget: usize,
    /// How often each shape is measured; the median counts
    #[arg(long, value_name = "N", default_value = "3", value_parser = up_to_a_thousand)]
    rounds: NonZeroUsize,
    #[command(flatten)]
    symbols: WorkSymbolArgs,
    #[command(flatten)]
    axes: AxisArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    migraphx: MigraphxArgs,
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let model = Arc::new(args.axes.open(&args.model)?);
    let choice = args.migraphx.choice(&args.backend)?;
    let registry = backends::registry(global, Arc::new(args.migraphx.backend()?));
    let backends = match &choice {
        Choice::Auto => registry.backends().to_vec(),
        Choice::Forced(name) => {
            let backend = backends::named(&registry, name)?;
            backends::check_usable(backend.as_ref())?;
            vec![backend]
        }
    };
    let opened = args.cache.open(output)?;
    let calibration = Calibration {
        args,
        symbols: args.symbols.of(model.signature())?,
        model,
        store: Arc::new(opened.store),
        interrupt: Interrupt::listen()?,
        output,
    };
    let mut report = Calibrated {
        model: args.model.display().to_string(),
        machine: this_machine(),
        cache: opened.places.cache,
        backends: Vec::new(),
        passed_over: Vec::new(),
        failed: Vec::new(),
    };
    for backend in backends {
        match calibration.backend(&backend) {
            Ok(of) => report.backends.push(of),
            Err(Why::PassedOver(reason)) if choice == Choice::Auto => {
                report.passed_over.push(PassedOver { backend: backend.id(), reason });
            }
            Err(Why::PassedOver(reason)) => return Err(BadInput::new(reason).into()),
            Err(Why::Measure(MeasureError::Stopped)) => {
                let left = format!("{} kept", human::count(report.backends.len(), "backend"));
                return Err(Interrupted { left: left.into() }.into());
            }
            Err(Why::Measure(error)) if choice == Choice::Auto => {
                let reason = format!("{:#}", explained(error));
                output.note(format_args!("{} is not measured: {reason}", backend.id()));
                report.failed.push(PassedOver { backend: backend.id(), reason });
            }
            Err(Why::Measure(error)) => return Err(explained(error)),
            Err(Why::Other(error)) => return Err(error),
        }
    }
    let code = match (report.backends.is_empty(), report.failed.is_empty()) {
        (true, _) => Code::Backend,
        (false, true) => Code::Done,
        (false, false) => Code::No,
    };
    output.result(&report)?;
    Ok(code)
}

/// A model that has fewer positions than a row has tokens fails inside the engine.
fn explained(error: MeasureError) -> anyhow::Error {
    let remedy = match &error {
        MeasureError::Run { bucket, .. } => Some(format!(
            "{bucket} cannot be run; if the model takes no such shape, lower --max-length or --max-rows"
        )),
        _ => None,
    };
    let error = anyhow::Error::from(error);
    match remedy {
        Some(remedy) => error.context(remedy),
        None => error,
    }
}

/// Why a backend was not measured.
enum Why {
    /// There is nothing to measure.
    PassedOver(String),
    /// It failed, or was stopped.
    Measure(MeasureError),
    Other(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Why {
    fn from(error: E) -> Self {
        let error = error.into();
        error.downcast::<MeasureError>().map_or_else(Self::Other, Self::Measure)
    }
}

struct Calibration<'a> {
    args: &'a Args,
    model: Arc<Model>,
    symbols: WorkSymbols,
    store: Arc<Store>,
    interrupt: Interrupt,
    output: &'a Output,
}

impl Calibration<'_> {
    /// Measures one backend, and keeps what was found.
    fn backend(&self, backend: &Arc<dyn Backend>) -> Result<OfBackend, Why> {
        if let Err(error) = backends::check_usable(backend.as_ref()) {
            return Err(Why::PassedOver(error.to_string()));
        }
        let of = measured_of(&self.store, &self.model, backend.as_ref())?;
        let Some(of) = of else {
            return Err(Why::PassedOver(format!("{} cannot be used", backend.id())));
        };
        let mut measured = match backend.capabilities().shapes {
            ShapeSupport::Dynamic => self.any_shape(backend)?,
            ShapeSupport::Static => self.programs(backend)?,
        };
        measured.measured_at_ms = human::now_ms();
        self.keep(of, &measured)
    }

    fn keep(&self, of: MeasuredOf, measured: &Measurements) -> Result<OfBackend, Why> {
        let kept_in = self.store.keep_measurements(&of, measured)?;
        Ok(OfBackend::new(of, kept_in, measured))
    }

    fn any_shape(&self, backend: &Arc<dyn Backend>) -> Result<Measurements, Why> {
        let WorkSymbols { rows, length } = self.symbols.clone();
        let rows = Extent { symbol: rows, most: self.args.max_rows };
        let length = Extent { symbol: length, most: self.args.max_length };
        let shapes = shapes(&rows, &length, self.args.token_budget);
        let mut splits = splits(self.n_threads());
        splits.retain(|split| split.n_sessions <= MOST_SESSIONS);
        let watch = self.watch(backend, shapes.len() * splits.len());
        let job = LoadJob::of(&self.model);
        let asked = (&shapes[..], self.args.rounds.get());
        Ok(measure::any_shape(backend.as_ref(), &job, &splits, asked, &watch)?)
    }

    fn programs(&self, backend: &Arc<dyn Backend>) -> Result<Measurements, Why> {
        let (store, backend) = (Arc::clone(&self.store), Arc::clone(backend));
        let (id, model) = (backend.id(), Arc::clone(&self.model));
        let optimisation = Optimisation::default();
        let source = CachedArtifacts::new(store, Arc::clone(&backend), model, optimisation)?;
        let program = |bucket: Bucket| {
            let extent = |symbol: &str| bucket.get(symbol).unwrap_or(1);
            let (rows, length) = (extent(&self.symbols.rows), extent(&self.symbols.length));
            let artifact = source.get(&bucket)?;
            Some((Shape { bucket, rows, length }, artifact))
        };
        let ready: Vec<(Shape, Artifact)> =
            source.buckets()?.into_iter().filter_map(program).collect();
        if ready.is_empty() {
            let reason = format!("{id} has no program of this model; `shapeyard warm` makes some");
            return Err(Why::PassedOver(reason));
        }
        let watch = self.watch(&backend, ready.len());
        let n_sessions = self.args.migraphx.instances().get();
        let n_threads = (self.n_threads() / n_sessions).max(1);
        let split = Split { n_sessions, n_threads };
        let job = LoadJob::of(&self.model);
        let asked = (&ready[..], self.args.rounds.get());
        Ok(measure::programs(backend.as_ref(), &job, split, asked, &watch)?)
    }

    fn n_threads(&self) -> usize {
        let all = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.args.threads.unwrap_or_else(all).get()
    }

    /// A bar over all rounds, and Ctrl-C.
    fn watch(&self, backend: &Arc<dyn Backend>, n_shapes: usize) -> Bar<'_> {
        let n_rounds = self.args.rounds.get() + 1;
        let progress = Progress::of(self.output, n_shapes * n_rounds, "runs");
        progress.say(backend.id().to_string());
        Bar { progress, interrupt: &self.interrupt }
    }
}

struct Bar<'a> {
    progress: Progress,
    interrupt: &'a Interrupt,
}

impl Watch for Bar<'_> {
    fn advance(&self) {
        self.progress.advance(1);
    }

    fn stop(&self) -> bool {
        self.interrupt.is_set()
    }
}
