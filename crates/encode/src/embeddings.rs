//! Where vectors are collected, in the caller's order.

use crate::EncodeError;
use crate::pool::Pooling;

/// Vectors in the order of the texts, whatever order they came in.
///
/// With [`Pooling::None`] a text has one vector a token, else one.
#[derive(Clone, Debug)]
pub struct Embeddings {
    n_dims: usize,
    /// Where each text's vectors begin, in rows; one entry more than there are texts.
    starts: Vec<usize>,
    values: Vec<f32>,
    done: Vec<bool>,
}

impl Embeddings {
    pub(crate) fn new(
        lengths: &[usize],
        pooling: Pooling,
        n_dims: usize,
    ) -> Result<Self, EncodeError> {
        let mut starts = Vec::with_capacity(lengths.len() + 1);
        let mut n_rows = 0usize;
        starts.push(0);
        for &length in lengths {
            n_rows += if pooling == Pooling::None { length } else { 1 };
            starts.push(n_rows);
        }
        let too_large = EncodeError::TooLarge { n_rows, n_cells: n_dims };
        let Some(n_values) = n_rows.checked_mul(n_dims) else { return Err(too_large) };
        let mut values = Vec::new();
        if values.try_reserve_exact(n_values).is_err() {
            return Err(too_large);
        }
        values.resize(n_values, 0.0);
        Ok(Self { n_dims, starts, values, done: vec![false; lengths.len()] })
    }

    /// Numbers in a vector.
    #[must_use]
    pub const fn n_dims(&self) -> usize {
        self.n_dims
    }

    /// Texts.
    #[must_use]
    pub const fn n_items(&self) -> usize {
        self.done.len()
    }

    /// Whether a text's vectors are there; not so after an interruption.
    #[must_use]
    pub fn is_done(&self, item: usize) -> bool {
        self.done.get(item).copied().unwrap_or(false)
    }

    /// The rows of a text's vectors: one, or one a token.
    #[must_use]
    pub fn rows(&self, item: usize) -> std::ops::Range<usize> {
        self.starts[item]..self.starts[item + 1]
    }

    /// A text's vectors, one after the other.
    #[must_use]
    pub fn vectors(&self, item: usize) -> &[f32] {
        let rows = self.rows(item);
        &self.values[rows.start * self.n_dims..rows.end * self.n_dims]
    }

    /// All vectors, one after the other; zeros where a text is not done.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Takes vectors that were made before, such as those of an interrupted run.
    ///
    /// Says whether they have the length that this text's vectors must have.
    pub fn restore(&mut self, item: usize, vectors: &[f32]) -> bool {
        let slot = self.slot(item);
        let fits = slot.len() == vectors.len();
        if fits {
            slot.copy_from_slice(vectors);
            self.done[item] = true;
        }
        fits
    }

    /// Takes the vectors of some texts, one text after the other.
    pub(crate) fn take(&mut self, items: &[usize], mut vectors: &[f32]) {
        for &item in items {
            let (own, later) = vectors.split_at(self.slot(item).len());
            self.restore(item, own);
            vectors = later;
        }
    }

    /// Gives a text the vectors of another of the same length that is done.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        let (from, to_start) = (self.rows(from), self.starts[to]);
        let n_dims = self.n_dims;
        self.values.copy_within(from.start * n_dims..from.end * n_dims, to_start * n_dims);
        self.done[to] = true;
    }

    fn slot(&mut self, item: usize) -> &mut [f32] {
        let rows = self.rows(item);
        &mut self.values[rows.start * self.n_dims..rows.end * self.n_dims]
    }
}
