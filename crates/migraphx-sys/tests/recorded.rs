//! The data types of releases that cannot be had here, by doubles of the function table.
//!
//! The double of ROCm 6.4 is a record: the sizes stand in the order of that release's header. What is
//! proved with it is our mapping, not AMD's library.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(unsafe_code, reason = "a table of C functions")]
#![cfg(unix)]

use std::ffi::{CStr, c_void};
use std::process::abort;
use std::ptr::{self, NonNull};

use migraphx_sys::{
    Api, DataTypes, ShapeType, const_migraphx_shape_t, migraphx_shape_datatype_t, migraphx_shape_t,
    migraphx_status,
};

/// Bytes of one element, by number of the data type.
type Sizes = &'static [usize];

/// tuple, bool, half, float, double, uint8, int8, uint16, int16, int32, int64, uint32, uint64,
/// fp8e4m3fnuz, fp8e4m3fn, fp8e5m2, bf16, fp8e5m2fnuz.
const ROCM_6_4: Sizes = &[0, 1, 2, 4, 8, 1, 1, 2, 2, 4, 8, 4, 8, 1, 1, 1, 2, 1];

/// Up to ROCm 6.0 the list ended with uint64.
const ROCM_6_0: Sizes = &[0, 1, 2, 4, 8, 1, 1, 2, 2, 4, 8, 4, 8];

/// Since ROCm 7.1 fp4x2 stands in second place.
const ROCM_7_1: Sizes = &[0, 1, 1, 2, 4, 8, 1, 1, 2, 2, 4, 8, 4, 8, 1, 1, 1, 2, 1];

/// Made up: a release that puts a type of four bytes before `uint8`.
const SHIFTED: Sizes = &[0, 1, 1, 2, 4, 8, 4, 1, 1, 2, 2, 4, 8, 4, 8, 1, 1, 1, 2, 1];

/// A trait in place of a function with state, since a C function has none.
trait Release {
    const SIZES: Sizes;
}

struct Rocm64;
struct Rocm60;
struct Rocm71;
struct Shifted;

impl Release for Rocm64 {
    const SIZES: Sizes = ROCM_6_4;
}
impl Release for Rocm60 {
    const SIZES: Sizes = ROCM_6_0;
}
impl Release for Rocm71 {
    const SIZES: Sizes = ROCM_7_1;
}
impl Release for Shifted {
    const SIZES: Sizes = SHIFTED;
}

/// The handle of a shape is the number of its type and one more, so nothing is allocated.
unsafe extern "C" fn shape_create<R: Release>(
    shape: *mut migraphx_shape_t,
    type_: migraphx_shape_datatype_t,
    _lengths: *mut usize,
    _n_lengths: usize,
) -> migraphx_status {
    if type_.0 == 0 {
        abort(); // As a build with assertions does for a tuple.
    }
    if type_.0 as usize >= R::SIZES.len() {
        return migraphx_status::BAD_PARAM;
    }
    // SAFETY: the caller gives a place for the handle.
    unsafe { *shape = ptr::without_provenance_mut(type_.0 as usize + 1) };
    migraphx_status::SUCCESS
}

unsafe extern "C" fn shape_bytes<R: Release>(
    out: *mut usize,
    shape: const_migraphx_shape_t,
) -> migraphx_status {
    // SAFETY: the caller gives a place for the answer.
    unsafe { *out = R::SIZES[shape.addr() - 1] };
    migraphx_status::SUCCESS
}

unsafe extern "C" fn shape_destroy(_shape: migraphx_shape_t) -> migraphx_status {
    migraphx_status::SUCCESS
}

unsafe extern "C" fn not_recorded() -> migraphx_status {
    abort()
}

fn recorded<R: Release>() -> Api {
    let find = |name: &CStr| -> Option<NonNull<c_void>> {
        if Api::OPTIONAL.iter().any(|(optional, _)| *optional == name) {
            return None;
        }
        NonNull::new(match name.to_bytes() {
            b"migraphx_shape_create" => shape_create::<R> as *mut c_void,
            b"migraphx_shape_bytes" => shape_bytes::<R> as *mut c_void,
            b"migraphx_shape_destroy" => shape_destroy as *mut c_void,
            _ => not_recorded as *mut c_void,
        })
    };
    // SAFETY: the three functions have the signatures of the header; the others are never called.
    unsafe { Api::resolve(find) }.unwrap()
}

fn number(types: DataTypes, shape_type: ShapeType) -> Option<u32> {
    types.number(shape_type).map(|number| number.0)
}

#[test]
fn the_old_numbering_is_recognised_and_mapped_both_ways() {
    let types = DataTypes::ask(&recorded::<Rocm64>()).unwrap();
    assert_eq!(types, DataTypes::WithoutFp4x2);
    assert_eq!(number(types, ShapeType::Float), Some(3));
    assert_eq!(number(types, ShapeType::Int64), Some(10));
    assert_eq!(number(types, ShapeType::BFloat16), Some(16));
    assert_eq!(number(types, ShapeType::Fp4x2), None);
    for (number, size) in (0..).zip(ROCM_6_4).skip(1) {
        let known = types.shape_type(migraphx_shape_datatype_t(number)).unwrap();
        assert_eq!(known.n_bytes(), Some(*size), "{known:?}");
        assert_eq!(types.number(known), Some(migraphx_shape_datatype_t(number)));
    }
}

#[test]
fn a_release_with_fewer_types_is_asked_for_none_of_the_rest() {
    let types = DataTypes::ask(&recorded::<Rocm60>()).unwrap();
    assert_eq!(types, DataTypes::WithoutFp4x2);
}

#[test]
fn the_new_numbering_is_recognised() {
    let types = DataTypes::ask(&recorded::<Rocm71>()).unwrap();
    assert_eq!(types, DataTypes::WithFp4x2);
    assert_eq!(number(types, ShapeType::Float), Some(4));
}

#[test]
fn a_numbering_to_come_is_an_error_and_no_wrong_type() {
    let unknown = DataTypes::ask(&recorded::<Shifted>()).unwrap_err();
    assert_eq!((unknown.number, unknown.answer), (6, Some(4)));
}

#[test]
fn optional_functions_are_missed_one_by_one() {
    let api = recorded::<Rocm64>();
    assert!(api.quantize_bf16.is_none());
    assert!(api.optional().iter().all(|function| !function.present));
}

#[test]
fn every_missing_function_is_named() {
    let hidden = [c"migraphx_shape_ndim", c"migraphx_program_run"];
    // SAFETY: nothing is called, since the table is not made.
    let missing = unsafe {
        Api::resolve(|name| {
            NonNull::new(not_recorded as *mut c_void).filter(|_| !hidden.contains(&name))
        })
    };
    assert_eq!(missing.unwrap_err(), hidden);
}
