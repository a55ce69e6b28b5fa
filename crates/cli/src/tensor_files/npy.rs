//! NumPy's `.npy`: a header that is a Python dictionary, then the elements.
//!
//! Either byte order and either order of axes is read; written are the machine's byte order and the last
//! axis fastest.

mod header;

use std::io::Write;

use shapeyard_core::{DataType, Tensor, TensorView, byte_len};

use self::header::Header;
use super::TensorFileError;
use super::bytes;
use super::error::Unusable;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Where elements begin is a multiple of this.
const ALIGNMENT: usize = 64;

/// The tensor that a whole file's bytes are.
pub(super) fn parse(file: &[u8]) -> Result<Tensor, Unusable> {
    let damaged = |reason: String| Unusable::Damaged(reason);
    let (header, elements) = split(file)?;
    let Header { dtype, swapped, first_axis_fastest, shape } = Header::parse(header)?;
    let wanted = byte_len(dtype, &shape).map_err(|error| damaged(error.to_string()))?;
    if elements.len() != wanted {
        let found = elements.len();
        return Err(damaged(format!("{shape:?} of {dtype} takes {wanted} bytes, it has {found}")));
    }
    let mut tensor = if first_axis_fastest && shape.len() > 1 {
        let elements = bytes::last_axis_fastest(elements, &shape, dtype.size());
        Tensor::from_bytes(dtype, &shape, &elements)
    } else {
        Tensor::from_bytes(dtype, &shape, elements)
    }
    .map_err(|error| damaged(error.to_string()))?;
    if swapped {
        bytes::swap(tensor.bytes_mut(), dtype.size());
    }
    if dtype == DataType::Bool && tensor.bytes().iter().any(|&byte| byte > 1) {
        return Err(damaged("it holds booleans that are neither 0 nor 1".to_owned()));
    }
    Ok(tensor)
}

/// Header and elements.
fn split(file: &[u8]) -> Result<(&[u8], &[u8]), Unusable> {
    let damaged = |reason: &str| Unusable::Damaged(reason.to_owned());
    let rest = file.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin like .npy"))?;
    let cut_off = || damaged("its header is cut off");
    let ([major, _minor], rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
            (u32::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
            (u32::from_le_bytes(*length), rest)
        }
        other => return Err(damaged(&format!("its version is {other}, known are 1 to 3"))),
    };
    rest.split_at_checked(length as usize).ok_or_else(cut_off)
}

/// Writes one tensor.
pub(super) fn write(
    out: &mut dyn Write,
    name: &str,
    tensor: TensorView<'_>,
) -> Result<(), TensorFileError> {
    let dtype = tensor.dtype();
    let descr = header::descr(dtype).ok_or_else(|| TensorFileError::NoSuchType {
        name: name.to_owned(),
        dtype,
        format: "NumPy",
        remedy: "write .safetensors",
    })?;
    let mut header = header::text(&descr, tensor.shape());
    let n_before = MAGIC.len() + 4;
    let n_unpadded = n_before + header.len() + 1;
    header.push_str(&" ".repeat(n_unpadded.next_multiple_of(ALIGNMENT) - n_unpadded));
    header.push('\n');
    // No tensor has so many axes that its header is longer.
    let length = u16::try_from(header.len()).map_err(std::io::Error::other)?;
    out.write_all(MAGIC)?;
    out.write_all(&[1, 0])?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    out.write_all(tensor.bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with this dictionary.
    fn file(header: &str, elements: &[u8]) -> Vec<u8> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [MAGIC, &[1, 0], &length, header.as_bytes(), elements].concat()
    }

    fn written(tensor: &Tensor) -> Vec<u8> {
        let mut file = Vec::new();
        write(&mut file, "x", tensor.view()).unwrap();
        file
    }

    #[test]
    fn what_numpy_writes_is_read() {
        let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 1), }      \n";
        let tensor = parse(&file(header, &[1, 0, 0, 0, 255, 255, 255, 255])).unwrap();
        assert_eq!(tensor, Tensor::from_slice(&[2, 1], &[1i32, -1]).unwrap());
        let header = "{'descr': '>f2', 'fortran_order': True, 'shape': (2, 2), }\n";
        let tensor = parse(&file(header, &[0x3c, 0, 0x42, 0, 0x40, 0, 0x44, 0])).unwrap();
        let wanted = [1.0, 2.0, 3.0, 4.0].map(half::f16::from_f32);
        assert_eq!(tensor.as_slice::<half::f16>().unwrap(), wanted);
        let header = "{'shape': (), 'descr': '|b1', 'fortran_order': False}";
        assert_eq!(parse(&file(header, &[1])).unwrap().dtype(), DataType::Bool);
    }

    #[test]
    fn elements_begin_aligned() {
        let file = written(&Tensor::zeroed(DataType::F32, &[3, 5]).unwrap());
        assert_eq!((file.len() - 60) % ALIGNMENT, 0);
    }

    #[test]
    fn damaged_files_are_refused() {
        let good = written(&Tensor::zeroed(DataType::F32, &[3]).unwrap());
        for length in 0..good.len() {
            assert!(matches!(parse(&good[..length]), Err(Unusable::Damaged(_))), "{length}");
        }
        let longer = [&good[..], &[0]].concat();
        assert!(matches!(parse(&longer), Err(Unusable::Damaged(_))));
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551615, 2)}";
        assert!(matches!(parse(&file(huge, &[])), Err(Unusable::Damaged(_))));
        let flag = "{'descr': '|b1', 'fortran_order': False, 'shape': (1,)}";
        assert!(matches!(parse(&file(flag, &[2])), Err(Unusable::Damaged(_))));
    }

    #[test]
    fn types_without_a_name_are_not_written() {
        let tensor = Tensor::zeroed(DataType::BF16, &[1]).unwrap();
        let error = write(&mut Vec::new(), "y", tensor.view()).unwrap_err();
        assert!(matches!(error, TensorFileError::NoSuchType { dtype: DataType::BF16, .. }));
    }

    proptest! {
        #[test]
        fn written_tensors_read_back(
            at in 0..DataType::ALL.len(),
            shape in proptest::collection::vec(0usize..4, 0..5),
            seed in any::<u8>(),
        ) {
            let dtype = DataType::ALL[at];
            prop_assume!(header::descr(dtype).is_some());
            let mut tensor = Tensor::zeroed(dtype, &shape).unwrap();
            let limit = if dtype == DataType::Bool { 2 } else { 251 };
            for (at, byte) in tensor.bytes_mut().iter_mut().enumerate() {
                *byte = ((at + usize::from(seed)) % limit) as u8;
            }
            prop_assert_eq!(parse(&written(&tensor)).unwrap(), tensor);
        }

        #[test]
        fn no_content_makes_it_panic(header in "[{}(),:'a-z0-9<>| ]{0,80}", elements in any::<Vec<u8>>()) {
            let _ = parse(&file(&header, &elements));
            let _ = parse(&elements);
        }
    }
}
