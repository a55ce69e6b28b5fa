//! Which work may still touch an object.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hip_sys::HipError;

use crate::device::Device;
use crate::stream::{Event, Stream, StreamInner};

/// Where an object was used last. Whoever drops it waits for these before he gives it back.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    list: Mutex<Vec<Use>>,
}

#[derive(Debug)]
enum Use {
    /// A stream of ours, which lives as long as this, and the number of the last use on it.
    Stream(Arc<StreamInner>, u64),
    /// Work on a caller's stream, which may be gone by then; an event behind it is not.
    Event(Event),
}

impl Uses {
    /// Work that uses the object was given to a stream.
    pub(crate) fn note(&self, stream: &Stream) -> Result<(), HipError> {
        self.locked().note(stream)
    }

    /// Holds off other users while `work` is given to a stream.
    pub(crate) fn during(
        &self,
        stream: &Stream,
        work: impl FnOnce() -> Result<(), HipError>,
    ) -> Result<(), HipError> {
        let mut uses = self.locked();
        work()?;
        uses.note(stream)
    }

    /// Waits until nothing touches the object any more.
    ///
    /// On an error that is not known: a stream that records cannot be waited for.
    pub(crate) fn wait(&self) -> Result<(), HipError> {
        let mut uses = self.locked();
        for one in uses.list.iter() {
            match one {
                Use::Stream(stream, number) => stream.wait_for(*number)?,
                Use::Event(event) => event.synchronize()?,
            }
        }
        uses.list.clear();
        Ok(())
    }

    /// Waits, then gives the object back by `free`. What still may be in use is kept for good: a leak
    /// is better than another's memory written.
    pub(crate) fn finish(
        &self,
        device: &Device,
        free: impl FnOnce() -> Result<(), HipError>,
    ) -> Result<(), HipError> {
        let _pinned = device.pin()?;
        device.beside_captures(|| {
            match self.wait() {
                // After a kernel's fault nothing runs any more.
                Err(error) if error.fault.is_end_of_work() => (),
                answer => answer?,
            }
            free()
        })
    }

    fn locked(&self) -> Locked<'_> {
        // A panic leaves the list whole: entries are pushed in one step.
        Locked { list: self.list.lock().unwrap_or_else(PoisonError::into_inner) }
    }
}

struct Locked<'a> {
    list: MutexGuard<'a, Vec<Use>>,
}

impl Locked<'_> {
    fn note(&mut self, stream: &Stream) -> Result<(), HipError> {
        let Some(inner) = stream.owned() else { return self.note_foreign(stream) };
        let number = inner.note();
        for one in self.list.iter_mut() {
            if let Use::Stream(known, last) = one
                && Arc::ptr_eq(known, inner)
            {
                *last = number;
                return Ok(());
            }
        }
        self.list.push(Use::Stream(Arc::clone(inner), number));
        Ok(())
    }

    fn note_foreign(&mut self, stream: &Stream) -> Result<(), HipError> {
        // What is recorded does not run now, and an event would be recorded with it.
        if stream.is_capturing()? {
            return Ok(());
        }
        self.list.retain(|one| !matches!(one, Use::Event(event) if event.is_done() == Ok(true)));
        let event = Event::new(stream.device())?;
        event.record(stream)?;
        self.list.push(Use::Event(event));
        Ok(())
    }
}
