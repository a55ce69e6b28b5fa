//! What is at work at a moment, so that a run can say whether it had the machine to itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a router has at work.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Runs of the preferred executable.
    pub(super) preferred: Kind,
    /// Runs of the fallback.
    pub(super) fallback: Kind,
    /// Programs that are compiled.
    pub(super) compiles: Kind,
}

/// Work of one kind, counted.
#[derive(Debug, Default)]
pub(super) struct Kind {
    n_begun: AtomicU64,
    n_ended: AtomicU64,
}

/// Work that goes on as long as this lives.
#[derive(Debug)]
pub(super) struct Begun<'a>(&'a Kind);

/// Two kinds of work of which nothing was going on, if so.
#[derive(Debug)]
pub(super) struct Quiet<'a> {
    kinds: [&'a Kind; 2],
    n_begun: Option<[u64; 2]>,
}

impl Kind {
    pub(super) fn begin(&self) -> Begun<'_> {
        self.n_begun.fetch_add(1, Ordering::AcqRel);
        Begun(self)
    }

    /// How often it began, where nothing of it is going on.
    fn quiet(&self) -> Option<u64> {
        // In this order: what begins in between makes the two differ.
        let n_ended = self.n_ended.load(Ordering::Acquire);
        (self.n_begun.load(Ordering::Acquire) == n_ended).then_some(n_ended)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.n_ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl<'a> Quiet<'a> {
    /// Looks at these from now on.
    pub(super) fn of(kinds: [&'a Kind; 2]) -> Self {
        let n_begun = match kinds.map(Kind::quiet) {
            [Some(one), Some(other)] => Some([one, other]),
            _ => None,
        };
        Self { kinds, n_begun }
    }

    /// Whether nothing of them went on since then, not even for a moment.
    pub(super) fn lasted(&self) -> bool {
        let now = self.kinds.map(|kind| kind.n_begun.load(Ordering::Acquire));
        self.n_begun == Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_at_any_moment_disturbs() {
        let Activity { preferred, compiles, .. } = &Activity::default();
        let both = || Quiet::of([preferred, compiles]);
        assert!(both().lasted());
        let begun = compiles.begin();
        assert!(!both().lasted(), "it goes on all the time");
        let during = both();
        drop(begun);
        assert!(!during.lasted(), "it went on at the start");
        let quiet = both();
        drop(preferred.begin());
        assert!(!quiet.lasted(), "it began and ended meanwhile");
        assert!(both().lasted());
    }
}
