//! Graphs that are computed again and again.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError};

use ggml_sys::{ggml_cgraph, ggml_gallocr, ggml_status, ggml_tensor};
use shapeyard_core::Tier;

use super::context::{Context, Tensor};
use super::library::Engine;
use super::stream::Stream;

/// Memory for everything between the leaves and the outputs of a graph.
///
/// The graphs of a lane share it, since only one is computed at a time: what one leaves there the next may
/// write over.
#[derive(Debug)]
pub(crate) struct Arena {
    engine: Arc<Engine>,
    allocator: NonNull<ggml_gallocr>,
    /// Bytes that are sure to be in one piece.
    n_bytes_whole: usize,
    /// How often the memory moved, which takes it from every graph that was placed before.
    n_moves: usize,
}

// SAFETY: the memory belongs to this value alone, and nothing in the library is tied to a thread.
unsafe impl Send for Arena {}

impl Arena {
    /// No memory yet, of the kind that the stream's device computes in.
    pub(crate) fn new(stream: &Stream) -> Result<Self, String> {
        let engine = Arc::clone(stream.engine());
        // SAFETY: the backend is alive.
        let kind =
            unsafe { (engine.api.backend_get_default_buffer_type)(stream.backend().as_ptr()) };
        // SAFETY: the kind of memory is the backend's.
        let n_bytes_whole = unsafe { (engine.api.backend_buft_get_max_size)(kind) };
        // SAFETY: as above.
        let allocator = NonNull::new(unsafe { (engine.api.gallocr_new)(kind) });
        let allocator = allocator.ok_or("no memory for a graph")?;
        Ok(Self { engine, allocator, n_bytes_whole, n_moves: 0 })
    }

    fn n_bytes(&self) -> usize {
        // SAFETY: the allocator is alive and has one kind of memory.
        unsafe { (self.engine.api.gallocr_get_buffer_size)(self.allocator.as_ptr(), 0) }
    }

    /// Gives a graph's tensors their places.
    fn place(&mut self, graph: NonNull<ggml_cgraph>) -> Result<(), String> {
        let (api, allocator) = (&self.engine.api, self.allocator.as_ptr());
        let before = self.n_bytes();
        // Places are planned for every graph: those of another with as many nodes need not fit.
        // SAFETY: allocator and graph are alive; every leaf has memory.
        let reserved = unsafe { (api.gallocr_reserve)(allocator, graph.as_ptr()) };
        let after = self.n_bytes();
        if after != before || after > self.n_bytes_whole || !reserved {
            self.n_moves += 1;
        }
        // SAFETY: as above.
        let placed = reserved && unsafe { (api.gallocr_alloc_graph)(allocator, graph.as_ptr()) };
        if placed { Ok(()) } else { Err("no memory for a graph's tensors".to_owned()) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the allocator is alive, and its graphs are not computed after this.
        unsafe { (self.engine.api.gallocr_free)(self.allocator.as_ptr()) };
    }
}

/// Graphs that a lane keeps; one more takes the place of that which was used longest ago.
const MOST_GRAPHS: usize = 16;

/// The graphs of a lane by what they are for.
#[derive(Debug)]
pub(crate) struct Graphs<K, G> {
    /// The one used last comes last. Before their memory, so that they go first.
    kept: Vec<(K, G)>,
    arena: Arena,
}

impl<K, G> Graphs<K, G> {
    pub(crate) fn new(stream: &Stream) -> Result<Self, String> {
        Ok(Self { kept: Vec::new(), arena: Arena::new(stream)? })
    }

    /// Makes the graph for a key the last one, described now if need be.
    pub(crate) fn choose<E>(
        &mut self,
        is_wanted: impl Fn(&K) -> bool,
        describe: impl FnOnce(&mut Arena) -> Result<(K, G), E>,
    ) -> Result<Tier, E> {
        if let Some(at) = self.kept.iter().position(|(key, _)| is_wanted(key)) {
            let again = at + 1 == self.kept.len();
            self.kept[at..].rotate_left(1);
            return Ok(if again { Tier::Rebind } else { Tier::Cached });
        }
        if self.kept.len() >= MOST_GRAPHS {
            self.kept.remove(0);
        }
        let n_moves = self.arena.n_moves;
        let described = describe(&mut self.arena);
        if self.arena.n_moves != n_moves {
            self.kept.clear();
        }
        self.kept.push(described?);
        Ok(Tier::Cached)
    }

    /// The graph that was chosen last.
    pub(crate) fn chosen(&self) -> Option<&G> {
        self.kept.last().map(|(_, graph)| graph)
    }

    pub(crate) fn chosen_mut(&mut self) -> Option<&mut G> {
        self.kept.last_mut().map(|(_, graph)| graph)
    }
}

/// Looking for what an output is made of, the library calls itself once for every tensor of the longest way, and
/// has no more stack than the thread. The tensors of a larger graph are named one by one, each after what it is
/// made of; of a smaller one, only what the outputs need is computed.
const MOST_CALLS: usize = 4096;

/// A described graph. It is computed in the memory of the arena that it was made with.
#[derive(Debug)]
pub(crate) struct Computation {
    graph: NonNull<ggml_cgraph>,
    context: Context,
}

// SAFETY: the graph belongs to this value alone; weights are shared, and only read.
unsafe impl Send for Computation {}

/// Bytes that a graph of so many tensors takes besides their descriptions.
pub(crate) fn graph_bytes(engine: &Engine, n_tensors: usize) -> usize {
    // SAFETY: it answers a number.
    unsafe { (engine.api.graph_overhead_custom)(n_tensors, false) }
}

impl Computation {
    /// The graph that computes `outputs`. The context has to have been made with [`graph_bytes`] for
    /// `n_tensors`, which has to be more than the tensors that the outputs need, leaves included.
    pub(crate) fn new(
        context: Context,
        arena: &mut Arena,
        outputs: &[&Tensor],
        n_tensors: usize,
    ) -> Result<Self, String> {
        let engine = Arc::clone(context.engine());
        let api = &engine.api;
        let _building = engine.building.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the context is alive and has room, as the caller made sure.
        let graph = unsafe { (api.new_graph_custom)(context.raw().as_ptr(), n_tensors, false) };
        let graph = NonNull::new(graph).ok_or("no memory for a graph")?;
        // SAFETY: graph and tensor are alive, and the graph has room for what the tensor needs.
        let expand = |tensor: NonNull<ggml_tensor>| unsafe {
            (api.build_forward_expand)(graph.as_ptr(), tensor.as_ptr());
        };
        for output in outputs {
            // SAFETY: the tensor is one of the context's, and alive.
            unsafe { (api.set_output)(output.raw().as_ptr()) };
        }
        let made = context.made.take();
        if made.len() > MOST_CALLS {
            made.into_iter().for_each(expand);
        }
        outputs.iter().for_each(|output| expand(output.raw()));
        arena.place(graph)?;
        Ok(Self { graph, context })
    }

    /// Computes the outputs from what the leaves hold now.
    pub(crate) fn run(&mut self, stream: &mut Stream) -> Result<(), String> {
        let api = &stream.engine().api;
        stream.workshop().take_failure();
        // SAFETY: backend and graph are alive and belong to this lane alone; everything has memory.
        match unsafe { (api.backend_graph_compute)(stream.backend().as_ptr(), self.graph.as_ptr()) }
        {
            ggml_status::SUCCESS if stream.workshop().take_failure() => {
                Err("an operator of ours failed".to_owned())
            }
            ggml_status::SUCCESS => Ok(()),
            ggml_status::ALLOC_FAILED => Err("no memory to compute with".to_owned()),
            other => Err(format!("ggml answers status {}", other.0)),
        }
    }

    /// Copies elements of an output from the one at `start` on.
    pub(crate) fn read(&self, output: &Tensor, start: usize, to: &mut [f32]) -> Result<(), String> {
        let api = &self.context.engine().api;
        // SAFETY: the tensor is one of the context's, and alive.
        let n_bytes = unsafe { (api.nbytes)(output.raw().as_ptr()) };
        let (at, wanted) = (start * size_of::<f32>(), size_of_val(to));
        if at + wanted > n_bytes {
            return Err(format!("an output has {n_bytes} bytes, {wanted} from {at} on are wanted"));
        }
        let data = to.as_mut_ptr().cast::<c_void>();
        // SAFETY: the tensor has that many bytes there, and so has the place.
        unsafe { (api.backend_tensor_get)(output.raw().as_ptr(), data, at, wanted) };
        Ok(())
    }
}
