//! A lane's pinned memory: through which inputs are gathered into one copy, and outputs are fetched by one.

use hip_sys::{HipError, MemcpyKind, PointerKind};
use hipgraph::{Event, GatherError, PinnedBuffer, SLOT_BYTES, StagingRing, Stream, Until};
use shapeyard_core::Sent;
use shapeyard_core::backend::Outputs;

use super::buffers::{Buffers, Layouts};
use super::spread::{Copy, Spread};
use crate::feed::{Feed, FeedError, Real};
use crate::lane::Portion;
use crate::native::{NativeError, ValueShape};
use crate::programs::ProgramError;

/// Pinned arenas that take turns.
const N_ARENAS: usize = 2;
/// Inputs from this many bytes on are sent from where they are, if that is pinned memory.
const LARGE_BYTES: usize = 256 << 10;

/// A lane's pinned memory, as large as its largest program needs.
pub(crate) struct Staging {
    stream: Stream,
    ring: StagingRing,
    /// Where outputs are fetched to. The second is for a portion that runs while another is drained.
    fetched: Vec<Fetched>,
    /// Kept from run to run, to allocate nothing.
    parts: Vec<Part>,
}

/// What a portion is sent to and fetched from.
pub(crate) struct Target<'a> {
    pub(crate) layouts: &'a Layouts,
    pub(crate) feed: &'a Feed,
    pub(crate) buffers: &'a Buffers,
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

impl Staging {
    pub(crate) fn new(stream: &Stream) -> Self {
        let ring = StagingRing::new(stream, N_ARENAS);
        Self { stream: stream.clone(), ring, fetched: Vec::new(), parts: Vec::new() }
    }

    /// There is a program with these layouts.
    pub(crate) fn reserve(&mut self, layouts: &Layouts) {
        self.ring.reserve(layouts.capacity);
    }

    /// The lane's stream was waited for.
    pub(crate) fn settled(&mut self) {
        self.ring.settled();
    }

    /// Gathers the inputs of a portion and enqueues their way into the slots. Returns what crosses.
    pub(crate) fn send(
        &mut self,
        spread: Option<&Spread>,
        to: &Target<'_>,
        portion: &Portion<'_>,
        until: Until,
    ) -> Result<Sent, ProgramError> {
        let Target { layouts, feed, .. } = to;
        self.parts.clear();
        for (position, slot) in layouts.inputs.slots().iter().enumerate() {
            let real = feed.real(position, portion.views, portion.rows)?;
            self.parts.push(Part { real, offset: slot.offset, pinned: None });
        }
        match spread.filter(|_| layouts.landing > 0) {
            None => self.send_whole(to, portion, until),
            Some(spread) => {
                let is_any_pinned = self.find_pinned(feed, portion)?;
                let is_exact = self.parts.iter().all(|it| it.real.n_bytes == it.real.whole_bytes);
                if is_exact && !is_any_pinned {
                    return self.send_whole(to, portion, until);
                }
                self.send_real(spread, to, portion, until)
            }
        }
    }

    /// Inputs as the program reads them, padding included.
    fn send_whole(
        &mut self,
        to: &Target<'_>,
        portion: &Portion<'_>,
        until: Until,
    ) -> Result<Sent, ProgramError> {
        let Target { layouts, feed, buffers } = to;
        let (slots, n_bytes) = (layouts.inputs.slots(), layouts.inputs.n_bytes());
        self.ring.send(&buffers.arena, 0, n_bytes, until, |bytes| {
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
        spread: &Spread,
        to: &Target<'_>,
        portion: &Portion<'_>,
        until: Until,
    ) -> Result<Sent, ProgramError> {
        let Target { layouts, feed, buffers } = to;
        let (landing, slots) = (layouts.landing, layouts.inputs.slots());
        let mut end = Spread::table_bytes(self.parts.len());
        for part in self.parts.iter_mut().filter(|part| part.pinned.is_none()) {
            part.offset = landing + end;
            end = (end + part.real.n_bytes).next_multiple_of(SLOT_BYTES);
        }
        let parts = &self.parts;
        self.ring.send(&buffers.arena, landing, end, until, |bytes| {
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
        let base = buffers.arena.address().addr();
        let mut sent = Sent { n_copies: 1, n_bytes: end };
        for part in parts {
            if let Some(from) = part.pinned {
                let (to, n_bytes) = (base + part.offset, part.real.n_bytes);
                sent += Sent { n_copies: 1, n_bytes };
                let kind = MemcpyKind::HOST_TO_DEVICE;
                // SAFETY: the slot is as large as the input at least; the caller's memory is borrowed
                // until the run, which waits for the stream, returns.
                unsafe { self.stream.copy_addresses(to, from, n_bytes, kind) }?;
            }
        }
        let largest = parts.iter().map(|part| part.real.whole_bytes).max().unwrap_or(0);
        spread.launch(&self.stream, base, base + landing, parts.len(), largest)?;
        Ok(sent)
    }

    /// Marks large inputs that lie in pinned memory just as they are to be sent.
    fn find_pinned(&mut self, feed: &Feed, portion: &Portion<'_>) -> Result<bool, ProgramError> {
        let (hip, mut is_any) = (self.stream.device().hip(), false);
        for (position, part) in self.parts.iter_mut().enumerate() {
            if part.real.n_bytes < LARGE_BYTES {
                continue;
            }
            let Some(bytes) = feed.in_place(position, portion.views, portion.rows)? else {
                continue;
            };
            let (first, last) = (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len() - 1);
            let is_pinned =
                |address| hip.pointer_attributes(address).map(|it| it.kind == PointerKind::Host);
            if is_pinned(first)? && is_pinned(last)? {
                part.pinned = Some(first);
                is_any = true;
            }
        }
        Ok(is_any)
    }

    /// Enqueues the way of the outputs back, up to the last byte that the request sees, to the place of that
    /// number: the places are used in turn, from 0 on.
    pub(crate) fn fetch(
        &mut self,
        from: &Target<'_>,
        portion: &Portion<'_>,
        place: usize,
        until: Until,
    ) -> Result<(), HipError> {
        let Target { layouts, feed, buffers } = from;
        self.make_place(place, layouts.outputs.n_bytes())?;
        let slots = layouts.outputs.slots().iter().enumerate();
        let end = |(index, slot): (usize, &hipgraph::Slot)| {
            let visible = feed.visible(index, portion.request, portion.rows);
            if visible == 0 { 0 } else { slot.offset + visible }
        };
        let n_bytes = slots.map(end).max().unwrap_or(0);
        let to = &mut self.fetched[place];
        if n_bytes > 0 {
            self.stream.copy_out(&mut to.pinned, 0, &buffers.outputs, 0, n_bytes)?;
        }
        if until == Until::Copied { to.copied.record(&self.stream) } else { Ok(()) }
    }

    /// Makes a place of so many bytes, or a larger one, before anything is fetched to it.
    fn make_place(&mut self, place: usize, n_bytes: usize) -> Result<(), HipError> {
        let device = self.stream.device();
        match self.fetched.get_mut(place) {
            Some(fetched) if fetched.pinned.n_bytes() >= n_bytes => {}
            Some(fetched) => fetched.pinned = PinnedBuffer::new(device, n_bytes)?,
            None => {
                let pinned = PinnedBuffer::new(device, n_bytes)?;
                self.fetched.push(Fetched { pinned, copied: Event::new(device)? });
            }
        }
        Ok(())
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

impl From<GatherError> for ProgramError {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::Hip(error) => Self::Hip(error),
            other => Self::Feed(FeedError::Mismatch(other.to_string())),
        }
    }
}
