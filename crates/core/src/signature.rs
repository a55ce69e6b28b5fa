//! What a model takes and gives: names, types, axes, symbols; and how a request binds the symbols.

use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

use crate::plan::Bucket;
use crate::{DataType, TensorView};

/// Which of a signature's symbols: an index into [`Signature::symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SymbolId(pub(crate) usize);

impl SymbolId {
    /// The position in [`Signature::symbols`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// One axis of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// An extent that never changes.
    Fixed(usize),
    /// A named extent, free until a request binds it; the same wherever the symbol stands.
    Symbol(SymbolId),
    /// A free extent without a name, which may differ from every other.
    Unnamed,
}

/// An input or an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DataType,
    /// Its axes; `None` where the model does not even say how many there are.
    pub shape: Option<Vec<Dim>>,
    /// For an index into constant tables: the least of their lengths. Values must lie in
    /// `-index_limit..index_limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_limit: Option<usize>,
}

/// The inputs, outputs and symbols of a model, in the model's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What a request gives.
    pub inputs: Vec<TensorSpec>,
    /// What a run gives.
    pub outputs: Vec<TensorSpec>,
    /// The symbols' names, in the order in which inputs and then outputs first name them.
    pub symbols: Vec<String>,
}

/// A symbol for an axis that a model leaves without a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AxisSymbol {
    /// The input or output.
    pub tensor: String,
    /// Its axis, counted from 0.
    pub axis: usize,
    /// The symbol.
    pub symbol: String,
}

/// Why an axis cannot have the symbol that is declared for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// Neither an input nor an output has that name.
    #[error("the model has neither an input nor an output `{tensor}`")]
    UnknownTensor {
        /// The name that was given.
        tensor: String,
    },
    /// The tensor has no such axis.
    #[error("`{tensor}` has no axis {axis}; it is {shape}")]
    NoSuchAxis {
        /// The tensor.
        tensor: String,
        /// The axis that was given.
        axis: usize,
        /// The tensor's axes in words.
        shape: String,
    },
    /// The model itself says what the axis is.
    #[error("axis {axis} of `{tensor}` is `{found}` by the model itself, not `{wanted}`")]
    Contradiction {
        /// The tensor.
        tensor: String,
        /// The axis.
        axis: usize,
        /// What the model says.
        found: String,
        /// What was declared.
        wanted: String,
    },
}

/// Values of all symbols of a signature; `None` for one that no input of the request carries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extents(SmallVec<[Option<usize>; 4]>);

impl Extents {
    /// The value of a symbol.
    #[must_use]
    pub fn get(&self, symbol: SymbolId) -> Option<usize> {
        self.0.get(symbol.0).copied().flatten()
    }

    /// The same with another value for a symbol.
    #[must_use]
    pub(crate) fn with(&self, symbol: SymbolId, extent: usize) -> Self {
        let mut extents = self.clone();
        if let Some(value) = extents.0.get_mut(symbol.0) {
            *value = Some(extent);
        }
        extents
    }
}

/// A place in a request that gave a symbol its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The input.
    pub input: String,
    /// Its axis.
    pub axis: usize,
    /// The extent found there.
    pub extent: usize,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "axis {} of `{}` is {}", self.axis, self.input, self.extent)
    }
}

/// Why a request does not fit a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The model has no such input.
    #[error("the model has no input `{name}`; it takes {known}")]
    UnknownInput {
        /// The name that was given.
        name: String,
        /// The names that the model has.
        known: String,
    },
    /// The request leaves out an input.
    #[error("input `{name}` ({dtype}) is missing")]
    MissingInput {
        /// The input.
        name: String,
        /// Its type.
        dtype: DataType,
    },
    /// The request names an input twice.
    #[error("input `{name}` is given twice")]
    DuplicateInput {
        /// The input.
        name: String,
    },
    /// The elements have another type.
    #[error("input `{input}` holds {found}, the model takes {wanted}")]
    WrongType {
        /// The input.
        input: String,
        /// The type given.
        found: DataType,
        /// The type that the model declares.
        wanted: DataType,
    },
    /// The number of axes differs.
    #[error("input `{input}` has {found} axes, the model takes {wanted}")]
    WrongRank {
        /// The input.
        input: String,
        /// The number of axes given.
        found: usize,
        /// The number of axes that the model declares.
        wanted: usize,
    },
    /// An axis that the model fixes has another extent.
    #[error("{found}, the model fixes it at {wanted}")]
    FixedDimension {
        /// The place, with the extent given.
        found: Binding,
        /// The extent that the model declares.
        wanted: usize,
    },
    /// Two axes of one symbol have different extents.
    #[error("`{symbol}` has two values: {first}, {second}")]
    SymbolConflict {
        /// The symbol.
        symbol: String,
        /// Where it got its value.
        first: Binding,
        /// Where the request contradicts it.
        second: Binding,
    },
    /// An index points outside the tables that it is looked up in.
    #[error("input `{input}` holds {found} at element {at}; the model's table has {limit} rows")]
    IndexOutOfRange {
        /// The input.
        input: String,
        /// The first element outside.
        at: usize,
        /// Its value.
        found: i64,
        /// The length of the shortest table.
        limit: usize,
    },
}

impl Signature {
    /// The symbol of that name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<SymbolId> {
        self.symbols.iter().position(|symbol| symbol == name).map(SymbolId)
    }

    /// The name of a symbol of this signature; of a foreign one, `?`.
    #[must_use]
    pub fn symbol_name(&self, symbol: SymbolId) -> &str {
        self.symbols.get(symbol.0).map_or("?", String::as_str)
    }

    /// The position of the input of that name.
    #[must_use]
    pub fn input_index(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|input| input.name == name)
    }

    /// The position of the output of that name.
    #[must_use]
    pub fn output_index(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|output| output.name == name)
    }

    /// An input's or output's axes in words, such as `[batch, sequence, 384]`.
    #[must_use]
    pub fn shape_text(&self, spec: &TensorSpec) -> String {
        let Some(shape) = &spec.shape else { return "of any rank".to_owned() };
        let axes: Vec<String> = shape
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(extent) => extent.to_string(),
                Dim::Symbol(symbol) => self.symbol_name(*symbol).to_owned(),
                Dim::Unnamed => "?".to_owned(),
            })
            .collect();
        format!("[{}]", axes.join(", "))
    }

    /// Gives symbols to axes that the model leaves without a name.
    ///
    /// # Errors
    ///
    /// [`DeclareError`]; the signature is then as it was up to the axis that does not fit.
    pub fn declare(&mut self, axes: &[AxisSymbol]) -> Result<(), DeclareError> {
        axes.iter().try_for_each(|axis| self.declare_one(axis))
    }

    fn declare_one(&mut self, wanted: &AxisSymbol) -> Result<(), DeclareError> {
        let AxisSymbol { tensor, axis, symbol } = wanted;
        let all = || self.inputs.iter().chain(&self.outputs);
        let Some(spec) = all().find(|spec| spec.name == *tensor) else {
            return Err(DeclareError::UnknownTensor { tensor: tensor.clone() });
        };
        let found = match spec.shape.as_ref().and_then(|dims| dims.get(*axis)) {
            Some(Dim::Unnamed) => None,
            Some(Dim::Fixed(extent)) => Some(extent.to_string()),
            Some(Dim::Symbol(id)) => Some(self.symbol_name(*id).to_owned()),
            None => {
                let (tensor, shape) = (tensor.clone(), self.shape_text(spec));
                return Err(DeclareError::NoSuchAxis { tensor, axis: *axis, shape });
            }
        };
        match found {
            Some(found) if found == *symbol => return Ok(()),
            Some(found) => {
                let (tensor, wanted) = (tensor.clone(), symbol.clone());
                return Err(DeclareError::Contradiction { tensor, axis: *axis, found, wanted });
            }
            None => {}
        }
        let id = self.symbol(symbol).unwrap_or_else(|| {
            self.symbols.push(symbol.clone());
            SymbolId(self.symbols.len() - 1)
        });
        let specs = self.inputs.iter_mut().chain(&mut self.outputs);
        for spec in specs.filter(|spec| spec.name == *tensor) {
            if let Some(dim) = spec.shape.as_mut().and_then(|dims| dims.get_mut(*axis)) {
                *dim = Dim::Symbol(id);
            }
        }
        Ok(())
    }

    /// The values of a bucket; a symbol that it does not have stays unbound.
    #[must_use]
    pub fn extents(&self, bucket: &Bucket) -> Extents {
        Extents(self.symbols.iter().map(|symbol| bucket.get(symbol)).collect())
    }

    /// The symbols that inputs carry, in order: those that a request binds.
    pub fn bound_symbols(&self) -> impl Iterator<Item = SymbolId> {
        let carries = |id: SymbolId| {
            let mut dims = self.inputs.iter().flat_map(|spec| spec.shape.iter().flatten());
            dims.any(|dim| *dim == Dim::Symbol(id))
        };
        (0..self.symbols.len()).map(SymbolId).filter(move |&id| carries(id))
    }

    /// The bucket that has these values for the symbols that are bound.
    #[must_use]
    pub fn bucket(&self, extents: &Extents) -> Bucket {
        let values = self.symbols.iter().zip(&extents.0);
        values.filter_map(|(name, extent)| Some((name.clone(), (*extent)?))).collect()
    }

    /// Puts named inputs into the signature's order.
    ///
    /// # Errors
    ///
    /// [`BindError::UnknownInput`], [`BindError::DuplicateInput`] and [`BindError::MissingInput`].
    pub fn order<N: AsRef<str>, T>(
        &self,
        inputs: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Vec<T>, BindError> {
        let mut ordered: Vec<Option<T>> = self.inputs.iter().map(|_| None).collect();
        for (name, tensor) in inputs {
            let name = name.as_ref();
            let index = self.input_index(name).ok_or_else(|| self.unknown_input(name))?;
            if ordered[index].replace(tensor).is_some() {
                return Err(BindError::DuplicateInput { name: name.to_owned() });
            }
        }
        ordered
            .into_iter()
            .zip(&self.inputs)
            .map(|(tensor, spec)| tensor.ok_or_else(|| missing(spec)))
            .collect()
    }

    fn unknown_input(&self, name: &str) -> BindError {
        let known: Vec<String> =
            self.inputs.iter().map(|input| format!("`{}`", input.name)).collect();
        BindError::UnknownInput { name: name.to_owned(), known: known.join(", ") }
    }

    /// Reads the symbols' values off a request whose inputs are in the signature's order.
    ///
    /// Allocates only for its errors, as long as there are at most four symbols.
    ///
    /// # Errors
    ///
    /// Any [`BindError`] but those of [`Self::order`]; a surplus input is [`BindError::UnknownInput`].
    pub fn bind(&self, inputs: &[TensorView<'_>]) -> Result<Extents, BindError> {
        self.bind_shapes(inputs, |view| (view.dtype(), view.shape()))
    }

    /// Like [`Self::bind`], for inputs of any kind: `of` says their data types and shapes.
    ///
    /// # Errors
    ///
    /// As [`Self::bind`].
    pub fn bind_shapes<T>(
        &self,
        inputs: &[T],
        of: impl Fn(&T) -> (DataType, &[usize]),
    ) -> Result<Extents, BindError> {
        if let Some(spec) = self.inputs.get(inputs.len()) {
            return Err(missing(spec));
        }
        if inputs.len() > self.inputs.len() {
            return Err(self.unknown_input(&format!("number {}", inputs.len())));
        }
        let mut extents = Extents(smallvec![None; self.symbols.len()]);
        for (at, (spec, input)) in self.inputs.iter().zip(inputs).enumerate() {
            let conflict = |symbol, second| {
                self.conflict(symbol, inputs[..=at].iter().map(|it| of(it).1), second)
            };
            self.bind_input(spec, of(input), &mut extents, conflict)?;
        }
        Ok(extents)
    }

    fn bind_input(
        &self,
        spec: &TensorSpec,
        (dtype, shape): (DataType, &[usize]),
        extents: &mut Extents,
        conflict: impl Fn(SymbolId, Binding) -> BindError,
    ) -> Result<(), BindError> {
        if dtype != spec.dtype {
            let input = spec.name.clone();
            return Err(BindError::WrongType { input, found: dtype, wanted: spec.dtype });
        }
        let Some(dims) = &spec.shape else { return Ok(()) };
        if shape.len() != dims.len() {
            let (found, wanted) = (shape.len(), dims.len());
            return Err(BindError::WrongRank { input: spec.name.clone(), found, wanted });
        }
        for (axis, (dim, &extent)) in dims.iter().zip(shape).enumerate() {
            let here = || Binding { input: spec.name.clone(), axis, extent };
            match *dim {
                Dim::Fixed(wanted) if wanted != extent => {
                    return Err(BindError::FixedDimension { found: here(), wanted });
                }
                // A symbol that the signature does not have binds nothing.
                Dim::Symbol(symbol) => {
                    let bound = extents.0.get_mut(symbol.0).and_then(|it| it.replace(extent));
                    if bound.is_some_and(|bound| bound != extent) {
                        return Err(conflict(symbol, here()));
                    }
                }
                Dim::Fixed(_) | Dim::Unnamed => {}
            }
        }
        Ok(())
    }

    fn conflict<'a>(
        &self,
        symbol: SymbolId,
        shapes: impl Iterator<Item = &'a [usize]>,
        second: Binding,
    ) -> BindError {
        let mut places = self.inputs.iter().zip(shapes).flat_map(|(spec, shape)| {
            let axes = spec.shape.iter().flatten().zip(shape).enumerate();
            axes.filter(|(_, (dim, _))| **dim == Dim::Symbol(symbol))
                .map(|(axis, (_, &extent))| Binding { input: spec.name.clone(), axis, extent })
        });
        let first = places.next().unwrap_or_else(|| second.clone());
        BindError::SymbolConflict { symbol: self.symbol_name(symbol).to_owned(), first, second }
    }

    /// Checks that every index into the model's constant tables lies inside them.
    ///
    /// Some runtimes answer a bad index with the end of the process, so this is asked before they are.
    ///
    /// # Errors
    ///
    /// [`BindError::IndexOutOfRange`] for the first element outside.
    pub fn check_indices(&self, inputs: &[TensorView<'_>]) -> Result<(), BindError> {
        for (spec, view) in self.inputs.iter().zip(inputs) {
            let Some(limit) = spec.index_limit else { continue };
            let range = limit.cast_signed();
            let inside =
                |index: i64| isize::try_from(index).is_ok_and(|i| -range <= i && i < range);
            let outside = if let Ok(indices) = view.as_slice::<i64>() {
                indices.iter().position(|&index| !inside(index)).map(|at| (at, indices[at]))
            } else if let Ok(indices) = view.as_slice::<i32>() {
                let at = indices.iter().position(|&index| !inside(index.into()));
                at.map(|at| (at, indices[at].into()))
            } else {
                None
            };
            if let Some((at, found)) = outside {
                let input = spec.name.clone();
                return Err(BindError::IndexOutOfRange { input, at, found, limit });
            }
        }
        Ok(())
    }
}

fn missing(spec: &TensorSpec) -> BindError {
    BindError::MissingInput { name: spec.name.clone(), dtype: spec.dtype }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Tensor;

    fn spec(name: &str, dtype: DataType, shape: &[Dim]) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype, shape: Some(shape.to_vec()), index_limit: None }
    }

    const BATCH: Dim = Dim::Symbol(SymbolId(0));
    const SEQUENCE: Dim = Dim::Symbol(SymbolId(1));

    fn encoder() -> Signature {
        Signature {
            inputs: vec![
                spec("ids", DataType::I64, &[BATCH, SEQUENCE]),
                spec("mask", DataType::I64, &[BATCH, SEQUENCE]),
                spec("scale", DataType::F32, &[]),
                spec("table", DataType::F32, &[Dim::Fixed(4), Dim::Unnamed]),
            ],
            outputs: vec![spec("hidden", DataType::F32, &[BATCH, SEQUENCE, Dim::Fixed(8)])],
            symbols: vec!["batch".to_owned(), "sequence".to_owned()],
        }
    }

    fn request(ids: [usize; 2], mask: [usize; 2]) -> Vec<Tensor> {
        vec![
            Tensor::zeroed(DataType::I64, &ids).unwrap(),
            Tensor::zeroed(DataType::I64, &mask).unwrap(),
            Tensor::zeroed(DataType::F32, &[]).unwrap(),
            Tensor::zeroed(DataType::F32, &[4, 3]).unwrap(),
        ]
    }

    fn bind(signature: &Signature, inputs: &[Tensor]) -> Result<Extents, BindError> {
        signature.bind(&inputs.iter().map(Tensor::view).collect::<Vec<_>>())
    }

    #[test]
    fn disagreeing_inputs_are_both_named() {
        let error = bind(&encoder(), &request([2, 5], [2, 6])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sequence` has two values: axis 1 of `ids` is 5, axis 1 of `mask` is 6"
        );
    }

    #[test]
    fn each_contradiction_has_its_error() {
        let signature = encoder();
        let mut inputs = request([2, 5], [2, 5]);
        inputs[2] = Tensor::zeroed(DataType::F64, &[]).unwrap();
        assert!(matches!(bind(&signature, &inputs), Err(BindError::WrongType { .. })));
        inputs[2] = Tensor::zeroed(DataType::F32, &[1]).unwrap();
        assert!(matches!(bind(&signature, &inputs), Err(BindError::WrongRank { .. })));
        inputs[2] = Tensor::zeroed(DataType::F32, &[]).unwrap();
        inputs[3] = Tensor::zeroed(DataType::F32, &[3, 3]).unwrap();
        let error = bind(&signature, &inputs).unwrap_err();
        assert_eq!(error.to_string(), "axis 0 of `table` is 3, the model fixes it at 4");
        let error = bind(&signature, &inputs[..3]).unwrap_err();
        assert!(matches!(error, BindError::MissingInput { name, .. } if name == "table"));
    }

    #[test]
    fn named_inputs_are_put_in_order() {
        let signature = encoder();
        let names = ["mask", "table", "ids", "scale"];
        assert_eq!(signature.order(names.map(|name| (name, name))).unwrap()[3], "table");
        let twice = signature.order([("ids", 0), ("ids", 1)]).unwrap_err();
        assert_eq!(twice, BindError::DuplicateInput { name: "ids".to_owned() });
        let unknown = signature.order([("idz", 0)]).unwrap_err();
        assert!(unknown.to_string().contains("`ids`, `mask`"));
        assert!(matches!(signature.order([("ids", 0)]), Err(BindError::MissingInput { .. })));
    }

    #[test]
    fn only_axes_without_a_name_take_a_declared_one() {
        let axis = |tensor: &str, axis, symbol: &str| AxisSymbol {
            tensor: tensor.to_owned(),
            axis,
            symbol: symbol.to_owned(),
        };
        let mut signature = encoder();
        signature.declare(&[axis("table", 1, "width"), axis("ids", 0, "batch")]).unwrap();
        assert_eq!(signature.symbols, ["batch", "sequence", "width"]);
        assert_eq!(signature.inputs[3].shape.as_ref().unwrap()[1], Dim::Symbol(SymbolId(2)));
        let declare = |wanted| encoder().declare(&[wanted]).unwrap_err();
        assert!(matches!(declare(axis("tabel", 0, "n")), DeclareError::UnknownTensor { .. }));
        assert!(matches!(declare(axis("table", 2, "n")), DeclareError::NoSuchAxis { .. }));
        for (wanted, found) in [(axis("table", 0, "n"), "4"), (axis("ids", 1, "n"), "sequence")] {
            let error = declare(wanted);
            assert!(matches!(&error, DeclareError::Contradiction { found: it, .. } if it == found));
        }
    }

    #[test]
    fn indices_outside_a_table_are_found() {
        let mut signature = encoder();
        signature.inputs[0].index_limit = Some(10);
        let check = |values: &[i64]| {
            let ids = Tensor::from_slice(&[1, values.len()], values).unwrap();
            signature.check_indices(&[ids.view()])
        };
        assert_eq!(check(&[-10, 0, 9]), Ok(()));
        for outside in [10, -11, i64::MIN, i64::MAX] {
            let error = check(&[3, outside]).unwrap_err();
            assert!(
                matches!(error, BindError::IndexOutOfRange { at: 1, limit: 10, .. }),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_symbol_has_the_value_that_all_its_axes_have(
            ids in [0usize..6, 0usize..6],
            mask in [0usize..6, 0usize..6],
        ) {
            let signature = encoder();
            match bind(&signature, &request(ids, mask)) {
                Ok(extents) => {
                    prop_assert_eq!(ids, mask);
                    prop_assert_eq!(extents.get(SymbolId(0)), Some(ids[0]));
                    prop_assert_eq!(extents.get(SymbolId(1)), Some(ids[1]));
                    let bucket = signature.bucket(&extents);
                    prop_assert_eq!(bucket.get("batch"), Some(ids[0]));
                }
                Err(BindError::SymbolConflict { symbol, first, second }) => {
                    let axis = usize::from(symbol == "sequence");
                    prop_assert_eq!((first.axis, second.axis), (axis, axis));
                    prop_assert_eq!((first.extent, second.extent), (ids[axis], mask[axis]));
                    prop_assert!(ids[axis] != mask[axis]);
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
