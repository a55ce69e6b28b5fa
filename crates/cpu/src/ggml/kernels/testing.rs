//! What the kernels' tests share.

/// Numbers between -1 and 1 that look random.
pub(super) fn noise(n: usize, seed: usize) -> Vec<f32> {
    let number = |at: usize| ((at * 2654435761 + seed * 40503) % 2001) as f32 / 1000.0 - 1.0;
    (0..n).map(number).collect()
}
