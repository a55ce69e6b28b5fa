//! Finding ggml, and what its devices are.
#![allow(unsafe_code, reason = "the functions of a C API are called")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex};

use ggml_sys::{
    Api, Library, SearchOptions, ggml_backend_cpu_set_threadpool_t, ggml_backend_dev_type,
    ggml_backend_device, ggml_backend_reg, ggml_backend_set_n_threads_t, ggml_threadpool_free_t,
    ggml_threadpool_new_t,
};
use shapeyard_core::backend::{Fingerprint, SearchStep};

use crate::dynamic;
use crate::found::{self, Found, Versioned};

/// What to do where the library is missing.
const REMEDY: &str = "run `cargo xtask setup`, or build ggml 0.26 as a shared library and set GGML_DYLIB_PATH to the file";

/// Looks for the library and loads the first that works; a place that a person named is the only one. Then
/// takes the device with the name that is given, or the processor.
pub(crate) fn find(named: Option<&Path>, device: Option<&str>) -> Found<Arc<Engine>> {
    let options = named.map_or_else(SearchOptions::default, SearchOptions::at);
    let (engine, steps) = match Library::open(&options) {
        Ok(library) => (Engine::new(&library, device), library.steps().to_vec()),
        Err(error) => (Err(error.to_string()), error.steps().to_vec()),
    };
    let engine = engine.map(Arc::new).map_err(|reason| match options.named_by() {
        Some((why, path)) => format!("{why} names `{}`: {reason}", path.display()),
        None => reason,
    });
    let title = engine.as_ref().ok().map(|engine| format!("ggml {}", engine.version));
    let mut steps = found::steps(steps, title.as_deref());
    steps.extend(engine.iter().flat_map(|engine| engine.devices()));
    Found { library: engine, steps, remedy: REMEDY }
}

/// A loaded library and the device that computes.
pub(crate) struct Engine {
    pub(crate) api: Api,
    device: NonNull<ggml_backend_device>,
    device_name: String,
    is_processor: bool,
    pub(crate) set_n_threads: Option<ggml_backend_set_n_threads_t>,
    pub(crate) pools: Option<PoolFunctions>,
    pub(crate) version: String,
    fingerprint: Fingerprint,
    /// Held while a graph is built: building writes to the weights' descriptions, which lanes share.
    pub(crate) building: Mutex<()>,
}

// SAFETY: the device is an entry of a table that the library fills when it is loaded and that lives as
// long as the library, which is never unloaded; the functions that take it only read it.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

/// What makes threads that outlive a run.
#[derive(Clone, Copy)]
pub(crate) struct PoolFunctions {
    pub(crate) new: ggml_threadpool_new_t,
    pub(crate) free: ggml_threadpool_free_t,
    pub(crate) set: ggml_backend_cpu_set_threadpool_t,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Versioned for Arc<Engine> {
    fn version(&self) -> &str {
        &self.version
    }

    fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
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
        // SAFETY: the device is one of the library's.
        let kind = unsafe { (api.backend_dev_type)(device.as_ptr()) };
        let fingerprint =
            Fingerprint(format!("ggml {version} {device_name} {}", dynamic::processor()));
        Ok(Self {
            api,
            device,
            device_name,
            is_processor: kind == ggml_backend_dev_type::CPU,
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

    /// Whether it computes in the process's own memory, where kernels of ours take part.
    pub(crate) const fn is_processor(&self) -> bool {
        self.is_processor
    }

    /// Uses the processor as another device is used: with ggml's operators alone.
    #[cfg(test)]
    pub(crate) fn use_as_another(&mut self) {
        self.is_processor = false;
    }

    pub(crate) const fn device(&self) -> NonNull<ggml_backend_device> {
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
