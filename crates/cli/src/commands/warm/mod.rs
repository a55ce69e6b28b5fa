//! `shapeyard warm`.

mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use shapeyard_cache::{ArtifactError, Ask, CacheError, CachedArtifacts, Obtained, Served, Waiting};
use shapeyard_core::backend::{
    ArtifactUse, Backend, BackendError, Cancellation, CompileEnd, Optimisation, ShapeSupport,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::registry::{Choice, OpenError, PassedOver, Registry};

use self::report::{Shape, State, Warmed};
use crate::axes::{self, AxisArgs};
use crate::backends;
use crate::buckets::BucketArgs;
use crate::cache_args::CacheArgs;
use crate::cli::Global;
use crate::exit::{self, BadInput, Code, Interrupted};
use crate::interrupt::Interrupt;
use crate::migraphx_args::MigraphxArgs;
use crate::output::Output;
use crate::planned;
use crate::progress::Progress;

const AFTER_HELP: &str = "\
Examples:
  shapeyard warm model.onnx --buckets batch=1,2,4,8 sequence=32,64
  shapeyard warm model.onnx --buckets batch=..64 sequence=16..128:16 --precision fp16
  shapeyard warm model.onnx --backend migraphx --target ref --buckets batch=1,8 --cache model.cache
  shapeyard warm model.onnx --plan plan.json
  shapeyard warm model.onnx --backend onnxruntime
  shapeyard warm model.gguf --backend ggml --ggml-weights q8_0
  shapeyard warm model.onnx --buckets batch=..64 --retry --format json

Every combination of extents is compiled, one after the other, and kept in the cache, where `run` \
and `encode` find it under the same options. A request is padded into the smallest shape that holds \
it, so few shapes serve many. Shapes that are there already cost nothing: after Ctrl-C, or a \
failure, the same command goes on where it stopped. While another process compiles a shape, this one \
waits for it.

A model whose answers change when rows or positions are padded is refused; --padding never compiles \
it for requests of exactly these shapes. onnxruntime keeps one rewritten model for every \
shape, ggml one with narrower weights.

Ends with 1 if a shape could not be compiled; the others are compiled all the same.";

/// Others may compile for as long as it takes; Ctrl-C ends the wait.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Compile a model ahead, for the shapes that it will meet
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX file, or a GGUF file for ggml
    model: PathBuf,
    #[command(flatten)]
    buckets: BucketArgs,
    /// The programs of a plan that `shapeyard plan --out` wrote, what saves most first
    #[arg(long, value_name = "FILE.json", conflicts_with = "buckets")]
    plan: Option<PathBuf>,
    /// Who compiles: migraphx, onnxruntime or ggml [default: migraphx where shapes are given, else the first
    /// that is usable]
    #[arg(long, value_name = "NAME", default_value = "auto", hide_default_value = true)]
    backend: Choice,
    /// Try again what failed in the last day and is remembered
    #[arg(long)]
    retry: bool,
    /// Stop at the first shape that cannot be compiled
    #[arg(long)]
    fail_fast: bool,
    #[command(flatten)]
    axes: AxisArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    migraphx: MigraphxArgs,
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let model = Arc::new(args.axes.open(&args.model)?);
    let migraphx = Arc::new(args.migraphx.backend()?);
    let registry = backends::registry(global, Arc::clone(&migraphx) as Arc<dyn Backend>);
    let backend = compiler(args, &chosen(args)?, &registry, output)?;
    if backend.capabilities().shapes == ShapeSupport::Static {
        axes::check_named(model.signature())?;
    }
    if backend.id() == migraphx.id() {
        migraphx.check_options(&model)?;
    }
    let cache = args.cache.open(output)?;
    let store = Arc::new(cache.store);
    let buckets = match &args.plan {
        Some(file) if backend.capabilities().shapes == ShapeSupport::Static => {
            planned::buckets(file, &model, store.digests().of_model(&model)?)?
        }
        Some(file) => {
            let (file, id) = (file.display(), backend.id());
            let what =
                format!("--plan {file} names shapes, and one artifact of {id} serves every shape");
            return Err(BadInput::new(what).into());
        }
        None => args.buckets.shapes(model.signature(), backend.as_ref(), output)?,
    };
    if buckets.is_empty() {
        output.note("the plan wants no program");
    }
    let optimisation = Optimisation::default();
    let artifacts =
        CachedArtifacts::new(store, Arc::clone(&backend), Arc::clone(&model), optimisation)?;
    let interrupt = Interrupt::listen()?;

    let progress = Progress::of_long(output, buckets.len(), "shapes");
    let warming =
        Warming { artifacts: &artifacts, progress: &progress, interrupt: &interrupt, output };
    let started = Instant::now();
    let shapes = warming.all(&buckets, args);
    progress.finish();
    let report = Warmed::new(&model, &backend.id(), &cache.places, started.elapsed(), shapes);
    output.beside(&report)?;
    if interrupt.is_set() && report.is_unfinished() {
        return Err(Interrupted { left: report.left().into() }.into());
    }
    Ok(if report.is_complete() { Code::Done } else { Code::No })
}

/// Who is meant: shapes are for a backend that needs them, and it is not passed over in silence.
fn chosen(args: &Args) -> Result<Choice> {
    let choice = args.migraphx.choice(&args.backend)?;
    let needs_shapes = choice == Choice::Auto && (args.buckets.is_given() || args.plan.is_some());
    Ok(if needs_shapes { Choice::Forced(shapeyard_migraphx::ID) } else { choice })
}

/// Who compiles: the backend that was named, or the first that makes artifacts and is usable here.
fn compiler(
    args: &Args,
    choice: &Choice,
    registry: &Registry,
    output: &Output,
) -> Result<Arc<dyn Backend>> {
    if let Choice::Forced(name) = choice {
        let backend = backends::named(registry, name)?;
        // Says so, where the backend makes none.
        backend.recipe(Optimisation::default())?;
        backends::check_usable(backend.as_ref())?;
        return Ok(backend);
    }
    let makes_some =
        |backend: &&Arc<dyn Backend>| backend.capabilities().artifacts != ArtifactUse::None;
    let mut reasons = Vec::new();
    for backend in registry.backends().iter().filter(makes_some) {
        match backends::check_usable(backend.as_ref()) {
            Err(error) if args.migraphx.names_library() => return Err(error.into()),
            Err(error) => {
                reasons.push(PassedOver { backend: backend.id(), reason: error.to_string() });
            }
            Ok(()) => {
                for PassedOver { reason, .. } in reasons {
                    let instead = backend.id();
                    output.note(format_args!("{reason}; {instead} compiles instead"));
                }
                return Ok(Arc::clone(backend));
            }
        }
    }
    Err(OpenError::None { reasons }.into())
}

/// Shapes that are being compiled.
struct Warming<'a> {
    artifacts: &'a CachedArtifacts,
    progress: &'a Progress,
    interrupt: &'a Interrupt,
    output: &'a Output,
}

impl Warming<'_> {
    /// Compiles one shape after the other.
    fn all(&self, buckets: &[Bucket], args: &Args) -> Vec<Shape> {
        let mut shapes: Vec<Shape> = Vec::with_capacity(buckets.len());
        let mut stopped = false;
        for bucket in buckets {
            if stopped || self.interrupt.is_set() {
                shapes.push(Shape::not_tried(bucket));
                continue;
            }
            let shape = self.one(bucket, args.retry);
            if let Some(error) = &shape.error {
                // What is wrong with a model is wrong for all of its shapes; once is enough.
                let before = shapes.iter().find(|before| before.error == shape.error);
                let words = before.map_or_else(|| error.clone(), |it| format!("as {}", it.name()));
                let line = BadInput::new(format!("{}: {words}", shape.name()));
                self.progress.aside(|| {
                    exit::report(Err(line.into()));
                });
                stopped = args.fail_fast;
            }
            shapes.push(shape);
            self.progress.advance(1);
        }
        shapes
    }

    fn one(&self, bucket: &Bucket, retry: bool) -> Shape {
        let name = report::name(bucket);
        self.progress.say(name.clone());
        let cancelled = || self.interrupt.is_set();
        let on_wait = |waiting: &Waiting| self.waits(&name, waiting);
        let ask = Ask::new().patience(PATIENCE).cancelled(&cancelled).on_wait(&on_wait);
        let started = Instant::now();
        let obtained = self.artifacts.get_or_compile(
            bucket,
            &ask.retry(retry),
            Cancellation::when(&cancelled),
        );
        self.became(bucket, started.elapsed(), obtained)
    }

    /// Says for whom it waits: on the bar, or once where nobody sees one.
    fn waits(&self, name: &str, waiting: &Waiting) {
        let holder = waiting.holder.as_ref();
        let holder = holder.map_or_else(|| "another process".to_owned(), ToString::to_string);
        let text = format!("{name}: waiting for {holder}, which compiles it");
        if self.progress.is_hidden() && waiting.waited.is_zero() {
            self.output.note(text);
        } else {
            self.progress.say(text);
        }
    }

    fn became(
        &self,
        bucket: &Bucket,
        time: Duration,
        obtained: Result<Obtained, ArtifactError>,
    ) -> Shape {
        let shape = |state, error, n_bytes| Shape::new(bucket, state, time, n_bytes, error);
        match obtained {
            Ok(obtained) => {
                let n_bytes = Some(obtained.artifact.n_bytes);
                match obtained.served {
                    Served::Hit if obtained.waited.is_zero() => shape(State::Hit, None, n_bytes),
                    Served::Hit | Served::Shared => shape(State::Waited, None, n_bytes),
                    Served::Produced => shape(State::Compiled, None, n_bytes),
                    Served::HitPrivate | Served::ProducedPrivately => {
                        let why = "it was compiled and could not be kept in the cache";
                        shape(State::Failed, Some(why.to_owned()), None)
                    }
                }
            }
            Err(_) if self.interrupt.is_set() => Shape::not_tried(bucket),
            Err(error) => shape(State::Failed, Some(words(&error)), None),
        }
    }
}

/// Why a shape has no artifact, with what to do about it.
fn words(error: &ArtifactError) -> String {
    match error {
        ArtifactError::Backend(BackendError::Compile { end, .. }) => {
            let option = match end {
                CompileEnd::TimedOut { .. } => " (--compile-timeout)",
                CompileEnd::OutOfMemory { .. } => " (--compile-memory)",
                _ => "",
            };
            format!("{error}{option}")
        }
        ArtifactError::Cache(CacheError::Failed { record, .. }) => {
            format!("{}\n(remembered from before; --retry tries again)", record.text)
        }
        error => error.to_string(),
    }
}
