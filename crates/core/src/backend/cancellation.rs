//! Asking whether long work is still wanted.

use std::fmt;

/// Whether long work is still wanted. Asked every now and then by whoever does it.
#[derive(Clone, Copy, Default)]
pub struct Cancellation<'a>(Option<&'a (dyn Fn() -> bool + Sync)>);

impl<'a> Cancellation<'a> {
    /// It stays wanted.
    #[must_use]
    pub const fn never() -> Self {
        Self(None)
    }

    /// It is wanted until `cancelled` says true.
    #[must_use]
    pub const fn when(cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self(Some(cancelled))
    }

    /// Whether it is no longer wanted.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_some_and(|cancelled| cancelled())
    }
}

impl fmt::Debug for Cancellation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Cancellation(when)" } else { "Cancellation(never)" })
    }
}
