//! Captures, and calls that no capture stands.
//!
//! While any stream of a process is captured, AMD's runtime refuses calls that wait for a device, from whatever
//! thread they come, and spoils every capture for them (`g_allCapturingStreams` in its sources); CUDA's forbids
//! them for the device of the stream. So captures and such calls exclude each other, in the whole process.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

static GATE: Mutex<Inside> = Mutex::new(Inside { n_captures: 0, n_held_off: 0 });
static CHANGED: Condvar = Condvar::new();

/// Who is inside, or waits for captures to end and lets no new ones in.
struct Inside {
    n_captures: usize,
    n_held_off: usize,
}

fn inside() -> MutexGuard<'static, Inside> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// No stream is captured through this crate while this lives.
#[derive(Debug)]
#[must_use = "captures are held off only while this lives"]
pub struct HeldOff(());

/// Waits for captures to end, and holds new ones off: for a call that waits for a whole device, as loading or
/// destroying a program does. Not to be called by a thread that captures.
pub fn hold_off_captures() -> HeldOff {
    let mut inside = inside();
    inside.n_held_off += 1;
    let is_captured = |inside: &mut Inside| inside.n_captures > 0;
    drop(CHANGED.wait_while(inside, is_captured));
    HeldOff(())
}

impl Drop for HeldOff {
    fn drop(&mut self) {
        inside().n_held_off -= 1;
        CHANGED.notify_all();
    }
}

/// A capture is made while this lives.
#[derive(Debug)]
pub(crate) struct Capturing(());

/// For a capture that can as well be made later; `None` while captures are held off.
pub(crate) fn try_capture() -> Option<Capturing> {
    let mut inside = inside();
    (inside.n_held_off == 0).then(|| {
        inside.n_captures += 1;
        Capturing(())
    })
}

/// For a capture that waits until none are held off.
pub(crate) fn capture() -> Capturing {
    let is_held_off = |inside: &mut Inside| inside.n_held_off > 0;
    let mut inside =
        CHANGED.wait_while(inside(), is_held_off).unwrap_or_else(PoisonError::into_inner);
    inside.n_captures += 1;
    Capturing(())
}

impl Drop for Capturing {
    fn drop(&mut self) {
        inside().n_captures -= 1;
        CHANGED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn captures_and_waits_for_a_device_exclude_each_other() {
        let held = (hold_off_captures(), hold_off_captures());
        assert!(try_capture().is_none());
        let late = thread::spawn(|| drop(capture()));
        thread::sleep(Duration::from_millis(20));
        assert!(!late.is_finished());
        drop(held);
        late.join().unwrap();
        let captures = [try_capture().unwrap(), capture()];
        let waiting = thread::spawn(|| drop(hold_off_captures()));
        while try_capture().is_some() {
            thread::yield_now();
        }
        assert!(!waiting.is_finished(), "it lets no new capture in, and waits for the old");
        drop(captures);
        waiting.join().unwrap();
        assert!(try_capture().is_some());
    }
}
