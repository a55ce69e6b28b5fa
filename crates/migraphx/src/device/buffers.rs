//! A lane's memory on the device for one program, and where things lie in it.

use hipgraph::{DeviceBuffer, Layout, SLOT_BYTES};

use super::gpu::Gpu;
use super::memory::Allocated;
use super::spread::Spread;
use crate::feed::FeedError;
use crate::native::ValueShape;
use crate::programs::{BucketProgram, ProgramError};

/// Where inputs and outputs of a program lie in a lane's memory.
///
/// The arena of the device begins with a slot for each input, where the program reads it. Requests that
/// fill the program are gathered into pinned memory just so, and cross in one copy. Of others only what is
/// real is sent, to a landing place behind the slots, from which one kernel spreads it.
pub(crate) struct Layouts {
    pub(super) inputs: Layout,
    pub(crate) outputs: Layout,
    /// Bytes that cross at most.
    pub(super) capacity: usize,
    /// Where the landing place begins; 0 for none.
    pub(super) landing: usize,
}

impl Layouts {
    pub(crate) fn of(gpu: &Gpu, program: &BucketProgram) -> Result<Self, ProgramError> {
        let inputs = layout(program.inputs.iter().map(|(_, shape)| shape))?;
        let outputs = layout(program.feed.output_shapes())?;
        let whole = inputs.n_bytes().next_multiple_of(SLOT_BYTES);
        let spread = gpu.spread().map(|_| Spread::table_bytes(program.inputs.len()));
        let (landing, table) = spread.map_or((0, 0), |table| (whole, table));
        Ok(Self { inputs, outputs, capacity: whole + table, landing })
    }

    fn arena_bytes(&self) -> usize {
        self.landing + self.capacity
    }

    /// What all of it takes on the device.
    pub(crate) fn device_bytes(&self) -> usize {
        self.arena_bytes() + self.outputs.n_bytes()
    }
}

/// A lane's memory on the device for one program.
pub(crate) struct Buffers {
    /// Where inputs land and where the program reads them.
    pub(super) arena: DeviceBuffer,
    pub(super) outputs: DeviceBuffer,
    /// Where the slots are, of every input and then of every output.
    pub(crate) addresses: Vec<usize>,
    _allocated: Allocated,
}

impl Buffers {
    pub(crate) fn new(gpu: &Gpu, layouts: &Layouts) -> Result<Self, ProgramError> {
        let device = gpu.device();
        let ask = || {
            let arena = DeviceBuffer::new(device, layouts.arena_bytes())?;
            Ok((arena, DeviceBuffer::new(device, layouts.outputs.n_bytes())?))
        };
        let ((arena, outputs), allocated) = gpu.memory().allocate(layouts.device_bytes(), ask)?;
        let addresses = at(&arena, &layouts.inputs).chain(at(&outputs, &layouts.outputs));
        Ok(Self { addresses: addresses.collect(), arena, outputs, _allocated: allocated })
    }

    /// The address of the outputs' memory, which lie one behind the other.
    pub(crate) fn output_address(&self) -> usize {
        self.outputs.address().addr()
    }
}

/// The addresses of slots in a buffer.
fn at(buffer: &DeviceBuffer, slots: &Layout) -> impl Iterator<Item = usize> {
    let base = buffer.address().addr();
    slots.slots().iter().map(move |slot| base + slot.offset)
}

fn layout<'a>(shapes: impl Iterator<Item = &'a ValueShape>) -> Result<Layout, FeedError> {
    let sizes: Vec<usize> = shapes.map(|shape| shape.n_bytes).collect();
    let too_large =
        || FeedError::Mismatch("the program is larger than an address space".to_owned());
    Layout::of(&sizes).ok_or_else(too_large)
}
