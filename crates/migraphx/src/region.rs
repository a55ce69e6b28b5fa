//! Copying between tensors of different extents: padding on the way in, slicing on the way out.
//!
//! Pure, on bytes: any data type, any rank, any axis.

use shapeyard_core::Shape;

/// Where a block of elements lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Elements before the first.
    pub(crate) offset: usize,
    /// Distances in elements, one an axis.
    pub(crate) strides: Shape,
}

impl Place {
    /// A dense tensor of these extents, from the `first` on along `axis`.
    pub(crate) fn dense(extents: &[usize], from: Option<(usize, usize)>) -> Self {
        let strides = dense_strides(extents);
        let offset = from.map_or(0, |(axis, first)| strides.get(axis).map_or(0, |it| it * first));
        Self { offset, strides }
    }
}

/// Whether elements at these distances are in row-major order without gaps.
pub(crate) fn is_dense(extents: &[usize], strides: &[usize]) -> bool {
    extents.iter().product::<usize>() <= 1 || *strides == *dense_strides(extents)
}

/// The distances of a row-major tensor.
pub(crate) fn dense_strides(extents: &[usize]) -> Shape {
    let mut strides: Shape = extents.into();
    let mut stride = 1_usize;
    for (slot, &extent) in strides.iter_mut().zip(extents).rev() {
        *slot = stride;
        stride = stride.saturating_mul(extent);
    }
    strides
}

/// Copies a block of `extents` elements of `size` bytes. Nothing is copied, and false is answered, where
/// it does not lie within both.
#[must_use]
pub(crate) fn copy(
    extents: &[usize],
    size: usize,
    (source, from): (&[u8], &Place),
    (target, to): (&mut [u8], &Place),
) -> bool {
    if extents.contains(&0) {
        return true;
    }
    let inside = |place: &Place, n_bytes: usize| {
        let last =
            place.strides.iter().zip(extents).try_fold(place.offset, |last, (stride, extent)| {
                last.checked_add(stride.checked_mul(extent - 1)?)
            });
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(size));
        place.strides.len() == extents.len() && end.is_some_and(|end| end <= n_bytes)
    };
    if !inside(from, source.len()) || !inside(to, target.len()) {
        return false;
    }
    let (outer, run) = split_dense(extents, from, to);
    let extents = &extents[..outer];
    copy_axes(
        extents,
        run * size,
        size,
        (source, from.offset, &from.strides),
        (target, to.offset, &to.strides),
    );
    true
}

/// How many outer axes are walked, and how many elements lie side by side below them in both.
fn split_dense(extents: &[usize], from: &Place, to: &Place) -> (usize, usize) {
    let (mut outer, mut run) = (extents.len(), 1);
    while outer > 0 {
        let axis = outer - 1;
        // An axis of one element lies side by side with whatever its stride is.
        let dense = extents[axis] == 1 || (from.strides[axis] == run && to.strides[axis] == run);
        if !dense {
            break;
        }
        run *= extents[axis];
        outer = axis;
    }
    (outer, run)
}

fn copy_axes(
    extents: &[usize],
    n_bytes: usize,
    size: usize,
    (source, from, from_strides): (&[u8], usize, &[usize]),
    (target, to, to_strides): (&mut [u8], usize, &[usize]),
) {
    let Some((&extent, inner)) = extents.split_first() else {
        let (from, to) = (from * size, to * size);
        target[to..to + n_bytes].copy_from_slice(&source[from..from + n_bytes]);
        return;
    };
    for index in 0..extent {
        let from = from + index * from_strides[0];
        let to = to + index * to_strides[0];
        copy_axes(
            inner,
            n_bytes,
            size,
            (source, from, &from_strides[1..]),
            (target, to, &to_strides[1..]),
        );
    }
}

/// What stands behind the real elements of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind<'a> {
    /// Copies of the last real element along the axis.
    Last,
    /// An element with these bytes.
    Fill(&'a [u8]),
}

/// Writes the padding of a dense tensor of `whole` extents whose first `real` elements along each axis are
/// written: every element behind them, whatever stood there before.
pub(crate) fn pad<'a>(
    whole: &[usize],
    real: &[usize],
    size: usize,
    behind: impl Fn(usize) -> Behind<'a>,
    target: &mut [u8],
) {
    if whole == real || whole.contains(&0) {
        return;
    }
    // Inner axes first, so that a copy along an outer axis takes their padding with it.
    for axis in (0..whole.len()).rev() {
        if whole[axis] == real[axis] {
            continue;
        }
        let slab = whole[axis + 1..].iter().product::<usize>() * size;
        let (n_outer, block) = (real[..axis].iter(), slab * whole[axis]);
        // Outer axes that are padded themselves hold nothing yet behind their real elements.
        let outer: Shape = n_outer.copied().collect();
        let strides = &dense_strides(whole)[..axis];
        for_each_index(&outer, &mut |index| {
            let start: usize =
                index.iter().zip(strides).map(|(at, stride)| at * stride * size).sum();
            let Some(part) = target.get_mut(start..start + block) else { return };
            pad_axis(part, real[axis] * slab, slab, behind(axis));
        });
    }
}

fn pad_axis(part: &mut [u8], n_real: usize, slab: usize, behind: Behind<'_>) {
    match behind {
        Behind::Last if n_real >= slab => {
            let mut at = n_real;
            while at < part.len() {
                part.copy_within(n_real - slab..n_real, at);
                at += slab;
            }
        }
        Behind::Fill(element) if element.iter().any(|&byte| byte != 0) => {
            for slot in part[n_real..].chunks_exact_mut(element.len()) {
                slot.copy_from_slice(element);
            }
        }
        // A row that is not there has no copy.
        Behind::Last | Behind::Fill(_) => part[n_real..].fill(0),
    }
}

fn for_each_index(extents: &[usize], see: &mut impl FnMut(&[usize])) {
    if extents.contains(&0) {
        return;
    }
    let mut index: Shape = extents.iter().map(|_| 0).collect();
    loop {
        see(&index);
        let Some(axis) = (0..extents.len()).rev().find(|&axis| index[axis] + 1 < extents[axis])
        else {
            return;
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A tensor by its definition: the element at each index, one after the other.
    fn element(index: &[usize], extents: &[usize], size: usize, bytes: &[u8]) -> Vec<u8> {
        let at: usize =
            index.iter().zip(&dense_strides(extents)).map(|(at, stride)| at * stride).sum();
        bytes[at * size..(at + 1) * size].to_vec()
    }

    fn sizes() -> impl Strategy<Value = (Vec<(usize, usize)>, usize, usize)> {
        // Real and whole extents, the axis of the rows, and the bytes of an element.
        (proptest::collection::vec((1usize..4, 0usize..4), 1..5), 0usize..4, 1usize..9)
    }

    proptest! {
        #[test]
        fn every_element_is_the_real_one_or_its_padding((pairs, rows, size) in sizes(), fill in any::<u8>()) {
            let real: Vec<usize> = pairs.iter().map(|pair| pair.0).collect();
            let whole: Vec<usize> = pairs.iter().map(|pair| pair.0 + pair.1).collect();
            let n: usize = real.iter().product();
            let source: Vec<u8> = (0..n * size).map(|at| (at % 251) as u8).collect();
            let mut target = vec![0xEE; whole.iter().product::<usize>() * size];
            let (from, to) = (Place::dense(&real, None), Place::dense(&whole, None));
            prop_assert!(copy(&real, size, (&source, &from), (&mut target, &to)));
            let fill = vec![fill; size];
            let behind = |axis| if axis == rows { Behind::Last } else { Behind::Fill(&fill) };
            pad(&whole, &real, size, behind, &mut target);
            for_each_index(&whole, &mut |index| {
                let mut of: Vec<usize> = index.to_vec();
                if let Some(row) = of.get_mut(rows) {
                    *row = (*row).min(real[rows] - 1);
                }
                let is_real = of.iter().zip(&real).all(|(at, extent)| at < extent);
                let wanted = if is_real { element(&of, &real, size, &source) } else { fill.clone() };
                assert_eq!(element(index, &whole, size, &target), wanted, "{index:?}");
            });
            // And back.
            let mut back = vec![0xEE; source.len()];
            prop_assert!(copy(&real, size, (&target, &to), (&mut back, &from)));
            prop_assert_eq!(back, source);
        }

        #[test]
        fn a_block_that_lies_outside_is_not_copied(
            extents in proptest::collection::vec(0usize..4, 0..4),
            strides in proptest::collection::vec(0usize..5, 0..4),
            offset in 0usize..5, n in 0usize..20,
        ) {
            let place = Place { offset, strides: strides.iter().copied().collect() };
            let source = vec![1; n];
            let dense = Place::dense(&extents, None);
            let mut target = vec![0; extents.iter().product()];
            // Must not panic; what it answers is checked by the first test.
            let _ = copy(&extents, 1, (&source, &place), (&mut target, &dense));
        }
    }

    #[test]
    fn strides_of_the_library_are_followed() {
        // A 2 x 3 matrix that is stored by columns.
        let by_columns = Place { offset: 0, strides: [1, 2].into_iter().collect() };
        let mut rows = [0; 6];
        let dense = Place::dense(&[2, 3], None);
        assert!(copy(&[2, 3], 1, (&[1, 2, 3, 4, 5, 6], &by_columns), (&mut rows, &dense)));
        assert_eq!(rows, [1, 3, 5, 2, 4, 6]);
    }
}
