//! Padding on the device: one kernel puts what is real of every input into its slot, and copies of the
//! last row behind it.

use std::ffi::c_void;
use std::ptr;

use hip_sys::HipError;
use hipgraph::{Device, Kernel, Launch, SLOT_BYTES, Stream};

use crate::feed::Real;

const SOURCE: &str = r#"
typedef unsigned long long word;
struct Copy { word from, to, real, row, whole; };

template <typename T>
__device__ void spread_as(char* arena, const Copy& copy) {
    const T* from = (const T*)(arena + copy.from);
    T* to = (T*)(arena + copy.to);
    const word real = copy.real / sizeof(T), row = copy.row / sizeof(T), whole = copy.whole / sizeof(T);
    const word first = copy.from == copy.to ? real : 0;
    const word step = (word)gridDim.x * blockDim.x;
    for (word at = first + (word)blockIdx.x * blockDim.x + threadIdx.x; at < whole; at += step)
        to[at] = from[at < real ? at : real - row + (at - real) % row];
}

extern "C" __global__ void spread(char* arena, const Copy* table) {
    const Copy copy = table[blockIdx.y];
    const word all = copy.real | copy.row | copy.whole;
    if (all % 16 == 0) spread_as<uint4>(arena, copy);
    else if (all % 4 == 0) spread_as<unsigned int>(arena, copy);
    else spread_as<char>(arena, copy);
}
"#;

/// What the kernel does for one input; offsets into the arena, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    pub(super) from: usize,
    /// As `from` for an input whose real part is in its slot already.
    pub(super) to: usize,
    pub(super) real: Real,
}

/// The kernel, on one device.
#[derive(Debug)]
pub(crate) struct Spread {
    kernel: Kernel,
}

impl Spread {
    /// Compiles the kernel.
    ///
    /// # Errors
    ///
    /// Why there is none: no compiler is installed beside the runtime, mostly.
    pub(super) fn new(device: &Device) -> Result<Self, String> {
        let compiler = device.hip().compiler().map_err(|error| error.to_string())?;
        let architecture = &device.properties().architecture;
        let code =
            compiler.compile(SOURCE, architecture, &[]).map_err(|error| error.to_string())?;
        let [kernel] =
            Kernel::load(device, &code, ["spread"]).map_err(|error| error.to_string())?;
        Ok(Self { kernel })
    }

    /// What the table of so many inputs takes, up to the next slot.
    pub(super) fn table_bytes(n_inputs: usize) -> usize {
        (n_inputs * size_of::<[u64; 5]>()).next_multiple_of(SLOT_BYTES)
    }

    /// Writes the table to the beginning of `bytes`.
    pub(super) fn write_table(copies: impl Iterator<Item = Copy>, bytes: &mut [u8]) {
        for (row, Copy { from, to, real }) in bytes.chunks_exact_mut(40).zip(copies) {
            let words = [from, to, real.n_bytes, real.row_bytes, real.whole_bytes];
            for (place, word) in row.chunks_exact_mut(8).zip(words) {
                place.copy_from_slice(&(word as u64).to_ne_bytes());
            }
        }
    }

    /// Enqueues the kernel for the table at an address.
    pub(super) fn launch(
        &self,
        stream: &Stream,
        arena: usize,
        table: usize,
        n_inputs: usize,
        largest_bytes: usize,
    ) -> Result<(), HipError> {
        let blocks = largest_bytes.div_ceil(16 * 256).clamp(1, 512);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let blocks = [count(blocks), count(n_inputs.max(1)), 1];
        let launch = Launch { blocks, threads: [256, 1, 1], shared_bytes: 0 };
        let (mut arena, mut table) = (arena, table);
        let mut parameters: [*mut c_void; 2] =
            [ptr::from_mut(&mut arena).cast(), ptr::from_mut(&mut table).cast()];
        // SAFETY: the kernel takes two addresses. The table's rows lie inside of the arena, which lives
        // until the lane has waited for its stream.
        unsafe { self.kernel.launch(stream, launch, &mut parameters) }
    }
}
