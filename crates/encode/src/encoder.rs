//! Texts to vectors: batches under a token budget, through sessions, back in the caller's order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shapeyard_core::backend::{Backend, Executable, Waiting};
use shapeyard_core::engine::{InferRequest, InferResponse};
use shapeyard_core::plan::calibrate::{
    Search, Setting, Split, TOKEN_BUDGETS, Trial, settings, splits,
};
use shapeyard_core::plan::token_budget::totals;
use shapeyard_core::plan::{Batch, PlanOptions, Totals, Workload};
use shapeyard_core::{Model, Signature, Tier};

use crate::lanes::{Done, Job, Lanes};
use crate::layout::Layout;
use crate::pool::{Pooling, pool_text};
use crate::remaining::{N_RUNS, Remaining};
use crate::repeats::Repeats;
use crate::report::{Measured, Repeated, Routes, Tried, rate};
use crate::tokens::Tokens;
use crate::{Embeddings, EncodeError, EncodeReport, EncodeTimes};

/// Real tokens of a calibration's first trials. Fewer say nothing; more are no more exact.
const TRIAL_TOKENS: std::ops::RangeInclusive<usize> = N_RUNS * USUAL_BUDGET..=8192;

/// The budget where none was named or found: large enough to fill vector units, small enough that a batch's
/// activations stay in a processor's caches.
const USUAL_BUDGET: usize = 512;

/// Sessions that are tried at most. Each holds the model's weights or a share of them, and what more of
/// them gain, threads inside a session gain as well.
const MOST_SESSIONS: usize = 4;

/// With so many batches a session, few run while other sessions are idle.
const N_BUSY: usize = 8;

/// How texts become vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// How a text's token vectors become one.
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1.
    pub normalise: bool,
    /// The token that fills short rows; its vectors are never used.
    pub pad_id: u32,
    /// Threads to use in all.
    pub n_threads: usize,
    /// How threads are shared out; found by calibration where it is `None`.
    pub split: Option<Split>,
    /// Tokens a batch may have; found by calibration where it is `None`.
    pub token_budget: Option<usize>,
    /// Whether texts with equal tokens run once and share the vectors. Equal texts that run apart may differ in the last
    /// bits, since a batch's shape decides the order of sums.
    pub share_equal: bool,
    /// What a session's threads do while they wait for each other. [`Waiting::Spin`] is for single queries by
    /// one session on a machine that does nothing else; settings that calibration finds hold for the one that
    /// it was told.
    pub waiting: Waiting,
}

/// A caller that watches an encoding.
pub trait Observer {
    /// Called with texts and real tokens done since the last call: after every batch, and before the first where texts
    /// equal some that are done.
    fn progress(&self, n_items: usize, n_tokens: usize) {
        let _ = (n_items, n_tokens);
    }

    /// Whether to stop: what runs is finished and kept. A session may have begun its next batch by the time it hears of
    /// it; nothing else is begun.
    fn stop(&self) -> bool {
        false
    }
}

/// An observer that neither looks nor stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// A loaded model that takes tokens and gives vectors.
///
/// The sessions of an encoding's last setting stay for the next one with the same split and way of waiting: a
/// single query would take many times as long if it had to make one. Clones share them.
#[derive(Clone)]
pub struct Encoder {
    backend: Arc<dyn Backend>,
    model: Arc<Model>,
    executable: Arc<dyn Executable>,
    layout: Layout,
    /// Sessions that nobody uses now.
    idle: Arc<Mutex<Option<Lanes>>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Finds out which input and output is which.
    ///
    /// # Errors
    ///
    /// [`EncodeError::NotAnEncoder`], naming what is missing or cannot be given.
    pub fn new(
        backend: Arc<dyn Backend>,
        model: Arc<Model>,
        executable: Arc<dyn Executable>,
    ) -> Result<Self, EncodeError> {
        let layout = Layout::of(executable.signature())?;
        let idle = Arc::default();
        Ok(Self { backend, model, executable, layout, idle })
    }

    /// The sessions that an earlier encoding left, where they are like these.
    fn take_idle(&self, split: Split, waiting: Waiting) -> Option<Lanes> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.take_if(|lanes| lanes.split == split && lanes.waiting == waiting)
    }

    /// Leaves sessions for the next encoding; those that another one left meanwhile end.
    fn leave_idle(&self, lanes: Lanes) {
        let before = self.idle.lock().unwrap_or_else(PoisonError::into_inner).replace(lanes);
        // Sessions take their time to end: nobody else waits for it.
        drop(before);
    }

    /// Numbers in a vector.
    #[must_use]
    pub const fn n_dims(&self) -> usize {
        self.layout.n_dims
    }

    /// The batches that the backend plans for some of the texts.
    fn plan(
        &self,
        lengths: &[usize],
        items: &[usize],
        token_budget: usize,
    ) -> Result<Vec<Batch>, EncodeError> {
        let signature: &Signature = self.executable.signature();
        let name = |symbol| signature.symbol_name(symbol).to_owned();
        let lengths: Vec<usize> = items.iter().map(|&item| lengths[item]).collect();
        let (rows, length) = (name(self.layout.batch), name(self.layout.sequence));
        let workload = Workload::items(rows, length, lengths);
        let options = PlanOptions::tokens(token_budget);
        let plan = self.backend.plan(&self.model, &workload, &options)?;
        let of_all = |batch: Batch| Batch {
            items: batch.items.into_iter().map(|position| items[position]).collect(),
            ..batch
        };
        Ok(plan.batches.into_iter().map(of_all).collect())
    }

    /// Room for the vectors of `texts`.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLarge`].
    pub fn embeddings(
        &self,
        texts: &[Tokens],
        options: &EncodeOptions,
    ) -> Result<Embeddings, EncodeError> {
        Embeddings::new(&lengths(texts), options.pooling, self.layout.n_dims)
    }

    /// Encodes every text whose vectors are not yet in `embeddings`.
    ///
    /// Where the options leave a choice, settings are tried on a first part of the work, each on texts of
    /// the same mix of lengths, and the fastest serves the rest. Nothing runs twice.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]; what was done until then is in `embeddings`.
    pub fn encode(
        &self,
        texts: &[Tokens],
        options: &EncodeOptions,
        embeddings: &mut Embeddings,
        observer: &dyn Observer,
    ) -> Result<EncodeReport, EncodeError> {
        let lengths = lengths(texts);
        let mut todo: Vec<usize> =
            (0..texts.len()).filter(|&item| !embeddings.is_done(item)).collect();
        let repeats = match options.share_equal {
            true => Repeats::take_out(texts, &mut todo, embeddings),
            false => Repeats::default(),
        };
        if repeats.done.n_items > 0 {
            observer.progress(repeats.done.n_items, repeats.done.n_tokens);
        }
        let mut run = Run {
            encoder: self,
            texts,
            options,
            embeddings,
            observer,
            n_todo: todo.len(),
            repeats,
            remaining: Remaining::new(&lengths, todo),
            lengths: &lengths,
            lanes: Vec::new(),
            totals: Totals::default(),
            times: EncodeTimes::default(),
            tried: Vec::new(),
            routes: Routes::default(),
            tiers: BTreeMap::new(),
            measured: Measured::default(),
        };
        let setting = run.calibrate()?;
        run.finish(setting)?;
        Ok(run.report(setting))
    }

    /// The settings that the options leave open.
    fn candidates(&self, options: &EncodeOptions) -> Vec<Setting> {
        let splits = match options.split {
            Some(split) => vec![split],
            None => {
                let mut splits = splits(options.n_threads.max(1));
                splits.retain(|split| split.n_sessions <= MOST_SESSIONS);
                splits
            }
        };
        let budgets = match options.token_budget {
            // Without a mask, padding would be taken for text.
            _ if !self.layout.has_mask() => vec![1],
            Some(budget) => vec![budget],
            None => TOKEN_BUDGETS.to_vec(),
        };
        settings(&splits, &budgets)
    }
}

fn lengths(texts: &[Tokens]) -> Vec<usize> {
    texts.iter().map(|tokens| tokens.ids.len()).collect()
}

/// One encoding on its way.
struct Run<'a> {
    encoder: &'a Encoder,
    texts: &'a [Tokens],
    options: &'a EncodeOptions,
    embeddings: &'a mut Embeddings,
    observer: &'a dyn Observer,
    lengths: &'a [usize],
    n_todo: usize,
    repeats: Repeats,
    remaining: Remaining,
    lanes: Vec<Lanes>,
    totals: Totals,
    times: EncodeTimes,
    tried: Vec<Tried>,
    routes: Routes,
    tiers: BTreeMap<Tier, usize>,
    measured: Measured,
}

impl Run<'_> {
    /// Tries settings on the first part of the work; gives the one for the rest.
    fn calibrate(&mut self) -> Result<Setting, EncodeError> {
        let mut candidates = self.encoder.candidates(self.options);
        let fallback = self.usual_setting(&candidates);
        let share = |n: usize| self.remaining.n_tokens() / Search::n_tokens(n, 1).max(1);
        let trial_tokens = share(candidates.len()).min(*TRIAL_TOKENS.end());
        if trial_tokens < *TRIAL_TOKENS.start() {
            return Ok(fallback);
        }
        if self.options.token_budget.is_none() {
            // A budget that one batch of a trial's runs does not fill cannot be judged by it.
            candidates.retain(|setting| setting.token_budget * N_RUNS <= trial_tokens);
        }
        let trial_tokens = share(candidates.len()).min(*TRIAL_TOKENS.end());
        let started = Instant::now();
        let mut search = Search::new(candidates, trial_tokens);
        while let Some(Trial { setting, n_tokens }) = search.next_trial() {
            self.keep_lanes(|split| search.may_use(split));
            self.warm_up(setting.split)?;
            let runs = self.remaining.sample(n_tokens);
            let (n_real, elapsed) = self.run(setting, runs)?;
            // What is left is too little to go on, or not wanted any more.
            if 2 * n_real < n_tokens || self.observer.stop() {
                break;
            }
            search.record(n_real, elapsed);
            let tokens_per_second = rate(n_real, elapsed);
            self.tried.push(Tried { setting, n_tokens: n_real, tokens_per_second });
        }
        self.times.calibrate = started.elapsed();
        Ok(search.best().unwrap_or(fallback))
    }

    /// Makes the sessions of a split and lets each run once, so that no trial pays for their first run.
    fn warm_up(&mut self, split: Split) -> Result<(), EncodeError> {
        if self.lanes.iter().any(|lanes| lanes.split == split) {
            return Ok(());
        }
        let one_each = self.remaining.take(2 * split.n_sessions);
        let before = self.measured.clone();
        self.run(Setting { split, token_budget: 1 }, vec![one_each])?;
        self.measured = before;
        Ok(())
    }

    /// Ends the sessions of other splits, which hold memory.
    fn keep_lanes(&mut self, keep: impl Fn(Split) -> bool) {
        for mut lanes in self.lanes.extract_if(.., |lanes| !keep(lanes.split)) {
            self.times.add(&lanes.take_spent());
        }
    }

    /// What serves where nothing is tried: as many sessions as there is work for, and small batches.
    fn usual_setting(&self, candidates: &[Setting]) -> Setting {
        let n_threads = self.options.n_threads.max(1);
        let n_batches = self.remaining.n_tokens().div_ceil(USUAL_BUDGET).min(self.remaining.len());
        let n_sessions = n_threads.min(MOST_SESSIONS).min(n_batches).max(1);
        let split = Split { n_sessions, n_threads: n_threads / n_sessions };
        let split = self.options.split.unwrap_or(split);
        let budgets = candidates.iter().map(|it| it.token_budget);
        let token_budget = budgets.min_by_key(|budget| budget.abs_diff(USUAL_BUDGET));
        Setting { split, token_budget: token_budget.unwrap_or(1) }
    }

    /// Runs what is left. Where other programs become ready meanwhile, what is left by then is planned anew.
    fn finish(&mut self, setting: Setting) -> Result<(), EncodeError> {
        self.keep_lanes(|split| split == setting.split);
        let mut rest = self.remaining.take(usize::MAX);
        let executable = Arc::clone(&self.encoder.executable);
        while !rest.is_empty() {
            let generation = executable.generation();
            let started = Instant::now();
            let planned = self.plan(setting, vec![rest.clone()])?;
            let planning = started.elapsed();
            let is_old = || {
                // Whatever changes how often, most of the time is spent on the work.
                executable.generation() != generation && started.elapsed() > 20 * planning
            };
            let (_, elapsed) = self.run_batches(setting.split, &planned, &is_old)?;
            self.times.run += elapsed;
            rest.retain(|&item| !self.embeddings.is_done(item));
            if self.observer.stop() || executable.generation() == generation {
                break;
            }
        }
        Ok(())
    }

    /// Batches of each group.
    fn plan(&self, setting: Setting, groups: Vec<Vec<usize>>) -> Result<Vec<Batch>, EncodeError> {
        let mut batches = Vec::new();
        for items in groups {
            batches.extend(self.encoder.plan(self.lengths, &items, setting.token_budget)?);
        }
        Ok(batches)
    }

    /// Runs items with a setting, each group packed for itself; gives the real tokens done and the time
    /// taken, without that of making sessions.
    fn run(
        &mut self,
        setting: Setting,
        groups: Vec<Vec<usize>>,
    ) -> Result<(usize, Duration), EncodeError> {
        let batches = self.plan(setting, groups)?;
        self.run_batches(setting.split, &batches, &|| false)
    }

    /// Runs batches until `is_old` says that they are no longer what should run.
    fn run_batches(
        &mut self,
        split: Split,
        batches: &[Batch],
        is_old: &dyn Fn() -> bool,
    ) -> Result<(usize, Duration), EncodeError> {
        let lanes = self.lanes(split)?;
        let (texts, options, layout) = (self.texts, self.options, &self.encoder.layout);
        let (lengths, observer) = (self.lengths, self.observer);
        let mut done = Totals::default();
        let are_all_busy = batches.len() >= N_BUSY * split.n_sessions;
        let job = Pooled { texts, lengths, options, layout, n_dims: self.embeddings.n_dims() };
        let take = |Done { batch, report, vectors, .. }: Done<'_>| {
            let one = totals(lengths, std::slice::from_ref(batch));
            self.embeddings.take(&batch.items, &vectors);
            add(&mut done, &one);
            self.routes.count(&report, one.n_real_tokens);
            *self.tiers.entry(report.tier).or_default() += 1;
            if are_all_busy {
                let shape = (batch.items.len(), batch.length);
                self.measured.add(split, shape, &report);
            }
            let before = self.repeats.done;
            for &item in &batch.items {
                self.repeats.follow(item, lengths[item], self.embeddings);
            }
            let Repeated { n_items, n_tokens } = self.repeats.done;
            observer.progress(
                one.n_items + n_items - before.n_items,
                one.n_real_tokens + n_tokens - before.n_tokens,
            );
            Ok(())
        };
        let started = Instant::now();
        let stop = || observer.stop() || is_old();
        let result = self.lanes[lanes].run(batches, &job, &stop, take);
        let elapsed = started.elapsed();
        add(&mut self.totals, &done);
        result.map(|()| (done.n_real_tokens, elapsed))
    }

    fn lanes(&mut self, split: Split) -> Result<usize, EncodeError> {
        if let Some(index) = self.lanes.iter().position(|lanes| lanes.split == split) {
            return Ok(index);
        }
        let started = Instant::now();
        let waiting = self.options.waiting;
        let lanes = match self.encoder.take_idle(split, waiting) {
            Some(lanes) => lanes,
            None => Lanes::start(&self.encoder.executable, split, waiting)?,
        };
        self.lanes.push(lanes);
        self.times.sessions += started.elapsed();
        Ok(self.lanes.len() - 1)
    }

    fn report(mut self, setting: Setting) -> EncodeReport {
        for mut lanes in self.lanes.drain(..) {
            self.times.add(&lanes.take_spent());
            if lanes.split == setting.split {
                self.encoder.leave_idle(lanes);
            }
        }
        EncodeReport {
            backend: self
                .routes
                .only_backend()
                .unwrap_or_else(|| self.encoder.executable.backend()),
            routes: self.routes.0,
            tiers: self.tiers,
            setting,
            waiting: self.options.waiting,
            interrupted: self.totals.n_items < self.n_todo,
            tried: self.tried,
            totals: self.totals,
            repeated: self.repeats.done,
            times: self.times,
            measured: self.measured.by_backend(),
        }
    }
}

/// How texts go in and vectors come out.
struct Pooled<'a> {
    texts: &'a [Tokens],
    lengths: &'a [usize],
    options: &'a EncodeOptions,
    layout: &'a Layout,
    n_dims: usize,
}

impl Job for Pooled<'_> {
    fn fill(&self, batch: &Batch, request: &mut InferRequest) -> Result<(), EncodeError> {
        let rows: Vec<&Tokens> = batch.items.iter().map(|&item| &self.texts[item]).collect();
        let too_large = EncodeError::TooLarge { n_rows: rows.len(), n_cells: batch.length };
        let filled =
            self.layout.fill(&mut request.inputs, &rows, batch.length, self.options.pad_id);
        filled.map_err(|_| too_large)
    }

    fn pool(&self, batch: &Batch, response: &InferResponse) -> Result<Vec<f32>, EncodeError> {
        let Self { layout, n_dims, .. } = *self;
        let EncodeOptions { pooling, normalise, .. } = *self.options;
        let wanted = [batch.items.len(), batch.length, n_dims];
        let tensor = &response.outputs.tensors()[layout.output];
        let hidden = match tensor.as_slice::<f32>() {
            Ok(hidden) if tensor.shape() == wanted => hidden,
            _ => {
                let (found, wanted) = (tensor.shape().to_vec(), wanted.to_vec());
                let output = layout.output_name.clone();
                return Err(EncodeError::Output { output, found, wanted });
            }
        };
        let lengths = batch.items.iter().map(|&item| self.lengths[item]);
        let n_vectors = match pooling {
            Pooling::None => lengths.clone().sum(),
            Pooling::Mean | Pooling::Cls => batch.items.len(),
        };
        let mut vectors = vec![0.0; n_vectors * n_dims];
        let mut rest = vectors.as_mut_slice();
        for (row, length) in lengths.enumerate() {
            let start = row * batch.length * n_dims;
            let real = &hidden[start..start + length * n_dims];
            let n_values = if pooling == Pooling::None { real.len() } else { n_dims };
            let (out, later) = rest.split_at_mut(n_values);
            pool_text(pooling, normalise, real, n_dims, out);
            rest = later;
        }
        Ok(vectors)
    }
}

fn add(sum: &mut Totals, one: &Totals) {
    sum.n_items += one.n_items;
    sum.n_batches += one.n_batches;
    sum.n_real_tokens += one.n_real_tokens;
    sum.n_padded_tokens += one.n_padded_tokens;
}
