//! A lane's memory for one program: inputs gathered into one copy, outputs fetched by one.

use hip_sys::{HipError, MemcpyKind, PointerKind};
use hipgraph::{DeviceBuffer, GatherError, Layout, PinnedBuffer, SLOT_BYTES, StagingRing, Stream};
use shapeyard_core::backend::Outputs;

use super::gpu::Gpu;
use super::memory::Held;
use super::parameters::Parameters;
use super::spread::{Copy, Spread};
use crate::feed::{Feed, FeedError, Real};
use crate::lane::Portion;
use crate::native::{NativeError, ValueShape};
use crate::programs::{BucketProgram, ProgramError};

/// Pinned arenas that take turns.
const N_ARENAS: usize = 2;
/// Inputs from this many bytes on are sent from where they are, if that is pinned memory.
const LARGE_BYTES: usize = 256 << 10;

/// A lane's memory for one program.
///
/// The arena of the device begins with a slot for each input, where the program reads it. Requests that
/// fill the program are gathered into pinned memory just so, and cross in one copy. Of others only what is
/// real is sent, to a landing place behind the slots, from which one kernel spreads it.
pub(crate) struct Buffers {
    ring: StagingRing,
    input_slots: Layout,
    /// Where the landing place begins; 0 for none.
    landing: usize,
    pub(crate) outputs: DeviceBuffer,
    pub(crate) output_slots: Layout,
    fetched: PinnedBuffer,
    pub(crate) parameters: Parameters,
    /// Where the slots are, of every input and then of every output.
    pub(crate) addresses: Vec<usize>,
    /// The loading of the program for which there may be graphs.
    pub(crate) generation: Option<u64>,
    /// Kept from run to run, to allocate nothing.
    parts: Vec<Part>,
    _held: Held,
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
    /// `outputs` are the places that the program asks for.
    pub(crate) fn new(
        gpu: &Gpu,
        stream: &Stream,
        program: &BucketProgram,
        outputs: &[(usize, String, ValueShape)],
    ) -> Result<Self, ProgramError> {
        let input_slots = layout(program.inputs.iter().map(|(_, shape)| shape))?;
        let output_slots = layout(program.feed.output_shapes())?;
        let whole = input_slots.n_bytes().next_multiple_of(SLOT_BYTES);
        let landing = if gpu.spread().is_some() { whole } else { 0 };
        let capacity =
            whole + if landing > 0 { Spread::table_bytes(program.inputs.len()) } else { 0 };
        let arena = landing + capacity;
        let held = gpu.memory().hold(arena + output_slots.n_bytes())?;
        let (device, fetched) = (gpu.device(), output_slots.n_bytes());
        let ring = || StagingRing::with_device_arena(stream, capacity, arena, N_ARENAS);
        let ring = gpu.memory().with_room(ring)?;
        let outputs_of = || DeviceBuffer::new(device, output_slots.n_bytes());
        let memory = gpu.memory().with_room(outputs_of)?;
        let addresses = at(ring.device_arena(), &input_slots).chain(at(&memory, &output_slots));
        let addresses = addresses.collect();
        Ok(Self {
            ring,
            input_slots,
            landing,
            outputs: memory,
            output_slots,
            fetched: PinnedBuffer::new(device, fetched)?,
            parameters: Parameters::new(program, outputs)?,
            addresses,
            generation: None,
            parts: Vec::new(),
            _held: held,
        })
    }

    /// Gathers the inputs of a portion and enqueues their way into the slots.
    pub(crate) fn send(
        &mut self,
        stream: &Stream,
        spread: Option<&Spread>,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<(), ProgramError> {
        self.parts.clear();
        for (position, slot) in self.input_slots.slots().iter().enumerate() {
            let real = feed.real(position, portion.views, portion.rows)?;
            self.parts.push(Part { real, offset: slot.offset, pinned: None });
        }
        match spread.filter(|_| self.landing > 0) {
            None => self.send_whole(feed, portion),
            Some(spread) => {
                let is_any_pinned = self.find_pinned(stream, feed, portion)?;
                let is_exact = self.parts.iter().all(|it| it.real.n_bytes == it.real.whole_bytes);
                if is_exact && !is_any_pinned {
                    return self.send_whole(feed, portion);
                }
                self.send_real(stream, spread, feed, portion)
            }
        }
    }

    /// Inputs as the program reads them, padding included.
    fn send_whole(&mut self, feed: &Feed, portion: &Portion<'_>) -> Result<(), ProgramError> {
        let slots = self.input_slots.slots();
        self.ring.send(0, self.input_slots.n_bytes(), |bytes| {
            for (position, slot) in slots.iter().enumerate() {
                feed.write_whole(position, portion.views, portion.rows, &mut bytes[slot.range()])?;
            }
            Ok(())
        })
    }

    /// What is real, close together, behind a table that says where each belongs.
    fn send_real(
        &mut self,
        stream: &Stream,
        spread: &Spread,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<(), ProgramError> {
        let (landing, slots) = (self.landing, self.input_slots.slots());
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
        for part in parts {
            if let Some(from) = part.pinned {
                let (to, n_bytes) = (base + part.offset, part.real.n_bytes);
                let kind = MemcpyKind::HOST_TO_DEVICE;
                // SAFETY: the slot is as large as the input at least; the caller's memory is borrowed
                // until the run, which waits for the stream, returns.
                unsafe { stream.copy_addresses(to, from, n_bytes, kind) }?;
            }
        }
        let largest = parts.iter().map(|part| part.real.whole_bytes).max().unwrap_or(0);
        spread.launch(stream, base, base + landing, parts.len(), largest)?;
        Ok(())
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

    /// Enqueues the way of the outputs back: up to the last byte that the request sees.
    pub(crate) fn fetch(
        &mut self,
        stream: &Stream,
        feed: &Feed,
        portion: &Portion<'_>,
    ) -> Result<(), HipError> {
        let slots = self.output_slots.slots().iter().enumerate();
        let end = |(index, slot): (usize, &hipgraph::Slot)| {
            let visible = feed.visible(index, portion.request, portion.rows);
            if visible == 0 { 0 } else { slot.offset + visible }
        };
        let n_bytes = slots.map(end).max().unwrap_or(0);
        if n_bytes == 0 {
            return Ok(());
        }
        stream.copy_out(&mut self.fetched, 0, &self.outputs, 0, n_bytes)
    }

    /// Puts what was fetched where it belongs, after the wait for it.
    pub(crate) fn drain(
        &self,
        feed: &Feed,
        portion: &Portion<'_>,
        outputs: &mut Outputs,
    ) -> Result<(), ProgramError> {
        let fetched = self.fetched.bytes()?;
        let bytes = |index: usize, _shape: &ValueShape| {
            let slot = self.output_slots.slots().get(index);
            let bytes = slot.and_then(|slot| fetched.get(slot.range()));
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
