//! A worker under limits: its crash, its silence and its hunger are errors, and this process lives.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use shapeyard_core::backend::{BackendError, Cancellation, CompileEnd};

use super::job::{Answer, Job, Made};
use super::{cancelled, error};
use crate::ID;
use crate::native::{ENVIRONMENT, Migraphx};
use crate::options::Compiler;

/// The file of the worker that this crate builds.
const FILE_NAME: &str =
    if cfg!(windows) { "shapeyard-migraphx-worker.exe" } else { "shapeyard-migraphx-worker" };

/// Names the worker's file.
const VARIABLE: &str = "SHAPEYARD_MIGRAPHX_WORKER";

/// What stands before a worker's answer, among whatever the library prints.
pub(super) const ANSWER: &str = "shapeyard-migraphx-worker answers: ";

/// A compiler's last words say why it failed; the rest of a long log does not.
const MOST_WORDS: usize = 256 << 10;

/// The program that compiles: one that calls [`worker::main`](super::worker::main).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerProgram {
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
}

impl WorkerProgram {
    /// This program, with these arguments before all others.
    #[must_use]
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: Some(program.into()), arguments }
    }

    /// The command, looked for where nothing was said: the file that `SHAPEYARD_MIGRAPHX_WORKER` names, or
    /// `shapeyard-migraphx-worker` beside this program.
    fn command(&self) -> Result<Command, BackendError> {
        let program = match &self.program {
            Some(program) => program.clone(),
            None => usual_place().ok_or_else(|| BackendError::Unavailable {
                backend: ID,
                reason: format!("there is no `{FILE_NAME}` beside this program to compile with"),
                remedy: format!("put it there, or name it with {VARIABLE}"),
            })?,
        };
        let mut command = Command::new(program);
        command.args(&self.arguments);
        Ok(command)
    }
}

fn usual_place() -> Option<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE).filter(|it| !it.is_empty()) {
        return Some(named.into());
    }
    let program = env::current_exe().ok()?;
    let folder = program.parent()?;
    let beside = folder.join(FILE_NAME);
    beside.is_file().then_some(beside)
}

/// Runs a worker on a job.
pub(super) fn run(
    library: &Migraphx,
    worker: &WorkerProgram,
    compiler: &Compiler,
    job: &Job,
    cancellation: Cancellation<'_>,
) -> Result<Made, BackendError> {
    let mut command = worker.command()?;
    same_environment(library, &mut command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Supervised::start(command)?;
    child.give(job);
    let end = child.watch(compiler, cancellation);
    let (answer, log) = child.last_words();
    let stopped = |end| BackendError::Compile {
        backend: ID,
        model: job.model.clone(),
        bucket: job.bucket.clone(),
        end,
        log: log.clone(),
    };
    match (end, answer) {
        (End::Stopped(end), _) => Err(stopped(end)),
        (End::Cancelled, _) => Err(cancelled(&job.bucket)),
        (End::Exited(_), Some(Ok(made))) => Ok(Made { log, ..made }),
        (End::Exited(_), Some(Err(refusal))) => Err(error(job, refusal, &log)),
        (End::Exited(status), None) => Err(stopped(CompileEnd::Died { how: how(status) })),
    }
}

/// The worker gets the variables that count as they were when this process loaded the library, since they
/// are what the artifact is kept under.
fn same_environment(library: &Migraphx, command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| ENVIRONMENT.counts(name)) {
            command.env_remove(name);
        }
    }
    // A value that is no text starts with a zero byte here and cannot be handed on; none of the library's
    // variables means anything by such a value.
    command.envs(library.environment().iter().filter(|(_, value)| !value.contains('\0')));
}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt as _;
        if let Some(signal) = status.signal() {
            return format!("signal {signal}{}", signal_name(signal));
        }
    }
    match status.code() {
        Some(code) => format!("exit code {code} without an answer"),
        None => "an unknown reason".to_owned(),
    }
}

#[cfg(unix)]
fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

/// How a worker came to its end.
enum End {
    Exited(ExitStatus),
    Stopped(CompileEnd),
    Cancelled,
}

/// A worker, and threads that read what it says so that it never has to wait for a reader.
struct Supervised {
    child: Child,
    answer: Arc<Mutex<Option<Answer>>>,
    log: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Supervised {
    fn start(mut command: Command) -> Result<Self, BackendError> {
        let mut child = command.spawn().map_err(|error| BackendError::Unavailable {
            backend: ID,
            reason: format!("`{}` cannot be started: {error}", command.get_program().display()),
            remedy: format!("name a program that compiles with {VARIABLE}"),
        })?;
        let (answer, log) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            readers.push(thread::spawn(move || read_answer(stdout, &answer, &log)));
        }
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            readers.push(thread::spawn(move || read_log(stderr, &log)));
        }
        Ok(Self { child, answer, log, readers })
    }

    /// Hands the job over. The pipe stays open: a worker whose parent is gone reads its end and goes too.
    fn give(&mut self, job: &Job) {
        let line = serde_json::to_string(job).unwrap_or_default();
        if let Some(stdin) = &mut self.child.stdin {
            // A worker that is gone already says so by its status.
            let _ = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        }
    }

    fn watch(&mut self, compiler: &Compiler, cancellation: Cancellation<'_>) -> End {
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return End::Exited(status),
                Ok(None) => {}
                Err(error) => {
                    return End::Stopped(CompileEnd::Died { how: error.to_string() });
                }
            }
            let limit = compiler.time_limit;
            if start.elapsed() >= limit {
                return End::Stopped(CompileEnd::TimedOut { limit });
            }
            if let Some(limit) = compiler.memory_limit
                && resident_bytes(self.child.id()).is_some_and(|bytes| bytes > limit)
            {
                return End::Stopped(CompileEnd::OutOfMemory { limit });
            }
            if cancellation.is_cancelled() {
                return End::Cancelled;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Ends the worker if it has not, and gives what it answered and what it said.
    fn last_words(mut self) -> (Option<Answer>, String) {
        self.end();
        // What a worker started itself may hold the pipes open for longer than it lives.
        let patience = Instant::now() + Duration::from_secs(1);
        for reader in self.readers.drain(..) {
            while !reader.is_finished() && Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        (answer, String::from_utf8_lossy(&log).into_owned())
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        // Errors mean that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.end();
    }
}

fn read_answer(stdout: impl Read, answer: &Mutex<Option<Answer>>, log: &Mutex<Vec<u8>>) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        match text.trim_end().strip_prefix(ANSWER).and_then(|json| serde_json::from_str(json).ok())
        {
            Some(found) => *answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(found),
            None => remember(&line, log),
        }
        line.clear();
    }
}

fn read_log(mut stderr: impl Read, log: &Mutex<Vec<u8>>) {
    let mut part = [0; 4096];
    loop {
        match stderr.read(&mut part) {
            Ok(0) => return,
            Ok(n) => remember(&part[..n], log),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

fn remember(words: &[u8], log: &Mutex<Vec<u8>>) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.extend_from_slice(words);
    let over = log.len().saturating_sub(MOST_WORDS);
    log.drain(..over);
}

/// Memory that a process occupies; known on Linux only.
fn resident_bytes(process: u32) -> Option<u64> {
    let path = Path::new("/proc").join(process.to_string()).join("statm");
    let text = fs::read_to_string(path).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(page_bytes()))
}

fn page_bytes() -> u64 {
    #[cfg(unix)]
    {
        // SAFETY: a question about a constant of the system, without arguments in memory.
        #[allow(unsafe_code, reason = "the standard library does not tell the size of a page")]
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if let Ok(bytes) = u64::try_from(bytes) {
            return bytes;
        }
    }
    4096
}
