//! Tensors that lie on a device.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use hipgraph::{Device, DeviceBuffer, SLOT_BYTES};
use shapeyard_core::{DataType, Shape, byte_len};

/// A dense tensor in memory of a device, which it keeps alive.
///
/// Copies of the value are the same memory. What is in it is the owner's affair: nothing here waits for
/// work that others gave to the device.
#[derive(Clone)]
pub struct DeviceTensor {
    device: Device,
    dtype: DataType,
    shape: Shape,
    address: usize,
    n_bytes: usize,
    has_checked_indices: bool,
    _owner: Arc<dyn Any + Send + Sync>,
}

/// Why memory of a device is no tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceTensorError {
    /// The shape has more bytes than an address space.
    #[error("a tensor of {dtype} {shape:?} is larger than an address space")]
    TooLarge {
        /// The data type.
        dtype: DataType,
        /// The shape.
        shape: Vec<usize>,
    },
    /// The tensor ends behind the memory.
    #[error("{wanted} bytes from {offset} are beyond a buffer of {n_bytes}")]
    Beyond {
        /// Where it begins, in bytes.
        offset: usize,
        /// How many bytes it has.
        wanted: usize,
        /// How many bytes the memory has.
        n_bytes: usize,
    },
    /// The tensor begins where programs do not expect one.
    #[error("the address {address:#x} is not a multiple of {ALIGNMENT}", ALIGNMENT = DeviceTensor::ALIGNMENT)]
    Unaligned {
        /// Where it begins.
        address: usize,
    },
}

impl DeviceTensor {
    /// What addresses have to be multiples of, in bytes: kernels are made for what the runtime allocates.
    pub const ALIGNMENT: usize = SLOT_BYTES;

    /// A tensor in a buffer, from a byte on.
    ///
    /// # Errors
    ///
    /// See [`DeviceTensorError`].
    pub fn new(
        dtype: DataType,
        shape: &[usize],
        buffer: Arc<DeviceBuffer>,
        offset: usize,
    ) -> Result<Self, DeviceTensorError> {
        let (wanted, n_bytes) = (bytes(dtype, shape)?, buffer.n_bytes());
        if offset.checked_add(wanted).is_none_or(|end| end > n_bytes) {
            return Err(DeviceTensorError::Beyond { offset, wanted, n_bytes });
        }
        let (device, address) = (buffer.device().clone(), buffer.address().addr() + offset);
        // SAFETY: the range is inside of the buffer, which is alive as long as its owner.
        unsafe { Self::at(dtype, shape, &device, address, buffer) }
    }

    /// A tensor in memory that another library allocated.
    ///
    /// # Errors
    ///
    /// [`DeviceTensorError::TooLarge`] and [`DeviceTensorError::Unaligned`].
    ///
    /// # Safety
    ///
    /// The tensor's bytes are memory of the device, and stay so while `owner` is alive.
    pub unsafe fn at(
        dtype: DataType,
        shape: &[usize],
        device: &Device,
        address: usize,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Self, DeviceTensorError> {
        let n_bytes = bytes(dtype, shape)?;
        if !address.is_multiple_of(Self::ALIGNMENT) {
            return Err(DeviceTensorError::Unaligned { address });
        }
        let (device, shape) = (device.clone(), shape.into());
        let has_checked_indices = false;
        Ok(Self { device, dtype, shape, address, n_bytes, has_checked_indices, _owner: owner })
    }

    /// The same tensor, with the caller's word for its elements where they are indices: nobody looks at
    /// them on the device.
    ///
    /// # Safety
    ///
    /// In every run, every element is inside of the table that the model looks it up in
    /// ([`TensorSpec::index_limit`](shapeyard_core::TensorSpec)).
    #[must_use]
    pub unsafe fn with_checked_indices(self) -> Self {
        Self { has_checked_indices: true, ..self }
    }

    /// The type of its elements.
    #[must_use]
    pub const fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Its extents.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where it begins on its device.
    #[must_use]
    pub const fn address(&self) -> usize {
        self.address
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    pub(crate) const fn has_checked_indices(&self) -> bool {
        self.has_checked_indices
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let range = |it: &Self| -> Range<usize> { it.address..it.address + it.n_bytes };
        let (one, two) = (range(self), range(other));
        one.start.max(two.start) < one.end.min(two.end)
    }
}

impl fmt::Debug for DeviceTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, address) = (self.device.index(), self.address);
        write!(f, "DeviceTensor({} {:?} at {address:#x} of {device})", self.dtype, self.shape())
    }
}

fn bytes(dtype: DataType, shape: &[usize]) -> Result<usize, DeviceTensorError> {
    let too_large = |_| DeviceTensorError::TooLarge { dtype, shape: shape.to_vec() };
    byte_len(dtype, shape).map_err(too_large)
}
