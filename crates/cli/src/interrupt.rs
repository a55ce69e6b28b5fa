//! Ctrl-C: the first asks to stop, the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use crate::atomic_file;
use crate::exit::Interrupted;

/// Whether somebody pressed Ctrl-C.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from here on. Only for commands that look: to others Ctrl-C must stay deadly.
    pub(crate) fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        signals::on_each(move || {
            if flag.swap(true, Ordering::Relaxed) {
                atomic_file::remove_unfinished();
                signals::end_now();
            }
            anstream::eprintln!("stopping; press Ctrl-C again to stop at once");
        })
        .context("the handler of Ctrl-C cannot be set")?;
        Ok(interrupt)
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once somebody pressed Ctrl-C.
    pub(crate) fn check(&self, left: &'static str) -> Result<(), Interrupted> {
        if self.is_set() { Err(Interrupted { left: left.into() }) } else { Ok(()) }
    }
}

/// Leaves Ctrl-C to the parent: it reaches every process of the terminal, and a child that dies of it only
/// looks like one that crashed.
pub(crate) fn leave_to_parent() {
    // Without a handler everything works but the words for such an end.
    let _ = signals::on_each(|| ());
}

#[cfg(unix)]
mod signals {
    use std::fs;
    use std::io;
    use std::thread;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    use crate::exit::Code;

    /// Calls `hear`, on a thread of its own, at each Ctrl-C and each wish of the system that we end.
    pub(super) fn on_each(mut hear: impl FnMut() + Send + 'static) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if !is_hangup_ignored() {
            signals.add_signal(SIGHUP)?;
        }
        let listen = move || signals.forever().for_each(|_| hear());
        thread::Builder::new().name("signals".to_owned()).spawn(listen).map(drop)
    }

    /// Ends the process without what `exit` does first: that waits for calls into MIGraphX, and would take
    /// libraries down under threads that are inside them.
    pub(super) fn end_now() -> ! {
        signal_hook::low_level::exit(Code::Interrupted as i32)
    }

    /// Whether `nohup` started us. Other systems than Linux do not say.
    fn is_hangup_ignored() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
    }
}

#[cfg(not(unix))]
mod signals {
    use std::io;

    use crate::exit::Code;

    pub(super) fn on_each(hear: impl FnMut() + Send + 'static) -> io::Result<()> {
        ctrlc::set_handler(hear).map_err(io::Error::other)
    }

    pub(super) fn end_now() -> ! {
        std::process::exit(Code::Interrupted as i32)
    }
}
