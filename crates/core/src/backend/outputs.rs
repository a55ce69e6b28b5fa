//! Where a run puts its results.

use crate::Tensor;

/// Output tensors in the signature's order. Their memory is kept from run to run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    tensors: Vec<Tensor>,
}

impl Outputs {
    /// No tensor yet; the first run makes them.
    #[must_use]
    pub const fn new() -> Self {
        Self { tensors: Vec::new() }
    }

    /// The tensors of a run with `n` outputs, to be filled by a backend.
    pub fn slots(&mut self, n: usize) -> &mut [Tensor] {
        self.tensors.resize_with(n, Tensor::empty);
        &mut self.tensors
    }

    /// The results.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The results, to keep.
    #[must_use]
    pub fn into_tensors(self) -> Vec<Tensor> {
        self.tensors
    }
}
