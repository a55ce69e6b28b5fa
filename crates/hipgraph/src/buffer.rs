//! Memory of the device, and pinned memory of the host.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::slice;

use hip_sys::{Fault, HipError, HostMallocFlags};

use crate::device::Device;
use crate::uses::Uses;

/// Memory of a device. It is given back only after everything that was enqueued with it is done.
#[derive(Debug)]
pub struct DeviceBuffer {
    device: Device,
    address: *mut c_void,
    n_bytes: usize,
    uses: Uses,
}

// SAFETY: the address is the device's, and followed only by what is enqueued.
unsafe impl Send for DeviceBuffer {}
// SAFETY: as above.
unsafe impl Sync for DeviceBuffer {}

impl DeviceBuffer {
    /// So many bytes, aligned to 256, with nothing particular in them.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`]; the device is as it was.
    pub fn new(device: &Device, n_bytes: usize) -> Result<Self, HipError> {
        let _pinned = device.pin()?;
        let mut address = ptr::null_mut();
        // An empty buffer has an address too, so that it can be bound.
        // SAFETY: the place is ours.
        unsafe { device.hip().malloc(&mut address, n_bytes.max(1)) }?;
        Ok(Self { device: device.clone(), address, n_bytes, uses: Uses::default() })
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Where it begins, as kernels take it. Work that is enqueued with it by other ways than this
    /// crate's has to be done before the buffer is dropped.
    #[must_use]
    pub fn address(&self) -> *mut c_void {
        self.address
    }

    /// How long it is.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // What cannot be given back is kept; see `finish`.
        let _kept = self.uses.finish(&self.device, || {
            // SAFETY: nothing uses it any more.
            unsafe { self.device.hip().free(self.address) }
        });
    }
}

/// Memory of the host that devices reach by themselves. It is given back only after everything that
/// was enqueued with it is done.
#[derive(Debug)]
pub struct PinnedBuffer {
    device: Device,
    address: NonNull<u8>,
    n_bytes: usize,
    uses: Uses,
}

// SAFETY: it is memory of the host with one owner; what is enqueued with it is waited for.
unsafe impl Send for PinnedBuffer {}
// SAFETY: shared access reads, after a wait.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// So many bytes, all zero, usable with every device.
    ///
    /// # Errors
    ///
    /// [`Fault::OutOfMemory`].
    pub fn new(device: &Device, n_bytes: usize) -> Result<Self, HipError> {
        let _pinned = device.pin()?;
        let mut raw = ptr::null_mut();
        let (size, flags) = (n_bytes.max(1), HostMallocFlags::PORTABLE);
        // SAFETY: the place is ours.
        unsafe { device.hip().host_malloc(&mut raw, size, flags) }?;
        let Some(address) = NonNull::new(raw.cast::<u8>()) else {
            let message = "the runtime gave no address".to_owned();
            return Err(HipError::without_call(Fault::OutOfMemory, message));
        };
        // SAFETY: the runtime gave so many bytes; filled, they are a slice.
        unsafe { address.as_ptr().write_bytes(0, size) };
        Ok(Self { device: device.clone(), address, n_bytes, uses: Uses::default() })
    }

    /// How long it is.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// The bytes, after the wait for everything that was enqueued with them.
    ///
    /// # Errors
    ///
    /// What the wait ends with, which may be about any earlier work.
    pub fn bytes(&self) -> Result<&[u8], HipError> {
        self.uses.wait()?;
        // SAFETY: so many bytes were given and filled, and nothing writes them: a copy into them would
        // have to be enqueued after this.
        Ok(unsafe { slice::from_raw_parts(self.address.as_ptr(), self.n_bytes) })
    }

    /// The bytes without a wait.
    ///
    /// # Safety
    ///
    /// What was enqueued to write them is done, which the caller knows by an event of his own.
    #[must_use]
    pub unsafe fn bytes_unwaited(&self) -> &[u8] {
        // SAFETY: so many bytes were given and filled; the caller vouches for the rest.
        unsafe { slice::from_raw_parts(self.address.as_ptr(), self.n_bytes) }
    }

    /// The bytes, to be changed, after the wait for everything that was enqueued with them.
    ///
    /// # Errors
    ///
    /// What the wait ends with, which may be about any earlier work.
    pub fn bytes_mut(&mut self) -> Result<&mut [u8], HipError> {
        self.uses.wait()?;
        // SAFETY: as above, and nobody else has them while the borrow lives.
        Ok(unsafe { self.bytes_mut_unwaited() })
    }

    /// The bytes without a wait.
    ///
    /// # Safety
    ///
    /// What was enqueued with them is done, which the caller knows by an event of his own.
    pub unsafe fn bytes_mut_unwaited(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes were given and filled; the caller vouches for the rest.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr(), self.n_bytes) }
    }

    /// Where it begins; the host and devices have the same address.
    #[must_use]
    pub fn address(&self) -> *mut c_void {
        self.address.as_ptr().cast()
    }

    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // What cannot be given back is kept; see `finish`.
        let _kept = self.uses.finish(&self.device, || {
            // SAFETY: nothing uses it any more.
            unsafe { self.device.hip().host_free(self.address.as_ptr().cast()) }
        });
    }
}

/// The address of a range inside of a buffer.
pub(crate) fn checked_range(
    address: *mut c_void,
    length: usize,
    offset: usize,
    n_bytes: usize,
) -> Result<*mut c_void, HipError> {
    match offset.checked_add(n_bytes) {
        Some(end) if end <= length => Ok(address.wrapping_byte_add(offset)),
        _ => Err(HipError::without_call(
            Fault::InvalidValue,
            format!("{n_bytes} bytes from {offset} are beyond a buffer of {length}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_beyond_the_buffer_is_refused() {
        let inside = |offset, n_bytes| checked_range(ptr::null_mut(), 10, offset, n_bytes).is_ok();
        assert!(inside(0, 10) && inside(10, 0) && inside(3, 7));
        assert!(!inside(3, 8) && !inside(11, 0) && !inside(usize::MAX, 2));
    }
}
