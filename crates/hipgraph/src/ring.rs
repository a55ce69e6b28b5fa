//! Many inputs of the host in one copy.

use hip_sys::HipError;

use crate::buffer::{DeviceBuffer, PinnedBuffer};
use crate::layout::{Layout, Turns};
use crate::stream::{Event, Stream};

/// An arena of the device, and a few pinned ones through which inputs get there.
///
/// The arena of the device stays where it is, so that graphs may know its address. The pinned ones
/// take turns: while one is on its way, the next is filled. Those beyond the first are made when they are
/// first needed. The ring belongs to one stream, in whose order copies and the work that reads them come.
#[derive(Debug)]
pub struct StagingRing {
    stream: Stream,
    device_arena: DeviceBuffer,
    capacity: usize,
    arenas: Vec<Arena>,
    turns: Turns,
}

#[derive(Debug)]
struct Arena {
    pinned: PinnedBuffer,
    copied: Event,
}

/// Why inputs were not sent. Nothing was enqueued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GatherError {
    /// There are not as many inputs as slots.
    #[error("{n_inputs} inputs for {n_slots} slots")]
    #[non_exhaustive]
    Count {
        /// Inputs that were given.
        n_inputs: usize,
        /// Slots of the layout.
        n_slots: usize,
    },
    /// An input is longer than its slot.
    #[error("input {input} has {n_bytes} bytes and a slot of {slot_bytes}")]
    #[non_exhaustive]
    TooLong {
        /// Which input.
        input: usize,
        /// Its bytes.
        n_bytes: usize,
        /// What its slot holds, in bytes.
        slot_bytes: usize,
    },
    /// The layout needs more than the arenas have.
    #[error("the layout needs {n_bytes} bytes and the arenas have {capacity}")]
    #[non_exhaustive]
    Capacity {
        /// Bytes of the layout.
        n_bytes: usize,
        /// Bytes of an arena.
        capacity: usize,
    },
    /// The stream is being captured: the copy would read the arena when the graph is launched.
    #[error("inputs cannot be gathered while the stream is being captured")]
    Capturing,
    /// The runtime failed.
    #[error(transparent)]
    Hip(#[from] HipError),
}

impl Arena {
    fn new(stream: &Stream, capacity: usize) -> Result<Self, HipError> {
        let device = stream.device();
        Ok(Self { pinned: PinnedBuffer::new(device, capacity)?, copied: Event::new(device)? })
    }
}

impl StagingRing {
    /// Arenas of so many bytes: one of the device, and up to `n_arenas` (one at least) of pinned memory.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`](hip_sys::Fault::OutOfMemory).
    pub fn new(stream: &Stream, capacity: usize, n_arenas: usize) -> Result<Self, HipError> {
        Self::with_device_arena(stream, capacity, capacity, n_arenas)
    }

    /// As [`new`](Self::new), with an arena of the device of another size in bytes: parts of it may be
    /// filled by kernels, or by several copies.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`](hip_sys::Fault::OutOfMemory).
    pub fn with_device_arena(
        stream: &Stream,
        capacity: usize,
        device_capacity: usize,
        n_arenas: usize,
    ) -> Result<Self, HipError> {
        let device_arena = DeviceBuffer::new(stream.device(), device_capacity)?;
        let (stream, turns) = (stream.clone(), Turns::new(n_arenas));
        let arenas = vec![Arena::new(&stream, capacity)?];
        Ok(Self { stream, device_arena, capacity, arenas, turns })
    }

    /// The arena of the device; a slot lies at its offset.
    #[must_use]
    pub fn device_arena(&self) -> &DeviceBuffer {
        &self.device_arena
    }

    /// Gathers the inputs, each at the beginning of its slot, and enqueues one copy. The inputs are
    /// the caller's again when this returns. Returns the bytes of the copy: up to the last real byte,
    /// with the gaps between the slots.
    ///
    /// # Errors
    ///
    /// See [`GatherError`].
    pub fn gather(&mut self, layout: &Layout, inputs: &[&[u8]]) -> Result<usize, GatherError> {
        let n_bytes = self.real_bytes(layout, inputs)?;
        self.send(0, n_bytes, |bytes| {
            // Behind the last real byte there may be slots with nothing in them.
            let inputs = layout.slots().iter().zip(inputs);
            for (slot, input) in inputs.filter(|(_, input)| !input.is_empty()) {
                bytes[slot.offset..slot.offset + input.len()].copy_from_slice(input);
            }
            Ok::<(), GatherError>(())
        })?;
        Ok(n_bytes)
    }

    /// Lets `fill` write `n_bytes` of pinned memory, in which the bytes of an earlier turn may stand, and
    /// enqueues one copy of them to `offset` of the arena of the device.
    ///
    /// # Errors
    ///
    /// See [`GatherError`]; and what `fill` answers. Nothing was enqueued then.
    pub fn send<E: From<GatherError>>(
        &mut self,
        offset: usize,
        n_bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let turn = self.free_arena(n_bytes)?;
        let (arena, stream) = (&mut self.arenas[turn], &self.stream);
        // SAFETY: the last copy out of this arena has passed its event.
        let bytes = unsafe { arena.pinned.bytes_mut_unwaited() };
        fill(&mut bytes[..n_bytes])?;
        let send = || {
            stream.copy_in(&self.device_arena, offset, &arena.pinned, 0, n_bytes)?;
            arena.copied.record(stream)
        };
        send().map_err(GatherError::from)?;
        self.turns.sent();
        Ok(())
    }

    /// The stream was waited for: no arena has to be waited for by itself any more.
    pub fn settled(&mut self) {
        self.turns.settled();
    }

    /// The arena whose turn it is, once the device has read it.
    fn free_arena(&mut self, n_bytes: usize) -> Result<usize, GatherError> {
        let capacity = self.capacity;
        if n_bytes > capacity {
            return Err(GatherError::Capacity { n_bytes, capacity });
        }
        if self.stream.is_capturing()? {
            return Err(GatherError::Capturing);
        }
        let turn = self.turns.next();
        if turn.arena == self.arenas.len() {
            self.arenas.push(Arena::new(&self.stream, capacity)?);
        }
        if turn.must_wait {
            self.arenas[turn.arena].copied.synchronize()?;
            self.turns.waited();
        }
        Ok(turn.arena)
    }

    fn real_bytes(&self, layout: &Layout, inputs: &[&[u8]]) -> Result<usize, GatherError> {
        let (n_inputs, n_slots) = (inputs.len(), layout.slots().len());
        if n_inputs != n_slots {
            return Err(GatherError::Count { n_inputs, n_slots });
        }
        let (n_bytes, capacity) = (layout.n_bytes(), self.device_arena.n_bytes());
        if n_bytes > capacity {
            return Err(GatherError::Capacity { n_bytes, capacity });
        }
        let mut end = 0;
        for (index, (slot, input)) in layout.slots().iter().zip(inputs).enumerate() {
            let (n_bytes, slot_bytes) = (input.len(), slot.n_bytes);
            if n_bytes > slot_bytes {
                return Err(GatherError::TooLong { input: index, n_bytes, slot_bytes });
            }
            end = if n_bytes > 0 { slot.offset + n_bytes } else { end };
        }
        Ok(end)
    }
}
