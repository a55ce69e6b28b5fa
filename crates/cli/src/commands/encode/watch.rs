//! An encoding, watched by the person at the keyboard.

use shapeyard_encode::Observer;

use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Shows progress and listens for Ctrl-C.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    pub(super) progress: &'a Progress,
    pub(super) interrupt: &'a Interrupt,
}

impl Observer for Watch<'_> {
    fn progress(&self, n_items: usize, _n_tokens: usize) {
        self.progress.advance(n_items);
    }

    fn stop(&self) -> bool {
        self.interrupt.is_set()
    }
}
