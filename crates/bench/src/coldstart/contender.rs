//! One process that starts cold: it opens a model, says what it took to be ready, and answers on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use shapeyard_cache::{Ask, CachedArtifacts, Store};
use shapeyard_core::backend::{
    Artifact, ArtifactUse, Backend, Cancellation, LoadJob, Optimisation, SessionOptions, Status,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Outputs, Request, Tensor, TensorView};
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target,
};

use crate::direct;
use crate::inputs::inputs;
use crate::suite::Host;

/// Who opens the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Who {
    Onnxruntime,
    /// ONNX Runtime through its own interface.
    Direct,
    Rten,
    Ggml,
    /// MIGraphX's interpreter.
    Migraphx,
}

impl Who {
    /// As it is named on the command line and in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Onnxruntime => "onnxruntime",
            Self::Direct => "direct",
            Self::Rten => "rten",
            Self::Ggml => "ggml",
            Self::Migraphx => "migraphx",
        }
    }
}

/// One process; the suite starts it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    who: Who,
    #[arg(long)]
    model: PathBuf,
    /// The root of a store, empty or filled by an earlier process.
    #[arg(long)]
    store: PathBuf,
    /// Compile also what makes loading faster and nothing else.
    #[arg(long)]
    fills: bool,
    #[arg(long, value_delimiter = ',')]
    extents: Vec<String>,
    #[arg(long)]
    threads: usize,
    #[arg(long)]
    answers: usize,
}

/// What a process says with its first answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) backend: String,
    pub(super) version: String,
    /// Whether it left something in the store for the next process.
    pub(super) keeps: bool,
}

/// Opens the model and answers; tells what it is with the first answer and what the others took, in seconds.
///
/// # Errors
///
/// What it failed of.
pub fn run(host: &Host, args: &Args) -> Result<()> {
    let model = Arc::new(Model::open(&args.model)?);
    let shape = extents(&args.extents)?;
    let given = inputs(model.signature(), &shape, 1)?;
    let (ready, mut answer) = match args.who {
        Who::Direct => direct_lane(args, &model, given)?,
        _ => lane(args, &backend(host, args.who)?, &model, &shape, given)?,
    };
    answer()?;
    println!("{}", serde_json::to_string(&ready)?);
    let mut times = Vec::with_capacity(args.answers);
    for _ in 1..args.answers {
        let start = Instant::now();
        answer()?;
        times.push(start.elapsed().as_secs_f64());
    }
    println!("{}", serde_json::to_string(&times)?);
    Ok(())
}

fn extents(words: &[String]) -> Result<Bucket> {
    let pair = |word: &String| -> Result<(String, usize)> {
        let (symbol, extent) = word.split_once('=').context("an extent is `SYMBOL=N`")?;
        let extent =
            extent.parse().with_context(|| format!("`{word}`: `{extent}` is no number"))?;
        Ok((symbol.to_owned(), extent))
    };
    words.iter().map(pair).collect()
}

type Answer = Box<dyn FnMut() -> Result<()>>;

fn direct_lane(args: &Args, model: &Arc<Model>, given: Vec<Tensor>) -> Result<(Ready, Answer)> {
    let mut session = direct::session(&direct::environment()?, &args.model, args.threads, false)?;
    let model = Arc::clone(model);
    let answer = move || direct::run(&mut session, model.signature(), &given).map(drop);
    let ready = Ready { backend: "onnxruntime".to_owned(), version: String::new(), keeps: false };
    Ok((ready, Box::new(answer)))
}

fn backend(host: &Host, who: Who) -> Result<Arc<dyn Backend>> {
    if who == Who::Migraphx {
        let place = CompilePlace::worker(host.worker()?);
        let options = MigraphxOptions {
            compile: CompileOptions { target: Target::Ref, ..CompileOptions::default() },
            compiler: Compiler { place, ..Compiler::default() },
            ..MigraphxOptions::default()
        };
        return Ok(Arc::new(MigraphxBackend::new(options)?));
    }
    let mut all = shapeyard_cpu::backends(&host.cpu).into_iter();
    all.find(|it| it.id().as_str() == who.name()).context("it is not built in")
}

fn lane(
    args: &Args,
    backend: &Arc<dyn Backend>,
    model: &Arc<Model>,
    shape: &Bucket,
    given: Vec<Tensor>,
) -> Result<(Ready, Answer)> {
    let version = match backend.probe().status {
        Status::Usable { version, .. } => version,
        Status::Unusable { reason, remedy } => bail!("{reason}; {remedy}"),
    };
    let artifacts = kept(args, backend, model, shape)?;
    let sessions = SessionOptions::threads(args.threads);
    let job = LoadJob { artifacts: &artifacts, ..LoadJob::of(model).for_sessions(sessions) };
    let executable = backend.load(&job)?;
    let mut session = executable.session(&sessions)?;
    let ready = Ready { backend: backend.id().to_string(), version, keeps: !artifacts.is_empty() };
    let mut outputs = Outputs::new();
    let answer = move || {
        let views: Vec<TensorView<'_>> = given.iter().map(Tensor::view).collect();
        let request = Request::bind(executable.signature(), &views)?;
        session.run(&request, &mut outputs)?;
        Ok(())
    };
    Ok((ready, Box::new(answer)))
}

/// What the store has for the shape. What a backend cannot do without is made now unless it is there, as by a
/// program that compiles on demand.
fn kept(
    args: &Args,
    backend: &Arc<dyn Backend>,
    model: &Arc<Model>,
    shape: &Bucket,
) -> Result<Vec<Artifact>> {
    let (shape, compiles) = match backend.capabilities().artifacts {
        ArtifactUse::None => return Ok(Vec::new()),
        ArtifactUse::Optional => (Bucket::default(), args.fills),
        ArtifactUse::Required => (shape.clone(), true),
    };
    let store = Arc::new(Store::open(args.store.join("store"))?);
    let artifacts =
        CachedArtifacts::new(store, Arc::clone(backend), Arc::clone(model), Optimisation::Full)?;
    if !compiles {
        return Ok(artifacts.get(&shape).into_iter().collect());
    }
    Ok(vec![artifacts.get_or_compile(&shape, &Ask::new(), Cancellation::never())?.artifact])
}
