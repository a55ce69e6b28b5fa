//! Getting a request into a program and its answer out of it.

use hip_sys::HipError;
use shapeyard_core::backend::Outputs;
use shapeyard_core::{
    DataType, Dim, Extents, Shape, Signature, SymbolId, TensorSpec, TensorView, byte_len,
};

use crate::fill::{self, ElementBytes};
use crate::native::{Bindings, NativeError, ValueShape};
use crate::options::Padding;
use crate::region::{self, Behind, Place};
use crate::roles::{self, Role};

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

/// How one input gets into its buffer.
#[derive(Clone, Debug)]
struct InputFeed {
    /// The position among the request's inputs.
    input: usize,
    dtype: DataType,
    whole: Shape,
    /// The symbol of each axis.
    symbols: Vec<Option<SymbolId>>,
    /// The axis that counts rows.
    rows: Option<usize>,
    fill: ElementBytes,
}

/// How one output gets out.
#[derive(Clone, Debug)]
struct OutputFeed {
    shape: ValueShape,
    roles: Vec<Role>,
    /// The axes that count rows, and how many elements of each a row has.
    rows: Vec<(usize, usize)>,
}

/// The rows of a request that one program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// Rows of the program that stand before them.
    pub(crate) skipped: usize,
}

/// The real part of an input, in bytes: whole rows from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Real {
    pub(crate) n_bytes: usize,
    pub(crate) row_bytes: usize,
    /// With the padding behind.
    pub(crate) whole_bytes: usize,
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

fn input_feed(
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

fn output_feed(
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

impl InputFeed {
    /// The real rows, where they are the first axis.
    fn leading_rows(&self, view: &TensorView<'_>, rows: Option<Rows>) -> Option<usize> {
        let given = view.shape().first().filter(|_| self.rows == Some(0))?;
        Some(rows.map_or(*given, |rows| rows.n))
    }

    fn real(&self, view: &TensorView<'_>, rows: Option<Rows>) -> Result<Real, FeedError> {
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
    fn write(
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

impl OutputFeed {
    /// See [`Feed::visible`]. Rows that are the first axis of a dense output end where its padding begins.
    fn visible(&self, request: &Extents, rows: Option<Rows>) -> usize {
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
    fn real(&self, request: &Extents) -> Shape {
        let extents = self.roles.iter().zip(&self.shape.lengths);
        extents.map(|(role, &length)| roles::real_extent(role, request, length)).collect()
    }

    fn read(
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
