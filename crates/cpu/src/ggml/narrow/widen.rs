//! Matrices of 8-bit integers as f16, so that products with them round nothing to 8 bits.
//!
//! ggml multiplies `Q8_0` by rounding the other side to 8 bits too. For the real encoder that costs more than
//! the weights do: on the reference texts (`cargo test -p shapeyard-tests --test reference narrow`) the least
//! cosine to PyTorch is 0.99788 with rounded products and 0.99929 without; 0.999 is what the type promises.
//! No single matrix is to blame: with only `attn_v` and `attn_output` in f16 it is 0.99860, with `ffn_up`
//! 0.99826; `attn_v` and `ffn_up` together reach 0.99904, too close to the bound to rely on for other models.
//!
//! The price, one thread on a busy machine: 1.1 to 1.6 times the time of rounded products for batches, twice
//! for a text of 8 tokens, and 34 MB of memory instead of 24. As f32 the matrices are no faster and take twice
//! the memory. Where speed matters more than the last digits there are the 4-bit types, whose weights cost
//! more accuracy than rounded products do.

use half::f16;

/// Elements that share a scale.
const N_ELEMENTS: usize = 32;

/// Bytes of a scale in f16 and the elements.
const BLOCK: usize = size_of::<f16>() + N_ELEMENTS;

/// The numbers for which whole blocks of `Q8_0` stand: each a scale times an integer.
pub(crate) fn widen(blocks: &[u8]) -> Vec<f16> {
    let (blocks, _) = blocks.as_chunks::<BLOCK>();
    let mut values = Vec::with_capacity(blocks.len() * N_ELEMENTS);
    for [low, high, elements @ ..] in blocks {
        let scale = f16::from_le_bytes([*low, *high]).to_f32();
        let wide = elements.map(|byte| f16::from_f32(scale * f32::from(byte.cast_signed())));
        values.extend(wide);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_scale_times_integers() {
        let mut block = [0; BLOCK];
        block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
        block[2..5].copy_from_slice(&[3, 0x80, 0x7f]);
        let values = widen(&[block, [0; BLOCK]].concat());
        assert_eq!(values.len(), 2 * N_ELEMENTS);
        assert_eq!(
            values[..4].iter().map(|it| it.to_f32()).collect::<Vec<_>>(),
            [1.5, -64.0, 63.5, 0.0]
        );
    }
}
