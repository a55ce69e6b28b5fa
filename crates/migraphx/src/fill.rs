//! One number as an element of any data type.

use shapeyard_core::DataType;
use smallvec::SmallVec;

/// The bytes of one element.
pub(crate) type ElementBytes = SmallVec<[u8; 8]>;

/// `value` as an element of type `dtype`.
///
/// # Errors
///
/// A sentence, when the type cannot hold the value exactly; 16- and 32-bit floats may round it.
pub(crate) fn element(dtype: DataType, value: f64) -> Result<ElementBytes, String> {
    let refuse = || format!("{dtype} cannot hold {value}");
    macro_rules! integer {
        ($type:ty) => {{
            let whole = value as $type;
            // The largest 64-bit integers are no `f64`; coming back to the same number is not enough.
            let exact = whole as f64 == value && value.abs() < 9_007_199_254_740_993.0;
            if !exact {
                return Err(refuse());
            }
            whole.to_ne_bytes().as_slice().into()
        }};
    }
    Ok(match dtype {
        DataType::Bool if value == 0.0 || value == 1.0 => {
            [u8::from(value == 1.0)].as_slice().into()
        }
        DataType::U8 => integer!(u8),
        DataType::U16 => integer!(u16),
        DataType::U32 => integer!(u32),
        DataType::U64 => integer!(u64),
        DataType::I8 => integer!(i8),
        DataType::I16 => integer!(i16),
        DataType::I32 => integer!(i32),
        DataType::I64 => integer!(i64),
        DataType::F16 => half::f16::from_f64(value).to_ne_bytes().as_slice().into(),
        DataType::BF16 => half::bf16::from_f64(value).to_ne_bytes().as_slice().into(),
        DataType::F32 => (value as f32).to_ne_bytes().as_slice().into(),
        DataType::F64 => value.to_ne_bytes().as_slice().into(),
        // Zero is the one value that every 8-bit float has at the same place.
        dtype if value == 0.0 => SmallVec::from_elem(0, dtype.size()),
        _ => return Err(refuse()),
    })
}

/// The elements of a tensor as `f64`, for comparing and nothing else; none for 8-bit floats.
pub(crate) fn as_f64(dtype: DataType, bytes: &[u8]) -> Option<Vec<f64>> {
    macro_rules! read {
        ($type:ty, $from:expr) => {{
            let read = |chunk: &[u8]| {
                let mut element = [0; size_of::<$type>()];
                element.copy_from_slice(chunk);
                $from(<$type>::from_ne_bytes(element))
            };
            bytes.chunks_exact(size_of::<$type>()).map(read).collect()
        }};
    }
    Some(match dtype {
        DataType::Bool | DataType::U8 => bytes.iter().map(|&byte| f64::from(byte)).collect(),
        DataType::U16 => read!(u16, f64::from),
        DataType::U32 => read!(u32, f64::from),
        DataType::U64 => read!(u64, |it| it as f64),
        DataType::I8 => read!(i8, f64::from),
        DataType::I16 => read!(i16, f64::from),
        DataType::I32 => read!(i32, f64::from),
        DataType::I64 => read!(i64, |it| it as f64),
        DataType::F16 => read!(half::f16, f64::from),
        DataType::BF16 => read!(half::bf16, f64::from),
        DataType::F32 => read!(f32, f64::from),
        DataType::F64 => read!(f64, f64::from),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_from_every_type_that_holds_it() {
        for dtype in DataType::ALL {
            for value in [0.0, 1.0, -1.0, 100.0, 0.5] {
                let Ok(bytes) = element(dtype, value) else { continue };
                assert_eq!(bytes.len(), dtype.size());
                if let Some(back) = as_f64(dtype, &bytes) {
                    assert_eq!(back, [value], "{dtype}");
                }
            }
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        for (dtype, value) in [
            (DataType::Bool, 2.0),
            (DataType::U8, -1.0),
            (DataType::U8, 256.0),
            (DataType::I64, 0.5),
            (DataType::I64, f64::NAN),
            (DataType::I64, 1e19),
            (DataType::F8E5M2, 1.0),
        ] {
            element(dtype, value).unwrap_err();
        }
    }
}
