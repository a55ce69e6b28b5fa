//! Small tensors on the host: shapes, masks, positions, whatever a graph computes of integers.

use shapeyard_core::DataType;

use crate::ggml::context::Refusal;

/// A tensor that our own code computes with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HostTensor {
    pub(crate) dtype: DataType,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: HostData,
}

/// Shapes and masks have fewer elements: a larger tensor is not made of smaller ones.
const LARGEST_MADE: usize = 1 << 26;

/// The number of elements of a tensor that is made of one of `given` elements.
pub(crate) fn room(shape: &[usize], given: usize) -> Result<usize, String> {
    let n_elements = shape.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    let fits = n_elements.filter(|&n| n <= LARGEST_MADE.max(given));
    fits.ok_or_else(|| format!("{shape:?} has more elements than the host computes with"))
}

/// So many of the largest a graph may make in all: a mask goes through some steps in full size.
const N_LARGEST: usize = 8;
/// Copies of what is given that a graph may make: weights are cast, turned, stacked.
const COPIES: usize = 4;

/// How many elements the host may still make of one graph, all tensors together.
#[derive(Debug)]
pub(crate) struct Allowance(usize);

impl Allowance {
    /// What may be made of `n_given` elements.
    pub(crate) const fn of(n_given: usize) -> Self {
        Self((N_LARGEST * LARGEST_MADE).saturating_add(n_given.saturating_mul(COPIES)))
    }

    /// Counts the elements of a tensor that was made.
    pub(crate) fn take(&mut self, n_made: usize) -> Result<(), Refusal> {
        let left = self.0.checked_sub(n_made);
        self.0 = left
            .ok_or("with all that comes before it has more elements than the host computes with")?;
        Ok(())
    }
}

/// What is refused in every shape.
pub(crate) fn never(reason: impl Into<String>) -> Refusal {
    Refusal::Never(reason.into())
}

/// Integers and booleans are wide; floats are not.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum HostData {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
}

impl HostTensor {
    pub(crate) fn ints(dtype: DataType, shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { dtype, shape, data: HostData::Ints(values) }
    }

    pub(crate) fn floats(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Self { dtype: DataType::F32, shape, data: HostData::Floats(values) }
    }

    /// A list of extents.
    pub(crate) fn extents(extents: &[usize]) -> Self {
        let values = extents.iter().map(|&extent| extent as i64).collect();
        Self::ints(DataType::I64, vec![extents.len()], values)
    }

    pub(crate) fn len(&self) -> usize {
        match &self.data {
            HostData::Ints(values) => values.len(),
            HostData::Floats(values) => values.len(),
        }
    }

    pub(crate) const fn is_float(&self) -> bool {
        matches!(self.data, HostData::Floats(_))
    }

    pub(crate) fn as_ints(&self) -> Result<&[i64], Refusal> {
        match &self.data {
            HostData::Ints(values) => Ok(values),
            HostData::Floats(_) => Err(never("integers are wanted, floats are given")),
        }
    }

    pub(crate) fn as_floats(&self) -> Option<&[f32]> {
        match &self.data {
            HostData::Floats(values) => Some(values),
            HostData::Ints(_) => None,
        }
    }

    /// The only element of a float tensor that has one.
    pub(crate) fn scalar(&self) -> Option<f32> {
        match self.as_floats() {
            Some(&[value]) => Some(value),
            _ => None,
        }
    }

    /// Elements picked by where each output element comes from.
    pub(crate) fn picked(
        &self,
        shape: Vec<usize>,
        from: impl Iterator<Item = usize>,
    ) -> Result<Self, String> {
        room(&shape, self.len())?;
        let outside = || "an index lies outside of the tensor".to_owned();
        let data = match &self.data {
            HostData::Ints(values) => {
                let picked: Option<_> = from.map(|at| values.get(at).copied()).collect();
                HostData::Ints(picked.ok_or_else(outside)?)
            }
            HostData::Floats(values) => {
                let picked: Option<_> = from.map(|at| values.get(at).copied()).collect();
                HostData::Floats(picked.ok_or_else(outside)?)
            }
        };
        Ok(Self { dtype: self.dtype, shape, data })
    }

    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self { shape, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_graph_makes_is_bounded_in_sum() {
        let mut allowance = Allowance::of(1000);
        for _ in 0..N_LARGEST {
            allowance.take(LARGEST_MADE).unwrap();
        }
        allowance.take(COPIES * 1000).unwrap();
        allowance.take(0).unwrap();
        assert!(allowance.take(1).is_err());
    }
}
