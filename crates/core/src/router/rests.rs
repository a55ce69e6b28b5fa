//! Shapes whose programs could not be loaded, and for how long nobody tries again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Extents;

/// How long a shape rests after its first failure; twice as long after each one more.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Shapes that rest at most; one more than these is tried whenever it comes.
const MOST_SHAPES: usize = 1024;

/// Loads that failed inside requests. Each costs the request that meets it time, so not every request is to.
#[derive(Debug, Default)]
pub(super) struct Rests {
    by_shape: Mutex<HashMap<Extents, Rest>>,
    /// How many there are, to be looked at without the lock.
    n: AtomicUsize,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    lasts: Duration,
    /// What went wrong.
    words: String,
}

impl Rests {
    /// What went wrong with a shape that rests now.
    pub(super) fn words(&self, shape: &Extents) -> Option<String> {
        if self.n.load(Ordering::Relaxed) == 0 {
            None
        } else {
            self.words_at(shape, Instant::now())
        }
    }

    fn words_at(&self, shape: &Extents, now: Instant) -> Option<String> {
        let by_shape = self.by_shape();
        by_shape.get(shape).filter(|rest| now < rest.until).map(|rest| rest.words.clone())
    }

    /// Lets a shape rest.
    pub(super) fn failed(&self, shape: &Extents, words: &str, now: Instant) {
        let mut by_shape = self.by_shape();
        let before = by_shape.get(shape).map(|rest| rest.lasts);
        if before.is_none() && by_shape.len() >= MOST_SHAPES {
            by_shape.retain(|_, rest| now < rest.until);
        }
        if before.is_some() || by_shape.len() < MOST_SHAPES {
            let lasts = before.map_or(FIRST, |lasts| (2 * lasts).min(LONGEST));
            let rest = Rest { until: now + lasts, lasts, words: words.to_owned() };
            by_shape.insert(shape.clone(), rest);
        }
        self.n.store(by_shape.len(), Ordering::Relaxed);
    }

    /// Forgets the failures of a shape that ran.
    pub(super) fn worked(&self, shape: &Extents) {
        if self.n.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut by_shape = self.by_shape();
        by_shape.remove(shape);
        self.n.store(by_shape.len(), Ordering::Relaxed);
    }

    /// Forgets all failures: other programs than before serve now.
    pub(super) fn clear(&self) {
        let mut by_shape = self.by_shape();
        by_shape.clear();
        self.n.store(0, Ordering::Relaxed);
    }

    fn by_shape(&self) -> MutexGuard<'_, HashMap<Extents, Rest>> {
        self.by_shape.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signature;
    use crate::plan::Bucket;

    fn shape(n: usize) -> Extents {
        let signature = Signature { symbols: vec!["batch".to_owned()], ..Signature::default() };
        signature.extents(&Bucket::from_iter([("batch", n)]))
    }

    #[test]
    fn each_failure_rests_twice_as_long_up_to_a_limit() {
        let rests = Rests::default();
        let mut now = Instant::now();
        let mut lasts = FIRST;
        for _ in 0..12 {
            rests.failed(&shape(1), "no", now);
            let just_before = now + lasts - Duration::from_millis(1);
            assert_eq!(rests.words_at(&shape(1), just_before).as_deref(), Some("no"));
            assert_eq!(rests.words_at(&shape(1), now + lasts), None);
            assert_eq!(rests.words_at(&shape(2), now), None, "another shape");
            now += lasts;
            lasts = (2 * lasts).min(LONGEST);
        }
        rests.worked(&shape(1));
        rests.failed(&shape(1), "no", now);
        assert_eq!(rests.words_at(&shape(1), now + FIRST), None, "it starts anew");
        rests.clear();
        assert_eq!(rests.words_at(&shape(1), now), None);
    }

    #[test]
    fn shapes_without_end_are_bounded() {
        let rests = Rests::default();
        let now = Instant::now();
        for n in 0..2 * MOST_SHAPES {
            rests.failed(&shape(n), "no", now);
        }
        assert_eq!(rests.by_shape().len(), MOST_SHAPES);
        assert_eq!(rests.words_at(&shape(2 * MOST_SHAPES - 1), now), None);
        let later = now + FIRST;
        rests.failed(&shape(2 * MOST_SHAPES), "no", later);
        assert!(
            rests.words_at(&shape(2 * MOST_SHAPES), later).is_some(),
            "what is over makes room"
        );
    }
}
