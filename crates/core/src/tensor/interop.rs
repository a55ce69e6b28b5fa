//! `ndarray` at the border, behind the feature of that name.

use ndarray::{ArrayBase, ArrayViewD, Data, Dimension, IxDyn};

use super::{Element, Tensor, TensorError, TensorView};

impl<'a> TensorView<'a> {
    /// The tensor as an `ndarray` view.
    ///
    /// # Errors
    ///
    /// As [`Self::as_slice`].
    pub fn as_ndarray<T: Element>(&self) -> Result<ArrayViewD<'a, T>, TensorError> {
        let elements = self.as_slice::<T>()?;
        ArrayViewD::from_shape(IxDyn(self.shape), elements)
            .map_err(|_| TensorError::TooLarge { shape: self.shape.into(), dtype: self.dtype })
    }
}

impl Tensor {
    /// A copy of an array of any layout.
    ///
    /// # Errors
    ///
    /// [`TensorError::TooLarge`].
    pub fn from_ndarray<T, S, D>(array: &ArrayBase<S, D>) -> Result<Self, TensorError>
    where
        T: Element,
        S: Data<Elem = T>,
        D: Dimension,
    {
        match array.as_slice() {
            Some(elements) => Self::from_slice(array.shape(), elements),
            None => Self::from_slice(array.shape(), &array.iter().copied().collect::<Vec<T>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn arrays_of_any_layout_come_back_equal() {
        let array = array![[1i64, 2, 3], [4, 5, 6]];
        for array in [array.view(), array.t()] {
            let tensor = Tensor::from_ndarray(&array).unwrap();
            assert_eq!(tensor.view().as_ndarray::<i64>().unwrap(), array.into_dyn());
        }
    }
}
