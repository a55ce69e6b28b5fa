//! Ctrl-C: the first asks to stop, the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};

use crate::atomic_file;
use crate::exit::{Code, Interrupted};

/// Whether somebody pressed Ctrl-C.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens from here on. Only for commands that look: to others Ctrl-C must stay deadly.
    pub(crate) fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::Relaxed) {
                atomic_file::remove_unfinished();
                std::process::exit(Code::Interrupted as i32);
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
