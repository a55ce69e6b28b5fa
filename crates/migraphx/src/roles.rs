//! What each axis of an output follows: a symbol, or nothing.
//!
//! Mostly the model says so. Where it does not, two specialisations are compared that differ in one
//! symbol. An extent that happens to equal a bucket proves nothing.

use serde::{Deserialize, Serialize};
use shapeyard_core::{Dim, Extents, Shape, Signature, SymbolId};

/// What an axis of an output follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// No symbol: its extent never changes.
    Fixed,
    /// A symbol: its extent is so many times the symbol's.
    Follows { symbol: SymbolId, factor: usize },
    /// Symbols in some other way: it can be used only where none of them is padded.
    Derived { symbols: Vec<SymbolId> },
}

/// The shape of every output in one specialisation.
#[derive(Clone, Debug)]
pub(crate) struct Specialised {
    pub(crate) extents: Extents,
    pub(crate) outputs: Vec<Shape>,
}

/// Whether the model leaves open what some axis of an output follows.
pub(crate) fn are_open(signature: &Signature) -> bool {
    signature.outputs.iter().any(|output| match &output.shape {
        None => true,
        Some(dims) => dims.iter().any(|dim| declared(signature, *dim).is_none()),
    })
}

/// What the model itself says of an axis.
fn declared(signature: &Signature, dim: Dim) -> Option<Role> {
    match dim {
        Dim::Fixed(_) => Some(Role::Fixed),
        Dim::Symbol(symbol) if signature.bound_symbols().any(|bound| bound == symbol) => {
            Some(Role::Follows { symbol, factor: 1 })
        }
        // Exporters invent names for axes that they know nothing about.
        Dim::Symbol(_) | Dim::Unnamed => None,
    }
}

/// The roles of every axis of every output. `others` has one specialisation for each symbol that could be
/// changed, which differs from `base` in that symbol alone.
///
/// # Errors
///
/// A sentence, when the program contradicts the model.
pub(crate) fn find(
    signature: &Signature,
    base: &Specialised,
    others: &[(SymbolId, Specialised)],
) -> Result<Vec<Vec<Role>>, String> {
    let outputs = signature.outputs.iter().zip(&base.outputs).enumerate();
    outputs
        .map(|(index, (spec, lengths))| {
            let roles = (0..lengths.len()).map(|axis| {
                let dim = spec.shape.as_ref().and_then(|dims| dims.get(axis));
                let role = match dim.and_then(|dim| declared(signature, *dim)) {
                    Some(role) => role,
                    None => compared(index, axis, base, others),
                };
                check(signature, &spec.name, axis, dim, &role, base, lengths[axis])?;
                Ok(role)
            });
            roles.collect()
        })
        .collect()
}

fn compared(
    output: usize,
    axis: usize,
    base: &Specialised,
    others: &[(SymbolId, Specialised)],
) -> Role {
    let length = |of: &Specialised| of.outputs.get(output).and_then(|it| it.get(axis)).copied();
    let changing: Vec<&(SymbolId, Specialised)> =
        others.iter().filter(|(_, other)| length(other) != length(base)).collect();
    let derived =
        || Role::Derived { symbols: changing.iter().map(|(symbol, _)| *symbol).collect() };
    match changing.as_slice() {
        [] => Role::Fixed,
        [(symbol, other)] => {
            let (Some(ours), Some(theirs)) =
                (base.extents.get(*symbol), other.extents.get(*symbol))
            else {
                return derived();
            };
            let (Some(length), Some(other)) = (length(base), length(other)) else {
                return derived();
            };
            let factor = length / ours.max(1);
            let proportional = factor * ours == length && factor * theirs == other && factor > 0;
            if proportional { Role::Follows { symbol: *symbol, factor } } else { derived() }
        }
        _ => derived(),
    }
}

fn check(
    signature: &Signature,
    output: &str,
    axis: usize,
    dim: Option<&Dim>,
    role: &Role,
    base: &Specialised,
    found: usize,
) -> Result<(), String> {
    let (wanted, what) = match (dim, role) {
        (Some(Dim::Fixed(extent)), _) => (*extent, "fixed".to_owned()),
        (_, Role::Follows { symbol, factor }) => {
            let extent = base.extents.get(*symbol).unwrap_or_default();
            (extent * factor, format!("`{}`", signature.symbol_name(*symbol)))
        }
        _ => return Ok(()),
    };
    if wanted == found {
        return Ok(());
    }
    Err(format!(
        "axis {axis} of output `{output}` is {what} and should be {wanted}, the program has {found}"
    ))
}

/// The extent that an axis has in a request, given the one that it has in the program.
pub(crate) fn real_extent(role: &Role, request: &Extents, length: usize) -> usize {
    match role {
        Role::Fixed | Role::Derived { .. } => length,
        Role::Follows { symbol, factor } => request.get(*symbol).map_or(length, |it| it * factor),
    }
}

#[cfg(test)]
mod tests {
    use shapeyard_core::plan::Bucket;
    use shapeyard_core::{DataType, TensorSpec};

    use super::*;

    fn spec(name: &str, shape: Option<Vec<Dim>>) -> TensorSpec {
        TensorSpec { name: name.to_owned(), dtype: DataType::F32, shape, index_limit: None }
    }

    /// `batch` and `sequence` are carried by an input, `made_up` by the output alone.
    fn signature(output: Option<Vec<&str>>) -> Signature {
        let mut signature = Signature {
            inputs: vec![spec("x", Some(vec![Dim::Unnamed, Dim::Unnamed]))],
            outputs: vec![spec("y", output.as_ref().map(|axes| vec![Dim::Unnamed; axes.len()]))],
            symbols: Vec::new(),
        };
        let axis = |tensor: &str, axis, symbol: &str| shapeyard_core::AxisSymbol {
            tensor: tensor.to_owned(),
            axis,
            symbol: symbol.to_owned(),
        };
        signature.declare(&[axis("x", 0, "batch"), axis("x", 1, "sequence")]).unwrap();
        for (n, name) in output.into_iter().flatten().enumerate().filter(|(_, name)| *name != "?") {
            signature.declare(&[axis("y", n, name)]).unwrap();
        }
        signature
    }

    fn specialised(
        signature: &Signature,
        batch: usize,
        sequence: usize,
        output: &[usize],
    ) -> Specialised {
        let bucket = Bucket::from_iter([("batch", batch), ("sequence", sequence)]);
        Specialised { extents: signature.extents(&bucket), outputs: vec![output.into()] }
    }

    fn roles(of: impl Fn(usize, usize) -> Vec<usize>) -> Vec<Role> {
        let signature = signature(None);
        let id = |name| signature.symbol(name).unwrap();
        let base = specialised(&signature, 4, 8, &of(4, 8));
        let others = [
            (id("batch"), specialised(&signature, 8, 8, &of(8, 8))),
            (id("sequence"), specialised(&signature, 4, 16, &of(4, 16))),
        ];
        find(&signature, &base, &others).unwrap().remove(0)
    }

    #[test]
    fn pitfall_39_an_extent_that_equals_a_bucket_proves_nothing() {
        let signature = signature(None);
        let follows = |name| Role::Follows { symbol: signature.symbol(name).unwrap(), factor: 1 };
        assert_eq!(
            roles(|b, s| vec![b, 4, s]),
            [follows("batch"), Role::Fixed, follows("sequence")]
        );
    }

    #[test]
    fn pitfall_40_a_flattened_axis_has_a_factor_or_cannot_be_cut() {
        let signature = signature(None);
        let [batch, sequence] = ["batch", "sequence"].map(|name| signature.symbol(name).unwrap());
        assert_eq!(roles(|b, _| vec![b * 3]), [Role::Follows { symbol: batch, factor: 3 }]);
        assert_eq!(roles(|b, s| vec![b * s]), [Role::Derived { symbols: vec![batch, sequence] }]);
        assert_eq!(roles(|_, s| vec![s - 2]), [Role::Derived { symbols: vec![sequence] }]);
    }

    #[test]
    fn a_name_that_no_input_carries_says_nothing() {
        assert!(are_open(&signature(Some(vec!["made_up"]))));
        assert!(are_open(&signature(None)));
        assert!(are_open(&signature(Some(vec!["batch", "?"]))));
        assert!(!are_open(&signature(Some(vec!["batch", "sequence"]))));
    }

    #[test]
    fn a_program_that_contradicts_the_model_is_told() {
        let signature = signature(Some(vec!["batch"]));
        let base = specialised(&signature, 4, 8, &[5]);
        let error = find(&signature, &base, &[]).unwrap_err();
        assert_eq!(error, "axis 0 of output `y` is `batch` and should be 4, the program has 5");
    }
}
