//! Programs that could not be loaded, and for how long a lane does not try again.

use std::time::{Duration, Instant};

use crate::plan::Bucket;

/// How long a program rests after its first failure; twice as long after each one more.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Programs whose load failed inside requests of one lane, each at most once. A load that fails costs the request that
/// meets it time, so not every request is to. Another lane may run another copy, which may be well.
#[derive(Debug, Default)]
pub(super) struct Rests(Vec<Rest>);

#[derive(Debug)]
struct Rest {
    program: Bucket,
    until: Instant,
    lasts: Duration,
    /// What went wrong.
    words: String,
}

impl Rests {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What went wrong with the first program that rests and of which `is_used` says that it would run.
    pub(super) fn words(&self, now: Instant, is_used: impl Fn(&Bucket) -> bool) -> Option<&str> {
        let rest = self.0.iter().find(|rest| now < rest.until && is_used(&rest.program))?;
        Some(&rest.words)
    }

    /// Lets a program rest.
    pub(super) fn failed(&mut self, program: &Bucket, words: &str, now: Instant) {
        let words = words.to_owned();
        if let Some(rest) = self.0.iter_mut().find(|rest| rest.program == *program) {
            rest.lasts = (2 * rest.lasts).min(LONGEST);
            (rest.until, rest.words) = (now + rest.lasts, words);
            return;
        }
        let program = program.clone();
        self.0.push(Rest { program, until: now + FIRST, lasts: FIRST, words });
    }

    /// Forgets the programs of which `is_used` says that they have run.
    pub(super) fn worked(&mut self, is_used: impl Fn(&Bucket) -> bool) {
        self.0.retain(|rest| !is_used(&rest.program));
    }

    /// Forgets all: other programs than before serve now.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(n: usize) -> Bucket {
        Bucket::from_iter([("batch", n)])
    }

    #[test]
    fn each_failure_rests_twice_as_long_up_to_a_limit() {
        let mut rests = Rests::default();
        let mut now = Instant::now();
        let mut lasts = FIRST;
        let (one, other) = (program(1), program(2));
        for _ in 0..12 {
            rests.failed(&one, "no", now);
            let just_before = now + lasts - Duration::from_millis(1);
            assert_eq!(rests.words(just_before, |it| *it == one), Some("no"));
            assert_eq!(rests.words(now + lasts, |it| *it == one), None);
            assert_eq!(rests.words(now, |it| *it == other), None);
            now += lasts;
            lasts = (2 * lasts).min(LONGEST);
        }
        rests.worked(|it| *it == other);
        assert!(!rests.is_empty());
        rests.worked(|it| *it == one);
        rests.failed(&one, "no", now);
        assert_eq!(rests.words(now + FIRST, |it| *it == one), None, "it starts anew");
        rests.clear();
        assert!(rests.is_empty());
    }
}
