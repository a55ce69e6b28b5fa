//! A worker under limits: its crash, its silence and its hunger are errors, and this process lives.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use shapeyard_core::backend::{BackendError, Cancellation, CompileEnd};

use super::job::{Answer, Job, Made};
use super::{cancelled, error, worker};
use crate::ID;
use crate::native::{ENVIRONMENT, Migraphx};
use crate::options::Compiler;

/// The file of the worker that this crate builds.
const FILE_NAME: &str =
    if cfg!(windows) { "shapeyard-migraphx-worker.exe" } else { "shapeyard-migraphx-worker" };

/// Names the worker's file.
const VARIABLE: &str = "SHAPEYARD_MIGRAPHX_WORKER";

/// How long a worker that has answered may take to end.
const TO_END: Duration = Duration::from_secs(2);

/// The lowest priority that there is.
#[cfg(unix)]
const LEAST_URGENT: i32 = 19;

/// Pauses between looks at a worker's memory. Every look reads a file of each process of the machine, in the process
/// that answers requests.
const MEMORY_PAUSE: Duration = Duration::from_millis(250);

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

/// Runs a worker on a job. `room` is a folder of its own, for the job and the answer.
pub(super) fn run(
    library: &Migraphx,
    program: &WorkerProgram,
    compiler: &Compiler,
    job: &Job,
    room: &Path,
    cancellation: Cancellation<'_>,
) -> Result<Made, BackendError> {
    let text = serde_json::to_vec(job).map_err(io::Error::from);
    text.and_then(|text| fs::write(room.join(worker::JOB), text))
        .map_err(|source| BackendError::Write { path: job.output.clone(), source })?;
    let mut command = program.command()?;
    same_environment(library, &mut command);
    let mut child = Supervised::start(command, room, compiler.low_priority)?;
    let end = child.watch(compiler, cancellation);
    let (status, log) = child.last_words();
    let stopped = |end| BackendError::Compile {
        backend: ID,
        model: job.model.clone(),
        bucket: job.bucket.clone(),
        end,
        log: log.clone(),
    };
    match (end, read_answer(room)) {
        (End::Cancelled, _) => Err(cancelled(&job.bucket)),
        (_, Some(Ok(made))) => Ok(Made { log, ..made }),
        (_, Some(Err(refusal))) => Err(error(job, refusal, &log)),
        (End::Stopped(end), None) => Err(stopped(end)),
        (End::Exited, None) => Err(stopped(CompileEnd::Died { how: how(status) })),
    }
}

fn read_answer(room: &Path) -> Option<Answer> {
    serde_json::from_slice(&fs::read(room.join(worker::ANSWER)).ok()?).ok()
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

fn how(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "an unknown reason".to_owned() };
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
    Exited,
    Stopped(CompileEnd),
    Cancelled,
}

/// A worker with all that it starts, and threads that read what it says so that it never has to wait for a
/// reader.
struct Supervised {
    child: Child,
    answer: PathBuf,
    log: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Supervised {
    fn start(mut command: Command, room: &Path, low_priority: bool) -> Result<Self, BackendError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|error| BackendError::Unavailable {
            backend: ID,
            reason: format!("`{}` cannot be started: {error}", command.get_program().display()),
            remedy: format!("name a program that compiles with {VARIABLE}"),
        })?;
        if low_priority {
            // Before it gets its job, which it waits for: what it starts from then on does as it does.
            give_way(child.id());
        }
        // The pipe has room for a path, and stays open: a worker whose parent is gone reads its end and
        // goes too. One that is gone already says so by its status.
        if let Some(stdin) = &mut child.stdin {
            let line = [room.as_os_str().as_encoded_bytes(), b"\n"].concat();
            let _ = stdin.write_all(&line).and_then(|()| stdin.flush());
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        let mut read = |pipe: Box<dyn Read + Send>| {
            let log = Arc::clone(&log);
            readers.push(thread::spawn(move || read_log(pipe, &log)));
        };
        if let Some(stdout) = child.stdout.take() {
            read(Box::new(stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            read(Box::new(stderr));
        }
        Ok(Self { child, answer: room.join(worker::ANSWER), log, readers })
    }

    fn watch(&mut self, compiler: &Compiler, cancellation: Cancellation<'_>) -> End {
        let start = Instant::now();
        let (mut answered, mut looked): (Option<Instant>, Option<Instant>) = (None, None);
        let mut pause = Duration::from_millis(1);
        loop {
            if self.has_ended() {
                return End::Exited;
            }
            if cancellation.is_cancelled() {
                return End::Cancelled;
            }
            let limit = compiler.time_limit;
            if answered.is_none() && self.answer.exists() {
                answered = Some(Instant::now());
            }
            let is_late = match answered {
                Some(answered) => answered.elapsed() >= TO_END,
                None => start.elapsed() >= limit,
            };
            if is_late {
                return End::Stopped(CompileEnd::TimedOut { limit });
            }
            if let Some(limit) = compiler.memory_limit
                && looked.is_none_or(|looked| looked.elapsed() >= MEMORY_PAUSE)
            {
                looked = Some(Instant::now());
                if resident_bytes(self.child.id()) > limit {
                    return End::Stopped(CompileEnd::OutOfMemory { limit });
                }
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Whether the worker is done. It is not collected yet, so that its number stays its own.
    #[cfg(unix)]
    fn has_ended(&self) -> bool {
        // SAFETY: the structure is plain numbers, for which zeros are a value.
        #[allow(unsafe_code, reason = "the standard library can only collect a child")]
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: asks about a child of this process, and writes to a structure of ours.
        #[allow(unsafe_code, reason = "the standard library can only collect a child")]
        let answer = unsafe { libc::waitid(libc::P_PID, self.child.id(), &raw mut info, flags) };
        // An error means that somebody else has collected it. Without an end nothing is written.
        answer != 0 || info.si_signo != 0
    }

    #[cfg(not(unix))]
    fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the worker if it has not, and gives how it ended and what it said.
    fn last_words(mut self) -> (Option<ExitStatus>, String) {
        let status = self.end();
        // What left the worker's group may hold the pipes open for longer.
        let patience = Instant::now() + Duration::from_secs(1);
        for reader in self.readers.drain(..) {
            while !reader.is_finished() && Instant::now() < patience {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        (status, String::from_utf8_lossy(&log).into_owned())
    }

    /// Ends the worker with all that it started.
    fn end(&mut self) -> Option<ExitStatus> {
        // While the worker is not collected, no other group can have its number.
        #[cfg(unix)]
        if let Ok(group) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: a signal to a group that was made for this worker alone.
            #[allow(unsafe_code, reason = "the standard library does not know process groups")]
            unsafe {
                libc::kill(-group, libc::SIGKILL)
            };
        }
        drop(self.child.stdin.take());
        // Errors mean that it is gone.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if !self.readers.is_empty() {
            self.end();
        }
    }
}

/// Lets everything else have the processors first, where the system knows how. That it does not makes the worker no
/// less right.
fn give_way(worker: u32) {
    #[cfg(unix)]
    {
        // SAFETY: a number for a group that was made for this worker alone.
        #[allow(unsafe_code, reason = "the standard library does not know priorities")]
        unsafe {
            libc::setpriority(libc::PRIO_PGRP, worker, LEAST_URGENT)
        };
    }
    #[cfg(target_os = "linux")]
    idle(worker);
    #[cfg(not(unix))]
    let _ = worker;
}

/// Gives a worker only what others leave of processors and disks. Beside the lowest priority a request would still
/// lose a hundredth of each processor, in slices that it has to wait for.
#[cfg(target_os = "linux")]
fn idle(worker: u32) {
    const IOPRIO_WHO_PGRP: libc::c_int = 2;
    const IOPRIO_CLASS_IDLE: libc::c_int = 3 << 13;
    // The kernel's structure is this one number, which has to be 0 here.
    let priority: libc::c_int = 0;
    // SAFETY: reads the number above. The C library's own function may do nothing but fail, as musl's does.
    #[allow(unsafe_code, reason = "the standard library does not know schedulers")]
    unsafe {
        libc::syscall(libc::SYS_sched_setscheduler, worker, libc::SCHED_IDLE, &raw const priority)
    };
    // SAFETY: a number for a group that was made for this worker alone.
    #[allow(unsafe_code, reason = "the standard library does not know schedulers")]
    unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, worker, IOPRIO_CLASS_IDLE)
    };
}

fn read_log(mut pipe: impl Read, log: &Mutex<Vec<u8>>) {
    let mut part = [0; 4096];
    loop {
        match pipe.read(&mut part) {
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

/// Memory that a worker and all that it started occupy, in bytes; known on Linux only.
fn resident_bytes(group: u32) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let own = processes.filter_map(|process| {
        let folder = process.ok()?.path();
        // Only numbers are processes; looking at nothing else spares reading what is none.
        let is_process = folder.file_name()?.to_str()?.bytes().all(|byte| byte.is_ascii_digit());
        if !is_process || group_of(&folder)? != group {
            return None;
        }
        let text = fs::read_to_string(folder.join("statm")).ok()?;
        text.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    own.sum::<u64>().saturating_mul(page_bytes())
}

/// The group of a process: the third field behind its name, which may hold anything, in parentheses.
fn group_of(folder: &Path) -> Option<u32> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(2)?.parse().ok()
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

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// What `/proc/PID/stat` says of a child of a worker.
    fn stat(low_priority: bool) -> String {
        let room = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read folder; cat /proc/self/stat; true"]);
        let mut worker = Supervised::start(command, room.path(), low_priority).unwrap();
        worker.watch(&Compiler::default(), Cancellation::never());
        worker.last_words().1
    }

    #[test]
    fn a_worker_of_low_priority_is_idle_before_it_knows_its_job() {
        // The nice level is field 19, the policy 41; the first two end with a parenthesis.
        let of = |stat: &str| -> [String; 2] {
            let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
            [19, 41].map(|nth| fields[nth - 3].to_owned())
        };
        assert_eq!(of(&stat(true)), ["19", "5"], "SCHED_IDLE");
        assert_eq!(of(&stat(false)), of(&fs::read_to_string("/proc/self/stat").unwrap()));
    }
}
