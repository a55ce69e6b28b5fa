//! Requests that are cut along their rows, and answers put together.

use std::ops::Range;

use smallvec::SmallVec;

use crate::backend::{Outputs, Request, RunError, Session};
use crate::{
    BackendId, Dim, RunReport, Shape, Signature, SymbolId, Tensor, TensorSpec, TensorView,
};

/// Inputs that most models have at most; more of them go to the heap.
const FEW: usize = 8;

/// Which inputs have the rows, all of them along their first axis, as every output has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowLayout {
    rows: SymbolId,
    inputs: Vec<bool>,
}

impl RowLayout {
    /// `None` where rows stand along another axis, where nobody knows which axis they are, or where an output has none:
    /// it may be made of all rows, and no two backends would agree on it.
    pub(super) fn of(signature: &Signature, rows: SymbolId) -> Option<Self> {
        let inputs: Option<Vec<bool>> =
            signature.inputs.iter().map(|spec| has_rows(spec, rows)).collect();
        let all_have_rows = signature.outputs.iter().all(|it| has_rows(it, rows) == Some(true));
        Some(Self { rows, inputs: inputs? }).filter(|_| all_have_rows)
    }

    /// Runs some rows of a request.
    pub(super) fn run(
        &self,
        session: &mut dyn Session,
        signature: &Signature,
        request: &Request<'_>,
        rows: Range<usize>,
        outputs: &mut Outputs,
    ) -> Result<RunReport, RunError> {
        let inputs = request.inputs().iter().zip(&self.inputs);
        let shape = |(view, has_rows): (&TensorView<'_>, &bool)| {
            let mut shape: Shape = view.shape().into();
            if let (true, Some(first)) = (*has_rows, shape.first_mut()) {
                *first = rows.len();
            }
            shape
        };
        let shapes: SmallVec<[Shape; FEW]> = inputs.clone().map(shape).collect();
        let views: Option<SmallVec<[TensorView<'_>; FEW]>> = inputs
            .zip(&shapes)
            .map(|((view, has_rows), shape)| {
                let bytes = if *has_rows { row_bytes(*view, &rows) } else { Some(view.bytes()) };
                TensorView::new(view.dtype(), shape, bytes?).ok()
            })
            .collect();
        // A request that was bound has the rows that its layout says.
        let views = views.ok_or(RunError::ForeignRequest)?;
        let extents = request.extents().with(self.rows, rows.len());
        session.run(&Request::of_parts(signature, &views, extents), outputs)
    }

    /// Puts the rows of two answers one after the other.
    ///
    /// # Errors
    ///
    /// Names an output whose rows have other shapes in the two answers.
    pub(super) fn join(
        &self,
        first: &Outputs,
        then: &Outputs,
        (signature, backend): (&Signature, &BackendId),
        outputs: &mut Outputs,
    ) -> Result<(), RunError> {
        let parts = first.tensors().iter().zip(then.tensors());
        let slots = outputs.slots(signature.outputs.len()).iter_mut().zip(&signature.outputs);
        for ((slot, spec), (first, then)) in slots.zip(parts) {
            if !append(first, then, slot) {
                let (name, first, then) = (&spec.name, first.shape(), then.shape());
                let message =
                    format!("rows of output `{name}` do not fit together: {first:?}, {then:?}");
                return Err(RunError::Library { backend: backend.clone(), message });
            }
        }
        Ok(())
    }
}

/// Whether a tensor has the rows; `None` where that is not along the first axis alone, or not known.
fn has_rows(spec: &TensorSpec, rows: SymbolId) -> Option<bool> {
    let dims = spec.shape.as_ref()?;
    let is_rows = |dim: &Dim| *dim == Dim::Symbol(rows);
    let is_clear = !dims.contains(&Dim::Unnamed) && !dims.iter().skip(1).any(is_rows);
    is_clear.then(|| dims.first().is_some_and(is_rows))
}

fn row_bytes<'a>(view: TensorView<'a>, rows: &Range<usize>) -> Option<&'a [u8]> {
    let n_bytes = view.bytes().len().checked_div(*view.shape().first()?)?;
    view.bytes().get(rows.start * n_bytes..rows.end * n_bytes)
}

/// Whether both fit together.
fn append(first: &Tensor, then: &Tensor, slot: &mut Tensor) -> bool {
    let ([n_first, row @ ..], [n_then, other @ ..]) = (first.shape(), then.shape()) else {
        return false;
    };
    let mut shape: Shape = first.shape().into();
    shape[0] = n_first + n_then;
    if first.dtype() != then.dtype() || row != other || slot.reset(first.dtype(), &shape).is_err() {
        return false;
    }
    let (head, tail) = slot.bytes_mut().split_at_mut(first.bytes().len());
    head.copy_from_slice(first.bytes());
    tail.copy_from_slice(then.bytes());
    true
}
