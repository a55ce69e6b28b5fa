//! One device, and being on it.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use hip_sys::{CaptureMode, DeviceProperties, Hip, HipError, LoadError, SearchOptions};

use crate::gate::hold_off_captures;

/// A device of a runtime. Copies of the value are the same device.
#[derive(Debug, Clone)]
pub struct Device {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hip: Arc<Hip>,
    index: c_int,
    properties: DeviceProperties,
    runtime_version: c_int,
}

/// Why there is no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no runtime.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The runtime has no such device.
    #[error(transparent)]
    Hip(#[from] HipError),
}

impl Device {
    /// A device of a runtime, by its number there.
    ///
    /// # Errors
    ///
    /// A fault that [`is_no_device`](hip_sys::Fault::is_no_device) without a device, and
    /// [`InvalidDevice`](hip_sys::Fault::InvalidDevice) for a number that none has.
    pub fn new(hip: Arc<Hip>, index: usize) -> Result<Self, HipError> {
        // It has to come first on NVIDIA's platform, whose driver functions otherwise answer that
        // nobody did.
        // SAFETY: zero is the only flag that there is.
        unsafe { hip.init(0) }?;
        let properties = hip.device_properties(index)?;
        let runtime_version = hip.runtime_version()?;
        let index = c_int::try_from(index).unwrap_or(c_int::MAX);
        let device = Self { inner: Arc::new(Inner { hip, index, properties, runtime_version }) };
        let pinned = device.pin_context()?;
        // SAFETY: there is nothing to free; the call makes the device's context.
        unsafe { device.hip().free(ptr::null_mut()) }?;
        drop(pinned);
        Ok(device)
    }

    /// The first device of the runtime that is found.
    ///
    /// # Errors
    ///
    /// Without a runtime or without a device.
    pub fn first() -> Result<Self, OpenError> {
        let hip = Hip::open(&SearchOptions::default())?;
        Ok(Self::new(Arc::new(hip), 0)?)
    }

    /// The runtime.
    #[must_use]
    pub fn hip(&self) -> &Arc<Hip> {
        &self.inner.hip
    }

    /// The device's number.
    #[must_use]
    pub fn index(&self) -> c_int {
        self.inner.index
    }

    /// What the runtime says about the device.
    #[must_use]
    pub fn properties(&self) -> &DeviceProperties {
        &self.inner.properties
    }

    /// See [`Hip::runtime_version`].
    #[must_use]
    pub fn runtime_version(&self) -> c_int {
        self.inner.runtime_version
    }

    /// Free and total memory, in bytes.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn memory(&self) -> Result<(usize, usize), HipError> {
        let _pinned = self.pin()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the places are ours.
        unsafe { self.hip().mem_get_info(&mut free, &mut total) }?;
        Ok((free, total))
    }

    /// Waits for everything that anybody gave to the device, on whatever stream: for when it is not known
    /// which streams a library of somebody else used. Waits for captures first, and holds new ones off. Not
    /// to be called by a thread that captures.
    ///
    /// # Errors
    ///
    /// What the runtime answers, which may be about any earlier work.
    pub fn synchronize(&self) -> Result<(), HipError> {
        let (_pinned, _held_off) = (self.pin()?, hold_off_captures());
        // SAFETY: it takes no argument.
        unsafe { self.hip().device_synchronize() }
    }

    /// Makes this the calling thread's device until the value is dropped, which gives the thread the
    /// device back that it had.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn pin(&self) -> Result<Pinned, HipError> {
        self.pin_unless(true)
    }

    /// Like [`pin`](Self::pin), for functions of NVIDIA's driver: a thread that never called the
    /// runtime says it is on device 0, and has no context there.
    pub(crate) fn pin_context(&self) -> Result<Pinned, HipError> {
        self.pin_unless(false)
    }

    fn pin_unless(&self, is_there: bool) -> Result<Pinned, HipError> {
        let hip = self.hip();
        let mut previous = 0;
        // SAFETY: the place is ours.
        unsafe { hip.get_device(&mut previous) }?;
        let moved = previous != self.inner.index;
        if moved || !is_there {
            // SAFETY: it takes any number.
            unsafe { hip.set_device(self.inner.index) }?;
        }
        let back = moved.then(|| (Arc::clone(hip), previous));
        Ok(Pinned { back, thread: PhantomData })
    }

    /// Calls a function that a capture of this thread would forbid, such as giving memory back.
    pub(crate) fn beside_captures<T>(
        &self,
        call: impl FnOnce() -> Result<T, HipError>,
    ) -> Result<T, HipError> {
        let mut mode = CaptureMode::RELAXED;
        // SAFETY: the place is ours; the thread's mode is given back below.
        unsafe { self.hip().thread_exchange_stream_capture_mode(&mut mode) }?;
        let answer = call();
        // SAFETY: as above.
        unsafe { self.hip().thread_exchange_stream_capture_mode(&mut mode) }?;
        answer
    }
}

/// The calling thread is on a device. It stays on its thread.
#[derive(Debug)]
#[must_use = "the thread leaves the device when this is dropped"]
pub struct Pinned {
    back: Option<(Arc<Hip>, c_int)>,
    thread: PhantomData<*const c_void>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some((hip, previous)) = self.back.take() {
            // The thread was on it before, so it is there; a runtime that is being taken down
            // cannot be helped.
            // SAFETY: it takes any number.
            let _gone = unsafe { hip.set_device(previous) };
        }
    }
}
