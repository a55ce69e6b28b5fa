//! Tensors at the border of a model: a data type, a shape and bytes in host memory.
//!
//! Elements are row-major and dense. Rank 0 (one element) and extents of 0 (no element) are legal.
//! Device memory is never behind one of these types.

mod element;
#[cfg(feature = "ndarray")]
mod interop;

pub use element::Element;

use crate::DataType;

/// The extents of a tensor, one an axis. Up to six axes stay off the heap.
pub type Shape = smallvec::SmallVec<[usize; 6]>;

/// Why bytes are no tensor of the shape and type asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The extents multiply to more bytes than an address can count.
    #[error("shape {shape:?} of {dtype} has more bytes than can be addressed")]
    TooLarge {
        /// The extents asked for.
        shape: Shape,
        /// The data type asked for.
        dtype: DataType,
    },
    /// There are more or fewer bytes than the shape takes.
    #[error("{found} bytes were given, shape {shape:?} of {dtype} takes {wanted}")]
    WrongLength {
        /// The extents asked for.
        shape: Shape,
        /// The data type asked for.
        dtype: DataType,
        /// Bytes given.
        found: usize,
        /// Bytes that the shape takes.
        wanted: usize,
    },
    /// The elements were asked for as another type than they are.
    #[error("the tensor holds {found}, its elements were asked for as {wanted}")]
    WrongType {
        /// What the tensor holds.
        found: DataType,
        /// What was asked for.
        wanted: DataType,
    },
    /// The bytes do not start where a value of this type may start.
    #[error("the tensor's bytes are not aligned for {dtype}; copy them into an owned tensor first")]
    Misaligned {
        /// The type whose alignment is missing.
        dtype: DataType,
    },
}

/// The number of bytes that a dense tensor takes.
///
/// # Errors
///
/// [`TensorError::TooLarge`] when that number does not fit in `isize`, the largest size of an object.
pub fn byte_len(dtype: DataType, shape: &[usize]) -> Result<usize, TensorError> {
    // A zero extent makes the tensor empty whatever the others are, also those whose product overflows.
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(dtype.size(), |bytes, &extent| bytes.checked_mul(extent))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| TensorError::TooLarge { shape: shape.into(), dtype })
}

fn check_len(dtype: DataType, shape: &[usize], found: usize) -> Result<(), TensorError> {
    let wanted = byte_len(dtype, shape)?;
    if found == wanted {
        Ok(())
    } else {
        Err(TensorError::WrongLength { shape: shape.into(), dtype, found, wanted })
    }
}

fn check_type<T: Element>(found: DataType) -> Result<(), TensorError> {
    if found == T::DTYPE { Ok(()) } else { Err(TensorError::WrongType { found, wanted: T::DTYPE }) }
}

/// A borrowed tensor.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    dtype: DataType,
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// A view of `bytes` as a dense tensor.
    ///
    /// Any alignment is accepted; [`Self::as_slice`] checks the one that it needs.
    ///
    /// # Errors
    ///
    /// [`TensorError::WrongLength`] and [`TensorError::TooLarge`].
    pub fn new(dtype: DataType, shape: &'a [usize], bytes: &'a [u8]) -> Result<Self, TensorError> {
        check_len(dtype, shape, bytes.len())?;
        Ok(Self { dtype, shape, bytes })
    }

    /// A view of typed elements.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn from_slice<T: Element>(
        shape: &'a [usize],
        elements: &'a [T],
    ) -> Result<Self, TensorError> {
        Self::new(T::DTYPE, shape, bytemuck::cast_slice(elements))
    }

    /// The type of the elements.
    #[must_use]
    pub const fn dtype(&self) -> DataType {
        self.dtype
    }

    /// The extents, one an axis.
    #[must_use]
    pub const fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The elements' bytes, row-major, in the machine's byte order.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements.
    ///
    /// # Errors
    ///
    /// [`TensorError::WrongType`] and [`TensorError::Misaligned`].
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T], TensorError> {
        check_type::<T>(self.dtype)?;
        bytemuck::try_cast_slice(self.bytes)
            .map_err(|_| TensorError::Misaligned { dtype: T::DTYPE })
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_tensor(&self) -> Tensor {
        let mut tensor = Tensor::empty();
        tensor.assign(*self);
        tensor
    }
}

/// A borrowed tensor whose elements may be written.
#[derive(Debug)]
pub struct TensorViewMut<'a> {
    dtype: DataType,
    shape: &'a [usize],
    bytes: &'a mut [u8],
}

impl<'a> TensorViewMut<'a> {
    /// A view of `bytes` as a dense tensor.
    ///
    /// # Errors
    ///
    /// As [`TensorView::new`].
    pub fn new(
        dtype: DataType,
        shape: &'a [usize],
        bytes: &'a mut [u8],
    ) -> Result<Self, TensorError> {
        check_len(dtype, shape, bytes.len())?;
        Ok(Self { dtype, shape, bytes })
    }

    /// The type of the elements.
    #[must_use]
    pub const fn dtype(&self) -> DataType {
        self.dtype
    }

    /// The extents, one an axis.
    #[must_use]
    pub const fn shape(&self) -> &[usize] {
        self.shape
    }

    /// The elements' bytes.
    #[must_use]
    pub const fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes
    }

    /// The elements.
    ///
    /// # Errors
    ///
    /// As [`TensorView::as_slice`].
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        check_type::<T>(self.dtype)?;
        bytemuck::try_cast_slice_mut(self.bytes)
            .map_err(|_| TensorError::Misaligned { dtype: T::DTYPE })
    }

    /// The same elements, not to be written.
    #[must_use]
    pub const fn as_view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: self.shape, bytes: self.bytes }
    }
}

/// One unit of an owned tensor's memory: its alignment suffices for every [`DataType`].
type Block = u128;

/// A tensor that owns its bytes.
///
/// The memory is aligned to 16 bytes and kept when the tensor is [`reset`](Self::reset) to another
/// shape, so that a tensor that is filled again and again stops allocating.
#[derive(Clone)]
pub struct Tensor {
    dtype: DataType,
    shape: Shape,
    blocks: Vec<Block>,
    n_bytes: usize,
}

impl Tensor {
    /// A tensor without elements: `u8`, shape `[0]`.
    #[must_use]
    pub fn empty() -> Self {
        Self { dtype: DataType::U8, shape: smallvec::smallvec![0], blocks: Vec::new(), n_bytes: 0 }
    }

    /// A tensor whose bytes are all 0.
    ///
    /// # Errors
    ///
    /// [`TensorError::TooLarge`].
    pub fn zeroed(dtype: DataType, shape: &[usize]) -> Result<Self, TensorError> {
        let mut tensor = Self::empty();
        tensor.reset(dtype, shape)?;
        Ok(tensor)
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`TensorView::new`].
    pub fn from_bytes(dtype: DataType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        Ok(TensorView::new(dtype, shape, bytes)?.to_tensor())
    }

    /// A copy of typed elements.
    ///
    /// # Errors
    ///
    /// As [`TensorView::new`].
    pub fn from_slice<T: Element>(shape: &[usize], elements: &[T]) -> Result<Self, TensorError> {
        Self::from_bytes(T::DTYPE, shape, bytemuck::cast_slice(elements))
    }

    /// Gives the tensor another type and shape, with every byte 0, in the memory that it has if that
    /// suffices.
    ///
    /// # Errors
    ///
    /// [`TensorError::TooLarge`]; the tensor is then as it was.
    pub fn reset(&mut self, dtype: DataType, shape: &[usize]) -> Result<(), TensorError> {
        let n_bytes = byte_len(dtype, shape)?;
        self.blocks.clear();
        self.blocks.resize(n_bytes.div_ceil(size_of::<Block>()), 0);
        self.describe(dtype, shape, n_bytes);
        Ok(())
    }

    /// Becomes a copy of `view`, in the memory that it has if that suffices.
    pub fn assign(&mut self, view: TensorView<'_>) {
        // Only what is new is zeroed: all of it is written below.
        self.blocks.resize(view.bytes.len().div_ceil(size_of::<Block>()), 0);
        self.describe(view.dtype, view.shape, view.bytes.len());
        self.bytes_mut().copy_from_slice(view.bytes);
    }

    fn describe(&mut self, dtype: DataType, shape: &[usize], n_bytes: usize) {
        self.dtype = dtype;
        self.shape.clear();
        self.shape.extend_from_slice(shape);
        self.n_bytes = n_bytes;
    }

    /// The type of the elements.
    #[must_use]
    pub const fn dtype(&self) -> DataType {
        self.dtype
    }

    /// The extents, one an axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes, row-major, in the machine's byte order.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.blocks)[..self.n_bytes]
    }

    /// The elements' bytes.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.n_bytes]
    }

    /// The elements.
    ///
    /// # Errors
    ///
    /// [`TensorError::WrongType`].
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        self.view().as_slice()
    }

    /// The elements.
    ///
    /// # Errors
    ///
    /// [`TensorError::WrongType`].
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], TensorError> {
        check_type::<T>(self.dtype)?;
        bytemuck::try_cast_slice_mut(self.bytes_mut())
            .map_err(|_| TensorError::Misaligned { dtype: T::DTYPE })
    }

    /// The tensor, borrowed.
    #[must_use]
    pub fn view(&self) -> TensorView<'_> {
        TensorView { dtype: self.dtype, shape: &self.shape, bytes: self.bytes() }
    }

    /// The tensor, borrowed to be written.
    #[must_use]
    pub fn view_mut(&mut self) -> TensorViewMut<'_> {
        let bytes = &mut bytemuck::cast_slice_mut(&mut self.blocks)[..self.n_bytes];
        TensorViewMut { dtype: self.dtype, shape: &self.shape, bytes }
    }
}

impl Default for Tensor {
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Tensor {
    /// Equal type, shape and bytes: `NaN` equals itself, `0.0` does not equal `-0.0`.
    fn eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rank_zero_has_one_element_and_a_zero_extent_none() {
        assert_eq!(byte_len(DataType::F32, &[]), Ok(4));
        assert_eq!(byte_len(DataType::F32, &[3, 0, usize::MAX]), Ok(0));
        assert!(TensorView::new(DataType::F32, &[], &[0; 4]).is_ok());
        assert!(TensorView::new(DataType::F32, &[0, 7], &[]).is_ok());
    }

    #[test]
    fn extents_that_overflow_are_refused() {
        let error = byte_len(DataType::F64, &[usize::MAX, 2]).unwrap_err();
        assert!(matches!(error, TensorError::TooLarge { .. }));
        let error = byte_len(DataType::U8, &[isize::MAX as usize + 1]).unwrap_err();
        assert!(matches!(error, TensorError::TooLarge { .. }));
    }

    #[test]
    fn a_misaligned_view_is_told_apart_from_a_wrong_type() {
        let owned = Tensor::zeroed(DataType::U8, &[9]).unwrap();
        let view = TensorView::new(DataType::F64, &[1], &owned.bytes()[1..]).unwrap();
        assert_eq!(view.as_slice::<f64>(), Err(TensorError::Misaligned { dtype: DataType::F64 }));
        assert_eq!(view.to_tensor().as_slice::<f64>(), Ok(&[0.0][..]));
        let wrong = TensorError::WrongType { found: DataType::F64, wanted: DataType::I64 };
        assert_eq!(view.as_slice::<i64>(), Err(wrong));
    }

    #[test]
    fn reset_keeps_the_memory_and_forgets_the_values() {
        let mut tensor = Tensor::from_slice(&[4], &[1.0f32; 4]).unwrap();
        let place = tensor.bytes().as_ptr();
        tensor.reset(DataType::I32, &[2]).unwrap();
        assert_eq!(tensor.as_slice::<i32>().unwrap(), [0, 0]);
        assert_eq!(tensor.bytes().as_ptr(), place);
        let error = tensor.reset(DataType::F64, &[usize::MAX]).unwrap_err();
        assert!(matches!(error, TensorError::TooLarge { .. }));
        assert_eq!(tensor.shape(), [2]);
    }

    fn any_dtype() -> impl Strategy<Value = DataType> {
        proptest::sample::select(&DataType::ALL[..])
    }

    proptest! {
        #[test]
        fn a_view_exists_exactly_when_the_length_fits(
            dtype in any_dtype(),
            shape in proptest::collection::vec(0usize..5, 0..5),
            n_bytes in 0usize..600,
        ) {
            let bytes = vec![7u8; n_bytes];
            let wanted = shape.iter().product::<usize>() * dtype.size();
            let view = TensorView::new(dtype, &shape, &bytes);
            prop_assert_eq!(view.is_ok(), wanted == n_bytes);
            if let Ok(view) = view {
                let tensor = view.to_tensor();
                prop_assert_eq!(tensor.shape(), &shape[..]);
                prop_assert_eq!(tensor.bytes(), &bytes[..]);
                prop_assert_eq!(tensor.bytes().as_ptr().align_offset(dtype.size()), 0);
            }
        }

        #[test]
        fn no_shape_makes_the_length_wrong_or_the_program_panic(
            dtype in any_dtype(),
            shape in proptest::collection::vec(any::<usize>(), 0..6),
        ) {
            let exact = if shape.contains(&0) {
                Some(0)
            } else {
                shape.iter().try_fold(dtype.size() as u128, |n, &x| n.checked_mul(x as u128))
            };
            match byte_len(dtype, &shape) {
                Ok(n) => prop_assert_eq!(Some(n as u128), exact),
                Err(_) => prop_assert!(exact.is_none_or(|n| n > isize::MAX as u128)),
            }
        }
    }
}
