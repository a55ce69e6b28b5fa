//! Making a program: in a supervised child process, or here.
//!
//! * [`job`]: what is to be compiled, as data that crosses processes.
//! * [`make`]: the work itself, the same in a worker and in this process.
//! * [`supervise`]: a worker under limits.
//! * [`worker`]: the worker's side.

mod job;
mod make;
mod probe;
mod supervise;
pub mod worker;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::Duration;

use shapeyard_core::backend::{BackendError, Cancellation, tells_of_shortage};
use shapeyard_core::plan::Bucket;

pub(crate) use job::{Job, Traits};
pub use supervise::WorkerProgram;

use self::job::Refusal;
use crate::ID;
use crate::native::Migraphx;
use crate::options::{Compiler, Place};

/// Compiles never overlap in a process: MIGraphX's compiler is not made for it, and two of them fight for
/// the same cores and the same memory.
static COMPILING: Mutex<()> = Mutex::new(());

/// What a compile gave.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) n_bytes: u64,
    pub(crate) notes: BTreeMap<String, String>,
    /// What other buckets of the model need not find out again.
    pub(crate) known: Option<Traits>,
}

/// Compiles a job and puts the program where `output` says, as a whole or not at all.
pub(crate) fn compile(
    library: &'static Migraphx,
    compiler: &Compiler,
    job: &Job,
    output: &Path,
    cancellation: Cancellation<'_>,
) -> Result<Compiled, BackendError> {
    let _alone = alone(cancellation, &job.bucket)?;
    let cannot_write = |source| BackendError::Write { path: output.to_owned(), source };
    let folder = match output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let work =
        tempfile::Builder::new().prefix(".migraphx-").tempdir_in(folder).map_err(cannot_write)?;
    let room = work.path().canonicalize().map_err(cannot_write)?;
    let job = Job { output: room.join("program.mxr"), ..job.clone() };
    let made = match &compiler.place {
        crate::CompilePlace(Place::Worker(worker)) => {
            supervise::run(library, worker, compiler, &job, &room, cancellation)?
        }
        crate::CompilePlace(Place::ThisProcess) => {
            make::make(library, &job).map_err(|refusal| error(&job, refusal, ""))?
        }
    };
    let n_bytes = publish(&job.output, output).map_err(cannot_write)?;
    let notes = made.notes();
    Ok(Compiled { n_bytes, notes, known: made.holds_for_all.then_some(made.traits) })
}

fn publish(program: &Path, output: &Path) -> io::Result<u64> {
    let file = File::open(program)?;
    file.sync_all()?;
    let n_bytes = file.metadata()?.len();
    fs::rename(program, output)?;
    Ok(n_bytes)
}

fn alone(
    cancellation: Cancellation<'_>,
    bucket: &Bucket,
) -> Result<MutexGuard<'static, ()>, BackendError> {
    loop {
        match COMPILING.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => {}
        }
        if cancellation.is_cancelled() {
            return Err(cancelled(bucket));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn cancelled(bucket: &Bucket) -> BackendError {
    BackendError::Cancelled { what: format!("the compile for {bucket}") }
}

/// What a refusal is to the caller. `log` is what the library said meanwhile.
fn error(job: &Job, refusal: Refusal, log: &str) -> BackendError {
    let model: PathBuf = job.model.clone();
    let with_log = |words: String| match log.trim() {
        "" => words,
        log => format!("{words}: {log}"),
    };
    let failed = |message| BackendError::Library { backend: ID, what: "compile", message };
    match refusal {
        Refusal::Model { words } if tells_of_shortage(&words) || tells_of_shortage(log) => {
            failed(with_log(words))
        }
        Refusal::Model { words } => {
            BackendError::Model { backend: ID, model, reason: with_log(words) }
        }
        Refusal::Changed => failed(format!("`{}` changed meanwhile; start again", model.display())),
        Refusal::Write { words } => BackendError::Write {
            path: job.output.clone(),
            source: io::Error::other(with_log(words)),
        },
        Refusal::Calibration { words } => {
            BackendError::Option { backend: ID, option: "calibration", reason: words }
        }
        Refusal::Failed { words } => failed(with_log(words)),
    }
}
