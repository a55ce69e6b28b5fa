//! Leaves that are filled from outside, and their memory.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::c_void;
use std::io::{self, Read};
use std::ptr::NonNull;

use ggml_sys::ggml_backend_buffer;

use super::context::{Context, Tensor};
use super::library::Engine;
use super::mapped::Mapped;
use super::stream::Stream;

/// A context whose leaves have memory, which stays where it is.
#[derive(Debug)]
pub(crate) struct Store {
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
    /// Gives memory to the `n_leaves` of `context` that have none in `mapped`.
    pub(crate) fn new(
        context: Context,
        stream: &Stream,
        n_leaves: usize,
        mapped: Option<Mapped>,
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
    pub(crate) fn write<T: bytemuck::Pod>(
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
    pub(crate) fn read(&self, leaf: &Tensor, from: &mut impl Read) -> io::Result<()> {
        let api = &self.engine().api;
        // SAFETY: the tensor is one of this store's, and alive.
        let wanted = unsafe { (api.nbytes)(leaf.raw().as_ptr()) };
        let mut piece = vec![0u8; wanted.min(LARGEST_PIECE)];
        for at in (0..wanted).step_by(LARGEST_PIECE) {
            let piece = &mut piece[..(wanted - at).min(LARGEST_PIECE)];
            from.read_exact(piece)?;
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
