//! The worker's side: a program that compiles one job and ends.
//!
//! `shapeyard-migraphx-worker` is nothing but a call of [`main`]. A program that ships one file instead of
//! two calls it from a hidden command of its own, and names itself with that command as the
//! [`WorkerProgram`](super::WorkerProgram).

use std::fs;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
#[cfg(unix)]
use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use super::job::{Answer, Job, Refusal};
use super::make;
use crate::backend::VERSION;
use crate::native::Migraphx;

/// For whoever starts the worker by hand.
const USAGE: &str = "this program compiles for Shapeyard, which starts it and names a job on its stdin; \
                     nothing else needs it";

/// The files in the folder that a worker is given.
pub(super) const JOB: &str = "job.json";
pub(super) const ANSWER: &str = "answer.json";

/// Reads the path of a folder from stdin, compiles the job that lies in it, and puts the answer beside it.
/// Ends when stdin does: whoever wanted the program is gone then.
#[must_use]
pub fn main() -> ExitCode {
    let Some(folder) = read_folder() else {
        // Nobody may be there to read it.
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(2);
    };
    thread::spawn(end_with_parent);
    let answer = match fs::read(folder.join(JOB)) {
        Ok(job) => read_and_compile(&job),
        Err(error) => failed(format!("the job cannot be read: {error}")),
    };
    let code = match put(&answer, &folder) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "the answer cannot be written: {error}");
            3
        }
    };
    // Without the library's clean-up: what is left of it must not keep the parent waiting.
    end(code)
}

/// The path on stdin's first line, whatever bytes it is made of.
fn read_folder() -> Option<PathBuf> {
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line).ok()?;
    line.pop_if(|last| *last == b'\n');
    if line.is_empty() {
        return None;
    }
    #[cfg(unix)]
    return Some(PathBuf::from(OsString::from_vec(line)));
    #[cfg(not(unix))]
    return String::from_utf8(line).ok().map(PathBuf::from);
}

fn read_and_compile(job: &[u8]) -> Answer {
    let job: Job = match serde_json::from_slice(job) {
        Ok(job) => job,
        Err(error) => return failed(format!("the job cannot be understood: {error}")),
    };
    if job.version != VERSION {
        return failed(format!(
            "the worker is of version {VERSION} and was asked by version {}; use one of the same build",
            job.version
        ));
    }
    match Migraphx::load(Some(&job.library)) {
        Ok(library) => make::make(library, &job),
        Err(error) => failed(error.to_string()),
    }
}

fn failed(words: String) -> Answer {
    Err(Refusal::Failed { words })
}

/// The answer is there as a whole or not at all.
fn put(answer: &Answer, folder: &Path) -> io::Result<()> {
    let unfinished = folder.join("answer.json.tmp");
    fs::write(&unfinished, serde_json::to_vec(answer)?)?;
    fs::rename(unfinished, folder.join(ANSWER))
}

/// Waits for the end of stdin, and then ends the worker and whatever it started.
fn end_with_parent() {
    let mut rest = [0; 64];
    while io::stdin().lock().read(&mut rest).is_ok_and(|n| n > 0) {}
    #[cfg(unix)]
    {
        // SAFETY: asks for this process's own group.
        #[allow(unsafe_code, reason = "the standard library does not know process groups")]
        let leads =
            unsafe { libc::getpgrp() } == libc::pid_t::try_from(std::process::id()).unwrap_or(0);
        if leads {
            // SAFETY: ends the processes of this process's own group, this one among them.
            #[allow(unsafe_code, reason = "the standard library does not know process groups")]
            unsafe {
                libc::kill(0, libc::SIGKILL)
            };
        }
    }
    end(1)
}

fn end(code: i32) -> ! {
    // SAFETY: ends the process without running what is registered for its end.
    #[allow(unsafe_code, reason = "the standard library can only end a process with its clean-up")]
    unsafe {
        libc::_exit(code)
    }
}
