//! Memory for tensors, and graphs that are computed again and again.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::c_void;
use std::io::Read;
use std::ptr::{self, NonNull};
use std::sync::{Arc, PoisonError};

use ggml_sys::{ggml_backend_buffer, ggml_cgraph, ggml_gallocr, ggml_status, ggml_type};

use super::graph::{Context, Tensor};
use super::library::{Engine, Stream};
use super::mapped::Mapped;

/// A context whose leaves have memory, which stays where it is.
#[derive(Debug)]
pub(super) struct Store {
    context: Context,
    /// `None` for a context without tensors.
    buffer: Option<NonNull<ggml_backend_buffer>>,
    /// The memory of leaves that had some before.
    _mapped: Option<Mapped>,
}

// SAFETY: the memory belongs to this value; what is shared between threads is only read.
unsafe impl Send for Store {}
// SAFETY: writing takes a tensor of the context, and whoever shares a store only reads then.
unsafe impl Sync for Store {}

impl Store {
    /// Gives every leaf of `context` memory.
    pub(super) fn new(context: Context, stream: &Stream, n_leaves: usize) -> Result<Self, String> {
        Self::beside(None, context, stream, n_leaves)
    }

    /// Gives memory to the `n_leaves` of `context` that have none in `mapped`.
    pub(super) fn beside(
        mapped: Option<Mapped>,
        context: Context,
        stream: &Stream,
        n_leaves: usize,
    ) -> Result<Self, String> {
        if n_leaves == 0 {
            return Ok(Self { context, buffer: None, _mapped: mapped });
        }
        let api = &context.engine().api;
        // SAFETY: context and backend are alive; the library passes over what has memory.
        let buffer = unsafe {
            (api.backend_alloc_ctx_tensors)(context.raw().as_ptr(), stream.backend().as_ptr())
        };
        let buffer = NonNull::new(buffer).ok_or("no memory for its tensors")?;
        Ok(Self { context, buffer: Some(buffer), _mapped: mapped })
    }

    fn engine(&self) -> &Engine {
        self.context.engine()
    }

    /// Fills a leaf of this store, whole.
    pub(super) fn write<T: bytemuck::Pod>(
        &self,
        leaf: &Tensor,
        values: &[T],
    ) -> Result<(), String> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let api = &self.engine().api;
        // SAFETY: the tensor is one of this store's, and alive.
        let wanted = unsafe { (api.nbytes)(leaf.raw().as_ptr()) };
        if bytes.len() != wanted {
            return Err(format!("a tensor of {wanted} bytes gets {}", bytes.len()));
        }
        let data = bytes.as_ptr().cast::<c_void>();
        // SAFETY: the tensor has memory of that many bytes, and the bytes are copied.
        unsafe { (api.backend_tensor_set)(leaf.raw().as_ptr(), data, 0, wanted) };
        Ok(())
    }

    /// Fills a leaf of this store from a file, piece by piece.
    pub(super) fn read(&self, leaf: &Tensor, from: &mut impl Read) -> Result<(), String> {
        let api = &self.engine().api;
        // SAFETY: the tensor is one of this store's, and alive.
        let wanted = unsafe { (api.nbytes)(leaf.raw().as_ptr()) };
        let mut piece = vec![0u8; wanted.min(LARGEST_PIECE)];
        for at in (0..wanted).step_by(LARGEST_PIECE) {
            let piece = &mut piece[..(wanted - at).min(LARGEST_PIECE)];
            from.read_exact(piece).map_err(|error| error.to_string())?;
            let data = piece.as_ptr().cast::<c_void>();
            // SAFETY: the tensor has memory of that many bytes from there on; they are copied.
            unsafe { (api.backend_tensor_set)(leaf.raw().as_ptr(), data, at, piece.len()) };
        }
        Ok(())
    }
}

/// Bytes that are read at once: enough to be fast, little beside a model.
const LARGEST_PIECE: usize = 1 << 20;

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer {
            // SAFETY: the buffer is alive, and its tensors go with this value.
            unsafe { (self.engine().api.backend_buffer_free)(buffer.as_ptr()) };
        }
    }
}

/// Floats as another type; every row by itself.
pub(super) fn quantise(
    engine: &Engine,
    dtype: ggml_type,
    values: &[f32],
    row: usize,
) -> Result<Vec<u8>, String> {
    let api = &engine.api;
    // SAFETY: the type is one of the library's: the reader of GGUF knows no others.
    let block = unsafe { (api.blck_size)(dtype) };
    let block = usize::try_from(block).unwrap_or(0);
    if row == 0 || block == 0 || !row.is_multiple_of(block) || !values.len().is_multiple_of(row) {
        return Err(format!("rows of {row} do not fill blocks of {block}"));
    }
    // SAFETY: as above, and the row fills whole blocks.
    let row_bytes = unsafe { (api.row_size)(dtype, row as i64) };
    let n_rows = values.len() / row;
    let mut bytes = vec![0u8; row_bytes * n_rows];
    let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast::<c_void>());
    let (rows, width) = (n_rows as i64, row as i64);
    // SAFETY: source and target hold that many rows of that width; null asks for no weighting.
    let written = unsafe { (api.quantize_chunk)(dtype, from, to, 0, rows, width, ptr::null()) };
    if written == bytes.len() {
        Ok(bytes)
    } else {
        Err("the library wrote another length".to_owned())
    }
}

/// A described graph with memory for everything between its leaves and its outputs.
#[derive(Debug)]
pub(super) struct Computation {
    /// First, so that it goes before the descriptions that it knows.
    _memory: Memory,
    graph: NonNull<ggml_cgraph>,
    context: Context,
}

#[derive(Debug)]
struct Memory {
    engine: Arc<Engine>,
    allocator: NonNull<ggml_gallocr>,
}

// SAFETY: graph and memory belong to this value alone; weights are shared, and only read.
unsafe impl Send for Computation {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the allocator is alive, and its graph is not computed after this.
        unsafe { (self.engine.api.gallocr_free)(self.allocator.as_ptr()) };
    }
}

/// Bytes that a graph of so many tensors takes besides their descriptions.
pub(super) fn graph_bytes(engine: &Engine, n_tensors: usize) -> usize {
    // SAFETY: it answers a number.
    unsafe { (engine.api.graph_overhead_custom)(n_tensors, false) }
}

impl Computation {
    /// The graph that computes `outputs`. The context has to have been made with [`graph_bytes`] for
    /// `n_tensors`, which has to be more than the tensors that the outputs need, leaves included.
    pub(super) fn new(
        context: Context,
        stream: &Stream,
        outputs: &[&Tensor],
        n_tensors: usize,
    ) -> Result<Self, String> {
        let engine = Arc::clone(context.engine());
        let api = &engine.api;
        let _building = engine.building.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the context is alive and has room, as the caller made sure.
        let graph = unsafe { (api.new_graph_custom)(context.raw().as_ptr(), n_tensors, false) };
        let graph = NonNull::new(graph).ok_or("no memory for a graph")?;
        for output in outputs {
            // SAFETY: the tensor is one of the context's, and alive.
            unsafe { (api.set_output)(output.raw().as_ptr()) };
            // SAFETY: graph and tensor are alive, and the graph has room for what the tensor needs.
            unsafe { (api.build_forward_expand)(graph.as_ptr(), output.raw().as_ptr()) };
        }
        // SAFETY: the backend is alive.
        let kind = unsafe { (api.backend_get_default_buffer_type)(stream.backend().as_ptr()) };
        // SAFETY: the kind of memory is the backend's.
        let allocator = NonNull::new(unsafe { (api.gallocr_new)(kind) });
        let allocator = allocator.ok_or("no memory for a graph")?;
        let memory = Memory { engine: Arc::clone(&engine), allocator };
        // SAFETY: allocator and graph are alive; every leaf has memory.
        let placed = unsafe { (api.gallocr_alloc_graph)(allocator.as_ptr(), graph.as_ptr()) };
        if placed {
            Ok(Self { _memory: memory, graph, context })
        } else {
            Err("no memory for a graph's tensors".to_owned())
        }
    }

    /// Computes the outputs from what the leaves hold now.
    pub(super) fn run(&mut self, stream: &mut Stream) -> Result<(), String> {
        let api = &stream.engine().api;
        stream.workshop().take_failure();
        // SAFETY: backend and graph are alive and belong to this lane alone; everything has memory.
        match unsafe { (api.backend_graph_compute)(stream.backend().as_ptr(), self.graph.as_ptr()) }
        {
            ggml_status::SUCCESS if stream.workshop().take_failure() => {
                Err("an operator panicked".to_owned())
            }
            ggml_status::SUCCESS => Ok(()),
            ggml_status::ALLOC_FAILED => Err("no memory to compute with".to_owned()),
            other => Err(format!("ggml answers status {}", other.0)),
        }
    }

    /// Copies an output.
    pub(super) fn read(&self, output: &Tensor, bytes: &mut [u8]) -> Result<(), String> {
        let api = &self.context.engine().api;
        // SAFETY: the tensor is one of the context's, and alive.
        let found = unsafe { (api.nbytes)(output.raw().as_ptr()) };
        if found != bytes.len() {
            return Err(format!("an output has {found} bytes, {} are wanted", bytes.len()));
        }
        let data = bytes.as_mut_ptr().cast::<c_void>();
        // SAFETY: the tensor has that many bytes, and so has the place.
        unsafe { (api.backend_tensor_get)(output.raw().as_ptr(), data, 0, found) };
        Ok(())
    }
}
