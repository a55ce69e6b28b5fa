//! Which number stands for which data type, asked of the library.

use std::ffi::c_uint;
use std::ptr;

use crate::bindings::{Api, migraphx_shape_datatype_t, migraphx_shape_t, migraphx_status};

/// A data type of MIGraphX, whatever number a release gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names say it; `name` gives MIGraphX's own")]
pub enum ShapeType {
    /// Several arrays in one; `shape_create` of this type ends a process with assertions.
    Tuple,
    /// Two 4-bit floats in a byte; since MIGraphX 2.14.
    Fp4x2,
    Bool,
    Half,
    Float,
    Double,
    UInt8,
    Int8,
    UInt16,
    Int16,
    Int32,
    Int64,
    UInt32,
    UInt64,
    Fp8E4M3Fnuz,
    Fp8E4M3Fn,
    Fp8E5M2,
    BFloat16,
    Fp8E5M2Fnuz,
}

impl ShapeType {
    /// Every type, in the order of the newest numbering.
    pub const ALL: [Self; 19] = [
        Self::Tuple,
        Self::Fp4x2,
        Self::Bool,
        Self::Half,
        Self::Float,
        Self::Double,
        Self::UInt8,
        Self::Int8,
        Self::UInt16,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::UInt32,
        Self::UInt64,
        Self::Fp8E4M3Fnuz,
        Self::Fp8E4M3Fn,
        Self::Fp8E5M2,
        Self::BFloat16,
        Self::Fp8E5M2Fnuz,
    ];

    /// MIGraphX's own name (`float_type`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tuple => "tuple_type",
            Self::Fp4x2 => "fp4x2_type",
            Self::Bool => "bool_type",
            Self::Half => "half_type",
            Self::Float => "float_type",
            Self::Double => "double_type",
            Self::UInt8 => "uint8_type",
            Self::Int8 => "int8_type",
            Self::UInt16 => "uint16_type",
            Self::Int16 => "int16_type",
            Self::Int32 => "int32_type",
            Self::Int64 => "int64_type",
            Self::UInt32 => "uint32_type",
            Self::UInt64 => "uint64_type",
            Self::Fp8E4M3Fnuz => "fp8e4m3fnuz_type",
            Self::Fp8E4M3Fn => "fp8e4m3fn_type",
            Self::Fp8E5M2 => "fp8e5m2_type",
            Self::BFloat16 => "bf16_type",
            Self::Fp8E5M2Fnuz => "fp8e5m2fnuz_type",
        }
    }

    /// Bytes an element, as MIGraphX counts them; a tuple has none of its own.
    #[must_use]
    pub const fn n_bytes(self) -> Option<usize> {
        Some(match self {
            Self::Tuple => return None,
            Self::Fp4x2
            | Self::Bool
            | Self::UInt8
            | Self::Int8
            | Self::Fp8E4M3Fnuz
            | Self::Fp8E4M3Fn
            | Self::Fp8E5M2
            | Self::Fp8E5M2Fnuz => 1,
            Self::Half | Self::UInt16 | Self::Int16 | Self::BFloat16 => 2,
            Self::Float | Self::Int32 | Self::UInt32 => 4,
            Self::Double | Self::Int64 | Self::UInt64 => 8,
        })
    }
}

/// How a library numbers its data types.
///
/// MIGraphX 2.14 (ROCm 7.1) put a type in second place, so that every later one moved up by one, and
/// kept the library's soname: 3 is `float` before and `half` since. A header cannot tell which library
/// will be loaded, so the library is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataTypes {
    /// Up to MIGraphX 2.13 (ROCm 7.0): `float` is 3.
    WithoutFp4x2,
    /// Since MIGraphX 2.14 (ROCm 7.1): `float` is 4.
    WithFp4x2,
}

/// Answers of a library whose numbering this crate does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct UnknownNumbering {
    /// The number of the data type that was asked about.
    pub number: u32,
    /// Bytes of one element as answered, or nothing where the library refused.
    pub answer: Option<usize>,
}

impl UnknownNumbering {
    fn sentence(&self) -> String {
        let number = self.number;
        match self.answer {
            Some(bytes) => format!(
                "one element of data type {number} takes {bytes} bytes in no known numbering"
            ),
            None => {
                format!("the library refuses data type {number}, which every known release has")
            }
        }
    }
}

impl DataTypes {
    /// Asks the library behind `api`: how many bytes does one element of type 3 take?
    ///
    /// Then the types that every release has are asked for their sizes too, so that a later shift is
    /// an error and not wrong data.
    ///
    /// # Errors
    ///
    /// [`UnknownNumbering`] when the answers fit no numbering that this crate knows.
    pub fn ask(api: &Api) -> Result<Self, UnknownNumbering> {
        const TELLING: u32 = 3;
        let numbering = match element_bytes(api, TELLING) {
            Some(2) => Self::WithFp4x2,
            Some(4) => Self::WithoutFp4x2,
            answer => return Err(UnknownNumbering { number: TELLING, answer }),
        };
        for shape_type in in_every_release() {
            let Some(number) = numbering.number(shape_type) else { continue };
            let answer = element_bytes(api, number.0);
            if answer != shape_type.n_bytes() {
                return Err(UnknownNumbering { number: number.0, answer });
            }
        }
        Ok(numbering)
    }

    /// The number that the library understands; none where the numbering has no such type.
    ///
    /// Within a numbering types came one by one: 8-bit floats with ROCm 6.1 to 6.4, `bf16` with 6.4.
    /// A library that is older than a type answers its number with a status, not with another type.
    #[must_use]
    pub fn number(self, shape_type: ShapeType) -> Option<migraphx_shape_datatype_t> {
        let position = self.order().position(|known| known == shape_type)?;
        c_uint::try_from(position).ok().map(migraphx_shape_datatype_t)
    }

    /// The type that a number of this library stands for.
    #[must_use]
    pub fn shape_type(self, number: migraphx_shape_datatype_t) -> Option<ShapeType> {
        self.order().nth(usize::try_from(number.0).ok()?)
    }

    fn order(self) -> impl Iterator<Item = ShapeType> {
        let has_fp4x2 = self == Self::WithFp4x2;
        ShapeType::ALL.into_iter().filter(move |known| has_fp4x2 || *known != ShapeType::Fp4x2)
    }
}

/// A library prints a complaint about a type that it does not know, so only these are asked about.
fn in_every_release() -> impl Iterator<Item = ShapeType> {
    let range = ShapeType::Bool..=ShapeType::UInt64;
    ShapeType::ALL.into_iter().filter(move |shape_type| range.contains(shape_type))
}

/// Bytes that the library counts for one element; none where it refuses the type.
fn element_bytes(api: &Api, number: u32) -> Option<usize> {
    let mut shape: migraphx_shape_t = ptr::null_mut();
    let mut lengths = [1_usize];
    let number = migraphx_shape_datatype_t(number);
    // SAFETY: the library copies the one length and writes a handle on success only. No number that
    // is asked about is that of a tuple, which would be refused with the end of the process.
    let created = unsafe { (api.shape_create)(&mut shape, number, lengths.as_mut_ptr(), 1) };
    if !created.is_success() {
        return None;
    }
    let mut bytes = 0;
    // SAFETY: `shape` was created above and is alive; the library writes one `size_t`.
    let answered = unsafe { (api.shape_bytes)(&mut bytes, shape) };
    // SAFETY: `shape` was created above, and is not used after this. A failure would leave a leak of
    // some bytes, about which nothing can be done.
    let _: migraphx_status = unsafe { (api.shape_destroy)(shape) };
    answered.is_success().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::HEADER_DATA_TYPES;

    #[test]
    fn the_newest_numbering_is_that_of_the_header() {
        let names: Vec<&str> = ShapeType::ALL.iter().map(|known| known.name()).collect();
        assert_eq!(names, HEADER_DATA_TYPES);
    }

    #[test]
    fn every_number_leads_back_to_its_type() {
        for numbering in [DataTypes::WithFp4x2, DataTypes::WithoutFp4x2] {
            for shape_type in ShapeType::ALL {
                let number = numbering.number(shape_type);
                let back = number.and_then(|number| numbering.shape_type(number));
                let absent = shape_type == ShapeType::Fp4x2 && numbering == DataTypes::WithoutFp4x2;
                assert_eq!(back, (!absent).then_some(shape_type));
            }
            assert_eq!(numbering.shape_type(migraphx_shape_datatype_t(99)), None);
        }
    }

    #[test]
    fn the_numberings_differ_as_the_releases_do() {
        let number =
            |numbering: DataTypes, shape_type| numbering.number(shape_type).map(|number| number.0);
        for (shape_type, old, new) in [
            (ShapeType::Tuple, Some(0), Some(0)),
            (ShapeType::Fp4x2, None, Some(1)),
            (ShapeType::Bool, Some(1), Some(2)),
            (ShapeType::Float, Some(3), Some(4)),
            (ShapeType::Int64, Some(10), Some(11)),
            (ShapeType::BFloat16, Some(16), Some(17)),
            (ShapeType::Fp8E5M2Fnuz, Some(17), Some(18)),
        ] {
            assert_eq!(number(DataTypes::WithoutFp4x2, shape_type), old, "{shape_type:?}");
            assert_eq!(number(DataTypes::WithFp4x2, shape_type), new, "{shape_type:?}");
        }
    }
}
