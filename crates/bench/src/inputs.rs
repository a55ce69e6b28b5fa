//! Inputs for any model: numbers that look random, and are the same every time.

use anyhow::{Context as _, Result};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{DataType, Dim, Element, Shape, Signature, Tensor};

/// Inputs of one shape, in the signature's order. Masks are whole; indices stay within their tables.
///
/// # Errors
///
/// An axis that has no name, or whose symbol the shape does not bind.
pub fn inputs(signature: &Signature, shape: &Bucket, seed: usize) -> Result<Vec<Tensor>> {
    let inputs = signature.inputs.iter().enumerate().map(|(n, spec)| {
        let dims = spec.shape.as_deref().unwrap_or_default();
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(extent) => Some(*extent),
            Dim::Symbol(symbol) => shape.get(signature.symbol_name(*symbol)),
            Dim::Unnamed => None,
        };
        let extents: Option<Shape> = dims.iter().map(extent).collect();
        let extents = extents
            .with_context(|| format!("`{}` has an axis that {shape} does not bind", spec.name))?;
        let mut tensor = Tensor::zeroed(spec.dtype, &extents)?;
        let mask = spec.name.contains("mask");
        // A table without rows has no index that is right; the run says so.
        let limit = spec.index_limit.unwrap_or(2).max(1);
        let at = |place: usize| (seed * 31 + place * 7 + n * 3) % 97;
        match spec.dtype {
            DataType::F32 => fill(&mut tensor, |place| at(place) as f32 / 48.0 - 1.0)?,
            DataType::I64 if mask => fill(&mut tensor, |_| 1_i64)?,
            DataType::I64 => fill(&mut tensor, |place| (at(place) % limit) as i64)?,
            _ => {}
        }
        Ok(tensor)
    });
    inputs.collect()
}

fn fill<T: Element>(tensor: &mut Tensor, value: impl Fn(usize) -> T) -> Result<()> {
    let elements = tensor.as_mut_slice::<T>()?.iter_mut().enumerate();
    elements.for_each(|(place, element)| *element = value(place));
    Ok(())
}
