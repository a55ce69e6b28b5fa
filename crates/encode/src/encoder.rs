//! Texts to vectors: batches under a token budget, through an engine, back in the caller's order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shapeyard_core::Signature;
use shapeyard_core::backend::Executable;
use shapeyard_core::engine::{InferRequest, InferResponse};
use shapeyard_core::plan::calibrate::{
    Search, Setting, Split, TOKEN_BUDGETS, Trial, settings, splits,
};
use shapeyard_core::plan::token_budget::{pack_some, totals};
use shapeyard_core::plan::{Batch, Totals, Workload};

use crate::lanes::Lanes;
use crate::layout::Layout;
use crate::pool::Pooling;
use crate::remaining::{N_RUNS, Remaining};
use crate::report::{Tried, rate};
use crate::tokens::Tokens;
use crate::{Embeddings, EncodeError, EncodeReport, EncodeTimes};

/// Real tokens of a calibration's first trials. Fewer say nothing; more are no more exact.
const TRIAL_TOKENS: std::ops::RangeInclusive<usize> = 1024..=8192;

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
}

/// A caller that watches an encoding.
pub trait Observer {
    /// Called after every batch with texts and real tokens done since the last call.
    fn progress(&self, n_items: usize, n_tokens: usize) {
        let _ = (n_items, n_tokens);
    }

    /// Whether to stop: what runs is finished and kept, nothing new is begun.
    fn stop(&self) -> bool {
        false
    }
}

/// An observer that neither looks nor stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// A loaded model that takes tokens and gives vectors.
#[derive(Clone)]
pub struct Encoder {
    executable: Arc<dyn Executable>,
    layout: Layout,
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
    pub fn new(executable: Arc<dyn Executable>) -> Result<Self, EncodeError> {
        let layout = Layout::of(executable.signature())?;
        Ok(Self { executable, layout })
    }

    /// Numbers in a vector.
    #[must_use]
    pub const fn n_dims(&self) -> usize {
        self.layout.n_dims
    }

    /// The work that `lengths` (tokens a text) are, for [`shapeyard_core::Backend::plan`].
    #[must_use]
    pub fn workload(&self, lengths: Vec<usize>) -> Workload {
        let signature: &Signature = self.executable.signature();
        let name = |symbol| signature.symbol_name(symbol).to_owned();
        Workload { rows: name(self.layout.batch), length: name(self.layout.sequence), lengths }
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
        let todo = (0..texts.len()).filter(|&item| !embeddings.is_done(item)).collect();
        let mut run = Run {
            encoder: self,
            texts,
            options,
            embeddings,
            observer,
            remaining: Remaining::new(&lengths, todo),
            lengths: &lengths,
            lanes: Vec::new(),
            totals: Totals::default(),
            times: EncodeTimes::default(),
            tried: Vec::new(),
        };
        let setting = run.calibrate()?;
        run.finish(setting)?;
        Ok(run.report(setting))
    }

    /// The settings that the options leave open.
    fn candidates(&self, options: &EncodeOptions) -> Vec<Setting> {
        let splits = match options.split {
            Some(split) => vec![split],
            None => splits(options.n_threads.max(1)),
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
    remaining: Remaining,
    lanes: Vec<Lanes>,
    totals: Totals,
    times: EncodeTimes,
    tried: Vec<Tried>,
}

impl Run<'_> {
    /// Tries settings on the first part of the work; gives the one for the rest.
    fn calibrate(&mut self) -> Result<Setting, EncodeError> {
        let mut candidates = self.encoder.candidates(self.options);
        let fallback = default_setting(&candidates, self.options.n_threads);
        let share = self.remaining.n_tokens() / Search::n_tokens(candidates.len(), 1).max(1);
        if share < *TRIAL_TOKENS.start() {
            return Ok(fallback);
        }
        let trial_tokens = share.min(*TRIAL_TOKENS.end());
        // A budget that one batch of a trial's runs does not fill cannot be judged by it.
        candidates.retain(|setting| setting.token_budget * N_RUNS <= trial_tokens);
        let started = Instant::now();
        let mut search = Search::new(candidates, trial_tokens);
        while let Some(Trial { setting, n_tokens }) = search.next_trial() {
            self.warm_up(setting.split)?;
            let runs = self.remaining.sample(n_tokens);
            let (n_real, elapsed) = self.run(setting, runs)?;
            if self.observer.stop() {
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
        self.run(Setting { split, token_budget: 1 }, vec![one_each])?;
        Ok(())
    }

    /// Runs what is left.
    fn finish(&mut self, setting: Setting) -> Result<(), EncodeError> {
        for lanes in self.lanes.extract_if(.., |lanes| lanes.split != setting.split) {
            self.times.add(&lanes.spent);
        }
        let rest = self.remaining.take(usize::MAX);
        if rest.is_empty() {
            return Ok(());
        }
        let (_, elapsed) = self.run(setting, vec![rest])?;
        self.times.run = elapsed;
        Ok(())
    }

    /// Runs items with a setting, each group packed for itself; gives the real tokens done and the time
    /// taken, without that of making sessions.
    fn run(
        &mut self,
        setting: Setting,
        groups: Vec<Vec<usize>>,
    ) -> Result<(usize, Duration), EncodeError> {
        let lanes = self.lanes(setting.split)?;
        let (texts, options, layout) = (self.texts, self.options, &self.encoder.layout);
        let (lengths, observer) = (self.lengths, self.observer);
        let pack = |items| pack_some(lengths, items, setting.token_budget);
        let batches: Vec<Batch> = groups.into_iter().flat_map(pack).collect();
        let mut done = Totals::default();
        let fill = |batch: &Batch, request: &mut InferRequest| {
            let rows: Vec<&Tokens> = batch.items.iter().map(|&item| &texts[item]).collect();
            let too_large = EncodeError::TooLarge { n_rows: rows.len(), n_dims: batch.length };
            layout
                .fill(&mut request.inputs, &rows, batch.length, options.pad_id)
                .map_err(|_| too_large)
        };
        let take = |batch: &Batch, response: &InferResponse| {
            let one = totals(lengths, std::slice::from_ref(batch));
            collect(layout, batch, lengths, response, options, self.embeddings)?;
            add(&mut done, &one);
            observer.progress(one.n_items, one.n_real_tokens);
            Ok(())
        };
        let started = Instant::now();
        let result = self.lanes[lanes].run(&batches, &|| observer.stop(), fill, take);
        let elapsed = started.elapsed();
        add(&mut self.totals, &done);
        result.map(|()| (done.n_real_tokens, elapsed))
    }

    fn lanes(&mut self, split: Split) -> Result<usize, EncodeError> {
        if let Some(index) = self.lanes.iter().position(|lanes| lanes.split == split) {
            return Ok(index);
        }
        let started = Instant::now();
        self.lanes.push(Lanes::start(&self.encoder.executable, split)?);
        self.times.sessions += started.elapsed();
        Ok(self.lanes.len() - 1)
    }

    fn report(mut self, setting: Setting) -> EncodeReport {
        for lanes in &self.lanes {
            self.times.add(&lanes.spent);
        }
        EncodeReport {
            backend: self.encoder.executable.backend(),
            setting,
            interrupted: self.totals.n_items < self.texts.len() && self.observer.stop(),
            tried: self.tried,
            totals: self.totals,
            times: self.times,
        }
    }
}

/// What serves where nothing was tried: one session a thread and small batches, which keep a batch's
/// activations in the processor's caches.
fn default_setting(candidates: &[Setting], n_threads: usize) -> Setting {
    let split = Split { n_sessions: n_threads.max(1), n_threads: 1 };
    let usual = Setting { split, token_budget: 512 };
    let score = |it: &Setting| (it.split == usual.split, it.token_budget == usual.token_budget);
    candidates.iter().copied().max_by_key(score).unwrap_or(usual)
}

fn collect(
    layout: &Layout,
    batch: &Batch,
    lengths: &[usize],
    response: &InferResponse,
    options: &EncodeOptions,
    embeddings: &mut Embeddings,
) -> Result<(), EncodeError> {
    let wanted = [batch.items.len(), batch.length, layout.n_dims];
    let tensor = &response.outputs.tensors()[layout.output];
    let hidden = match tensor.as_slice::<f32>() {
        Ok(hidden) if tensor.shape() == wanted => hidden,
        _ => {
            let (found, wanted) = (tensor.shape().to_vec(), wanted.to_vec());
            return Err(EncodeError::Output { output: layout.output.to_string(), found, wanted });
        }
    };
    let n_row_values = batch.length * layout.n_dims;
    for (row, &item) in batch.items.iter().enumerate() {
        let start = row * n_row_values;
        let real = &hidden[start..start + lengths[item] * layout.n_dims];
        embeddings.pool(item, real, options.pooling, options.normalise);
    }
    Ok(())
}

fn add(sum: &mut Totals, one: &Totals) {
    sum.n_items += one.n_items;
    sum.n_batches += one.n_batches;
    sum.n_real_tokens += one.n_real_tokens;
    sum.n_padded_tokens += one.n_padded_tokens;
}
