//! What a lane keeps on its device for one program: buffers, and the graphs that know their addresses.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hipgraph::{ExecutableGraph, Runner, Stream};

use crate::device::{Account, Buffers, GiveUp, Gpu, Layouts, Parameters};
use crate::programs::{BucketProgram, ProgramError};

/// What a lane keeps on its device for one program. It makes room for others while the lane does not use
/// it, and is made anew when it does.
pub(super) struct Binding {
    pub(super) layouts: Layouts,
    state: Arc<Mutex<State>>,
    /// Goes last: the bytes are free in the account once they are on the device.
    pub(super) account: Account,
}

/// What others may take away.
pub(super) struct State {
    pub(super) parameters: Parameters,
    pub(super) graphs: Graphs,
    /// `None` until the first run, and after others needed the memory.
    buffers: Option<Buffers>,
}

/// The graphs of one loading of the program.
pub(super) struct Graphs {
    pub(super) runner: Runner<()>,
    generation: Option<u64>,
}

/// All that a run needs.
pub(super) struct Ready<'a> {
    pub(super) parameters: &'a mut Parameters,
    pub(super) graphs: &'a mut Graphs,
    pub(super) buffers: &'a Buffers,
}

impl Binding {
    /// Nothing is taken of the device yet.
    pub(super) fn new(
        gpu: &Gpu,
        stream: &Stream,
        program: &BucketProgram,
    ) -> Result<Self, ProgramError> {
        let layouts = Layouts::of(gpu, program)?;
        let account = gpu.memory().account(layouts.device_bytes() as u64);
        let graphs = Graphs { runner: gpu.runner(stream), generation: None };
        let state = State { parameters: Parameters::new(program)?, graphs, buffers: None };
        let state = Arc::new(Mutex::new(state));
        let owner: Arc<dyn GiveUp> = Arc::<Mutex<State>>::clone(&state);
        account.belongs_to(Arc::downgrade(&owner));
        Ok(Self { account, layouts, state })
    }

    /// What all of it takes with these graphs, in bytes.
    pub(super) fn device_bytes(&self, graphs: &Graphs) -> u64 {
        let nodes = graphs.runner.n_nodes(&()) * ExecutableGraph::NODE_BYTES;
        (self.layouts.device_bytes() + nodes) as u64
    }

    /// The state, for the lane while it keeps the account.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // A thread died in the middle of a run; nobody knows what was captured.
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.graphs.runner.forget_graphs(&());
            state
        })
    }
}

impl State {
    /// The state with its buffers, which are made if there are none.
    pub(super) fn ready(
        &mut self,
        gpu: &Gpu,
        layouts: &Layouts,
    ) -> Result<Ready<'_>, ProgramError> {
        let Self { parameters, graphs, buffers } = self;
        let buffers = match buffers {
            Some(buffers) => buffers,
            empty @ None => empty.insert(Buffers::new(gpu, layouts)?),
        };
        Ok(Ready { parameters, graphs, buffers })
    }
}

impl Graphs {
    /// Drops graphs of another loading of the program, whose addresses are gone.
    pub(super) fn follow(&mut self, generation: u64) {
        let before = self.generation.replace(generation);
        if before.is_some_and(|before| before != generation) {
            self.runner.forget_graphs(&());
        }
    }
}

impl GiveUp for Mutex<State> {
    fn give_up(&self) {
        let mut state = self.lock().unwrap_or_else(PoisonError::into_inner);
        state.graphs.runner.forget_graphs(&());
        state.buffers = None;
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("has_buffers", &self.buffers.is_some()).finish()
    }
}
