//! Which graph answers a request, as a pure state machine.
//!
//! Nothing here calls HIP. The machine says what to do, whoever does it tells how it went, and graphs
//! are values that it only keeps and gives back. Time is counted in requests, so that a sequence of
//! requests has the same decisions whenever it is run.

use std::collections::HashMap;
use std::hash::Hash;

/// Whose addresses a run uses; part of the key of every graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BindingMode {
    /// The caller's device addresses, which may change from request to request.
    DirectBind,
    /// Buffers of our own, into which inputs are copied and from which outputs are copied.
    Staged,
}

/// When to capture, and when to leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Eager runs of a key in a mode before its capture: libraries allocate and tune in the first.
    pub warm_runs: u32,
    /// Eager runs of a key in a mode after its capture failed; doubled with each failure in a row, up
    /// to [`longest_rest`](Self::longest_rest).
    pub rest_runs: u32,
    /// The longest rest after failures, in runs.
    pub longest_rest: u32,
    /// Requests in a row whose addresses are others than the captured ones, after which a key is
    /// served staged.
    pub misses_to_staged: u32,
    /// For how many requests of the key; doubled each time that direct binding is tried again and
    /// misses again without a match between, up to [`longest_probation`](Self::longest_probation).
    pub probation_runs: u32,
    /// The longest time staged, in requests of the key.
    pub longest_probation: u32,
    /// How many graphs are kept; the one that was used longest ago makes room.
    pub capacity: usize,
    /// How many replays of a new graph are compared with an eager run before it serves alone.
    pub checks: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            warm_runs: 2,
            rest_runs: 64,
            longest_rest: 4096,
            misses_to_staged: 3,
            probation_runs: 256,
            longest_probation: 65_536,
            capacity: 64,
            checks: 0,
        }
    }
}

/// One request, as far as graphs are concerned.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a, K> {
    /// What is run: a bucket.
    pub key: &'a K,
    /// The addresses of the caller, where the request can be served by binding them: inputs, outputs,
    /// scratch, in a fixed order. None where something has to be padded or is not on the device.
    pub direct: Option<&'a [usize]>,
    /// The addresses of our own buffers that a staged run would use.
    pub staged: &'a [usize],
}

// Not derived: that would ask the key to be `Copy`.
impl<K> Clone for Request<'_, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K> Copy for Request<'_, K> {}

/// What to do for a request. What was done is told to [`Cache::captured`], [`Cache::failed`] or
/// [`Cache::checked`]; an eager run and a replay that went well need no word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whose addresses to use, in whatever way it is run.
    pub mode: BindingMode,
    /// In which way to run it.
    pub action: Action,
}

/// In which way to run a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Enqueue it.
    Eager(EagerReason),
    /// Capture it, and launch what was captured; enqueue it if that fails.
    Capture,
    /// Launch the graph of [`Cache::graph`].
    Replay,
    /// Enqueue it for the answer, launch the graph too, and compare.
    Check,
}

/// Why a request is not served by a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EagerReason {
    /// The key has not run often enough in this mode.
    Warming,
    /// A capture failed, and is not tried again yet.
    Resting,
    /// A replay gave another answer than an eager run; this key has no graphs any more.
    Condemned,
    /// It is to be captured, and captures are held off just now.
    HeldOff,
    /// Graphs are off.
    Disabled,
}

/// How often what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Requests that were enqueued.
    pub eager: u64,
    /// Requests that were captured.
    pub captures: u64,
    /// Requests that were served by a graph.
    pub replays: u64,
    /// Requests that were served eagerly and compared with a graph.
    pub checks: u64,
    /// Requests whose addresses were others than the captured ones.
    pub misses: u64,
    /// How often a key fell from direct binding to staged.
    pub falls: u64,
    /// Captures and launches that failed.
    pub failures: u64,
    /// Graphs that made room for others.
    pub evictions: u64,
}

/// Graphs by key and binding mode, and what is known about each.
#[derive(Debug)]
pub struct Cache<K, G> {
    settings: Settings,
    enabled: bool,
    lanes: HashMap<K, Lane<G>>,
    clock: u64,
    statistics: Statistics,
}

/// What is known about one key. Each mode has an entry of its own, so that no graph of one mode can
/// answer in the other.
#[derive(Debug)]
struct Lane<G> {
    direct: Entry<G>,
    staged: Entry<G>,
    binding: Binding,
}

#[derive(Debug)]
struct Entry<G> {
    state: State<G>,
    failures_in_a_row: u32,
    last_use: u64,
}

#[derive(Debug)]
enum State<G> {
    Warming { runs: u32 },
    Resting { left: u32 },
    Ready { graph: G, addresses: Vec<usize>, checks_left: u32 },
    Condemned,
}

/// How direct binding goes for a key.
#[derive(Debug, Default)]
struct Binding {
    misses_in_a_row: u32,
    /// Requests to be served staged before direct binding is tried again.
    probation_left: u32,
    falls_in_a_row: u32,
}

impl<K: Eq + Hash + Clone, G> Cache<K, G> {
    /// An empty cache.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let statistics = Statistics::default();
        Self { settings, enabled: true, lanes: HashMap::new(), clock: 0, statistics }
    }

    /// Whether graphs are used at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Turns graphs off or on. The graphs are kept.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// How often what was decided.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// What to do for a request, and the graphs that this made useless. `may_capture` is asked when it is to be
    /// captured; if it may not be, the next request will be.
    pub fn decide(
        &mut self,
        request: Request<'_, K>,
        may_capture: impl FnOnce() -> bool,
    ) -> (Decision, Vec<G>) {
        self.clock += 1;
        let mut useless = Vec::new();
        let (mode, mut action) = if self.enabled {
            self.choose(request, &mut useless)
        } else {
            let mode = request.direct.map_or(BindingMode::Staged, |_| BindingMode::DirectBind);
            (mode, Action::Eager(EagerReason::Disabled))
        };
        if action == Action::Capture && !may_capture() {
            action = Action::Eager(EagerReason::HeldOff);
        }
        self.statistics.count(action);
        (Decision { mode, action }, useless)
    }

    fn choose(&mut self, request: Request<'_, K>, useless: &mut Vec<G>) -> (BindingMode, Action) {
        let (settings, clock) = (self.settings, self.clock);
        let statistics = &mut self.statistics;
        let lane = lane(&mut self.lanes, request.key);
        let direct = request.direct.filter(|_| !lane.binding.is_on_probation());
        let direct = direct.filter(|addresses| {
            let has_fallen = lane.has_fallen(settings, addresses, statistics);
            useless.extend(has_fallen.then(|| lane.direct.forget_graph(settings)).flatten());
            !has_fallen
        });
        let (mode, addresses) = match direct {
            Some(addresses) => (BindingMode::DirectBind, addresses),
            None => (BindingMode::Staged, request.staged),
        };
        let entry = lane.entry(mode);
        entry.last_use = clock;
        (mode, entry.next(settings, addresses, useless))
    }

    /// The graph that answers a request for which [`Action::Replay`] or [`Action::Check`] was decided.
    #[must_use]
    pub fn graph(&self, key: &K, mode: BindingMode) -> Option<&G> {
        let lane = self.lanes.get(key)?;
        let entry = match mode {
            BindingMode::DirectBind => &lane.direct,
            BindingMode::Staged => &lane.staged,
        };
        match &entry.state {
            State::Ready { graph, .. } => Some(graph),
            State::Warming { .. } | State::Resting { .. } | State::Condemned => None,
        }
    }

    /// Keeps what was captured, with the addresses that are baked into it. Returns the graphs that
    /// have to make room.
    pub fn captured(
        &mut self,
        key: &K,
        mode: BindingMode,
        addresses: &[usize],
        graph: G,
    ) -> Vec<G> {
        let addresses = addresses.to_vec();
        let state = State::Ready { graph, addresses, checks_left: self.settings.checks };
        let entry = lane(&mut self.lanes, key).entry(mode);
        let mut useless = Vec::from_iter(graph_of(std::mem::replace(&mut entry.state, state)));
        entry.failures_in_a_row = 0;
        entry.last_use = self.clock;
        useless.extend(self.evict_beyond_capacity());
        useless
    }

    /// A capture or a launch failed: the key rests in this mode. Returns the graph that is of no use
    /// any more.
    pub fn failed(&mut self, key: &K, mode: BindingMode) -> Option<G> {
        self.statistics.failures += 1;
        let settings = self.settings;
        let entry = lane(&mut self.lanes, key).entry(mode);
        let left = doubled(settings.rest_runs, entry.failures_in_a_row, settings.longest_rest);
        entry.failures_in_a_row = entry.failures_in_a_row.saturating_add(1);
        graph_of(std::mem::replace(&mut entry.state, State::Resting { left }))
    }

    /// How a comparison of a replay with an eager run ended. A graph that answers otherwise is taken
    /// out and returned, and the key gets no other in this mode.
    pub fn checked(&mut self, key: &K, mode: BindingMode, equal: bool) -> Option<G> {
        let entry = lane(&mut self.lanes, key).entry(mode);
        if !equal {
            return graph_of(std::mem::replace(&mut entry.state, State::Condemned));
        }
        if let State::Ready { checks_left, .. } = &mut entry.state {
            *checks_left = checks_left.saturating_sub(1);
        }
        None
    }

    /// Takes out every graph of a key: what they were captured of was made anew. What is known of failures
    /// and of direct binding stays, so that what cannot be captured is not tried more often for that.
    pub fn forget_graphs(&mut self, key: &K) -> Vec<G> {
        let lane = self.lanes.get_mut(key);
        let entries = lane.into_iter().flat_map(|lane| [&mut lane.direct, &mut lane.staged]);
        entries.filter_map(Entry::begin_anew).collect()
    }

    /// Takes out every graph of a key, and forgets what is known about it: its program is gone.
    pub fn remove(&mut self, key: &K) -> Vec<G> {
        let lane = self.lanes.remove(key);
        let entries = lane.into_iter().flat_map(|lane| [lane.direct, lane.staged]);
        entries.filter_map(|entry| graph_of(entry.state)).collect()
    }

    /// How many graphs are kept.
    #[must_use]
    pub fn n_graphs(&self) -> usize {
        let entries = self.lanes.values().flat_map(|lane| [&lane.direct, &lane.staged]);
        entries.filter(|entry| entry.is_ready()).count()
    }

    /// Never the graph that was kept last: it was used last.
    fn evict_beyond_capacity(&mut self) -> Option<G> {
        if self.n_graphs() <= self.settings.capacity.max(1) {
            return None;
        }
        let entries = self.lanes.values_mut().flat_map(|lane| [&mut lane.direct, &mut lane.staged]);
        let oldest = entries.filter(|entry| entry.is_ready()).min_by_key(|entry| entry.last_use)?;
        self.statistics.evictions += 1;
        oldest.forget_graph(self.settings)
    }
}

/// The key is copied each time: keys are small, and the map has no other way in one look.
fn lane<'a, K: Eq + Hash + Clone, G>(
    lanes: &'a mut HashMap<K, Lane<G>>,
    key: &K,
) -> &'a mut Lane<G> {
    lanes.entry(key.clone()).or_default()
}

impl<G> Default for Lane<G> {
    fn default() -> Self {
        let (direct, staged) = (Entry::default(), Entry::default());
        Self { direct, staged, binding: Binding::default() }
    }
}

impl<G> Default for Entry<G> {
    fn default() -> Self {
        Self { state: State::Warming { runs: 0 }, failures_in_a_row: 0, last_use: 0 }
    }
}

impl<G> Lane<G> {
    fn entry(&mut self, mode: BindingMode) -> &mut Entry<G> {
        match mode {
            BindingMode::DirectBind => &mut self.direct,
            BindingMode::Staged => &mut self.staged,
        }
    }

    /// Compares a request's addresses with the captured ones, and says whether this was one miss too
    /// many.
    fn has_fallen(
        &mut self,
        settings: Settings,
        wanted: &[usize],
        statistics: &mut Statistics,
    ) -> bool {
        let State::Ready { addresses, .. } = &self.direct.state else { return false };
        if addresses == wanted {
            self.binding = Binding::default();
            return false;
        }
        statistics.misses += 1;
        self.binding.misses_in_a_row += 1;
        let has_fallen = self.binding.misses_in_a_row >= settings.misses_to_staged.max(1);
        if has_fallen {
            statistics.falls += 1;
            self.binding.fall(settings);
        }
        has_fallen
    }
}

impl Binding {
    /// Counts a request of probation.
    fn is_on_probation(&mut self) -> bool {
        let is_on = self.probation_left > 0;
        self.probation_left = self.probation_left.saturating_sub(1);
        is_on
    }

    /// The request that fell is the first of its probation.
    fn fall(&mut self, settings: Settings) {
        let (first, most) = (settings.probation_runs, settings.longest_probation);
        self.probation_left = doubled(first, self.falls_in_a_row, most).saturating_sub(1);
        self.falls_in_a_row = self.falls_in_a_row.saturating_add(1);
        self.misses_in_a_row = 0;
    }
}

impl<G> Entry<G> {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// The next action; a graph with other addresses is of no use any more.
    fn next(&mut self, settings: Settings, wanted: &[usize], useless: &mut Vec<G>) -> Action {
        match &mut self.state {
            State::Condemned => Action::Eager(EagerReason::Condemned),
            State::Warming { runs } if *runs < settings.warm_runs => {
                *runs += 1;
                Action::Eager(EagerReason::Warming)
            }
            State::Resting { left } if *left > 0 => {
                *left -= 1;
                Action::Eager(EagerReason::Resting)
            }
            State::Warming { .. } | State::Resting { .. } => Action::Capture,
            State::Ready { addresses, checks_left, .. } if addresses == wanted => {
                if *checks_left > 0 { Action::Check } else { Action::Replay }
            }
            State::Ready { .. } => {
                useless.extend(self.forget_graph(settings));
                Action::Capture
            }
        }
    }

    /// What is captured next was made anew, and has to run eagerly first.
    fn begin_anew(&mut self) -> Option<G> {
        match self.state {
            State::Resting { .. } | State::Condemned => None,
            State::Warming { .. } | State::Ready { .. } => {
                graph_of(std::mem::replace(&mut self.state, State::Warming { runs: 0 }))
            }
        }
    }

    /// The next capture needs no warm runs: the program has run.
    fn forget_graph(&mut self, settings: Settings) -> Option<G> {
        let warm = State::Warming { runs: settings.warm_runs };
        graph_of(std::mem::replace(&mut self.state, warm))
    }
}

impl Statistics {
    fn count(&mut self, action: Action) {
        let count = match action {
            Action::Eager(_) => &mut self.eager,
            Action::Capture => &mut self.captures,
            Action::Replay => &mut self.replays,
            Action::Check => &mut self.checks,
        };
        *count += 1;
    }
}

fn graph_of<G>(state: State<G>) -> Option<G> {
    match state {
        State::Ready { graph, .. } => Some(graph),
        State::Warming { .. } | State::Resting { .. } | State::Condemned => None,
    }
}

fn doubled(first: u32, times: u32, most: u32) -> u32 {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(most.max(first))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
