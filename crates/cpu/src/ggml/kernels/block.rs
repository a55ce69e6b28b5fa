//! The part of a result that one thread fills.
#![allow(unsafe_code, reason = "threads write to rows of one matrix side by side")]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::slice;

/// What one thread fills of a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

/// One of `n_parts` parts of `0..n`, of nearly equal lengths.
pub(crate) const fn evenly(n: usize, part: usize, n_parts: usize) -> Range<usize> {
    part * n / n_parts..(part + 1) * n / n_parts
}

/// Some columns of some rows of a matrix.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// The matrix's first element.
    start: NonNull<f32>,
    width: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
    lifetime: PhantomData<&'a mut [f32]>,
}

impl<'a> Block<'a> {
    /// # Safety
    ///
    /// Rows of `width` elements have to lie behind `start`, at least as many as the share's end, and as long
    /// as the block lives nobody else may use what it shares of them.
    pub(crate) unsafe fn new(start: NonNull<f32>, width: usize, share: Share) -> Self {
        let Share { rows, columns } = share;
        assert!(columns.end <= width, "a row has no such columns");
        Self { start, width, rows, columns, lifetime: PhantomData }
    }

    /// A share of a matrix that nobody else uses.
    #[cfg(test)]
    pub(crate) fn of(matrix: &'a mut [f32], width: usize, share: Share) -> Self {
        assert!(share.rows.end * width <= matrix.len());
        let start = NonNull::new(matrix.as_mut_ptr()).unwrap();
        // SAFETY: the matrix is borrowed alone, and has so many rows.
        unsafe { Self::new(start, width, share) }
    }

    /// The block's columns of a row of the matrix.
    ///
    /// # Panics
    ///
    /// Where the row is none of the block's.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(self.rows.contains(&row), "the block has no row {row}");
        let at = row * self.width + self.columns.start;
        // SAFETY: whoever made the block vouched that rows lie there, and this is one of them.
        let start = unsafe { self.start.add(at) };
        // SAFETY: as above; the columns are inside the row, and the block's alone.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.columns.len()) }
    }
}
