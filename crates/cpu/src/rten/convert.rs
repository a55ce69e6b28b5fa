//! Our tensors as rten's and back.

use rten::{Value, ValueView};
use rten_tensor::Layout as _;
use shapeyard_core::{DataType, Element, Tensor, TensorView};

/// Whether tensors of this type can cross the engine's border without loss.
///
/// The engine would read `f16` and `f64` models too, but hand over and give back `f32`.
pub(super) const fn takes(dtype: DataType) -> bool {
    matches!(
        dtype,
        DataType::Bool
            | DataType::U8
            | DataType::I8
            | DataType::I32
            | DataType::I64
            | DataType::F32
    )
}

/// Why an input cannot be converted.
#[derive(Debug)]
pub(super) enum Unfit {
    /// An integer needs more than 32 bits.
    TooWide { at: usize, value: i64 },
    /// Something that the checks before should have found.
    Other(String),
}

/// An input in the form that the engine reads, where that is not the caller's.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// Booleans and 64-bit integers; the memory is kept from run to run.
    narrow: Vec<i32>,
    /// What was not aligned.
    moved: Option<Tensor>,
}

impl Converted {
    /// Converts `view` if that is needed.
    pub(super) fn fill(&mut self, view: TensorView<'_>) -> Result<(), Unfit> {
        let aligned = view.bytes().as_ptr().addr().is_multiple_of(view.dtype().size());
        self.moved = (!aligned).then(|| view.to_tensor());
        let readable = self.moved.as_ref().map_or(view, Tensor::view);
        self.narrow.clear();
        match view.dtype() {
            DataType::Bool => {
                self.narrow.extend(view.bytes().iter().map(|&byte| i32::from(byte != 0)));
            }
            DataType::I64 => {
                let wide = elements(readable).map_err(Unfit::Other)?;
                narrow(wide, &mut self.narrow)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The engine's view of `view`, for which [`Self::fill`] was called last.
    pub(super) fn value<'a>(&'a self, view: TensorView<'a>) -> Result<ValueView<'a>, String> {
        let readable = self.moved.as_ref().map_or(view, Tensor::view);
        let shape = readable.shape();
        match view.dtype() {
            DataType::Bool | DataType::I64 => value(shape, &self.narrow),
            DataType::I32 => value(shape, elements::<i32>(readable)?),
            DataType::F32 => value(shape, elements::<f32>(readable)?),
            DataType::U8 => value(shape, elements::<u8>(readable)?),
            DataType::I8 => value(shape, elements::<i8>(readable)?),
            dtype => Err(format!("is {dtype}, which cannot be handed over")),
        }
    }
}

fn elements<T: Element>(view: TensorView<'_>) -> Result<&[T], String> {
    view.as_slice().map_err(|error| error.to_string())
}

fn value<'a, T>(shape: &[usize], elements: &'a [T]) -> Result<ValueView<'a>, String>
where
    ValueView<'a>: From<rten_tensor::TensorView<'a, T>>,
{
    ValueView::from_shape(shape, elements).map_err(|error| error.to_string())
}

fn narrow(wide: &[i64], narrow: &mut Vec<i32>) -> Result<(), Unfit> {
    narrow.reserve(wide.len());
    for (at, &value) in wide.iter().enumerate() {
        narrow.push(i32::try_from(value).map_err(|_| Unfit::TooWide { at, value })?);
    }
    Ok(())
}

/// Copies an output into `slot` as the type that the model declares.
pub(super) fn output(value: &Value, dtype: DataType, slot: &mut Tensor) -> Result<(), String> {
    let shape = value.shape();
    match (dtype, value.as_view()) {
        (DataType::F32, ValueView::FloatTensor(tensor)) => assign(slot, &shape, &tensor.to_slice()),
        (DataType::I32, ValueView::Int32Tensor(tensor)) => assign(slot, &shape, &tensor.to_slice()),
        (DataType::I8, ValueView::Int8Tensor(tensor)) => assign(slot, &shape, &tensor.to_slice()),
        (DataType::U8, ValueView::UInt8Tensor(tensor)) => assign(slot, &shape, &tensor.to_slice()),
        (DataType::I64, ValueView::Int32Tensor(tensor)) => widen(slot, &shape, &tensor.to_slice()),
        (DataType::Bool, ValueView::Int32Tensor(tensor)) => {
            booleans(slot, &shape, &tensor.to_slice())
        }
        (declared, found) => Err(format!("is {}, the model declares {declared}", found.dtype())),
    }
}

fn assign<T: Element>(slot: &mut Tensor, shape: &[usize], elements: &[T]) -> Result<(), String> {
    slot.assign(TensorView::from_slice(shape, elements).map_err(|error| error.to_string())?);
    Ok(())
}

fn widen(slot: &mut Tensor, shape: &[usize], elements: &[i32]) -> Result<(), String> {
    slot.reset(DataType::I64, shape).map_err(|error| error.to_string())?;
    let wide = slot.as_mut_slice::<i64>().map_err(|error| error.to_string())?;
    wide.iter_mut().zip(elements).for_each(|(wide, &narrow)| *wide = narrow.into());
    Ok(())
}

fn booleans(slot: &mut Tensor, shape: &[usize], elements: &[i32]) -> Result<(), String> {
    slot.reset(DataType::Bool, shape).map_err(|error| error.to_string())?;
    slot.bytes_mut()
        .iter_mut()
        .zip(elements)
        .for_each(|(byte, &element)| *byte = u8::from(element != 0));
    Ok(())
}
