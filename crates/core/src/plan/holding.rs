//! Sets of programs.

/// A set of programs, by their positions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Holding(Box<[u64]>);

impl Holding {
    /// None of so many.
    pub(super) fn none(n: usize) -> Self {
        Self(vec![0; n.div_ceil(64)].into())
    }

    /// All of so many.
    pub(super) fn all(n: usize) -> Self {
        let mut all = Self::none(n);
        (0..n).for_each(|program| all.insert(program));
        all
    }

    pub(super) fn insert(&mut self, program: usize) {
        self.0[program / 64] |= 1 << (program % 64);
    }

    /// Adds those of another set.
    pub(super) fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours |= theirs);
    }

    /// Those that are in both.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(ours, theirs)| ours & theirs).collect())
    }

    /// Positions, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(nth, &word)| {
            let after = |word: &u64| Some(word & word.wrapping_sub(1)).filter(|rest| *rest > 0);
            let rest = std::iter::successors(Some(word).filter(|word| *word > 0), after);
            rest.map(move |word| nth * 64 + word.trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_was_put_in() {
        let mut some = Holding::none(130);
        [129, 0, 64].into_iter().for_each(|program| some.insert(program));
        assert_eq!(some.iter().collect::<Vec<_>>(), [0, 64, 129]);
        assert_eq!(Holding::all(130).and(&some), some);
        let mut all = Holding::none(130);
        all.add(&Holding::all(130));
        assert_eq!(all.iter().collect::<Vec<_>>(), (0..130).collect::<Vec<_>>());
    }
}
