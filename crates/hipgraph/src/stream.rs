//! Streams and events.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hip_sys::{
    CaptureStatus, EventFlags, Fault, HipError, MemcpyKind, StreamFlags, hipEvent_t, hipStream_t,
};

use crate::buffer::{DeviceBuffer, PinnedBuffer, checked_range};
use crate::device::Device;
use crate::gate::hold_off_captures;

/// A queue of a device. Copies of the value are the same queue.
#[derive(Debug, Clone)]
pub struct Stream {
    inner: Arc<StreamInner>,
}

#[derive(Debug)]
pub(crate) struct StreamInner {
    device: Device,
    raw: hipStream_t,
    is_owned: bool,
    /// Counts what was noted as enqueued.
    enqueued: AtomicU64,
    /// How much of that is known to be done.
    done: AtomicU64,
}

// SAFETY: both runtimes take calls on a stream from any thread.
unsafe impl Send for StreamInner {}
// SAFETY: as above; what is enqueued at once comes in some order.
unsafe impl Sync for StreamInner {}

impl StreamInner {
    fn is_capturing(&self) -> Result<bool, HipError> {
        let mut status = CaptureStatus::NONE;
        // SAFETY: the stream is alive, and the place is ours.
        unsafe { self.device.hip().stream_is_capturing(self.raw, &mut status) }?;
        Ok(status != CaptureStatus::NONE)
    }

    /// Notes that something was enqueued. The number is for [`Self::wait_for`].
    pub(crate) fn note(&self) -> u64 {
        self.enqueued.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Waits for what has this number, unless that is known to be done or would spoil a capture.
    pub(crate) fn wait_for(&self, number: u64) -> Result<(), HipError> {
        if self.done.load(Ordering::Acquire) >= number {
            return Ok(());
        }
        if self.is_capturing()? {
            let message = "the stream is being captured".to_owned();
            return Err(HipError::without_call(Fault::StreamCaptureUnsupported, message));
        }
        self.synchronize()
    }

    pub(crate) fn synchronize(&self) -> Result<(), HipError> {
        let enqueued = self.enqueued.load(Ordering::Acquire);
        // SAFETY: the stream is alive.
        unsafe { self.device.hip().stream_synchronize(self.raw) }?;
        self.done.fetch_max(enqueued, Ordering::AcqRel);
        Ok(())
    }
}

impl Drop for StreamInner {
    fn drop(&mut self) {
        if !self.is_owned {
            return;
        }
        let Ok(_pinned) = self.device.pin() else { return };
        // A stream that is destroyed ends its work by itself. There is nothing to do about a failure.
        // SAFETY: nobody else has it.
        let _kept = unsafe { self.device.hip().stream_destroy(self.raw) };
    }
}

impl Stream {
    /// A queue that has nothing to do with the default stream.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn new(device: &Device) -> Result<Self, HipError> {
        let _pinned = device.pin()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the place is ours.
        unsafe { device.hip().stream_create_with_flags(&mut raw, StreamFlags::NON_BLOCKING) }?;
        Ok(Self::of(device, raw, true))
    }

    /// A caller's queue, which stays his. Null is the default stream, which cannot be captured.
    ///
    /// # Safety
    ///
    /// The stream belongs to the device, and is alive whenever a method of the value is called.
    /// Buffers and graphs that were used on it may live longer than it does.
    #[must_use]
    pub unsafe fn borrowed(device: &Device, raw: hipStream_t) -> Self {
        Self::of(device, raw, false)
    }

    fn of(device: &Device, raw: hipStream_t, is_owned: bool) -> Self {
        let (enqueued, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let inner = StreamInner { device: device.clone(), raw, is_owned, enqueued, done };
        Self { inner: Arc::new(inner) }
    }

    /// A mark behind what was enqueued so far, which costs the device nothing.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { stream: self.clone(), number: self.inner.note() }
    }

    /// Whether both are the same queue.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.inner.device
    }

    /// The handle. It is destroyed with the last copy of this value and of all that was used on it.
    #[must_use]
    pub fn raw(&self) -> hipStream_t {
        self.inner.raw
    }

    /// Whether it is the device's default stream.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.inner.raw.is_null()
    }

    pub(crate) fn owned(&self) -> Option<&Arc<StreamInner>> {
        self.inner.is_owned.then_some(&self.inner)
    }

    /// Waits until everything that was enqueued is done.
    ///
    /// # Errors
    ///
    /// What the runtime answers, which may be about any earlier work.
    pub fn synchronize(&self) -> Result<(), HipError> {
        let _pinned = self.device().pin()?;
        self.inner.synchronize()
    }

    /// Whether it records what it is given, or did until something spoilt that.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn is_capturing(&self) -> Result<bool, HipError> {
        self.inner.is_capturing()
    }

    /// What is enqueued from now on comes after what `event` marks.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn wait(&self, event: &Event) -> Result<(), HipError> {
        let _pinned = self.device().pin()?;
        // SAFETY: both are alive; the runtime keeps what it needs of the event.
        unsafe { self.device().hip().stream_wait_event(self.raw(), event.raw, 0) }
    }

    /// Fills bytes of a buffer.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidValue`] for a range beyond the buffer, without a call.
    pub fn fill(
        &self,
        to: &DeviceBuffer,
        offset: usize,
        n_bytes: usize,
        byte: u8,
    ) -> Result<(), HipError> {
        let address = checked_range(to.address(), to.n_bytes(), offset, n_bytes)?;
        let _pinned = self.device().pin()?;
        to.uses().during(self, || {
            // SAFETY: the range is inside of the buffer, which waits for the stream before it goes.
            unsafe {
                self.device().hip().memset_async(address, i32::from(byte), n_bytes, self.raw())
            }
        })
    }

    /// Copies from pinned memory, which waits for this when it is read or written next.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidValue`] for a range beyond a buffer, without a call.
    pub fn copy_in(
        &self,
        to: &DeviceBuffer,
        to_offset: usize,
        from: &PinnedBuffer,
        from_offset: usize,
        n_bytes: usize,
    ) -> Result<(), HipError> {
        let target = checked_range(to.address(), to.n_bytes(), to_offset, n_bytes)?;
        let source = checked_range(from.address(), from.n_bytes(), from_offset, n_bytes)?;
        let _pinned = self.device().pin()?;
        let kind = MemcpyKind::HOST_TO_DEVICE;
        to.uses().during(self, || {
            // SAFETY: both ranges are inside of their buffers, which wait for the stream before they go.
            unsafe { self.device().hip().memcpy_async(target, source, n_bytes, kind, self.raw()) }
        })?;
        from.uses().note(self)
    }

    /// Copies to pinned memory, which waits for this when it is read or written next.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidValue`] for a range beyond a buffer, without a call.
    pub fn copy_out(
        &self,
        to: &mut PinnedBuffer,
        to_offset: usize,
        from: &DeviceBuffer,
        from_offset: usize,
        n_bytes: usize,
    ) -> Result<(), HipError> {
        let target = checked_range(to.address(), to.n_bytes(), to_offset, n_bytes)?;
        let source = checked_range(from.address(), from.n_bytes(), from_offset, n_bytes)?;
        let _pinned = self.device().pin()?;
        let kind = MemcpyKind::DEVICE_TO_HOST;
        from.uses().during(self, || {
            // SAFETY: both ranges are inside of their buffers, which wait for the stream before they go.
            unsafe { self.device().hip().memcpy_async(target, source, n_bytes, kind, self.raw()) }
        })?;
        to.uses().note(self)
    }

    /// Copies from memory of the caller, and waits: runtimes may read pageable memory later.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidValue`] for a range beyond the buffer, without a call.
    pub fn write(&self, to: &DeviceBuffer, offset: usize, from: &[u8]) -> Result<(), HipError> {
        let target = checked_range(to.address(), to.n_bytes(), offset, from.len())?;
        let (source, kind) = (from.as_ptr().cast(), MemcpyKind::HOST_TO_DEVICE);
        let _pinned = self.device().pin()?;
        // SAFETY: the range is inside of the buffer, and both live until the copy is done.
        unsafe { self.device().hip().memcpy_async(target, source, from.len(), kind, self.raw()) }?;
        self.inner.synchronize()
    }

    /// Copies to memory of the caller, and waits.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidValue`] for a range beyond the buffer, without a call.
    pub fn read(&self, from: &DeviceBuffer, offset: usize, to: &mut [u8]) -> Result<(), HipError> {
        let source = checked_range(from.address(), from.n_bytes(), offset, to.len())?;
        // SAFETY: the range is inside of the buffer, which is alive.
        unsafe { self.read_address(source.addr(), to) }
    }

    /// Copies from an address of the device, and waits.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// As many bytes of the device as `to` has lie there.
    pub unsafe fn read_address(&self, address: usize, to: &mut [u8]) -> Result<(), HipError> {
        let source = ptr::without_provenance(address);
        let (target, kind) = (to.as_mut_ptr().cast(), MemcpyKind::DEVICE_TO_HOST);
        let _pinned = self.device().pin()?;
        // SAFETY: the caller vouches for the source; the target lives until the copy is done.
        unsafe { self.device().hip().memcpy_async(target, source, to.len(), kind, self.raw()) }?;
        self.inner.synchronize()
    }
}

impl Stream {
    /// Fills bytes at an address of the device, without a wait.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// So many bytes of the device lie there until that is done.
    pub unsafe fn fill_address(
        &self,
        address: usize,
        n_bytes: usize,
        byte: u8,
    ) -> Result<(), HipError> {
        let (to, value) = (ptr::without_provenance_mut(address), i32::from(byte));
        let _pinned = self.device().pin()?;
        // SAFETY: the caller vouches for the range.
        unsafe { self.device().hip().memset_async(to, value, n_bytes, self.raw()) }
    }

    /// Copies between two addresses without a wait; `kind` says which of them are the device's.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Safety
    ///
    /// So many bytes lie at both addresses until the copy is done. Those of the host are pinned, or the
    /// caller waits before he reads or changes them.
    pub unsafe fn copy_addresses(
        &self,
        to: usize,
        from: usize,
        n_bytes: usize,
        kind: MemcpyKind,
    ) -> Result<(), HipError> {
        let (to, from) = (ptr::without_provenance_mut(to), ptr::without_provenance(from));
        let _pinned = self.device().pin()?;
        // SAFETY: the caller vouches for both ranges.
        unsafe { self.device().hip().memcpy_async(to, from, n_bytes, kind, self.raw()) }
    }
}

/// A mark in a stream that only the host can wait for. It is known to have passed once the stream was
/// [waited for](Stream::synchronize) by whoever.
#[derive(Debug, Clone)]
pub struct Stamp {
    stream: Stream,
    number: u64,
}

impl Stamp {
    /// The stream.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Moves the mark behind what was enqueued on its stream so far.
    pub fn renew(&mut self) {
        self.number = self.stream.inner.note();
    }

    /// Waits until the mark has passed: where that is not known, for the end of the stream, and before for
    /// captures, which that would spoil. Not to be called by a thread that captures.
    ///
    /// # Errors
    ///
    /// What the runtime answers, which may be about any earlier work.
    pub fn wait(&self) -> Result<(), HipError> {
        let inner = &self.stream.inner;
        if inner.done.load(Ordering::Acquire) >= self.number {
            return Ok(());
        }
        let (_pinned, _held_off) = (inner.device.pin()?, hold_off_captures());
        inner.synchronize()
    }
}

/// Whether an event can tell times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// It can, and costs more.
    Timed,
    /// It only marks a place.
    Untimed,
}

/// A mark in a stream.
#[derive(Debug)]
pub struct Event {
    device: Device,
    raw: hipEvent_t,
}

// SAFETY: both runtimes take calls on an event from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// A mark that tells no times. Before it is recorded, it counts as passed.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn new(device: &Device) -> Result<Self, HipError> {
        Self::with_timing(device, Timing::Untimed)
    }

    /// A mark.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn with_timing(device: &Device, timing: Timing) -> Result<Self, HipError> {
        let flags = match timing {
            Timing::Timed => EventFlags::DEFAULT,
            Timing::Untimed => EventFlags::DISABLE_TIMING,
        };
        let _pinned = device.pin()?;
        let mut raw = ptr::null_mut();
        // SAFETY: the place is ours.
        unsafe { device.hip().event_create_with_flags(&mut raw, flags) }?;
        Ok(Self { device: device.clone(), raw })
    }

    /// The handle, destroyed with this value.
    #[must_use]
    pub fn raw(&self) -> hipEvent_t {
        self.raw
    }

    /// Marks what was enqueued so far.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn record(&self, stream: &Stream) -> Result<(), HipError> {
        let _pinned = self.device.pin()?;
        // SAFETY: both are alive.
        unsafe { self.device.hip().event_record(self.raw, stream.raw()) }
    }

    /// Waits until the mark has passed.
    ///
    /// # Errors
    ///
    /// What the runtime answers, which may be about any earlier work.
    pub fn synchronize(&self) -> Result<(), HipError> {
        // SAFETY: the event is alive.
        unsafe { self.device.hip().event_synchronize(self.raw) }
    }

    /// Whether the mark has passed.
    ///
    /// # Errors
    ///
    /// What the runtime answers, which may be about any earlier work.
    pub fn is_done(&self) -> Result<bool, HipError> {
        // SAFETY: the event is alive.
        let status = unsafe { (self.device.hip().api().event_query)(self.raw) };
        if status.0 == Fault::NotReady.code() {
            // It is no failure, and a look at the last error should not find it.
            // SAFETY: it takes no argument and answers a number.
            let _cleared = unsafe { (self.device.hip().api().get_last_error)() };
            return Ok(false);
        }
        self.device.hip().check("hipEventQuery", status).map(|()| true)
    }

    /// The time of the device since an earlier mark; both have to be timed and passed.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidHandle`] where one is not timed, [`Fault::NotReady`] where one has not passed.
    pub fn since(&self, earlier: &Self) -> Result<Duration, HipError> {
        let mut milliseconds = 0.0;
        // SAFETY: both are alive, and the place is ours.
        unsafe { self.device.hip().event_elapsed_time(&mut milliseconds, earlier.raw, self.raw) }?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // A recorded event that is destroyed still passes. There is nothing to do about a failure.
        // SAFETY: nobody else has it.
        let _kept = unsafe { self.device.hip().event_destroy(self.raw) };
    }
}
