//! `.safetensors`: a JSON header, then the elements, least byte first.

use std::collections::HashMap;
use std::path::Path;

use safetensors::{Dtype, SafeTensorError, SafeTensors};
use shapeyard_core::{DataType, Tensor, TensorView};

use super::error::Unusable;
use super::{TensorFileError, bytes};

/// What a file says about itself beside its tensors.
pub(crate) type Metadata = HashMap<String, String>;

/// All tensors of a file by name, and what it says about itself.
pub(crate) fn parse(
    path: &Path,
    file: &[u8],
) -> Result<(Vec<(String, Tensor)>, Metadata), TensorFileError> {
    let place = path.display().to_string();
    let damaged = |error: SafeTensorError| {
        TensorFileError::unusable(place.clone(), Unusable::Damaged(error.to_string()))
    };
    let tensors = SafeTensors::deserialize(file).map_err(damaged)?;
    let (_, header) = SafeTensors::read_metadata(file).map_err(damaged)?;
    let mut named = Vec::with_capacity(tensors.len());
    for (name, view) in tensors.tensors() {
        let tensor = tensor(&view)
            .map_err(|what| TensorFileError::unusable(format!("{place}/{name}"), what))?;
        named.push((name, tensor));
    }
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok((named, header.metadata().clone().unwrap_or_default()))
}

fn tensor(view: &safetensors::tensor::TensorView<'_>) -> Result<Tensor, Unusable> {
    let dtype =
        data_type(view.dtype()).ok_or_else(|| Unusable::Type(format!("{:?}", view.dtype())))?;
    let mut tensor = Tensor::from_bytes(dtype, view.shape(), view.data())
        .map_err(|error| Unusable::Damaged(error.to_string()))?;
    if cfg!(target_endian = "big") {
        bytes::swap(tensor.bytes_mut(), dtype.size());
    }
    if dtype == DataType::Bool && tensor.bytes().iter().any(|&byte| byte > 1) {
        return Err(Unusable::Damaged("it holds booleans that are neither 0 nor 1".to_owned()));
    }
    Ok(tensor)
}

/// The bytes of a file.
pub(crate) fn serialise(
    tensors: &[(&str, TensorView<'_>)],
    metadata: Option<Metadata>,
) -> Result<Vec<u8>, TensorFileError> {
    let owned: Vec<(&str, Dtype, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| {
            Ok((*name, file_type(name, tensor.dtype())?, least_byte_first(*tensor)))
        })
        .collect::<Result<_, TensorFileError>>()?;
    let views = owned
        .iter()
        .map(|(name, dtype, tensor)| {
            let shape = tensor.shape().to_vec();
            let view = safetensors::tensor::TensorView::new(*dtype, shape, tensor.bytes());
            view.map(|view| (*name, view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(std::io::Error::other)?;
    Ok(safetensors::serialize(views, metadata).map_err(std::io::Error::other)?)
}

fn least_byte_first(tensor: TensorView<'_>) -> Tensor {
    let mut tensor = tensor.to_tensor();
    if cfg!(target_endian = "big") {
        let element_size = tensor.dtype().size();
        bytes::swap(tensor.bytes_mut(), element_size);
    }
    tensor
}

const TYPES: [(Dtype, DataType); 17] = [
    (Dtype::BOOL, DataType::Bool),
    (Dtype::U8, DataType::U8),
    (Dtype::U16, DataType::U16),
    (Dtype::U32, DataType::U32),
    (Dtype::U64, DataType::U64),
    (Dtype::I8, DataType::I8),
    (Dtype::I16, DataType::I16),
    (Dtype::I32, DataType::I32),
    (Dtype::I64, DataType::I64),
    (Dtype::F16, DataType::F16),
    (Dtype::BF16, DataType::BF16),
    (Dtype::F32, DataType::F32),
    (Dtype::F64, DataType::F64),
    (Dtype::F8_E4M3, DataType::F8E4M3FN),
    (Dtype::F8_E4M3FNUZ, DataType::F8E4M3FNUZ),
    (Dtype::F8_E5M2, DataType::F8E5M2),
    (Dtype::F8_E5M2FNUZ, DataType::F8E5M2FNUZ),
];

fn data_type(dtype: Dtype) -> Option<DataType> {
    TYPES.into_iter().find(|(known, _)| *known == dtype).map(|(_, dtype)| dtype)
}

fn file_type(name: &str, dtype: DataType) -> Result<Dtype, TensorFileError> {
    let known = TYPES.into_iter().find(|(_, known)| *known == dtype);
    known.map(|(dtype, _)| dtype).ok_or_else(|| TensorFileError::NoSuchType {
        name: name.to_owned(),
        dtype,
        format: ".safetensors",
        remedy: "leave it out of the model's outputs",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back() {
        for dtype in DataType::ALL {
            let tensor = Tensor::zeroed(dtype, &[2, 3]).unwrap();
            let file = serialise(&[("x/y", tensor.view())], None).unwrap();
            let (read, _) = parse(Path::new("a"), &file).unwrap();
            assert_eq!(read, [("x/y".to_owned(), tensor)]);
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        let tensor = Tensor::zeroed(DataType::F32, &[4]).unwrap();
        let file = serialise(&[("x", tensor.view())], None).unwrap();
        for length in 0..file.len() {
            let error = parse(Path::new("a"), &file[..length]).unwrap_err();
            assert!(matches!(error, TensorFileError::Damaged { .. }), "{length}");
        }
    }
}
