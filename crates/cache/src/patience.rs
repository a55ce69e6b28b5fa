//! How long a caller waits, and what it hears meanwhile.

use std::fmt;
use std::time::{Duration, Instant};

use shapeyard_core::model::Digest;

use crate::error::CacheError;
use crate::lock::Holder;

/// A waiting caller hears about it this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A lock that was just let go is found free after at most this long.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// What a waiting caller hears.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What is waited for.
    pub digest: Digest,
    /// Who makes it, where that is known.
    pub holder: Option<Holder>,
    /// How long it has been so far.
    pub waited: Duration,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.to_string();
        write!(f, "waiting for {}", digest.get(..12).unwrap_or(&digest))?;
        match &self.holder {
            Some(holder) => write!(f, ", which {holder} makes"),
            None => Ok(()),
        }
    }
}

/// How a caller wants an artifact.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub(crate) patience: Duration,
    pub(crate) cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
    pub(crate) on_wait: Option<&'a (dyn Fn(&Waiting) + Sync)>,
    pub(crate) retry: bool,
}

impl<'a> Ask<'a> {
    /// Waits an hour for others, and believes remembered failures.
    #[must_use]
    pub const fn new() -> Self {
        let patience = Duration::from_secs(3600);
        Self { patience, cancelled: None, on_wait: None, retry: false }
    }

    /// Waits for others at most so long in all; an own production takes what it takes.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Stops waiting soon after this says so.
    #[must_use]
    pub const fn cancelled(mut self, cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        self.cancelled = Some(cancelled);
        self
    }

    /// Hears who is waited for: at once, and then about every second.
    #[must_use]
    pub const fn on_wait(mut self, on_wait: &'a (dyn Fn(&Waiting) + Sync)) -> Self {
        self.on_wait = Some(on_wait);
        self
    }

    /// Tries again what failed before this call.
    #[must_use]
    pub const fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("patience", &self.patience)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// The patience of one call: runs out only once, however many things are waited for.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    ask: &'a Ask<'a>,
    digest: Digest,
    waited: Duration,
    reported: Option<Duration>,
    pause: Duration,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(ask: &'a Ask<'a>, digest: Digest) -> Self {
        let pause = Duration::from_millis(1);
        Self { ask, digest, waited: Duration::ZERO, reported: None, pause }
    }

    /// How long has been waited in all.
    pub(crate) const fn waited(&self) -> Duration {
        self.waited
    }

    /// Waits a moment by `wait`, or says that it has been long enough.
    pub(crate) fn pause(
        &mut self,
        holder: impl Fn() -> Option<Holder>,
        wait: impl FnOnce(Duration),
    ) -> Result<(), CacheError> {
        let (digest, waited) = (self.digest, self.waited);
        if self.ask.cancelled.is_some_and(|cancelled| cancelled()) {
            return Err(CacheError::Cancelled { digest });
        }
        let left = self.ask.patience.saturating_sub(waited);
        if left.is_zero() {
            return Err(CacheError::WaitedTooLong { digest, waited, holder: holder() });
        }
        if let Some(on_wait) = self.ask.on_wait
            && self.reported.is_none_or(|last| last + REPORT_EVERY <= waited)
        {
            self.reported = Some(waited);
            on_wait(&Waiting { digest, holder: holder(), waited });
        }
        let started = Instant::now();
        wait(left.min(self.pause));
        self.waited += started.elapsed();
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        Ok(())
    }
}
