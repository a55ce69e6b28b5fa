//! What each axis of an output follows: a symbol, or nothing.
//!
//! Mostly the model says so. Where it does not, two specialisations are compared that differ in one
//! symbol. An extent that happens to equal a bucket proves nothing.

use std::convert::Infallible;

use serde::{Deserialize, Serialize};
use shapeyard_core::{Dim, Extents, Shape, Signature, SymbolId};

/// What an axis of an output follows. `S` is a symbol: its id here, its name where it is written down,
/// since ids depend on the order in which a caller declared them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role<S = SymbolId> {
    /// No symbol: its extent never changes.
    Fixed,
    /// A symbol: its extent is so many times the symbol's.
    Follows { symbol: S, factor: usize },
    /// Symbols in some other way: it can be used only where none of them is padded.
    Derived { symbols: Vec<S> },
}

impl<S> Role<S> {
    fn try_map<T, E>(&self, mut map: impl FnMut(&S) -> Result<T, E>) -> Result<Role<T>, E> {
        Ok(match self {
            Self::Fixed => Role::Fixed,
            Self::Follows { symbol, factor } => {
                Role::Follows { symbol: map(symbol)?, factor: *factor }
            }
            Self::Derived { symbols } => {
                Role::Derived { symbols: symbols.iter().map(map).collect::<Result<_, E>>()? }
            }
        })
    }
}

/// The roles of every axis of every output, with the symbols' names.
pub(crate) type NamedRoles = Vec<Vec<Role<String>>>;

/// The roles to be written down.
pub(crate) fn named(signature: &Signature, roles: &[Vec<Role>]) -> NamedRoles {
    let name = |id: &SymbolId| Ok::<_, Infallible>(signature.symbol_name(*id).to_owned());
    let axis = |role: &Role| {
        let Ok(named) = role.try_map(name);
        named
    };
    roles.iter().map(|axes| axes.iter().map(axis).collect()).collect()
}

/// The roles that were written down.
///
/// # Errors
///
/// The name of a symbol that the signature does not have.
pub(crate) fn resolved(
    signature: &Signature,
    roles: &[Vec<Role<String>>],
) -> Result<Vec<Vec<Role>>, String> {
    let id = |name: &String| signature.symbol(name).ok_or_else(|| name.clone());
    roles.iter().map(|axes| axes.iter().map(|role| role.try_map(id)).collect()).collect()
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

/// The roles of every axis of every output. `others` has specialisations that differ from `base` in one
/// symbol alone: one or two for each.
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
    let changing = others.iter().filter(|(_, other)| length(other) != length(base));
    let mut symbols: Vec<SymbolId> = changing.map(|(symbol, _)| *symbol).collect();
    symbols.dedup();
    let [symbol] = symbols[..] else {
        return if symbols.is_empty() { Role::Fixed } else { Role::Derived { symbols } };
    };
    let extent = |of: &Specialised| of.extents.get(symbol).unwrap_or_default();
    let factor = length(base).unwrap_or_default() / extent(base).max(1);
    let own = others.iter().filter(|(other, _)| *other == symbol).map(|(_, other)| other);
    let proportional = factor > 0
        && [base].into_iter().chain(own).all(|it| length(it) == Some(factor * extent(it)));
    if proportional { Role::Follows { symbol, factor } } else { Role::Derived { symbols } }
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
    fn roles_are_written_down_by_name() {
        let one = signature(None);
        let batch = one.symbol("batch").unwrap();
        let roles = vec![vec![Role::Follows { symbol: batch, factor: 2 }, Role::Fixed]];
        let written = serde_json::to_string(&named(&one, &roles)).unwrap();
        let read: NamedRoles = serde_json::from_str(&written).unwrap();
        assert_eq!(resolved(&one, &read).unwrap(), roles);
        // Another caller declared the same axes in another order.
        let mut other = Signature { symbols: vec!["sequence".to_owned()], ..one.clone() };
        other.symbols.push("batch".to_owned());
        let wanted = other.symbol("batch").unwrap();
        assert_ne!(wanted, batch);
        let found = resolved(&other, &read).unwrap();
        assert_eq!(found[0][0], Role::Follows { symbol: wanted, factor: 2 });
        assert_eq!(resolved(&Signature::default(), &read).unwrap_err(), "batch");
    }

    #[test]
    fn an_extent_that_is_rounded_is_not_proportional() {
        let signature = signature(None);
        let id = signature.symbol("sequence").unwrap();
        let even = |s: usize| vec![s.next_multiple_of(2)];
        let at = |s| specialised(&signature, 4, s, &even(s));
        let roles = find(&signature, &at(8), &[(id, at(16)), (id, at(9))]).unwrap();
        assert_eq!(roles[0], [Role::Derived { symbols: vec![id] }]);
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
