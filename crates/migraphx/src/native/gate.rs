//! Keeps the process from taking MIGraphX down while threads are inside it.
//!
//! `exit` destroys the library's statics while other threads go on. Of 60 processes that ended while two
//! threads were running a program, 31 died of a segmentation fault. So every call counts itself here, and
//! a function that `exit` calls first lets no more in and waits until those inside are done.
//!
//! `exit` calls functions in the reverse order of their registration, and the library registers some of
//! its statics when they are first used. So [`watch_exit`] is called anew after whatever may have been a
//! first use.

use std::process;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Calls that are under way, and [`CLOSED`].
static CALLS: AtomicUsize = AtomicUsize::new(0);
const CLOSED: usize = 1 << (usize::BITS - 1);

/// The process that registered; a forked child counts calls of threads that it does not have.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Registrations so far. Whatever the library uses, it has used for the first time long before this many
/// targets and programs.
static REGISTERED: AtomicUsize = AtomicUsize::new(0);
const MOST_REGISTERED: usize = 256;

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
    // Only the first: a forked child counts calls of threads that it does not have, and must not wait.
    let _ = PROCESS.compare_exchange(0, process::id(), Ordering::Relaxed, Ordering::Relaxed);
    if REGISTERED.fetch_add(1, Ordering::Relaxed) >= MOST_REGISTERED {
        REGISTERED.store(MOST_REGISTERED, Ordering::Relaxed);
        return;
    }
    // SAFETY: the function lives as long as the process and does not unwind. That there is no room left
    // to register it, which is the only failure, costs nothing but its protection.
    unsafe { libc::atexit(close) };
}

extern "C" fn close() {
    if PROCESS.load(Ordering::Relaxed) != process::id() {
        return;
    }
    CALLS.fetch_or(CLOSED, Ordering::AcqRel);
    while CALLS.load(Ordering::Acquire) != CLOSED {
        thread::sleep(Duration::from_millis(1));
    }
}
