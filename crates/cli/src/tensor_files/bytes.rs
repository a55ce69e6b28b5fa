//! Elements in another order than a tensor keeps them.

/// Turns every element's bytes around.
pub(super) fn swap(bytes: &mut [u8], element_size: usize) {
    bytes.chunks_exact_mut(element_size).for_each(<[u8]>::reverse);
}

/// Copies elements that are stored with the first axis fastest to where the last is.
pub(super) fn last_axis_fastest(from: &[u8], shape: &[usize], element_size: usize) -> Vec<u8> {
    let mut to = Vec::with_capacity(from.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..from.len() / element_size {
        let at = shape.iter().zip(&index).rev().fold(0, |at, (extent, index)| at * extent + index);
        to.extend_from_slice(&from[at * element_size..][..element_size]);
        step(&mut index, shape);
    }
    to
}

/// The index of the next element, with the last axis fastest.
fn step(index: &mut [usize], shape: &[usize]) {
    for (index, extent) in index.iter_mut().zip(shape).rev() {
        *index += 1;
        if *index < *extent {
            return;
        }
        *index = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_turned_around() {
        // Columns (0, 3), (1, 4), (2, 5) of the rows 0 1 2 and 3 4 5.
        assert_eq!(last_axis_fastest(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
        let wide = last_axis_fastest(&[0, 0, 2, 2, 1, 1, 3, 3], &[2, 2], 2);
        assert_eq!(wide, [0, 0, 1, 1, 2, 2, 3, 3]);
        assert_eq!(last_axis_fastest(&[7], &[], 1), [7]);
        assert_eq!(last_axis_fastest(&[], &[0, 3], 4), [0u8; 0]);
    }

    #[test]
    fn bytes_are_turned_around() {
        let mut bytes = [1, 2, 3, 4];
        swap(&mut bytes, 2);
        assert_eq!(bytes, [2, 1, 4, 3]);
    }
}
