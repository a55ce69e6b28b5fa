//! Keeps the process from taking MIGraphX down while threads are inside it.
//!
//! `exit` destroys the library's statics while other threads go on. Of 60 processes that ended while two
//! threads were running a program, 31 died of a segmentation fault. So every call counts itself here, and
//! a function that `exit` calls first lets no more in and waits until those inside are done.
//!
//! `exit` calls functions in the reverse order of their registration, and the library registers some of
//! its statics when they are first used. So [`watch_exit`] is called anew after whatever may have been a
//! first use.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Calls that are under way, and [`CLOSED`].
static CALLS: AtomicUsize = AtomicUsize::new(0);
const CLOSED: usize = 1 << (usize::BITS - 1);

/// A call that is under way.
#[derive(Debug)]
pub(crate) struct Pass(());

/// Lets a call in; none when the process is about to end.
pub(crate) fn enter() -> Option<Pass> {
    let before = CALLS.fetch_add(1, Ordering::Acquire);
    let pass = Pass(());
    (before & CLOSED == 0).then_some(pass)
}

impl Drop for Pass {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::Release);
    }
}

/// Makes `exit` wait for calls before it destroys any static that exists now.
pub(crate) fn watch_exit() {
    // SAFETY: the function lives as long as the process and does not unwind. That there is no room left
    // to register it, which is the only failure, costs nothing but its protection.
    unsafe { libc::atexit(close) };
}

extern "C" fn close() {
    CALLS.fetch_or(CLOSED, Ordering::AcqRel);
    while CALLS.load(Ordering::Acquire) != CLOSED {
        thread::sleep(Duration::from_millis(1));
    }
}
