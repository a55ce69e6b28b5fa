//! The Rust types that stand for a [`DataType`].

use half::{bf16, f16};

use crate::DataType;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type whose values are the elements of a tensor.
///
/// `bool` is left out on purpose: a byte from outside may hold values that no Rust `bool` may have.
/// Read a [`DataType::Bool`] tensor's bytes instead.
pub trait Element: bytemuck::Pod + PartialEq + sealed::Sealed {
    /// The data type that this Rust type stands for.
    const DTYPE: DataType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl sealed::Sealed for $rust {}
        impl Element for $rust {
            const DTYPE: DataType = DataType::$dtype;
        }
    )*};
}

elements! {
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    f16 => F16, bf16 => BF16, f32 => F32, f64 => F64,
}
