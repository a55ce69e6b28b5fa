//! Our tensors as ONNX Runtime's and back.

use ort::session::SessionInputValue;
use ort::value::{DynValue, TensorElementType, TensorRef};
use shapeyard_core::{DataType, Shape, Tensor, TensorView};

macro_rules! numbers {
    ($do:ident) => {
        $do! {
            U8 => u8, Uint8; U16 => u16, Uint16; U32 => u32, Uint32; U64 => u64, Uint64;
            I8 => i8, Int8; I16 => i16, Int16; I32 => i32, Int32; I64 => i64, Int64;
            F16 => half::f16, Float16; BF16 => half::bf16, Bfloat16; F32 => f32, Float32; F64 => f64, Float64;
        }
    };
}

/// Whether tensors of this type can be handed over.
pub(super) fn takes(dtype: DataType) -> bool {
    element_type(dtype).is_some()
}

/// ONNX Runtime's name for a type.
pub(super) fn element_type(dtype: DataType) -> Option<TensorElementType> {
    macro_rules! arms {
        ($($dtype:ident => $rust:ty, $theirs:ident;)*) => {
            match dtype {
                DataType::Bool => Some(TensorElementType::Bool),
                $(DataType::$dtype => Some(TensorElementType::$theirs),)*
                _ => None,
            }
        };
    }
    numbers!(arms)
}

/// A copy of `view` where ONNX Runtime cannot read the original in place.
///
/// That is so when the bytes are not aligned, and when booleans are other bytes than 0 and 1.
pub(super) fn copy_if_needed(view: TensorView<'_>) -> Option<Tensor> {
    if view.dtype() == DataType::Bool {
        let clean = bytemuck::checked::try_cast_slice::<u8, bool>(view.bytes()).is_ok();
        return (!clean).then(|| {
            let mut tensor = view.to_tensor();
            tensor.bytes_mut().iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
            tensor
        });
    }
    let aligned = view.bytes().as_ptr().addr().is_multiple_of(view.dtype().size());
    (!aligned).then(|| view.to_tensor())
}

/// An input that borrows the tensor's bytes.
pub(super) fn input(view: TensorView<'_>) -> ort::Result<SessionInputValue<'_>> {
    macro_rules! arms {
        ($($dtype:ident => $rust:ty, $theirs:ident;)*) => {
            match view.dtype() {
                DataType::Bool => {
                    let elements = bytemuck::checked::try_cast_slice::<u8, bool>(view.bytes())
                        .map_err(|error| ort::Error::new(error.to_string()))?;
                    TensorRef::from_array_view((view.shape(), elements))?.into()
                }
                $(DataType::$dtype => {
                    let elements = view.as_slice::<$rust>().map_err(ort::Error::wrap)?;
                    TensorRef::from_array_view((view.shape(), elements))?.into()
                })*
                dtype => return Err(ort::Error::new(format!("tensors of {dtype} cannot be handed over"))),
            }
        };
    }
    Ok(numbers!(arms))
}

/// Copies an output into `slot`.
pub(super) fn output(value: &DynValue, dtype: DataType, slot: &mut Tensor) -> ort::Result<()> {
    macro_rules! arms {
        ($($dtype:ident => $rust:ty, $theirs:ident;)*) => {
            match dtype {
                DataType::Bool => {
                    let (shape, elements) = value.try_extract_tensor::<bool>()?;
                    assign(slot, dtype, shape, bytemuck::cast_slice(elements))
                }
                $(DataType::$dtype => {
                    let (shape, elements) = value.try_extract_tensor::<$rust>()?;
                    assign(slot, dtype, shape, bytemuck::cast_slice(elements))
                })*
                dtype => Err(ort::Error::new(format!("tensors of {dtype} cannot be handed over"))),
            }
        };
    }
    numbers!(arms)
}

fn assign(slot: &mut Tensor, dtype: DataType, shape: &[i64], bytes: &[u8]) -> ort::Result<()> {
    // ONNX Runtime has no negative extent in a value that exists.
    let shape: Shape = shape.iter().map(|&extent| usize::try_from(extent).unwrap_or(0)).collect();
    slot.assign(TensorView::new(dtype, &shape, bytes).map_err(ort::Error::wrap)?);
    Ok(())
}
