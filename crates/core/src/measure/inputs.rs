//! Inputs of any shape that a model takes: what a run takes does not depend on the values, as long as they are
//! allowed.

use half::{bf16, f16};

use crate::plan::Bucket;
use crate::{DataType, Dim, Signature, Tensor, TensorError, TensorSpec};

/// Inputs of the bucket's extents, in the signature's order; an axis that it does not bind has extent 1.
///
/// Whole numbers are 1, so that masks let through and divisors divide, or 0 where a table has one row; floats
/// are a half, which no arithmetic makes subnormal soon.
///
/// # Errors
///
/// [`TensorError`] when a shape is larger than memory can be.
pub fn inputs(signature: &Signature, bucket: &Bucket) -> Result<Vec<Tensor>, TensorError> {
    let extents = signature.extents(bucket);
    let input = |spec: &TensorSpec| {
        let extent = |dim: &Dim| match dim {
            Dim::Fixed(extent) => *extent,
            Dim::Symbol(symbol) => extents.get(*symbol).unwrap_or(1),
            Dim::Unnamed => 1,
        };
        let shape: Vec<usize> = spec.shape.iter().flatten().map(extent).collect();
        let mut tensor = Tensor::zeroed(spec.dtype, &shape)?;
        let element = element(spec.dtype, spec.index_limit.is_some_and(|limit| limit < 2));
        if !element.is_empty() {
            let slots = tensor.bytes_mut().chunks_exact_mut(element.len());
            slots.for_each(|slot| slot.copy_from_slice(&element));
        }
        Ok(tensor)
    };
    signature.inputs.iter().map(input).collect()
}

/// The bytes of one element; none leaves the tensor at zero.
fn element(dtype: DataType, is_zero: bool) -> Vec<u8> {
    match dtype {
        _ if is_zero => Vec::new(),
        DataType::F64 => 0.5_f64.to_ne_bytes().to_vec(),
        DataType::F32 => 0.5_f32.to_ne_bytes().to_vec(),
        DataType::F16 => f16::from_f32(0.5).to_ne_bytes().to_vec(),
        DataType::BF16 => bf16::from_f32(0.5).to_ne_bytes().to_vec(),
        DataType::Bool | DataType::U8 | DataType::I8 => vec![1],
        DataType::U16 | DataType::I16 => 1_u16.to_ne_bytes().to_vec(),
        DataType::U32 | DataType::I32 => 1_u32.to_ne_bytes().to_vec(),
        DataType::U64 | DataType::I64 => 1_u64.to_ne_bytes().to_vec(),
        // 8-bit floats agree on zero only.
        DataType::F8E4M3FN | DataType::F8E4M3FNUZ | DataType::F8E5M2 | DataType::F8E5M2FNUZ => {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AxisSymbol;

    fn spec(name: &str, dtype: DataType, index_limit: Option<usize>) -> TensorSpec {
        let shape = Some(vec![Dim::Unnamed, Dim::Fixed(3)]);
        TensorSpec { name: name.to_owned(), dtype, shape, index_limit }
    }

    #[test]
    fn every_type_has_inputs_that_bind() {
        let mut inputs_of: Vec<TensorSpec> =
            DataType::ALL.iter().map(|&dtype| spec(&dtype.to_string(), dtype, None)).collect();
        inputs_of.push(spec("one row", DataType::I64, Some(1)));
        let mut signature = Signature { inputs: inputs_of, ..Signature::default() };
        let symbol = "batch".to_owned();
        let axis = AxisSymbol { tensor: "f32".to_owned(), axis: 0, symbol };
        signature.declare(&[axis]).unwrap();
        let tensors = inputs(&signature, &Bucket::from_iter([("batch", 5)])).unwrap();
        let views: Vec<_> = tensors.iter().map(Tensor::view).collect();
        signature.bind(&views).unwrap();
        let of = |name: &str| &tensors[signature.input_index(name).unwrap()];
        assert_eq!(of("f32").as_slice::<f32>().unwrap(), [0.5; 15]);
        assert_eq!(of("i64").as_slice::<i64>().unwrap(), [1; 3]);
        assert_eq!(of("one row").as_slice::<i64>().unwrap(), [0; 3]);
    }
}
