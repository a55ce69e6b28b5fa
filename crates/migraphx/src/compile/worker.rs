//! The worker's side: a program that compiles one job and ends.
//!
//! `shapeyard-migraphx-worker` is nothing but a call of [`main`]. A program that ships one file instead of
//! two calls it from a hidden command of its own, and names itself with that command as the
//! [`WorkerProgram`](super::WorkerProgram).

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::process::ExitCode;
use std::thread;

use super::job::{Answer, Job, Refusal};
use super::make;
use super::supervise::ANSWER;
use crate::native::Migraphx;

/// For whoever starts the worker by hand.
const USAGE: &str = "this program compiles for Shapeyard, which starts it and writes a job to its stdin; \
                     nothing else needs it";

/// Reads a job from stdin, compiles it, and prints the answer. Ends when stdin does: whoever wanted the
/// program is gone then.
#[must_use]
pub fn main() -> ExitCode {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line).is_err() || line.trim().is_empty() {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    }
    thread::spawn(end_with_parent);
    let answer = match serde_json::from_str::<Job>(&line) {
        Ok(job) => compile(&job),
        Err(error) => Err(Refusal::Library { words: format!("the job cannot be read: {error}") }),
    };
    let text = serde_json::to_string(&answer).unwrap_or_default();
    let mut stdout = io::stdout().lock();
    // On a line of its own, whatever the library printed before.
    match writeln!(stdout, "\n{ANSWER}{text}").and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(3),
    }
}

fn compile(job: &Job) -> Answer {
    let library = Migraphx::load(Some(&job.library))
        .map_err(|error| Refusal::Library { words: error.to_string() })?;
    make::make(library, job)
}

/// Waits for the end of stdin, and then ends the process at once.
fn end_with_parent() {
    let mut rest = [0; 64];
    while io::stdin().lock().read(&mut rest).is_ok_and(|n| n > 0) {}
    // SAFETY: ends the process without the library's clean-up, which would wait for the compile.
    #[allow(unsafe_code, reason = "the standard library can only end a process with its clean-up")]
    unsafe {
        libc::_exit(1)
    };
}
