//! Many inputs of the host in one copy.

use hip_sys::HipError;

use crate::buffer::{DeviceBuffer, PinnedBuffer};
use crate::device::Device;
use crate::layout::{Layout, Turns};
use crate::stream::{Event, Stream};

/// A few arenas of pinned memory, through which inputs get to a device.
///
/// They take turns: while one is on its way, the next is filled. Each is made when it is first needed, and
/// made anew where more is to be sent than it holds. The ring belongs to one stream, in whose order copies
/// and the work that reads them come.
#[derive(Debug)]
pub struct StagingRing {
    stream: Stream,
    /// What an arena has at least.
    capacity: usize,
    arenas: Vec<Arena>,
    turns: Turns,
}

#[derive(Debug)]
struct Arena {
    pinned: PinnedBuffer,
    copied: Event,
    /// Whether the event marks the last copy.
    is_marked: bool,
}

/// What tells that an arena may be filled again. An event costs the device time; where the stream is waited for
/// anyway, nothing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// An event behind the copy: more work follows before the stream is waited for.
    Copied,
    /// The end of the stream, as [`StagingRing::settled`] tells it.
    Settled,
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
    /// The inputs end behind the memory that they go to.
    #[error("{n_bytes} bytes from {offset} are beyond a buffer of {capacity}")]
    #[non_exhaustive]
    Capacity {
        /// Where they begin, in bytes.
        offset: usize,
        /// How many bytes they have, with the gaps between the slots.
        n_bytes: usize,
        /// Bytes of the buffer.
        capacity: usize,
    },
    /// The stream is being captured: the copy would read the arena when the graph is launched.
    #[error("inputs cannot be gathered while the stream is being captured")]
    Capturing,
    /// The runtime failed.
    #[error(transparent)]
    Hip(#[from] HipError),
}

impl StagingRing {
    /// Up to so many arenas, one at least; none is made yet.
    #[must_use]
    pub fn new(stream: &Stream, n_arenas: usize) -> Self {
        let (arenas, turns) = (Vec::new(), Turns::new(n_arenas));
        Self { stream: stream.clone(), capacity: 0, arenas, turns }
    }

    /// From now on arenas are made of so many bytes at least.
    pub fn reserve(&mut self, n_bytes: usize) {
        self.capacity = self.capacity.max(n_bytes);
    }

    /// Gathers the inputs, each at the beginning of its slot, and enqueues one copy of them to the beginning
    /// of a buffer. The inputs are the caller's again when this returns. Returns the bytes of the copy: up to
    /// the last real byte, with the gaps between the slots.
    ///
    /// # Errors
    ///
    /// See [`GatherError`].
    pub fn gather(
        &mut self,
        to: &DeviceBuffer,
        layout: &Layout,
        inputs: &[&[u8]],
    ) -> Result<usize, GatherError> {
        let n_bytes = real_bytes(layout, inputs)?;
        self.reserve(layout.n_bytes());
        self.send(to, 0, n_bytes, Until::Copied, |bytes| {
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
    /// enqueues one copy of them to `offset` of a buffer. Whatever `until` says, no bytes are changed before
    /// they were copied: without an event the next turn waits for the whole stream.
    ///
    /// # Errors
    ///
    /// See [`GatherError`]; and what `fill` answers. Nothing was enqueued then but, where the runtime failed
    /// in the end, the copy.
    pub fn send<E: From<GatherError>>(
        &mut self,
        to: &DeviceBuffer,
        offset: usize,
        n_bytes: usize,
        until: Until,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let capacity = to.n_bytes();
        if offset.checked_add(n_bytes).is_none_or(|end| end > capacity) {
            return Err(GatherError::Capacity { offset, n_bytes, capacity }.into());
        }
        let turn = self.free_arena(n_bytes)?;
        let (arena, stream) = (&mut self.arenas[turn], &self.stream);
        // SAFETY: the last copy out of this arena was waited for.
        let bytes = unsafe { arena.pinned.bytes_mut_unwaited() };
        fill(&mut bytes[..n_bytes])?;
        let sent = stream.copy_in(to, offset, &arena.pinned, 0, n_bytes);
        sent.map_err(GatherError::from)?;
        self.turns.sent();
        arena.is_marked = false;
        if until == Until::Copied {
            arena.copied.record(stream).map_err(GatherError::from)?;
            arena.is_marked = true;
        }
        Ok(())
    }

    /// The stream was waited for: no arena has to be waited for by itself any more.
    pub fn settled(&mut self) {
        self.turns.settled();
    }

    /// The arena whose turn it is, once the device has read it.
    fn free_arena(&mut self, n_bytes: usize) -> Result<usize, GatherError> {
        if self.stream.is_capturing()? {
            return Err(GatherError::Capturing);
        }
        let turn = self.turns.next();
        if turn.must_wait {
            self.wait_for(turn.arena)?;
        }
        let turn = self.turns.next().arena;
        let wanted = self.capacity.max(n_bytes);
        match self.arenas.get_mut(turn) {
            Some(arena) if arena.pinned.n_bytes() >= n_bytes => {}
            Some(arena) => arena.pinned = PinnedBuffer::new(self.stream.device(), wanted)?,
            None => self.arenas.push(Arena::new(self.stream.device(), wanted)?),
        }
        Ok(turn)
    }

    fn wait_for(&mut self, arena: usize) -> Result<(), HipError> {
        match self.arenas.get(arena) {
            Some(arena) if arena.is_marked => {
                arena.copied.synchronize()?;
                self.turns.waited();
            }
            _ => {
                self.stream.synchronize()?;
                self.turns.settled();
            }
        }
        Ok(())
    }
}

impl Arena {
    fn new(device: &Device, n_bytes: usize) -> Result<Self, HipError> {
        let (pinned, copied) = (PinnedBuffer::new(device, n_bytes)?, Event::new(device)?);
        Ok(Self { pinned, copied, is_marked: false })
    }
}

/// Up to the end of the last input that is not empty.
fn real_bytes(layout: &Layout, inputs: &[&[u8]]) -> Result<usize, GatherError> {
    let (n_inputs, n_slots) = (inputs.len(), layout.slots().len());
    if n_inputs != n_slots {
        return Err(GatherError::Count { n_inputs, n_slots });
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
