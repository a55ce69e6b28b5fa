//! Weights that stay in their file.
#![allow(unsafe_code, reason = "the functions of a C API are called, and a file becomes memory")]

use std::ffi::c_void;
use std::fs::File;
use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys::{ggml_backend_buffer, ggml_status};
use memmap2::Mmap;

use super::context::Tensor;
use super::library::Engine;

/// How the weights of an artifact come into memory.
///
/// Reading a mapped page that the file has lost ends the process, so only files are mapped that nobody
/// changes: those that a store published and holds. An f16 artifact of the real encoder takes 43 MiB copied, and none
/// of the process's own memory mapped, and is loaded in a third of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Residence {
    Copied,
    Mapped,
}

/// What the processor takes the start of a tensor to be a multiple of.
const ALIGNMENT: u64 = 32;

/// A file whose pages are the memory of tensors.
#[derive(Debug)]
pub(crate) struct Mapped {
    engine: Arc<Engine>,
    buffer: NonNull<ggml_backend_buffer>,
    pages: Mmap,
}

// SAFETY: the memory belongs to this value, and is only read.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// `None` for a device with memory of its own.
    pub(crate) fn new(engine: &Arc<Engine>, file: &File) -> Result<Option<Self>, String> {
        if !engine.is_processor() {
            return Ok(None);
        }
        // SAFETY: the caller asks for it only where a store keeps the file as it is.
        let pages = unsafe { Mmap::map(file) }.map_err(|error| error.to_string())?;
        let start = pages.as_ptr().cast_mut().cast::<c_void>();
        let (device, wrap) = (engine.device(), engine.api.backend_dev_buffer_from_host_ptr);
        // SAFETY: the processor's device takes any memory, which outlives the buffer and begins with a page.
        // Weights are never written to.
        let buffer = unsafe { wrap(device.as_ptr(), start, pages.len(), pages.len()) };
        let buffer = NonNull::new(buffer).ok_or("no memory for its tensors")?;
        Ok(Some(Self { engine: Arc::clone(engine), buffer, pages }))
    }

    /// Makes `n_bytes` from `offset` on the memory of a leaf that has none; false if they do not fit it.
    pub(crate) fn place(&self, leaf: &Tensor, offset: u64, n_bytes: u64) -> Result<bool, String> {
        let api = &self.engine.api;
        // SAFETY: the tensor is alive.
        let wanted = unsafe { (api.nbytes)(leaf.raw().as_ptr()) } as u64;
        let ends_inside =
            offset.checked_add(n_bytes).is_some_and(|it| it <= self.pages.len() as u64);
        if wanted != n_bytes || !ends_inside || !offset.is_multiple_of(ALIGNMENT) {
            return Ok(false);
        }
        let from = &self.pages[offset as usize..];
        let start = from.as_ptr().cast_mut().cast::<c_void>();
        let alloc = api.backend_tensor_alloc;
        // SAFETY: buffer and tensor are alive, the tensor has no memory yet, and its bytes lie inside.
        match unsafe { alloc(self.buffer.as_ptr(), leaf.raw().as_ptr(), start) } {
            ggml_status::SUCCESS => Ok(true),
            other => Err(format!("ggml answers status {}", other.0)),
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the buffer is alive, and its tensors go with this value. The pages stay until after it.
        unsafe { (self.engine.api.backend_buffer_free)(self.buffer.as_ptr()) };
    }
}
