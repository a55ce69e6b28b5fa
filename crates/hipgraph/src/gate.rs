//! Captures, and calls that no capture stands.
//!
//! While any stream of a process is captured, AMD's runtime refuses calls that wait for a device, from whatever
//! thread they come, and spoils every capture for them (`g_allCapturingStreams` in its sources); CUDA's forbids
//! them for the device of the stream. So captures and such calls exclude each other, in the whole process.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

static GATE: RwLock<()> = RwLock::new(());

/// No stream is captured through this crate while this lives.
#[derive(Debug)]
#[must_use = "captures are held off only while this lives"]
pub struct HeldOff {
    _gate: RwLockReadGuard<'static, ()>,
}

/// Waits for captures to end, and holds new ones off: for a call that waits for a whole device, as loading or
/// destroying a program does. Not to be called by a thread that captures.
pub fn hold_off_captures() -> HeldOff {
    // A capture that panicked has ended.
    HeldOff { _gate: GATE.read().unwrap_or_else(std::sync::PoisonError::into_inner) }
}

/// For a capture; `None` while captures are held off, or another one is made.
pub(crate) fn try_enter() -> Option<RwLockWriteGuard<'static, ()>> {
    match GATE.try_write() {
        Ok(gate) => Some(gate),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// For a capture that somebody asks for by name, who waits his turn.
pub(crate) fn enter() -> RwLockWriteGuard<'static, ()> {
    GATE.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_and_waits_for_a_device_exclude_each_other() {
        let held = (hold_off_captures(), hold_off_captures());
        assert!(try_enter().is_none());
        drop(held);
        let capture = try_enter().unwrap();
        assert!(try_enter().is_none(), "one at a time");
        let waiting = std::thread::spawn(|| drop(hold_off_captures()));
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        drop(capture);
        waiting.join().unwrap();
    }
}
