//! One stream of work on a device.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use ggml_sys::{ggml_backend, ggml_threadpool, ggml_threadpool_params};

use super::custom::Workshop;
use super::library::Engine;

/// The library's own limit.
const MOST_THREADS: usize = 512;

/// One stream of work on the device, with threads of its own.
#[derive(Debug)]
pub(crate) struct Stream {
    engine: Arc<Engine>,
    backend: NonNull<ggml_backend>,
    pool: Option<NonNull<ggml_threadpool>>,
    workshop: Arc<Workshop>,
}

// SAFETY: the stream and its threads belong to this value alone, and nothing in the library is tied to
// the thread that made them.
unsafe impl Send for Stream {}

impl Stream {
    pub(crate) fn new(engine: &Arc<Engine>, n_threads: NonZeroUsize) -> Result<Self, String> {
        // SAFETY: the device is the library's, and null asks for its defaults.
        let backend =
            unsafe { (engine.api.backend_dev_init)(engine.device().as_ptr(), ptr::null()) };
        let backend = NonNull::new(backend).ok_or("its device cannot be opened")?;
        let n_threads = n_threads.get().min(MOST_THREADS);
        let workshop = Arc::new(Workshop::new(n_threads));
        let mut stream = Self { engine: Arc::clone(engine), backend, pool: None, workshop };
        stream.set_threads(n_threads);
        Ok(stream)
    }

    pub(crate) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(crate) const fn backend(&self) -> NonNull<ggml_backend> {
        self.backend
    }

    pub(crate) const fn workshop(&self) -> &Arc<Workshop> {
        &self.workshop
    }

    fn set_threads(&mut self, n_threads: usize) {
        let n_threads = n_threads as c_int;
        if let Some(set) = self.engine.set_n_threads {
            // SAFETY: the backend is alive, and this is its registry's own function.
            unsafe { set(self.backend.as_ptr(), n_threads) };
        }
        // Without a pool each run starts its threads anew.
        let Some(pools) = self.engine.pools.filter(|_| n_threads > 1) else { return };
        let mut params = MaybeUninit::<ggml_threadpool_params>::zeroed();
        // SAFETY: it fills every field.
        unsafe { (self.engine.api.threadpool_params_init)(params.as_mut_ptr(), n_threads) };
        // SAFETY: it was filled above.
        let mut params = unsafe { params.assume_init() };
        // Spinning between runs takes a core from whoever else wants it.
        params.poll = 0;
        // SAFETY: the parameters are valid, and copied.
        self.pool = NonNull::new(unsafe { (pools.new)(&raw mut params) });
        if let Some(pool) = self.pool {
            // SAFETY: both are alive; the pool outlives the backend, as `drop` sees to.
            unsafe { (pools.set)(self.backend.as_ptr(), pool.as_ptr()) };
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the backend is alive, and not used after this.
        unsafe { (self.engine.api.backend_free)(self.backend.as_ptr()) };
        if let (Some(pools), Some(pool)) = (self.engine.pools, self.pool) {
            // SAFETY: the pool is alive, and its only user was freed above.
            unsafe { (pools.free)(pool.as_ptr()) };
        }
    }
}
