//! Shapes as the C API tells of them.

use serde::{Deserialize, Serialize};

use crate::dtype::Dtype;

/// A type, and the extent and the distance of each axis; distances are counted in elements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) dtype: Dtype,
    pub(crate) lengths: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

impl Shape {
    /// Elements one behind the other. A rank of 0 shows as MIGraphX shows it: one element, which is
    /// as far as nothing from the next.
    pub(crate) fn standard(dtype: Dtype, lengths: &[usize]) -> Self {
        if lengths.is_empty() {
            return Self { dtype, lengths: vec![1], strides: vec![0] };
        }
        let strides = strides_of(lengths);
        Self { dtype, lengths: lengths.to_vec(), strides }
    }

    pub(crate) fn n_elements(&self) -> usize {
        self.lengths.iter().product()
    }

    /// Bytes from the first element to the end of the last.
    pub(crate) fn n_bytes(&self) -> usize {
        if self.n_elements() == 0 {
            return 0;
        }
        let steps = self.lengths.iter().zip(&self.strides);
        let last: usize = steps.map(|(length, stride)| (length - 1) * stride).sum();
        (last + 1) * self.dtype.n_bytes()
    }

    pub(crate) fn is_standard(&self) -> bool {
        self.strides == strides_of(&self.lengths) || self.n_elements() == 1
    }
}

/// The distances between elements that lie one behind the other.
pub(crate) fn strides_of(lengths: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; lengths.len()];
    for axis in (0..lengths.len().saturating_sub(1)).rev() {
        strides[axis] = strides[axis + 1] * lengths[axis + 1].max(1);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_has_one_axis_without_a_distance() {
        let shape = Shape::standard(Dtype::Float, &[]);
        assert_eq!((shape.lengths.as_slice(), shape.strides.as_slice()), (&[1][..], &[0][..]));
        assert_eq!((shape.n_elements(), shape.n_bytes()), (1, 4));
    }

    #[test]
    fn bytes_reach_to_the_last_element() {
        let shape = Shape::standard(Dtype::Int64, &[2, 3]);
        assert_eq!((shape.strides.as_slice(), shape.n_bytes()), (&[3, 1][..], 48));
        let spread = Shape { strides: vec![0, 1], ..shape };
        assert_eq!((spread.n_bytes(), spread.is_standard()), (24, false));
        assert_eq!(Shape::standard(Dtype::Float, &[0, 4]).n_bytes(), 0);
    }
}
