//! Data types: their sizes, their numbers in both numberings of MIGraphX, and in ONNX.

use serde::{Deserialize, Serialize};

/// A data type of MIGraphX, in the order of its newest numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dtype {
    Tuple,
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

/// What a kernel computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Single,
    Double,
    Integer,
}

const ALL: [Dtype; 19] = [
    Dtype::Tuple,
    Dtype::Fp4x2,
    Dtype::Bool,
    Dtype::Half,
    Dtype::Float,
    Dtype::Double,
    Dtype::UInt8,
    Dtype::Int8,
    Dtype::UInt16,
    Dtype::Int16,
    Dtype::Int32,
    Dtype::Int64,
    Dtype::UInt32,
    Dtype::UInt64,
    Dtype::Fp8E4M3Fnuz,
    Dtype::Fp8E4M3Fn,
    Dtype::Fp8E5M2,
    Dtype::BFloat16,
    Dtype::Fp8E5M2Fnuz,
];

/// Which of MIGraphX's two numberings is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// Up to MIGraphX 2.13, where no type stands between the tuple and the truth value.
    WithoutFp4x2,
    /// Since MIGraphX 2.14.
    WithFp4x2,
}

impl Dtype {
    pub(crate) fn from_number(number: u32, numbering: Numbering) -> Option<Self> {
        let index = match numbering {
            Numbering::WithoutFp4x2 if number > 0 => number.checked_add(1)?,
            _ => number,
        };
        ALL.get(usize::try_from(index).ok()?).copied()
    }

    /// The number; a type that the older numbering lacks is never made there.
    pub(crate) fn number(self, numbering: Numbering) -> u32 {
        let index = self as u32;
        match numbering {
            Numbering::WithoutFp4x2 => index.saturating_sub(1),
            Numbering::WithFp4x2 => index,
        }
    }

    pub(crate) fn n_bytes(self) -> usize {
        match self {
            Self::Tuple => 0,
            Self::Half | Self::UInt16 | Self::Int16 | Self::BFloat16 => 2,
            Self::Float | Self::Int32 | Self::UInt32 => 4,
            Self::Double | Self::Int64 | Self::UInt64 => 8,
            _ => 1,
        }
    }

    /// The type that ONNX gives this number, where the double computes with it.
    pub(crate) fn from_onnx(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Float,
            2 => Self::UInt8,
            3 => Self::Int8,
            4 => Self::UInt16,
            5 => Self::Int16,
            6 => Self::Int32,
            7 => Self::Int64,
            9 => Self::Bool,
            10 => Self::Half,
            11 => Self::Double,
            12 => Self::UInt32,
            13 => Self::UInt64,
            16 => Self::BFloat16,
            _ => return None,
        })
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Half | Self::Float | Self::BFloat16 => Class::Single,
            Self::Double => Class::Double,
            _ => Class::Integer,
        }
    }

    /// How an element is declared in a kernel; halves are stored as their bits.
    pub(crate) fn in_source(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Double => "double",
            Self::Half | Self::BFloat16 | Self::UInt16 => "unsigned short",
            Self::Int16 => "short",
            Self::Int8 => "signed char",
            Self::Int32 => "int",
            Self::UInt32 => "unsigned int",
            Self::Int64 => "long long",
            Self::UInt64 => "unsigned long long",
            _ => "unsigned char",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numberings_differ_by_one() {
        assert_eq!(Dtype::Float.number(Numbering::WithFp4x2), 4);
        assert_eq!(Dtype::Float.number(Numbering::WithoutFp4x2), 3);
        assert_eq!(Dtype::Tuple.number(Numbering::WithoutFp4x2), 0);
        for numbering in [Numbering::WithFp4x2, Numbering::WithoutFp4x2] {
            for dtype in ALL.into_iter().filter(|dtype| *dtype != Dtype::Fp4x2) {
                assert_eq!(Dtype::from_number(dtype.number(numbering), numbering), Some(dtype));
            }
        }
        assert_eq!(Dtype::from_number(19, Numbering::WithFp4x2), None);
        assert_eq!(Dtype::from_number(18, Numbering::WithoutFp4x2), None);
    }
}
