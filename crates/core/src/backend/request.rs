//! A request that fits its model.

use crate::{BindError, Extents, RunError, Signature, TensorView};

/// Inputs in the signature's order that were found to fit it: types, ranks, extents, and indices into
/// constant tables.
///
/// A backend may rely on all of that; it need not check again.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    signature: &'a Signature,
    inputs: &'a [TensorView<'a>],
    extents: Extents,
}

impl<'a> Request<'a> {
    /// Binds inputs, which are in the signature's order.
    ///
    /// # Errors
    ///
    /// [`BindError`], naming the input that does not fit.
    pub fn bind(signature: &'a Signature, inputs: &'a [TensorView<'a>]) -> Result<Self, BindError> {
        let extents = signature.bind(inputs)?;
        signature.check_indices(inputs)?;
        Ok(Self { signature, inputs, extents })
    }

    /// Parts of the inputs of a request that was bound, with the extents that they have.
    pub(crate) const fn of_parts(
        signature: &'a Signature,
        inputs: &'a [TensorView<'a>],
        extents: Extents,
    ) -> Self {
        Self { signature, inputs, extents }
    }

    /// The same request for another load of the model, whose signature is equal.
    pub(crate) fn bound_to<'b>(&'b self, signature: &'b Signature) -> Request<'b> {
        Request { signature, inputs: self.inputs, extents: self.extents.clone() }
    }

    /// The inputs, in the signature's order.
    #[must_use]
    pub const fn inputs(&self) -> &'a [TensorView<'a>] {
        self.inputs
    }

    /// The symbols' values.
    #[must_use]
    pub const fn extents(&self) -> &Extents {
        &self.extents
    }

    /// Checks that the request was bound to this signature, or to its equal: another load of the same
    /// model. What fits another may not fit it.
    ///
    /// # Errors
    ///
    /// [`RunError::ForeignRequest`].
    pub fn check_bound_to(&self, signature: &Signature) -> Result<(), RunError> {
        let same = std::ptr::eq(self.signature, signature) || self.signature == signature;
        if same { Ok(()) } else { Err(RunError::ForeignRequest) }
    }
}
