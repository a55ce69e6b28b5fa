//! Kernels that are compiled at run time.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;

use hip_sys::{Code, Fault, HipError, hipFunction_t, hipModule_t};

use crate::device::Device;
use crate::stream::Stream;
use crate::uses::Uses;

/// A kernel of a device.
#[derive(Debug, Clone)]
pub struct Kernel {
    module: Arc<Module>,
    function: hipFunction_t,
}

// SAFETY: both runtimes take launches of a function from any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

#[derive(Debug)]
struct Module {
    device: Device,
    raw: hipModule_t,
    uses: Uses,
}

// SAFETY: it is loaded once and unloaded once.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along each axis.
    pub blocks: [u32; 3],
    /// Threads of a block along each axis.
    pub threads: [u32; 3],
    /// Shared memory of a block beside what the kernel declares, in bytes.
    pub shared_bytes: u32,
}

impl Launch {
    /// At least so many threads along one axis, in blocks of 256.
    #[must_use]
    pub fn linear(n_threads: u32) -> Self {
        let blocks = [n_threads.div_ceil(256).max(1), 1, 1];
        Self { blocks, threads: [256, 1, 1], shared_bytes: 0 }
    }
}

impl Kernel {
    /// Loads code, and finds kernels in it by their names.
    ///
    /// # Errors
    ///
    /// [`Fault::NoBinaryForGpu`] for code of another architecture, [`Fault::NotFound`] for a name that
    /// it does not have.
    pub fn load<const N: usize>(
        device: &Device,
        code: &Code,
        names: [&str; N],
    ) -> Result<[Self; N], HipError> {
        let _pinned = device.pin_context()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the code is whole: it comes from a compiler. The runtime copies it.
        unsafe { device.hip().module_load_data(&mut raw, code.bytes().as_ptr().cast()) }?;
        let module = Module { device: device.clone(), raw, uses: Uses::default() };
        let module = Arc::new(module);
        let mut kernels = Vec::with_capacity(N);
        for name in names {
            kernels.push(Self::find(&module, name)?);
        }
        let count = kernels.len();
        kernels.try_into().map_err(|_| {
            HipError::without_call(Fault::NotFound, format!("{count} kernels, not {N}"))
        })
    }

    fn find(module: &Arc<Module>, name: &str) -> Result<Self, HipError> {
        let text = CString::new(name).map_err(|error| {
            HipError::without_call(Fault::InvalidValue, format!("a kernel's name: {error}"))
        })?;
        let mut function = ptr::null_mut();
        let hip = module.device.hip();
        // SAFETY: the module is alive, and so are the name and the place.
        unsafe { hip.module_get_function(&mut function, module.raw, text.as_ptr()) }?;
        Ok(Self { module: Arc::clone(module), function })
    }

    /// The handle, which lives as long as the last kernel of its module.
    #[must_use]
    pub fn raw(&self) -> hipFunction_t {
        self.function
    }

    /// Enqueues the kernel.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// `parameters` has the address of a value for each parameter of the kernel, of the parameter's
    /// type; the kernel touches only memory that stays alive until it is done.
    pub unsafe fn launch(
        &self,
        stream: &Stream,
        launch: Launch,
        parameters: &mut [*mut c_void],
    ) -> Result<(), HipError> {
        let module = &self.module;
        let _pinned = module.device.pin_context()?;
        let ([grid_x, grid_y, grid_z], [x, y, z]) = (launch.blocks, launch.threads);
        let (shared, parameters) = (launch.shared_bytes, parameters.as_mut_ptr());
        let hip = module.device.hip();
        module.uses.during(stream, || {
            // SAFETY: the module is alive; the caller vouches for the parameters, which are copied.
            unsafe {
                hip.module_launch_kernel(
                    self.function,
                    grid_x,
                    grid_y,
                    grid_z,
                    x,
                    y,
                    z,
                    shared,
                    stream.raw(),
                    parameters,
                    ptr::null_mut(),
                )
            }
        })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let Ok(_context) = self.device.pin_context() else { return };
        // What cannot be unloaded is kept; see `finish`.
        let _kept = self.uses.finish(&self.device, || {
            // SAFETY: none of its kernels runs any more.
            unsafe { self.device.hip().module_unload(self.raw) }
        });
    }
}
