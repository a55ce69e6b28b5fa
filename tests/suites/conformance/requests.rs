//! Inputs that differ from row to row, and what counts as the same answer.

use half::{bf16, f16};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{DataType, Dim, Element, Shape, Signature, Tensor, TensorSpec};

/// How far fp32 may be from ONNX Runtime, absolutely and as a share of its value.
pub(crate) const SINGLE: f64 = 1e-4;
/// The same for half precision, whose steps are a share of 2^-10: one step.
pub(crate) const HALF: f64 = 1.0 / 1024.0;

/// Pseudo-random numbers (SplitMix64): equal numbers for equal places.
pub(crate) fn noise(seed: usize, place: usize) -> usize {
    let mut mixed = (seed as u64) << 32 ^ place as u64;
    for multiplier in [0xBF58_476D_1CE4_E5B9_u64, 0x94D0_49BB_1331_11EB] {
        mixed = mixed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(multiplier);
    }
    (mixed ^ (mixed >> 31)) as usize >> 1
}

/// Inputs of a signature for a shape.
pub(crate) fn inputs(signature: &Signature, shape: &Bucket, seed: usize) -> Vec<Tensor> {
    let tensors = signature.inputs.iter().enumerate();
    tensors.map(|(n, spec)| input(signature, spec, shape, seed * 1009 + n)).collect()
}

fn input(signature: &Signature, spec: &TensorSpec, shape: &Bucket, seed: usize) -> Tensor {
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(extent) => *extent,
        Dim::Symbol(symbol) => shape.get(signature.symbol_name(*symbol)).unwrap(),
        Dim::Unnamed => panic!("`{}` has an axis without a name", spec.name),
    };
    let shape: Shape = spec.shape.as_ref().unwrap().iter().map(extent).collect();
    let mut tensor = Tensor::zeroed(spec.dtype, &shape).unwrap();
    if spec.dtype == DataType::I64 && spec.name.contains("mask") {
        fill_mask(&mut tensor, seed);
    } else {
        fill(&mut tensor, spec.index_limit.unwrap_or(11), seed);
    }
    tensor
}

/// Ones and then zeros, at least a one, as many as each row pleases.
fn fill_mask(tensor: &mut Tensor, seed: usize) {
    let length = tensor.shape().last().copied().unwrap_or(1).max(1);
    let rows = tensor.as_mut_slice::<i64>().unwrap().chunks_exact_mut(length).enumerate();
    for (n, row) in rows {
        row[..=noise(seed, n) % length].fill(1);
    }
}

fn fill(tensor: &mut Tensor, limit: usize, seed: usize) {
    // Quarters are exact in every float.
    let quarters = |place| (noise(seed, place) % 33) as f32 / 4.0 - 4.0;
    let whole = |place| noise(seed, place) % limit;
    match tensor.dtype() {
        DataType::F16 => set(tensor, |place| f16::from_f32(quarters(place))),
        DataType::BF16 => set(tensor, |place| bf16::from_f32(quarters(place))),
        DataType::F32 => set(tensor, |place| (noise(seed, place) % 4096) as f32 / 2048.0 - 1.0),
        DataType::F64 => set(tensor, |place| f64::from(quarters(place))),
        DataType::I16 => set(tensor, |place| whole(place) as i16 - 5),
        DataType::I32 => set(tensor, |place| whole(place) as i32 - 5),
        DataType::I64 => set(tensor, |place| whole(place) as i64),
        DataType::U16 => set(tensor, |place| whole(place) as u16),
        DataType::U32 => set(tensor, |place| whole(place) as u32),
        DataType::U64 => set(tensor, |place| whole(place) as u64),
        dtype => {
            let limit = if dtype == DataType::Bool { 2 } else { limit.min(64) };
            let bytes = tensor.bytes_mut().iter_mut().enumerate();
            bytes.for_each(|(place, byte)| *byte = (noise(seed, place) % limit) as u8);
        }
    }
}

pub(crate) fn set<T: Element>(tensor: &mut Tensor, value: impl Fn(usize) -> T) {
    let elements = tensor.as_mut_slice::<T>().unwrap().iter_mut().enumerate();
    elements.for_each(|(place, element)| *element = value(place));
}

/// Fails unless answers are alike: number, types and shapes; fp32 and half within their tolerances, all
/// else byte for byte.
pub(crate) fn assert_alike(found: &[Tensor], wanted: &[Tensor], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: outputs");
    for (n, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let what = format!("{what}: output {n}");
        assert_eq!(found.dtype(), wanted.dtype(), "{what}");
        assert_eq!(found.shape(), wanted.shape(), "{what}");
        match found.dtype() {
            DataType::F32 => {
                let read = |tensor: &Tensor| numbers::<f32>(tensor, f64::from);
                assert_near(&read(found), &read(wanted), SINGLE, &what);
            }
            DataType::F16 => {
                let read = |tensor: &Tensor| numbers::<f16>(tensor, f64::from);
                assert_near(&read(found), &read(wanted), HALF, &what);
            }
            _ => assert!(found.bytes() == wanted.bytes(), "{what}: {found:?}, not {wanted:?}"),
        }
    }
}

fn numbers<T: Element>(tensor: &Tensor, number: impl Fn(T) -> f64) -> Vec<f64> {
    tensor.as_slice::<T>().unwrap().iter().map(|&element| number(element)).collect()
}

fn assert_near(found: &[f64], wanted: &[f64], tolerance: f64, what: &str) {
    let pairs = found.iter().zip(wanted);
    let near = |(found, wanted): (&f64, &f64)| {
        let both_nan = found.is_nan() && wanted.is_nan();
        both_nan || (found - wanted).abs() <= tolerance + tolerance * wanted.abs()
    };
    if let Some(at) = pairs.map(near).position(|near| !near) {
        panic!("{what}: element {at} is {}, not {}", found[at], wanted[at]);
    }
}
