//! Where inputs lie in one arena, and whose turn it is in a ring of them. Pure.

use std::ops::Range;

/// Slots begin at multiples of this many bytes: what both platforms align allocations to, and what
/// kernels with wide loads rely on.
pub const SLOT_BYTES: usize = 256;

/// The place of one input in an arena, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Where it begins; a multiple of [`SLOT_BYTES`].
    pub offset: usize,
    /// What is used of it.
    pub n_bytes: usize,
}

impl Slot {
    /// The bytes of the arena that it uses.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.offset..self.offset + self.n_bytes
    }
}

/// Slots one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    slots: Vec<Slot>,
    n_bytes: usize,
}

impl Layout {
    /// A slot for each size in bytes, in this order. None where the sum is beyond what can be
    /// addressed.
    #[must_use]
    pub fn of(sizes: &[usize]) -> Option<Self> {
        let mut slots = Vec::with_capacity(sizes.len());
        let mut end = 0_usize;
        for &n_bytes in sizes {
            let offset = end.checked_next_multiple_of(SLOT_BYTES)?;
            end = offset.checked_add(n_bytes)?;
            slots.push(Slot { offset, n_bytes });
        }
        // An arena beyond this could not be a slice.
        isize::try_from(end).ok()?;
        Some(Self { slots, n_bytes: end })
    }

    /// The slots, in the order of the sizes.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// From the beginning of the first slot to the end of the last.
    #[must_use]
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }
}

/// Whose turn it is among a few arenas.
///
/// A turn is taken, filled and given to the device; the arena may be filled again only after a marker
/// of that turn has passed, or after the whole queue has. What a marker is, only the caller knows. Arenas
/// that were never needed stay untouched: the first is taken again as soon as nothing is pending.
#[derive(Debug, Clone)]
pub struct Turns {
    pending: Vec<bool>,
    next: usize,
}

/// One arena's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which arena.
    pub arena: usize,
    /// Whether its last marker has to have passed before it is filled.
    pub must_wait: bool,
}

impl Turns {
    /// So many arenas, one at least, none of which is in use.
    #[must_use]
    pub fn new(n_arenas: usize) -> Self {
        Self { pending: vec![false; n_arenas.max(1)], next: 0 }
    }

    /// The arena that was given to the device longest ago. Taking it again before [`sent`](Self::sent)
    /// is the same turn.
    #[must_use]
    pub fn next(&self) -> Turn {
        Turn { arena: self.next, must_wait: self.pending[self.next] }
    }

    /// The arena of this turn was waited for.
    pub fn waited(&mut self) {
        self.pending[self.next] = false;
    }

    /// The queue was waited for: nothing is pending any more.
    pub fn settled(&mut self) {
        self.pending.fill(false);
        self.next = 0;
    }

    /// The arena of this turn was given to the device, and a marker was set behind it.
    pub fn sent(&mut self) {
        self.pending[self.next] = true;
        self.next = (self.next + 1) % self.pending.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn slots_are_aligned_in_order_and_apart(
            sizes in proptest::collection::vec(0_usize..5000, 0..300),
        ) {
            let layout = Layout::of(&sizes).unwrap();
            prop_assert_eq!(layout.slots().len(), sizes.len());
            let mut end = 0;
            for (slot, size) in layout.slots().iter().zip(&sizes) {
                prop_assert_eq!(slot.offset % SLOT_BYTES, 0);
                prop_assert_eq!(slot.n_bytes, *size);
                prop_assert!(slot.offset >= end && slot.offset - end < SLOT_BYTES);
                end = slot.range().end;
            }
            prop_assert_eq!(layout.n_bytes(), end);
        }

        /// Fills and markers in any order: nothing is filled between being sent and its marker.
        #[test]
        fn no_arena_is_filled_before_its_marker_passed(
            n_arenas in 1_usize..5,
            steps in proptest::collection::vec(0_u8..4, 1..100),
        ) {
            let mut turns = Turns::new(n_arenas);
            let mut in_flight = vec![false; n_arenas];
            for step in steps {
                if step == 0 {
                    in_flight.fill(false);
                    turns.settled();
                    prop_assert_eq!(turns.next().arena, 0);
                }
                let is_sent = step > 1;
                let turn = turns.next();
                prop_assert_eq!(turn.must_wait, in_flight[turn.arena]);
                if turn.must_wait {
                    in_flight[turn.arena] = false;
                    turns.waited();
                }
                prop_assert!(!in_flight[turn.arena]);
                if is_sent {
                    in_flight[turn.arena] = true;
                    turns.sent();
                    prop_assert!(n_arenas == 1 || turns.next().arena != turn.arena);
                }
            }
        }
    }

    #[test]
    fn nothing_has_no_bytes_and_too_much_has_no_layout() {
        assert_eq!(Layout::of(&[]).unwrap().n_bytes(), 0);
        assert_eq!(Layout::of(&[usize::MAX, 1]), None);
        assert_eq!(Layout::of(&[isize::MAX.unsigned_abs(), 1]), None);
    }

    #[test]
    fn only_what_is_used_is_sent() {
        let layout = Layout::of(&[64; 190]).unwrap();
        assert_eq!(layout.n_bytes(), 189 * 256 + 64);
    }
}
