//! Operators that are ours, where ggml's are slower or less exact.
//!
//! A kernel fills a block of its result, so that threads can share the work; what a row holds does not
//! depend on how they share it.

pub(crate) mod attention;
mod block;
pub(crate) mod product;
pub(crate) mod rows;
#[cfg(test)]
mod testing;

use rten_simd::Isa;
use rten_simd::ops::BitOps as _;

pub(crate) use block::{Block, Share, evenly};

/// A vector of what is there, and zeros.
#[inline(always)]
fn load<I: Isa>(isa: I, from: &[f32]) -> I::F32 {
    let ops = isa.f32();
    if from.len() < ops.len() { ops.load_pad(from).0 } else { ops.load(from) }
}

/// As much of a vector as there is room for.
#[inline(always)]
fn store<I: Isa>(isa: I, vector: I::F32, to: &mut [f32]) {
    use rten_simd::Simd as _;

    let ops = isa.f32();
    if to.len() < ops.len() {
        to.iter_mut().zip(vector.to_array()).for_each(|(to, value)| *to = value);
    } else {
        ops.store(vector, to);
    }
}
