//! Extents, distances and how they are stretched, as ONNX has them.

/// Distances between neighbours along each axis, in elements.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The shape to which two shapes are stretched.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let extent = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
    };
    let both = |axis| match (extent(a, axis), extent(b, axis)) {
        (a, b) if a == b => Ok(a),
        (1, other) | (other, 1) => Ok(other),
        _ => Err(format!("{a:?} and {b:?} cannot be stretched to one shape")),
    };
    let shape: Vec<usize> = (0..rank).map(both).collect::<Result<_, _>>()?;
    let n_elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    match n_elements {
        Some(n) if n <= LARGEST => Ok(shape),
        _ => Err(format!("{shape:?} is too large")),
    }
}

/// More elements than any tensor has that a device computes with; the host makes far smaller ones.
const LARGEST: usize = 1 << 32;

/// For every element of `shape` in order, where the tensor of `from` has it when it is stretched.
pub(crate) fn stretched(from: &[usize], shape: &[usize]) -> Walk {
    let missing = shape.len().saturating_sub(from.len());
    let own = strides(from);
    let step = |axis: usize| match axis.checked_sub(missing) {
        Some(axis) if from[axis] != 1 => own[axis],
        _ => 0,
    };
    Walk::new(shape, (0..shape.len()).map(step).collect(), 0)
}

/// Positions of a strided walk through a tensor, the last axis fastest.
#[derive(Debug)]
pub(crate) struct Walk {
    shape: Vec<usize>,
    steps: Vec<usize>,
    index: Vec<usize>,
    at: usize,
    left: usize,
}

impl Walk {
    pub(crate) fn new(shape: &[usize], steps: Vec<usize>, start: usize) -> Self {
        let left = shape.iter().product();
        Self { shape: shape.to_vec(), steps, index: vec![0; shape.len()], at: start, left }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let here = self.at;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            self.at = self.at.wrapping_add(self.steps[axis]);
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.at = self.at.wrapping_sub(self.steps[axis].wrapping_mul(self.shape[axis]));
            self.index[axis] = 0;
        }
        Some(here)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// An axis that may count from the end.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let wrapped = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(wrapped) {
        Ok(wrapped) if wrapped < rank => Ok(wrapped),
        _ => Err(format!("there is no axis {axis} among {rank}")),
    }
}

/// The shape that `Reshape` makes of `shape` by `target`, where 0 copies (unless `zero_is_zero`) and -1
/// takes the rest.
pub(crate) fn reshape(
    shape: &[usize],
    target: &[i64],
    zero_is_zero: bool,
) -> Result<Vec<usize>, String> {
    let wrong = || format!("{shape:?} cannot be seen as {target:?}");
    let mut result = Vec::with_capacity(target.len());
    let mut rest = None;
    for (at, &extent) in target.iter().enumerate() {
        result.push(match extent {
            0 if !zero_is_zero => *shape.get(at).ok_or_else(wrong)?,
            -1 if rest.is_none() => {
                rest = Some(at);
                1
            }
            extent => usize::try_from(extent).map_err(|_| wrong())?,
        });
    }
    let n_elements: usize = shape.iter().product();
    if let Some(at) = rest {
        let known = result.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        result[at] = known.and_then(|known| n_elements.checked_div(known)).ok_or_else(wrong)?;
    }
    let made = result.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    if made == Some(n_elements) { Ok(result) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_stretches_axes_of_one() {
        assert_eq!(stretched(&[2, 1], &[2, 3]).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
        assert_eq!(stretched(&[3], &[2, 3]).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2]);
        assert_eq!(stretched(&[], &[2]).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(stretched(&[2], &[0, 2]).count(), 0);
    }

    #[test]
    fn shapes_stretch_as_in_onnx() {
        assert_eq!(broadcast(&[4, 1], &[3]), Ok(vec![4, 3]));
        assert!(broadcast(&[4, 2], &[3]).is_err());
    }

    #[test]
    fn a_target_shape_copies_and_infers() {
        assert_eq!(reshape(&[2, 3, 8], &[0, 0, 2, 4], false), Ok(vec![2, 3, 2, 4]));
        assert_eq!(reshape(&[2, 3, 8], &[0, -1], false), Ok(vec![2, 24]));
        for target in [&[5, -1][..], &[-1, -1], &[0, 0, 0, 0], &[-2, 24], &[i64::MAX, i64::MAX, -1]]
        {
            assert!(reshape(&[2, 3, 8], target, false).is_err(), "{target:?}");
        }
    }
}
