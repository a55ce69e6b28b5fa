//! A model on a backend, with what is compiled for it.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use shapeyard_cache::{Ask, CachedArtifacts, Store};
use shapeyard_core::backend::{
    Artifact, ArtifactSource, ArtifactUse, Backend, BackendError, BackendId, Cancellation, LoadJob,
    Optimisation, SessionOptions,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::cover::Freedom;
use shapeyard_core::registry::{Choice, Opened, PassedOver};
use shapeyard_core::router::{Router, Wanted};
use shapeyard_core::{Executable, Model};

use shapeyard_migraphx::Limits;

use crate::axes::AxisArgs;
use crate::backends::{self, BackendArgs};
use crate::cli::Global;
use crate::exit::BadInput;
use crate::interrupt::Interrupt;
use crate::need::{Cold, Command, Need};
use crate::output::Output;
use crate::planned;
use crate::prices;
use crate::routing;

/// A model that was loaded.
pub(crate) struct Loaded {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) executable: Arc<dyn Executable>,
    pub(crate) passed_over: Vec<PassedOver>,
    /// What was compiled before and is used.
    pub(crate) programs: Vec<Program>,
    /// What routes requests, where two backends serve.
    pub(crate) router: Option<Arc<Router>>,
    /// What sessions were said to be asked for.
    pub(crate) sessions: SessionOptions,
}

/// An artifact that is used.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Program {
    pub(crate) bucket: Bucket,
    pub(crate) file: String,
    pub(crate) n_bytes: u64,
}

/// How a model is to be loaded.
pub(crate) struct Loading<'a> {
    pub(crate) args: &'a BackendArgs,
    /// Who is meant, as [`BackendArgs::choice`] says.
    pub(crate) choice: Choice,
    pub(crate) axes: &'a AxisArgs,
    pub(crate) global: &'a Global,
    pub(crate) model: &'a Arc<Model>,
    pub(crate) output: &'a Output,
    pub(crate) interrupt: &'a Interrupt,
}

/// What MIGraphX can offer for the work.
#[derive(Default)]
struct Offer {
    artifacts: Vec<Artifact>,
    source: Option<Arc<CachedArtifacts>>,
    /// Why it cannot do all of it.
    cold: Option<Cold>,
    /// The shapes that it has no program for.
    missing: Vec<Bucket>,
    /// Whether those may be compiled now.
    on_demand: bool,
}

impl Loading<'_> {
    /// Loads the model on the backend that was chosen, and says which others did not serve.
    pub(crate) fn open(&self, need: &Need, sessions: SessionOptions) -> Result<Loaded> {
        let args = self.args;
        let configured = args.migraphx.backend()?;
        // What is compiled beside requests gives way to them.
        let configured =
            if args.compile_background { configured.with_low_priority() } else { configured };
        let configured = Arc::new(configured);
        let migraphx = Arc::clone(&configured) as Arc<dyn Backend>;
        backends::check_named_libraries(self.global, args, migraphx.as_ref())?;
        let store = self.store(&migraphx)?;
        let mut offer = self.offer(&migraphx, store.as_ref(), need)?;
        if self.is_forced(&migraphx.id())
            && let Some(cold) = offer.cold.take()
        {
            return Err(cold.into());
        }
        // Plans are made by the backend that runs, so it has to know what is there.
        let ready = offer.artifacts.iter().map(|artifact| artifact.bucket.clone()).collect();
        let planning = Arc::new(configured.with_ready(ready));
        let registry = backends::registry(self.global, planning);
        let is_routed = self.is_routed(need, &offer, (migraphx.as_ref(), store.as_deref()))?;
        let mut artifacts = std::mem::take(&mut offer.artifacts);
        if artifacts.is_empty() || is_routed {
            for backend in registry.backends() {
                artifacts.extend(self.optional(backend, store.as_ref())?);
            }
        }
        let background = offer.source.clone().filter(|_| self.args.compile_background);
        let wanted = self.planned(store.as_ref())?.map(Wanted::Planned);
        let on_demand = self
            .on_demand(offer.source.filter(|_| offer.on_demand), &migraphx.id())
            .map(|it| Arc::new(it) as Arc<dyn ArtifactSource>);
        let job = LoadJob::of(self.model).for_sessions(sessions);
        let job = LoadJob { artifacts: &artifacts, on_demand: on_demand.as_ref(), ..job };
        let mut opened = if is_routed {
            let options = routing::options(args.padding.limit(), background, wanted);
            registry.open_routed(&job, options)?
        } else {
            registry.open(&self.choice, &job)?
        };
        explain(&mut opened, &migraphx.id(), offer.cold.as_ref());
        self.note(&opened, migraphx.as_ref());
        if let (Some(router), Some(store)) = (&opened.router, &store) {
            router.set_prices(self.prices(store, router, (&registry, need))?);
            self.note_lacking(router, offer.cold.as_ref());
        }
        Ok(Loaded::new(opened, &artifacts, sessions))
    }

    /// Whether two backends share the work: programs that are ready, or will be meanwhile, and somebody for
    /// what they do not answer. One request that a program holds may be cheaper elsewhere, where that is known, or be
    /// padded too much.
    fn is_routed(
        &self,
        need: &Need,
        offer: &Offer,
        (device, store): (&dyn Backend, Option<&Store>),
    ) -> Result<bool> {
        let is_lacking = offer.cold.is_some() || self.args.plan.is_some();
        if self.choice != Choice::Auto {
            return Ok(false);
        }
        if self.args.compile_background && offer.source.is_some() && is_lacking {
            return Ok(true);
        }
        let (Some(store), false) = (store, offer.artifacts.is_empty()) else { return Ok(false) };
        let is_weighed = need.is_planned() || self.args.padding.is_given();
        let (lengths, token_budget) = need.work();
        let work = (&lengths, token_budget);
        Ok(is_weighed || prices::measured(store, self.model, device, work)?.is_some())
    }

    /// The programs of the plan that was named, what saves most first.
    fn planned(&self, store: Option<&Arc<Store>>) -> Result<Option<Vec<Bucket>>> {
        let Some((file, store)) = self.args.plan.as_ref().zip(store) else { return Ok(None) };
        let digest = store.digests().of_model(self.model)?;
        Ok(Some(planned::buckets(file, self.model, digest)?))
    }

    /// The cache, where the backend that was chosen may use it.
    fn store(&self, migraphx: &Arc<dyn Backend>) -> Result<Option<Arc<Store>>> {
        let cache = &self.args.cache;
        if let Choice::Forced(name) = &self.choice {
            let registry = backends::registry(self.global, Arc::clone(migraphx));
            let named = backends::named(&registry, name)?;
            if named.capabilities().artifacts == ArtifactUse::None {
                return Ok(None);
            }
        }
        let opened = if self.args.compile_missing || self.args.compile_background {
            Some(cache.open(self.output)?)
        } else {
            cache.look(self.output)?
        };
        Ok(opened.map(|opened| Arc::new(opened.store)))
    }

    fn is_forced(&self, id: &BackendId) -> bool {
        self.choice == Choice::Forced(id.clone())
    }

    /// Says who was passed over. That a machine has no AMD GPU is no news to its owner, unless an option
    /// asks for one.
    fn note(&self, opened: &Opened, migraphx: &dyn Backend) {
        for passed in &opened.passed_over {
            let is_no_news = passed.backend == migraphx.id()
                && self.args.migraphx.words().is_empty()
                && !self.args.compile_background
                && !migraphx.probe().is_usable();
            if !is_no_news {
                let instead = opened.backend.id();
                self.output.note(format_args!("{}; {instead} answers instead", passed.reason));
            }
        }
    }

    /// What a backend that runs only what was compiled has for the work.
    fn offer(
        &self,
        backend: &Arc<dyn Backend>,
        store: Option<&Arc<Store>>,
        need: &Need,
    ) -> Result<Offer> {
        let (id, is_auto) = (backend.id(), self.choice == Choice::Auto);
        if !(is_auto || self.is_forced(&id)) || !backend.probe().is_usable() {
            return Ok(Offer::default());
        }
        let source = store.map(|store| self.artifacts(store, backend)).transpose()?;
        let ready = source.as_ref().map_or_else(|| Ok(Vec::new()), |source| source.buckets())?;
        let mut offer = self.offer_of(source.as_deref(), ready, need, is_auto);
        if offer.on_demand && need.is_planned() {
            // How long a batch takes is measured, so nothing is compiled while batches run.
            if let Some(demand) = self.on_demand(source.clone(), &id) {
                for bucket in &offer.missing {
                    offer.artifacts.push(demand.artifact(bucket, Cancellation::never())?);
                }
            }
        }
        offer.source = source;
        Ok(offer)
    }

    /// What of the work the shapes that are ready can do.
    fn offer_of(
        &self,
        source: Option<&CachedArtifacts>,
        mut ready: Vec<Bucket>,
        need: &Need,
        is_auto: bool,
    ) -> Offer {
        // A model that nobody warmed is not compiled because a machine happens to have a GPU.
        let on_demand = self.args.compile_missing && !is_auto;
        // Under auto others answer what programs do not; of one request there is nothing else.
        let is_shared = is_auto && (need.is_planned() || self.args.compile_background);
        loop {
            let cold = |missing: &[Bucket]| {
                let cold = Some(need.cold(missing, &ready, &self.command()));
                Offer { cold, ..Offer::default() }
            };
            let missing = self.missing(need, &ready, None);
            if !missing.is_empty() && !on_demand && (!is_shared || ready.is_empty()) {
                return cold(&missing);
            }
            match loadable(source, &ready, need) {
                Ok(artifacts) => {
                    // What the programs themselves cannot do is noted with them.
                    let missing = self.missing(need, &ready, Some(&artifacts));
                    let lacking = !missing.is_empty() && !on_demand;
                    return match (lacking, is_shared) {
                        (false, _) => Offer { artifacts, missing, on_demand, ..Offer::default() },
                        (true, true) => Offer { artifacts, ..cold(&missing) },
                        (true, false) => cold(&missing),
                    };
                }
                Err(damaged) => {
                    self.output.note(format_args!("the program for {damaged} is damaged"));
                    ready.retain(|bucket| *bucket != damaged);
                }
            }
        }
    }

    fn on_demand(&self, source: Option<Arc<CachedArtifacts>>, id: &BackendId) -> Option<OnDemand> {
        let (id, interrupt, output) = (id.clone(), self.interrupt.clone(), *self.output);
        Some(OnDemand { source: source?, id, interrupt, output })
    }

    fn missing(
        &self,
        need: &Need,
        ready: &[Bucket],
        artifacts: Option<&[Artifact]>,
    ) -> Vec<Bucket> {
        let signature = self.model.signature();
        let bound = signature.bound_symbols().map(|id| signature.symbol_name(id).to_owned());
        let mut rigid: Vec<String> = bound.filter(|_| !self.args.migraphx.may_pad()).collect();
        let mut rows = self.args.migraphx.rows(signature);
        if let Some(artifacts) = artifacts {
            let limits = Limits::of(artifacts, rows);
            rows = rows.filter(|_| limits.can_split);
            rigid.extend(limits.rigid);
        }
        need.missing(ready, &Freedom { rows, rigid: &rigid })
    }

    fn artifacts(
        &self,
        store: &Arc<Store>,
        backend: &Arc<dyn Backend>,
    ) -> Result<Arc<CachedArtifacts>, BackendError> {
        let (store, backend, model) =
            (Arc::clone(store), Arc::clone(backend), Arc::clone(self.model));
        CachedArtifacts::new(store, backend, model, Optimisation::default()).map(Arc::new)
    }

    /// The rewritten model of a backend that loads one faster than the model itself, if it is there.
    fn optional(
        &self,
        backend: &Arc<dyn Backend>,
        store: Option<&Arc<Store>>,
    ) -> Result<Option<Artifact>> {
        let is_meant = self.choice == Choice::Auto || self.is_forced(&backend.id());
        let makes_some = backend.capabilities().artifacts == ArtifactUse::Optional;
        if !is_meant || !makes_some || !backend.probe().is_usable() {
            return Ok(None);
        }
        let source = store.map(|store| self.artifacts(store, backend)).transpose()?;
        let artifact = source.and_then(|source| source.get(&Bucket::default()));
        match self.global.ggml_weights {
            Some(weights) if artifact.is_none() && backend.id().as_str() == "ggml" => {
                Err(self.no_weights(weights.name()).into())
            }
            _ => Ok(artifact),
        }
    }

    /// Weights that were asked for are not replaced by others.
    fn no_weights(&self, name: &str) -> BadInput {
        let model = self.model.path().display();
        // They lie in the cache as that device reads them.
        let device = self.global.ggml_device.as_ref();
        let device = device.map_or_else(String::new, |it| format!(" --ggml-device {it}"));
        BadInput::new(format!(
            "no {name} weights of `{model}` are in the cache; make them with `shapeyard warm {model} \
             --backend ggml{device} --ggml-weights {name}`"
        ))
    }

    /// The command that compiles what is missing.
    fn command(&self) -> Command<'_> {
        let backend = ["--backend", "migraphx"].map(str::to_owned);
        let (migraphx, cache) = (self.args.migraphx.words(), self.args.cache.words());
        let words = [&backend[..], &migraphx, &self.axes.words(), &cache].concat();
        Command { model: self.model.path(), words }
    }

    /// The error that says what to compile, for a request that found no program.
    pub(crate) fn cold(&self, wanted: &Bucket, nearest: &[Bucket]) -> Cold {
        // Nobody asks what it would cost.
        let need = Need::Request { shape: wanted.clone(), rows: 1, length: 1 };
        need.cold(std::slice::from_ref(wanted), nearest, &self.command())
    }
}

/// The programs to load; or the shape of one that cannot be.
fn loadable(
    source: Option<&CachedArtifacts>,
    ready: &[Bucket],
    need: &Need,
) -> Result<Vec<Artifact>, Bucket> {
    let Some(source) = source else { return Ok(Vec::new()) };
    let wanted = need.only(ready).map_or_else(|| ready.to_vec(), |bucket| vec![bucket]);
    wanted.into_iter().map(|bucket| source.get(&bucket).ok_or(bucket)).collect()
}

/// Says of a backend that lacks programs which ones.
fn explain(opened: &mut Opened, id: &BackendId, cold: Option<&Cold>) {
    let passed = opened.passed_over.iter_mut().find(|passed| passed.backend == *id);
    if let (Some(cold), Some(passed)) = (cold, passed) {
        passed.reason = format!("{id} has {}", cold.line());
    }
}

impl Loaded {
    fn new(opened: Opened, artifacts: &[Artifact], sessions: SessionOptions) -> Self {
        let used = artifacts.iter().filter(|artifact| artifact.backend == opened.backend.id());
        Self {
            programs: used.map(Program::of).collect(),
            backend: opened.backend,
            executable: opened.executable,
            passed_over: opened.passed_over,
            router: opened.router,
            sessions,
        }
    }
}

impl Program {
    fn of(artifact: &Artifact) -> Self {
        Self {
            bucket: artifact.bucket.clone(),
            file: artifact.payload.display().to_string(),
            n_bytes: artifact.n_bytes,
        }
    }
}

/// Compiles what a request lacks, since the person at the keyboard said so.
#[derive(Debug)]
struct OnDemand {
    source: Arc<CachedArtifacts>,
    id: BackendId,
    interrupt: Interrupt,
    output: Output,
}

impl ArtifactSource for OnDemand {
    fn artifact(
        &self,
        bucket: &Bucket,
        cancellation: Cancellation<'_>,
    ) -> Result<Artifact, BackendError> {
        self.output.note(format_args!("compiling for {bucket}"));
        let cancelled = || self.interrupt.is_set() || cancellation.is_cancelled();
        let ask = Ask::new().cancelled(&cancelled);
        let obtained = self.source.get_or_compile(bucket, &ask, Cancellation::when(&cancelled));
        obtained
            .map(|it| it.artifact)
            .map_err(|error| error.into_backend(self.id.clone(), self.source.model()))
    }
}
