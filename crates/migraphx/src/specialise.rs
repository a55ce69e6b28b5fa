//! A model in one shape.

use shapeyard_core::plan::Bucket;
use shapeyard_core::{Dim, Extents, Shape, Signature, SymbolId};

use crate::fill;
use crate::options::{Padding, PaddingPolicy};

/// The extents of every input in a shape.
///
/// # Errors
///
/// A sentence that names the axis which the shape leaves open.
pub(crate) fn input_shapes(
    signature: &Signature,
    extents: &Extents,
) -> Result<Vec<(String, Shape)>, String> {
    let inputs = signature.inputs.iter().map(|input| {
        let name = &input.name;
        let Some(dims) = &input.shape else {
            return Err(format!(
                "input `{name}` may have any number of axes, a static program cannot"
            ));
        };
        let shape: Result<Shape, String> = dims
            .iter()
            .enumerate()
            .map(|(axis, dim)| match dim {
                Dim::Fixed(extent) => Ok(*extent),
                Dim::Symbol(symbol) => extents.get(*symbol).ok_or_else(|| {
                    format!("the shape has no extent for `{}`", signature.symbol_name(*symbol))
                }),
                Dim::Unnamed => Err(format!(
                    "axis {axis} of input `{name}` has no name; declare a symbol for it"
                )),
            })
            .collect();
        Ok((name.clone(), shape?))
    });
    inputs.collect()
}

/// Checks that a bucket has every symbol that inputs carry, none of them 0, and no other.
///
/// # Errors
///
/// A sentence that names the symbol.
pub(crate) fn check_bucket(signature: &Signature, bucket: &Bucket) -> Result<(), String> {
    let bound: Vec<&str> = signature.bound_symbols().map(|id| signature.symbol_name(id)).collect();
    for symbol in &bound {
        match bucket.get(symbol) {
            None => return Err(format!("the shape `{bucket}` has no extent for `{symbol}`")),
            Some(0) => return Err(format!("the shape `{bucket}` has `{symbol}` at 0")),
            Some(_) => {}
        }
    }
    match bucket.iter().find(|(symbol, _)| !bound.contains(symbol)) {
        Some((symbol, _)) => Err(format!(
            "no input has the symbol `{symbol}` of the shape `{bucket}`; inputs have `{}`",
            bound.join("`, `")
        )),
        None => Ok(()),
    }
}

/// The symbol that counts rows, under the rules that were given.
///
/// # Errors
///
/// A sentence, when the one that was named is carried by no input.
pub(crate) fn rows(signature: &Signature, padding: &Padding) -> Result<Option<SymbolId>, String> {
    let mut bound = signature.bound_symbols();
    let Some(name) = &padding.rows else {
        return Ok(bound.find(|&id| signature.symbol_name(id).to_lowercase().contains("batch")));
    };
    match bound.find(|&id| signature.symbol_name(id) == name) {
        Some(id) => Ok(Some(id)),
        None => Err(format!("no input has the symbol `{name}`, which is declared to count rows")),
    }
}

/// Checks that the symbol that counts rows is there, and that what inputs are padded with can stand there.
///
/// # Errors
///
/// A sentence that names the symbol or the input.
pub(crate) fn check_padding(signature: &Signature, padding: &Padding) -> Result<(), String> {
    rows(signature, padding)?;
    for (name, &value) in &padding.fills {
        let Some(index) = signature.input_index(name) else {
            return Err(format!("there is no input `{name}` to be padded with {value}"));
        };
        let spec = &signature.inputs[index];
        fill::element(spec.dtype, value)
            .map_err(|words| format!("input `{name}` cannot be padded with {value}: {words}"))?;
        let inside = |limit: usize| (-(limit as f64)..limit as f64).contains(&value);
        if let Some(limit) = spec.index_limit.filter(|&limit| !inside(limit)) {
            return Err(format!(
                "input `{name}` cannot be padded with {value}: the model's table has {limit} rows"
            ));
        }
    }
    Ok(())
}

/// The symbols along which nothing may be padded.
pub(crate) fn rigid(signature: &Signature, padding: &Padding) -> Vec<String> {
    match padding.policy {
        PaddingPolicy::Checked => Vec::new(),
        PaddingPolicy::Never => {
            signature.bound_symbols().map(|id| signature.symbol_name(id).to_owned()).collect()
        }
    }
}
