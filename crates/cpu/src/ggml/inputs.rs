//! Reading a request's tensors.

use shapeyard_core::{DataType, TensorView};

/// The elements of an input of integers or booleans, aligned or not.
pub(crate) fn integers(view: &TensorView<'_>) -> Result<impl Iterator<Item = i64>, String> {
    let bytes = view.bytes();
    let (dtype, size) = (view.dtype(), view.dtype().size());
    if !matches!(dtype, DataType::Bool | DataType::I32 | DataType::I64) {
        return Err(format!("{dtype} cannot be handed over"));
    }
    Ok(bytes.chunks_exact(size).map(move |element| match *element {
        [byte] => i64::from(byte != 0),
        [a, b, c, d] => i64::from(i32::from_ne_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_ne_bytes([a, b, c, d, e, f, g, h]),
        _ => 0,
    }))
}
