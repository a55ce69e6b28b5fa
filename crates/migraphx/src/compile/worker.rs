//! The worker's side: a program that compiles one job and ends.
//!
//! `shapeyard-migraphx-worker` is nothing but a call of [`main`]. A program that ships one file instead of
//! two calls it from a hidden command of its own, and names itself with that command as the
//! [`WorkerProgram`](super::WorkerProgram).

#![allow(clippy::print_stdout, reason = "the answer goes through a pipe")]

use std::io::{self, BufRead as _, Read as _};
use std::process::ExitCode;
use std::thread;

use super::job::{Answer, Job, Refusal};
use super::make;
use super::supervise::ANSWER;
use crate::native::Migraphx;

/// Reads a job from stdin, compiles it, and prints the answer. Ends when stdin does: whoever wanted the
/// program is gone then.
#[must_use]
pub fn main() -> ExitCode {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line).is_err() || line.trim().is_empty() {
        eprint_usage();
        return ExitCode::from(2);
    }
    thread::spawn(end_with_parent);
    let answer = match serde_json::from_str::<Job>(&line) {
        Ok(job) => compile(&job),
        Err(error) => Err(Refusal::Library { words: format!("the job cannot be read: {error}") }),
    };
    match serde_json::to_string(&answer) {
        Ok(text) => println!("\n{ANSWER}{text}"),
        Err(_) => return ExitCode::from(3),
    }
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "somebody started the worker by hand")]
fn eprint_usage() {
    eprintln!(
        "this program compiles for Shapeyard, which starts it and writes a job to its stdin; \
         nothing else needs it"
    );
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
