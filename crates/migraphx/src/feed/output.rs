//! How one output gets out.

use shapeyard_core::backend::Outputs;
use shapeyard_core::{Dim, Extents, Shape, Signature, SymbolId, TensorSpec, byte_len};

use super::{FeedError, Rows, mismatch};
use crate::native::ValueShape;
use crate::region::{self, Place};
use crate::roles::{self, Role};

/// How one output gets out.
#[derive(Clone, Debug)]
pub(super) struct OutputFeed {
    pub(super) shape: ValueShape,
    pub(super) roles: Vec<Role>,
    /// The axes that count rows, and how many elements of each a row has.
    pub(super) rows: Vec<(usize, usize)>,
}

pub(super) fn output_feed(
    spec: &TensorSpec,
    shape: &ValueShape,
    roles: &[Role],
    extents: &Extents,
    rows: Option<SymbolId>,
) -> Result<OutputFeed, FeedError> {
    let name = &spec.name;
    if spec.dtype != shape.dtype {
        let (found, wanted) = (shape.dtype, spec.dtype);
        return Err(mismatch(format!(
            "output `{name}` is {found} in the program and {wanted} in the model"
        )));
    }
    // A rank of 0 shows as one axis of 1.
    if spec.shape.as_ref().is_some_and(Vec::is_empty) {
        let shape = ValueShape { lengths: Shape::new(), strides: Shape::new(), ..shape.clone() };
        return Ok(OutputFeed { shape, roles: Vec::new(), rows: Vec::new() });
    }
    let follows = |(role, &length): (&Role, &usize)| match role {
        Role::Follows { symbol, factor } => {
            extents.get(*symbol).and_then(|it| it.checked_mul(*factor)) == Some(length)
        }
        Role::Fixed | Role::Derived { .. } => true,
    };
    if roles.len() != shape.lengths.len() || !roles.iter().zip(&shape.lengths).all(follows) {
        return Err(mismatch(format!(
            "output `{name}` is {:?} in the program, which is not what its axes are said to follow",
            shape.lengths
        )));
    }
    let factor = |(axis, role): (usize, &Role)| match role {
        Role::Follows { symbol, factor } if Some(*symbol) == rows => Some((axis, *factor)),
        _ => None,
    };
    let rows = roles.iter().enumerate().filter_map(factor).collect();
    Ok(OutputFeed { shape: shape.clone(), roles: roles.to_vec(), rows })
}

impl OutputFeed {
    /// See [`Feed::visible`]. Rows that are the first axis of a dense output end where its padding begins.
    pub(super) fn visible(&self, request: &Extents, rows: Option<Rows>) -> usize {
        let whole = self.shape.n_bytes;
        let ([(0, factor)], Some(stride)) = (&self.rows[..], self.shape.strides.first()) else {
            return whole;
        };
        if *self.shape.strides != *region::dense_strides(&self.shape.lengths) {
            return whole;
        }
        let n = match rows {
            Some(rows) => (rows.skipped + rows.n) * factor,
            None => self.real(request).first().copied().unwrap_or(1),
        };
        whole.min(n * stride * self.shape.dtype.size())
    }

    /// The extents that the output has in a request.
    pub(super) fn real(&self, request: &Extents) -> Shape {
        let extents = self.roles.iter().zip(&self.shape.lengths);
        extents.map(|(role, &length)| roles::real_extent(role, request, length)).collect()
    }

    pub(super) fn read(
        &self,
        index: usize,
        bytes: &[u8],
        request: &Extents,
        rows: Option<Rows>,
        slot: &mut shapeyard_core::Tensor,
    ) -> Result<(), FeedError> {
        let whole = self.real(request);
        let (mut part, mut to) = (whole.clone(), None);
        let (mut from, mut skipped) = (Place { offset: 0, strides: self.shape.strides.clone() }, 0);
        if let ([(axis, factor)], Some(rows)) = (&self.rows[..], rows) {
            part[*axis] = rows.n * factor;
            to = Some((*axis, rows.first * factor));
            skipped = rows.skipped * factor;
            from.offset = skipped * from.strides.get(*axis).copied().unwrap_or_default();
        }
        let to = Place::dense(&whole, to);
        let rows_axis = self.rows.first().map(|(axis, _)| *axis);
        let fits =
            part.iter().zip(&self.shape.lengths).enumerate().all(|(axis, (part, length))| {
                part + if rows_axis == Some(axis) { skipped } else { 0 } <= *length
            });
        let size = self.shape.dtype.size();
        if fits && region::copy(&part, size, (bytes, &from), (slot.bytes_mut(), &to)) {
            return Ok(());
        }
        Err(mismatch(format!(
            "output {index} is {:?} in the program, {part:?} were wanted",
            self.shape.lengths
        )))
    }
}

/// The outputs of a request in which a symbol is 0: as many elements as there can be, none.
///
/// # Errors
///
/// The position of an output that has elements all the same.
pub(crate) fn empty_outputs(
    signature: &Signature,
    request: &Extents,
    outputs: &mut Outputs,
) -> Result<(), usize> {
    let slots = outputs.slots(signature.outputs.len());
    for (index, (spec, slot)) in signature.outputs.iter().zip(slots).enumerate() {
        let shape: Option<Shape> = spec.shape.as_ref().and_then(|dims| {
            let extent = |dim: &Dim| match dim {
                Dim::Fixed(extent) => Some(*extent),
                Dim::Symbol(symbol) => request.get(*symbol),
                Dim::Unnamed => None,
            };
            dims.iter().map(extent).collect()
        });
        let shape = shape.filter(|shape| byte_len(spec.dtype, shape) == Ok(0)).ok_or(index)?;
        slot.reset(spec.dtype, &shape).map_err(|_| index)?;
    }
    Ok(())
}
