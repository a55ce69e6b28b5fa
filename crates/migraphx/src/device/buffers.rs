//! A lane's memory for one program, and where things lie in it.

use hip_sys::{HipError, MemcpyKind, PointerKind};
use hipgraph::{
    DeviceBuffer, Event, GatherError, Layout, PinnedBuffer, SLOT_BYTES, StagingRing, Stream,
};
use shapeyard_core::Sent;
use shapeyard_core::backend::Outputs;

use super::gpu::Gpu;
use super::memory::is_out_of_memory;
use super::spread::{Copy, Spread};
use crate::feed::{Feed, FeedError, Real};
use crate::lane::Portion;
use crate::native::{NativeError, ValueShape};
use crate::programs::{BucketProgram, ProgramError};

/// Pinned arenas that take turns.
const N_ARENAS: usize = 2;
/// Inputs from this many bytes on are sent from where they are, if that is pinned memory.
const LARGE_BYTES: usize = 256 << 10;

/// Where inputs and outputs of a program lie in a lane's memory.
///
/// The arena of the device begins with a slot for each input, where the program reads it. Requests that
/// fill the program are gathered into pinned memory just so, and cross in one copy. Of others only what is
/// real is sent, to a landing place behind the slots, from which one kernel spreads it.
pub(crate) struct Layouts {
    inputs: Layout,
    pub(crate) outputs: Layout,
    /// Bytes of a pinned arena.
    capacity: usize,
    /// Where the landing place begins; 0 for none.
    landing: usize,
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

/// A lane's memory for one program: inputs gathered into one copy, outputs fetched by one.
pub(crate) struct Buffers {
    ring: StagingRing,
    outputs: DeviceBuffer,
    /// Where outputs are fetched to. The second is for a portion that runs while another is drained.
    fetched: Vec<Fetched>,
    /// Where the slots are, of every input and then of every output.
    pub(crate) addresses: Vec<usize>,
    /// Kept from run to run, to allocate nothing.
    parts: Vec<Part>,
}

struct Fetched {
    pinned: PinnedBuffer,
    copied: Event,
}

/// What is sent of one input.
#[derive(Clone, Copy, Debug)]
struct Part {
    real: Real,
    /// Its place in the arena of the device: its slot, or a part of the landing place.
    offset: usize,
    /// The address of large pinned memory of the caller.
    pinned: Option<usize>,
}

impl Buffers {
    pub(crate) fn new(gpu: &Gpu, stream: &Stream, layouts: &Layouts) -> Result<Self, ProgramError> {
        let (capacity, arena) = (layouts.capacity, layouts.arena_bytes());
        let take = || {
            let ring = StagingRing::with_device_arena(stream, capacity, arena, N_ARENAS)?;
            Ok((ring, DeviceBuffer::new(gpu.device(), layouts.outputs.n_bytes())?))
        };
        let (ring, outputs) = gpu.memory().take(take, is_out_of_memory)?;
        let addresses = at(ring.device_arena(), &layouts.inputs);
        let addresses = addresses.chain(at(&outputs, &layouts.outputs)).collect();
        Ok(Self { ring, outputs, fetched: Vec::new(), addresses, parts: Vec::new() })
    }

    /// The address of the outputs' memory, which lie one behind the other.
    pub(crate) fn output_address(&self) -> usize {
        self.outputs.address().addr()
    }

    /// The lane's stream was waited for.
    pub(crate) fn settled(&mut self) {
        self.ring.settled();
    }

    /// Gathers the inputs of a portion and enqueues their way into the slots. Returns what crosses.
    pub(crate) fn send(
        &mut self,
        stream: &Stream,
        spread: Option<&Spread>,
        layouts: &Layouts,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<Sent, ProgramError> {
        self.parts.clear();
        for (position, slot) in layouts.inputs.slots().iter().enumerate() {
            let real = feed.real(position, portion.views, portion.rows)?;
            self.parts.push(Part { real, offset: slot.offset, pinned: None });
        }
        match spread.filter(|_| layouts.landing > 0) {
            None => self.send_whole(layouts, feed, portion),
            Some(spread) => {
                let is_any_pinned = self.find_pinned(stream, feed, portion)?;
                let is_exact = self.parts.iter().all(|it| it.real.n_bytes == it.real.whole_bytes);
                if is_exact && !is_any_pinned {
                    return self.send_whole(layouts, feed, portion);
                }
                self.send_real(stream, spread, layouts, feed, portion)
            }
        }
    }

    /// Inputs as the program reads them, padding included.
    fn send_whole(
        &mut self,
        layouts: &Layouts,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<Sent, ProgramError> {
        let (slots, n_bytes) = (layouts.inputs.slots(), layouts.inputs.n_bytes());
        self.ring.send(0, n_bytes, |bytes| {
            for (position, slot) in slots.iter().enumerate() {
                feed.write_whole(position, portion.views, portion.rows, &mut bytes[slot.range()])?;
            }
            Ok::<(), ProgramError>(())
        })?;
        Ok(Sent { n_copies: 1, n_bytes })
    }

    /// What is real, close together, behind a table that says where each belongs.
    fn send_real(
        &mut self,
        stream: &Stream,
        spread: &Spread,
        layouts: &Layouts,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<Sent, ProgramError> {
        let (landing, slots) = (layouts.landing, layouts.inputs.slots());
        let mut end = Spread::table_bytes(self.parts.len());
        for part in self.parts.iter_mut().filter(|part| part.pinned.is_none()) {
            part.offset = landing + end;
            end = (end + part.real.n_bytes).next_multiple_of(SLOT_BYTES);
        }
        let parts = &self.parts;
        self.ring.send(landing, end, |bytes| {
            let copies = parts.iter().zip(slots).map(|(part, slot)| Copy {
                from: part.offset,
                to: slot.offset,
                real: part.real,
            });
            Spread::write_table(copies, bytes);
            for (position, part) in parts.iter().enumerate() {
                if part.pinned.is_none() {
                    let from = part.offset - landing;
                    let place = &mut bytes[from..from + part.real.n_bytes];
                    feed.write_real(position, portion.views, portion.rows, place)?;
                }
            }
            Ok::<(), ProgramError>(())
        })?;
        let base = self.ring.device_arena().address().addr();
        let mut sent = Sent { n_copies: 1, n_bytes: end };
        for part in parts {
            if let Some(from) = part.pinned {
                let (to, n_bytes) = (base + part.offset, part.real.n_bytes);
                sent += Sent { n_copies: 1, n_bytes };
                let kind = MemcpyKind::HOST_TO_DEVICE;
                // SAFETY: the slot is as large as the input at least; the caller's memory is borrowed
                // until the run, which waits for the stream, returns.
                unsafe { stream.copy_addresses(to, from, n_bytes, kind) }?;
            }
        }
        let largest = parts.iter().map(|part| part.real.whole_bytes).max().unwrap_or(0);
        spread.launch(stream, base, base + landing, parts.len(), largest)?;
        Ok(sent)
    }

    /// Marks large inputs that lie in pinned memory just as they are to be sent.
    fn find_pinned(
        &mut self,
        stream: &Stream,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<bool, ProgramError> {
        let mut is_any = false;
        for (position, part) in self.parts.iter_mut().enumerate() {
            if part.real.n_bytes < LARGE_BYTES {
                continue;
            }
            let Some(bytes) = feed.in_place(position, portion.views, portion.rows)? else {
                continue;
            };
            let hip = stream.device().hip();
            let attributes = hip.pointer_attributes(bytes.as_ptr().addr())?;
            if attributes.kind == PointerKind::Host {
                part.pinned = Some(bytes.as_ptr().addr());
                is_any = true;
            }
        }
        Ok(is_any)
    }

    /// Enqueues the way of the outputs back, up to the last byte that the request sees, to the place of that
    /// number. Where more work follows on the stream, an event marks their arrival.
    pub(crate) fn fetch(
        &mut self,
        stream: &Stream,
        layouts: &Layouts,
        feed: &Feed,
        portion: &Portion<'_>,
        (place, is_marked): (usize, bool),
    ) -> Result<(), HipError> {
        while self.fetched.len() <= place {
            let pinned = PinnedBuffer::new(stream.device(), layouts.outputs.n_bytes())?;
            self.fetched.push(Fetched { pinned, copied: Event::new(stream.device())? });
        }
        let slots = layouts.outputs.slots().iter().enumerate();
        let end = |(index, slot): (usize, &hipgraph::Slot)| {
            let visible = feed.visible(index, portion.request, portion.rows);
            if visible == 0 { 0 } else { slot.offset + visible }
        };
        let n_bytes = slots.map(end).max().unwrap_or(0);
        let to = &mut self.fetched[place];
        if n_bytes > 0 {
            stream.copy_out(&mut to.pinned, 0, &self.outputs, 0, n_bytes)?;
        }
        if is_marked { to.copied.record(stream) } else { Ok(()) }
    }

    /// Waits for what was fetched and marked.
    pub(crate) fn wait(&self, place: usize) -> Result<(), HipError> {
        self.fetched.get(place).map_or(Ok(()), |fetched| fetched.copied.synchronize())
    }

    /// Puts what was fetched where it belongs.
    ///
    /// # Safety
    ///
    /// The stream was waited for after the fetch, or [`Self::wait`] has waited for it.
    pub(crate) unsafe fn drain(
        &self,
        layouts: &Layouts,
        feed: &Feed,
        portion: &Portion<'_>,
        place: usize,
        outputs: &mut Outputs,
    ) -> Result<(), ProgramError> {
        let fetched = self.fetched.get(place).map(|fetched| {
            // SAFETY: the caller vouches for the wait.
            unsafe { fetched.pinned.bytes_unwaited() }
        });
        let bytes = |index: usize, _shape: &ValueShape| {
            let slot = layouts.outputs.slots().get(index).zip(fetched);
            let bytes = slot.and_then(|(slot, fetched)| fetched.get(slot.range()));
            bytes.ok_or_else(|| NativeError::Unknown(format!("output {index} has no slot")))
        };
        Ok(feed.drain(bytes, portion.request, portion.rows, outputs)?)
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

impl From<GatherError> for ProgramError {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::Hip(error) => Self::Hip(error),
            other => Self::Feed(FeedError::Mismatch(other.to_string())),
        }
    }
}
