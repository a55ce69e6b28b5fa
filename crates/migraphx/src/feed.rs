//! Getting a request into a program and its answer out of it.

mod input;
mod output;

use hip_sys::HipError;
use shapeyard_core::backend::Outputs;
use shapeyard_core::{Extents, Signature, SymbolId, TensorView};

use crate::native::{Bindings, NativeError, ValueShape};
use crate::options::Padding;
use crate::roles::Role;

pub(crate) use input::Real;
use input::{InputFeed, input_feed};
pub(crate) use output::empty_outputs;
use output::{OutputFeed, output_feed};

/// Why a program does not fit its model, or a run gave nothing that can be handed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Native(#[from] NativeError),
    #[error(transparent)]
    Hip(#[from] HipError),
    #[error("{0}")]
    Mismatch(String),
}

fn mismatch(words: impl Into<String>) -> FeedError {
    FeedError::Mismatch(words.into())
}

/// The rows of a request that one program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// Rows of the program that stand before them.
    pub(crate) skipped: usize,
}

/// How requests get into one program, and answers out.
#[derive(Clone, Debug)]
pub(crate) struct Feed {
    inputs: Vec<InputFeed>,
    outputs: Vec<OutputFeed>,
    rows: Option<SymbolId>,
}

impl Feed {
    /// Checks that a program is what the model becomes in this shape, and works out how to feed it.
    ///
    /// `inputs` are those of the program, which may leave out some of the model's.
    pub(crate) fn new(
        signature: &Signature,
        extents: &Extents,
        padding: &Padding,
        rows: Option<SymbolId>,
        (inputs, outputs): (&[(String, ValueShape)], &[ValueShape]),
        output_roles: &[Vec<Role>],
    ) -> Result<Self, FeedError> {
        let inputs = inputs
            .iter()
            .map(|(name, shape)| input_feed(signature, extents, padding, rows, name, shape))
            .collect::<Result<_, _>>()?;
        if outputs.len() != signature.outputs.len() || output_roles.len() != outputs.len() {
            return Err(mismatch(format!(
                "the program has {} outputs, the model {}",
                outputs.len(),
                signature.outputs.len()
            )));
        }
        let outputs = signature
            .outputs
            .iter()
            .zip(outputs)
            .zip(output_roles)
            .map(|((spec, shape), roles)| output_feed(spec, shape, roles, extents, rows));
        Ok(Self { inputs, outputs: outputs.collect::<Result<_, _>>()?, rows })
    }

    /// Whether rows can be taken out of a request and put together again: every output has them, and
    /// nothing has them on two axes.
    pub(crate) fn can_split(&self) -> bool {
        let once = |input: &InputFeed| {
            input.symbols.iter().filter(|symbol| symbol.is_some() && **symbol == self.rows).count()
                <= 1
        };
        self.outputs.iter().all(|output| output.rows.len() == 1) && self.inputs.iter().all(once)
    }

    /// The symbols along which an output cannot be cut.
    pub(crate) fn rigid(&self) -> impl Iterator<Item = SymbolId> {
        self.outputs
            .iter()
            .flat_map(|output| &output.roles)
            .flat_map(|role| match role {
                Role::Derived { symbols } => symbols.as_slice(),
                _ => &[],
            })
            .copied()
    }

    /// Writes every input buffer whole: real elements and padding.
    pub(crate) fn fill(
        &self,
        views: &[TensorView<'_>],
        rows: Option<Rows>,
        bindings: &mut Bindings,
    ) -> Result<(), FeedError> {
        for position in 0..self.inputs.len() {
            let buffer =
                bindings.buffer_mut(position).ok_or_else(|| mismatch("a buffer is missing"))?;
            self.write_whole(position, views, rows, buffer)?;
        }
        Ok(())
    }

    /// What has to be written of an input; all that comes behind are copies of the last row.
    pub(crate) fn real(
        &self,
        position: usize,
        views: &[TensorView<'_>],
        rows: Option<Rows>,
    ) -> Result<Real, FeedError> {
        let (feed, view) = self.input(position, views)?;
        feed.real(view, rows)
    }

    /// Writes an input with all its padding.
    pub(crate) fn write_whole(
        &self,
        position: usize,
        views: &[TensorView<'_>],
        rows: Option<Rows>,
        buffer: &mut [u8],
    ) -> Result<(), FeedError> {
        let (feed, view) = self.input(position, views)?;
        feed.write(view, rows, &feed.whole, buffer)
    }

    /// Writes what [`Self::real`] counts, with the padding between its rows.
    pub(crate) fn write_real(
        &self,
        position: usize,
        views: &[TensorView<'_>],
        rows: Option<Rows>,
        buffer: &mut [u8],
    ) -> Result<(), FeedError> {
        let (feed, view) = self.input(position, views)?;
        let mut whole = feed.whole.clone();
        if let Some(n) = feed.leading_rows(view, rows) {
            whole[0] = n;
        }
        feed.write(view, rows, &whole, buffer)
    }

    /// The bytes of an input where they stand in the request, if that is just what [`Self::real`] counts.
    pub(crate) fn in_place<'a>(
        &self,
        position: usize,
        views: &[TensorView<'a>],
        rows: Option<Rows>,
    ) -> Result<Option<&'a [u8]>, FeedError> {
        let (feed, view) = self.input(position, views)?;
        let is_whole = |axis: usize| view.shape().get(axis) == feed.whole.get(axis);
        let rest = usize::from(feed.rows == Some(0));
        let is_dense = (rest..feed.whole.len()).all(is_whole);
        let real = feed.real(view, rows)?;
        let first = rows.filter(|_| feed.rows == Some(0)).map_or(0, |rows| rows.first);
        let from = first * real.row_bytes;
        Ok(view.bytes().get(from..from + real.n_bytes).filter(|_| is_dense))
    }

    /// Where each of the program's inputs stands among those of a request.
    pub(crate) fn input_positions(&self) -> impl ExactSizeIterator<Item = usize> {
        self.inputs.iter().map(|input| input.input)
    }

    fn input<'s, 'v, 'a>(
        &'s self,
        position: usize,
        views: &'v [TensorView<'a>],
    ) -> Result<(&'s InputFeed, &'v TensorView<'a>), FeedError> {
        let feed = self.inputs.get(position).ok_or_else(|| mismatch("an input is missing"))?;
        let view = views.get(feed.input).ok_or_else(|| mismatch("an input is missing"))?;
        Ok((feed, view))
    }

    /// How many bytes of an output, from its first on, a request can see.
    pub(crate) fn visible(&self, index: usize, request: &Extents, rows: Option<Rows>) -> usize {
        self.outputs.get(index).map_or(0, |output| output.visible(request, rows))
    }

    /// The outputs of the program.
    pub(crate) fn output_shapes(&self) -> impl ExactSizeIterator<Item = &ValueShape> {
        self.outputs.iter().map(|output| &output.shape)
    }

    /// Makes the output tensors of a request, without writing to their elements.
    pub(crate) fn prepare(
        &self,
        request: &Extents,
        outputs: &mut Outputs,
    ) -> Result<(), FeedError> {
        for (feed, slot) in self.outputs.iter().zip(outputs.slots(self.outputs.len())) {
            let shape = feed.real(request);
            if slot.dtype() != feed.shape.dtype || slot.shape() != shape.as_slice() {
                slot.reset(feed.shape.dtype, &shape)
                    .map_err(|error| mismatch(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Copies what is real of a run's results to where it belongs. `bytes` has the whole of an output.
    pub(crate) fn drain<'a>(
        &self,
        bytes: impl Fn(usize, &ValueShape) -> Result<&'a [u8], NativeError>,
        request: &Extents,
        rows: Option<Rows>,
        outputs: &mut Outputs,
    ) -> Result<(), FeedError> {
        for (index, (feed, slot)) in
            self.outputs.iter().zip(outputs.slots(self.outputs.len())).enumerate()
        {
            let bytes = bytes(index, &feed.shape)?;
            feed.read(index, bytes, request, rows, slot)?;
        }
        Ok(())
    }

    /// How many rows of the program stay without a real one.
    pub(crate) fn n_padded_rows(
        &self,
        program: &Extents,
        request: &Extents,
        rows: Option<Rows>,
    ) -> usize {
        let Some(symbol) = self.rows else { return 0 };
        let real = rows.map(|rows| rows.n).or_else(|| request.get(symbol));
        program.get(symbol).zip(real).map_or(0, |(whole, real)| whole.saturating_sub(real))
    }
}
