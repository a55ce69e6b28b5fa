//! How one input gets into its buffer.

use shapeyard_core::{DataType, Dim, Extents, Shape, Signature, SymbolId, TensorView, byte_len};

use super::{FeedError, Rows, mismatch};
use crate::fill::{self, ElementBytes};
use crate::native::ValueShape;
use crate::options::Padding;
use crate::region::{self, Behind, Place};

/// How one input gets into its buffer.
#[derive(Clone, Debug)]
pub(super) struct InputFeed {
    /// The position among the request's inputs.
    pub(super) input: usize,
    pub(super) dtype: DataType,
    pub(super) whole: Shape,
    /// The symbol of each axis.
    pub(super) symbols: Vec<Option<SymbolId>>,
    /// The axis that counts rows.
    pub(super) rows: Option<usize>,
    pub(super) fill: ElementBytes,
}

/// The real part of an input, in bytes: whole rows from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) n_bytes: usize,
    pub(crate) row_bytes: usize,
    /// With the padding behind.
    pub(crate) whole_bytes: usize,
}

pub(super) fn input_feed(
    signature: &Signature,
    extents: &Extents,
    padding: &Padding,
    rows: Option<SymbolId>,
    name: &str,
    shape: &ValueShape,
) -> Result<InputFeed, FeedError> {
    let input = signature.input_index(name).ok_or_else(|| {
        mismatch(format!("the program takes `{name}`, which the model does not have"))
    })?;
    let spec = &signature.inputs[input];
    let dims = spec.shape.as_deref().unwrap_or_default();
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(extent) => Some(*extent),
        Dim::Symbol(symbol) => extents.get(*symbol),
        Dim::Unnamed => None,
    };
    let whole: Option<Shape> = dims.iter().map(extent).collect();
    if !region::is_dense(&shape.lengths, &shape.strides) {
        return Err(mismatch(format!(
            "the program takes input `{name}` in another order of elements"
        )));
    }
    // A rank of 0 shows as one axis of 1.
    let same = whole.as_ref().is_some_and(|whole| {
        *whole == shape.lengths || (whole.is_empty() && shape.lengths.as_slice() == [1])
    });
    let (Some(whole), true, true) = (whole, same, spec.dtype == shape.dtype) else {
        let (found, dtype) = (&shape.lengths, shape.dtype);
        return Err(mismatch(format!(
            "input `{name}` is {dtype} {found:?} in the program, the model has it as {} {}",
            spec.dtype,
            signature.shape_text(spec)
        )));
    };
    let symbols: Vec<Option<SymbolId>> = dims
        .iter()
        .map(|dim| match dim {
            Dim::Symbol(symbol) => Some(*symbol),
            Dim::Fixed(_) | Dim::Unnamed => None,
        })
        .collect();
    let value = padding.fills.get(name).copied().unwrap_or_default();
    let fill = fill::element(spec.dtype, value).map_err(|words| {
        mismatch(format!("input `{name}` cannot be padded with {value}: {words}"))
    })?;
    let rows = symbols.iter().position(|symbol| symbol.is_some() && *symbol == rows);
    Ok(InputFeed { input, dtype: spec.dtype, whole, symbols, rows, fill })
}

impl InputFeed {
    /// The real rows, where they are the first axis.
    pub(super) fn leading_rows(&self, view: &TensorView<'_>, rows: Option<Rows>) -> Option<usize> {
        let given = view.shape().first().filter(|_| self.rows == Some(0))?;
        Some(rows.map_or(*given, |rows| rows.n))
    }

    pub(super) fn real(
        &self,
        view: &TensorView<'_>,
        rows: Option<Rows>,
    ) -> Result<Real, FeedError> {
        let bytes = |shape: &[usize]| {
            byte_len(self.dtype, shape).map_err(|error| mismatch(error.to_string()))
        };
        let whole = bytes(&self.whole)?;
        let Some(n) = self.leading_rows(view, rows) else {
            return Ok(Real { n_bytes: whole, row_bytes: whole, whole_bytes: whole });
        };
        let row_bytes = bytes(&self.whole[1..])?;
        Ok(Real { n_bytes: whole.min(n * row_bytes), row_bytes, whole_bytes: whole })
    }

    /// Fills a buffer of `whole` extents, which are the program's or, along the rows, fewer.
    pub(super) fn write(
        &self,
        view: &TensorView<'_>,
        rows: Option<Rows>,
        whole: &[usize],
        buffer: &mut [u8],
    ) -> Result<(), FeedError> {
        let (given, size) = (view.shape(), self.dtype.size());
        if given == whole && view.bytes().len() == buffer.len() {
            buffer.copy_from_slice(view.bytes());
            return Ok(());
        }
        let mut real: Shape = given.into();
        let mut from = None;
        if let (Some(axis), Some(rows)) = (self.rows, rows) {
            real[axis] = rows.n;
            from = Some((axis, rows.first));
        }
        let fits =
            real.len() == whole.len()
                && real.iter().zip(whole).zip(&self.symbols).all(|((real, whole), symbol)| {
                    real == whole || (symbol.is_some() && real < whole)
                });
        let source = (view.bytes(), &Place::dense(given, from));
        let target = Place::dense(whole, None);
        if !fits || !region::copy(&real, size, source, (buffer, &target)) {
            return Err(mismatch(format!("{real:?} does not fit into {whole:?}")));
        }
        let behind = |axis| {
            if self.rows == Some(axis) { Behind::Last } else { Behind::Fill(&self.fill) }
        };
        region::pad(whole, &real, size, behind, buffer);
        Ok(())
    }
}
