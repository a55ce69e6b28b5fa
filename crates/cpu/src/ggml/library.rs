//! Finding ggml, and what its devices are.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use ggml_sys::{
    Api, Library, SearchOptions, ggml_backend, ggml_backend_cpu_set_threadpool_t,
    ggml_backend_dev_type, ggml_backend_device, ggml_backend_reg, ggml_backend_set_n_threads_t,
    ggml_threadpool, ggml_threadpool_free_t, ggml_threadpool_new_t, ggml_threadpool_params,
};
use shapeyard_core::backend::{Fingerprint, SearchStep};

use super::custom::Workshop;
use crate::dynamic;

/// What to do where the library is missing.
pub(super) const REMEDY: &str = "run `cargo xtask setup`, or build ggml 0.26 as a shared library and set GGML_DYLIB_PATH to the file";

/// What a search came to.
#[derive(Debug)]
pub(super) struct Search {
    /// The library, or why there is none.
    pub(super) engine: Result<Arc<Engine>, String>,
    /// Where it was looked for.
    pub(super) steps: Vec<SearchStep>,
}

/// Looks for the library and loads the first that works; a place that a person named is the only one. Then
/// takes the device with the name that is given, or the processor.
pub(super) fn find(named: Option<&Path>, device: Option<&str>) -> Search {
    let options = named.map_or_else(SearchOptions::default, SearchOptions::at);
    let (engine, steps) = match Library::open(&options) {
        Ok(library) => (Engine::new(&library, device), library.steps().to_vec()),
        Err(error) => (Err(error.to_string()), error.steps().to_vec()),
    };
    let engine = engine.map_err(|reason| match options.named_by() {
        Some((why, path)) => format!("{why} names `{}`: {reason}", path.display()),
        None => reason,
    });
    let step = |step: ggml_sys::SearchStep| {
        let outcome = match (&step.outcome, &engine) {
            (ggml_sys::Outcome::Loaded, Ok(engine)) => format!("ggml {}", engine.version),
            (outcome, _) => outcome.to_string(),
        };
        SearchStep { place: step.place_and_why(), outcome }
    };
    let mut steps: Vec<SearchStep> = steps.into_iter().map(step).collect();
    steps.extend(engine.iter().flat_map(Engine::devices));
    Search { engine: engine.map(Arc::new), steps }
}

/// A loaded library and the device that computes.
pub(super) struct Engine {
    pub(super) api: Api,
    device: NonNull<ggml_backend_device>,
    device_name: String,
    set_n_threads: Option<ggml_backend_set_n_threads_t>,
    pools: Option<PoolFunctions>,
    pub(super) version: String,
    pub(super) fingerprint: Fingerprint,
    /// Held while a graph is built: building writes to the weights' descriptions, which lanes share.
    pub(super) building: Mutex<()>,
}

// SAFETY: the device is an entry of a table that the library fills when it is loaded and that lives as
// long as the library, which is never unloaded; the functions that take it only read it.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

#[derive(Clone, Copy)]
struct PoolFunctions {
    new: ggml_threadpool_new_t,
    free: ggml_threadpool_free_t,
    set: ggml_backend_cpu_set_threadpool_t,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The library prints to standard error by default; what matters of it is in its answers too.
unsafe extern "C" fn silent(_level: c_int, _text: *const c_char, _data: *mut c_void) {}

impl Engine {
    fn new(library: &Library, device: Option<&str>) -> Result<Self, String> {
        let api = library.api;
        // SAFETY: the callback may be called from any thread at any time, and does nothing.
        unsafe { (api.log_set)(Some(silent), ptr::null_mut()) };
        let device = match device {
            Some(name) => named_device(&api, library.path(), name)?,
            None => processor(&api, library.path())?,
        };
        // SAFETY: the device is one of the library's.
        let registry = unsafe { (api.backend_dev_backend_reg)(device.as_ptr()) };
        let version = library.version();
        let device_name = text(device, api.backend_dev_name);
        let fingerprint =
            Fingerprint(format!("ggml {version} {device_name} {}", dynamic::processor()));
        Ok(Self {
            api,
            device,
            device_name,
            set_n_threads: set_n_threads(&api, registry),
            pools: pool_functions(&api, registry),
            version,
            fingerprint,
            building: Mutex::new(()),
        })
    }

    /// Every device of the library, and which one computes.
    fn devices(&self) -> Vec<SearchStep> {
        let step = |device| {
            let name = text(device, self.api.backend_dev_name);
            let description = text(device, self.api.backend_dev_description);
            let outcome = if name == self.device_name { "computes" } else { "not asked to" };
            SearchStep {
                place: format!("its device `{name}` ({description})"),
                outcome: outcome.to_owned(),
            }
        };
        devices(&self.api).into_iter().map(step).collect()
    }

    /// Whether it computes in the process's own memory.
    pub(super) fn is_processor(&self) -> bool {
        // SAFETY: the device is one of the library's.
        let kind = unsafe { (self.api.backend_dev_type)(self.device.as_ptr()) };
        kind == ggml_backend_dev_type::CPU
    }

    pub(super) const fn device(&self) -> NonNull<ggml_backend_device> {
        self.device
    }
}

type Device = NonNull<ggml_backend_device>;

/// The processor's device.
fn processor(api: &Api, path: &Path) -> Result<Device, String> {
    // SAFETY: it answers an entry of the library's table, or null.
    let find = || NonNull::new(unsafe { (api.backend_dev_by_type)(ggml_backend_dev_type::CPU) });
    let found = with_parts(api, path, find);
    found.ok_or_else(|| "it was built without the processor's part".to_owned())
}

fn named_device(api: &Api, path: &Path, name: &str) -> Result<Device, String> {
    let name_of = |device| text(device, api.backend_dev_name);
    let find = || devices(api).into_iter().find(|device| name_of(*device) == name);
    with_parts(api, path, find).ok_or_else(|| {
        let known: Vec<String> = devices(api).into_iter().map(name_of).collect();
        format!("it has no device `{name}` here; it has `{}`", known.join("`, `"))
    })
}

/// What `find` finds; a library that keeps devices in files of their own loads those from beside itself.
fn with_parts(api: &Api, path: &Path, find: impl Fn() -> Option<Device>) -> Option<Device> {
    if let Some(device) = find() {
        return Some(device);
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let folder = CString::new(folder).ok()?;
    // SAFETY: the text ends in a zero; the library's own parts are loaded.
    unsafe { (api.backend_load_all_from_path)(folder.as_ptr()) };
    find()
}

fn devices(api: &Api) -> Vec<Device> {
    // SAFETY: it answers a number.
    let n_devices = unsafe { (api.backend_dev_count)() };
    // SAFETY: the index is below the number of devices.
    let device = |index| NonNull::new(unsafe { (api.backend_dev_get)(index) });
    (0..n_devices).filter_map(device).collect()
}

/// What the library says of a device.
fn text(
    device: Device,
    say: unsafe extern "C" fn(*mut ggml_backend_device) -> *const c_char,
) -> String {
    // SAFETY: the device is one of the library's.
    let text = unsafe { say(device.as_ptr()) };
    if text.is_null() {
        return String::new();
    }
    // SAFETY: it ends in a zero, and is the library's own.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

fn proc_address(
    api: &Api,
    registry: *mut ggml_backend_reg,
    name: &CStr,
) -> Option<NonNull<c_void>> {
    // SAFETY: the registry is one of the library's, and the name ends in a zero.
    NonNull::new(unsafe { (api.backend_reg_get_proc_address)(registry, name.as_ptr()) })
}

fn set_n_threads(
    api: &Api,
    registry: *mut ggml_backend_reg,
) -> Option<ggml_backend_set_n_threads_t> {
    let address = proc_address(api, registry, c"ggml_backend_set_n_threads")?;
    // SAFETY: ggml's headers give that name this signature.
    Some(unsafe { std::mem::transmute::<NonNull<c_void>, ggml_backend_set_n_threads_t>(address) })
}

fn pool_functions(api: &Api, registry: *mut ggml_backend_reg) -> Option<PoolFunctions> {
    let new = proc_address(api, registry, c"ggml_threadpool_new")?;
    let free = proc_address(api, registry, c"ggml_threadpool_free")?;
    let set = proc_address(api, registry, c"ggml_backend_cpu_set_threadpool")?;
    Some(PoolFunctions {
        // SAFETY: ggml's headers give that name this signature.
        new: unsafe { std::mem::transmute::<NonNull<c_void>, ggml_threadpool_new_t>(new) },
        // SAFETY: as above.
        free: unsafe { std::mem::transmute::<NonNull<c_void>, ggml_threadpool_free_t>(free) },
        // SAFETY: as above.
        set: unsafe {
            std::mem::transmute::<NonNull<c_void>, ggml_backend_cpu_set_threadpool_t>(set)
        },
    })
}

/// The library's own limit.
const MOST_THREADS: usize = 512;

/// One stream of work on the device, with threads of its own.
#[derive(Debug)]
pub(super) struct Stream {
    engine: Arc<Engine>,
    backend: NonNull<ggml_backend>,
    pool: Option<NonNull<ggml_threadpool>>,
    workshop: Arc<Workshop>,
}

// SAFETY: the stream and its threads belong to this value alone, and nothing in the library is tied to
// the thread that made them.
unsafe impl Send for Stream {}

impl Stream {
    pub(super) fn new(engine: &Arc<Engine>, n_threads: NonZeroUsize) -> Result<Self, String> {
        // SAFETY: the device is the library's, and null asks for its defaults.
        let backend = unsafe { (engine.api.backend_dev_init)(engine.device.as_ptr(), ptr::null()) };
        let backend = NonNull::new(backend).ok_or("its device cannot be opened")?;
        let n_threads = n_threads.get().min(MOST_THREADS);
        let workshop = Arc::new(Workshop::new(n_threads));
        let mut stream = Self { engine: Arc::clone(engine), backend, pool: None, workshop };
        stream.set_threads(n_threads);
        Ok(stream)
    }

    pub(super) const fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    pub(super) const fn backend(&self) -> NonNull<ggml_backend> {
        self.backend
    }

    pub(super) const fn workshop(&self) -> &Arc<Workshop> {
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
