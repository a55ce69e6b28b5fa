//! A device with kernels, and its runtime's own calls.

use std::ffi::c_void;
use std::{ptr, slice};

use anyhow::{Context as _, Result, bail};
use hip_sys::{CaptureMode, Hip, HostMallocFlags, MemcpyKind, hipGraphExec_t, hipStream_t};
use hipgraph::{Device, DeviceBuffer, Kernel, Launch, OpenError, Stream};

use crate::suite::Skipped;

/// Kernels of a chain.
pub(super) const N_KERNELS: usize = 100;
/// Floats that each of them works on.
pub(super) const N_FLOATS: u32 = 1024;

const SOURCE: &str = r#"
extern "C" __global__ void scale(const float* in, float* out, float factor, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) out[index] = in[index] * factor;
}
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"#;

/// Calls the runtime.
macro_rules! raw {
    ($hip:expr, $function:ident($($argument:expr),* $(,)?)) => {
        // SAFETY: handles are alive, and addresses are those of memory that lives until the stream was
        // waited for.
        unsafe { $hip.$function($($argument),*) }
    };
}
pub(super) use raw;

/// The first device, with kernels.
pub(super) struct Lab {
    pub(super) device: Device,
    scale: Kernel,
    spin: Kernel,
}

impl Lab {
    pub(super) fn open() -> Result<Self> {
        let device = match Device::first() {
            Ok(device) => device,
            Err(OpenError::Hip(error)) if !error.fault.is_no_device() => {
                return Err(error).context("the device cannot be used");
            }
            Err(error) => bail!(Skipped(format!("there is no device: {error}"))),
        };
        let compiler = device.hip().compiler()?;
        let code = compiler.compile(SOURCE, &device.properties().architecture, &[])?;
        let [scale, spin] = Kernel::load(&device, &code, ["scale", "spin"])?;
        Ok(Self { device, scale, spin })
    }

    pub(super) fn hip(&self) -> &Hip {
        self.device.hip()
    }

    /// Pinned memory by the runtime's own call, kept until the program ends.
    pub(super) fn raw_pinned(&self, n_bytes: usize) -> Result<&'static mut [u8]> {
        let mut raw = ptr::null_mut();
        raw!(self.hip(), host_malloc(&mut raw, n_bytes, HostMallocFlags::DEFAULT))?;
        // SAFETY: the runtime gave so many bytes, which nobody frees.
        unsafe { raw.cast::<u8>().write_bytes(1, n_bytes) };
        // SAFETY: as above, and they were filled.
        Ok(unsafe { slice::from_raw_parts_mut(raw.cast(), n_bytes) })
    }

    pub(super) fn raw_copy_in(&self, to: usize, from: &[u8], stream: hipStream_t) -> Result<()> {
        let (to, kind) = (ptr::without_provenance_mut(to), MemcpyKind::HOST_TO_DEVICE);
        Ok(raw!(self.hip(), memcpy_async(to, from.as_ptr().cast(), from.len(), kind, stream))?)
    }

    pub(super) fn raw_wait(&self, stream: hipStream_t) -> Result<()> {
        Ok(raw!(self.hip(), stream_synchronize(stream))?)
    }

    /// Captures what is enqueued, by the runtime's own calls; the graph is kept until the program ends.
    pub(super) fn raw_graph(
        &self,
        stream: hipStream_t,
        enqueue: impl FnOnce() -> Result<()>,
    ) -> Result<hipGraphExec_t> {
        let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
        raw!(self.hip(), stream_begin_capture(stream, CaptureMode::THREAD_LOCAL))?;
        enqueue()?;
        raw!(self.hip(), stream_end_capture(stream, &mut graph))?;
        raw!(self.hip(), graph_instantiate_with_flags(&mut executable, graph, 0))?;
        Ok(executable)
    }

    pub(super) fn raw_launch(&self, graph: hipGraphExec_t, stream: hipStream_t) -> Result<()> {
        Ok(raw!(self.hip(), graph_launch(graph, stream))?)
    }

    /// Kernels one after the other, each of which reads what the last wrote, by the runtime's own calls.
    pub(super) fn raw_chain(&self, stream: hipStream_t, sides: [&DeviceBuffer; 2]) -> Result<()> {
        let (mut factor, mut count) = (1.0_f32, N_FLOATS);
        let blocks = N_FLOATS.div_ceil(256);
        for index in 0..N_KERNELS {
            let [mut from, mut to] = pair(sides, index);
            let mut parameters =
                [place(&mut from), place(&mut to), place(&mut factor), place(&mut count)];
            let (parameters, none) = (parameters.as_mut_ptr(), ptr::null_mut());
            let function = self.scale.raw();
            raw!(
                self.hip(),
                module_launch_kernel(
                    function, blocks, 1, 1, 256, 1, 1, 0, stream, parameters, none
                )
            )?;
        }
        Ok(())
    }

    /// The same by `hipgraph`.
    pub(super) fn chain(
        &self,
        stream: &Stream,
        sides: [&DeviceBuffer; 2],
    ) -> Result<(), hip_sys::HipError> {
        let (mut factor, mut count) = (1.0_f32, N_FLOATS);
        for index in 0..N_KERNELS {
            let [mut from, mut to] = pair(sides, index);
            let mut parameters =
                [place(&mut from), place(&mut to), place(&mut factor), place(&mut count)];
            // SAFETY: a value for each parameter, of its type; the buffers outlive the work.
            unsafe { self.scale.launch(stream, Launch::linear(N_FLOATS), &mut parameters) }?;
        }
        Ok(())
    }

    /// Keeps the stream busy for so many cycles.
    pub(super) fn spin(&self, stream: &Stream, mut cycles: i64) -> Result<()> {
        let launch = Launch { blocks: [1; 3], threads: [1; 3], shared_bytes: 0 };
        // SAFETY: the kernel takes one such value, and touches no memory.
        Ok(unsafe { self.spin.launch(stream, launch, &mut [place(&mut cycles)]) }?)
    }
}

/// From where to where the kernel of that number works.
fn pair(sides: [&DeviceBuffer; 2], index: usize) -> [usize; 2] {
    [index % 2, (index + 1) % 2].map(|side| address(sides[side]))
}

fn place<T>(value: &mut T) -> *mut c_void {
    ptr::from_mut(value).cast()
}

pub(super) fn address(buffer: &DeviceBuffer) -> usize {
    buffer.address().addr()
}
