//! Locks between processes.
//!
//! These are the kernel's advisory locks on open files: they end with their process, however it ends,
//! and two handles of one process exclude each other too. Where a file system has none, work goes on
//! without: publishing by rename keeps it correct, and at worst something is made twice.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, Write as _};

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;

use crate::clock;
use crate::error::{CacheError, StorageError};
use crate::folder::Folder;
use crate::patience::Patience;

const MAX_HOLDER_BYTES: u64 = 4096;

/// A process, as a lock file and a manifest name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// The machine that it runs on.
    pub host: String,
    /// Since when it has been at it, in milliseconds since 1970.
    pub since_ms: u64,
}

impl Holder {
    /// This process, from now on.
    #[must_use]
    pub fn this_process() -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { pid: std::process::id(), host, since_ms: clock::now_ms() }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = clock::now_ms().saturating_sub(self.since_ms) / 1000;
        write!(f, "process {} on {} (for {seconds} s)", self.pid, self.host)
    }
}

/// What came of trying a lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    Taken,
    /// Somebody else has it.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

pub(crate) fn try_exclusive(file: &File) -> io::Result<Tried> {
    tried(file.try_lock())
}

pub(crate) fn try_shared(file: &File) -> io::Result<Tried> {
    tried(file.try_lock_shared())
}

fn tried(result: Result<(), TryLockError>) -> io::Result<Tried> {
    match result {
        Ok(()) => Ok(Tried::Taken),
        Err(TryLockError::WouldBlock) => Ok(Tried::Busy),
        Err(TryLockError::Error(error)) if is_unsupported(&error) => Ok(Tried::Unsupported),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    // `NOLCK`: a network file system without its lock service. `BADF`: one that wants a handle open
    // for writing.
    let codes = [Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOLCK, Errno::BADF];
    error.kind() == io::ErrorKind::Unsupported
        || codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

/// Whether locks on this folder's file system may be asked for at all. On NFS the asking itself may
/// hang when the server's lock service does not answer.
pub(crate) fn may_lock(folder: &Folder) -> bool {
    #[cfg(target_os = "linux")]
    {
        const NFS: i128 = 0x6969;
        let kind = rustix::fs::fstatfs(folder.handle()).map(|found| i128::from(found.f_type));
        kind != Ok(NFS)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        true
    }
}

/// The right to change files of a folder that are read before; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct FolderLock<'a> {
    folder: &'a Folder,
}

impl<'a> FolderLock<'a> {
    /// Waits for whoever has it; `None` where there are no locks.
    pub(crate) fn acquire(
        folder: &'a Folder,
        may_lock: bool,
    ) -> Result<Option<Self>, StorageError> {
        if !may_lock {
            return Ok(None);
        }
        match folder.handle().lock() {
            Ok(()) => Ok(Some(Self { folder })),
            Err(error) if is_unsupported(&error) => Ok(None),
            Err(error) => Err(folder.error("lock", "", error)),
        }
    }
}

impl Drop for FolderLock<'_> {
    fn drop(&mut self) {
        // Said aloud, since a forked child may still have the folder open.
        let _ = self.folder.handle().unlock();
    }
}

/// The right to make one artifact; ends when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyLock {
    file: File,
    folder: Folder,
    name: String,
}

/// How waiting for a key's lock ended.
#[derive(Debug)]
pub(crate) enum Waited {
    Locked(KeyLock),
    /// There are no locks here.
    Unsupported,
    /// Its holder has published.
    Appeared,
}

impl Waited {
    pub(crate) fn lock(self) -> Option<KeyLock> {
        match self {
            Self::Locked(lock) => Some(lock),
            Self::Unsupported | Self::Appeared => None,
        }
    }
}

impl KeyLock {
    /// Waits for the lock, or until what its holder makes has appeared: those who want to load it need not
    /// queue for a lock.
    pub(crate) fn acquire(
        folder: Folder,
        digest: &Digest,
        patience: &mut Patience<'_>,
        appeared: impl Fn() -> bool,
    ) -> Result<Result<Waited, StorageError>, CacheError> {
        let name = file_name(digest);
        loop {
            match Self::attempt(&folder, &name) {
                Ok(Attempt::Taken(file)) => {
                    return Ok(Ok(Waited::Locked(Self { file, folder, name })));
                }
                Ok(Attempt::Unsupported) => return Ok(Ok(Waited::Unsupported)),
                Ok(Attempt::Lost) => {}
                Ok(Attempt::Busy) => {
                    patience.pause(|| read_holder(&folder, &name), std::thread::sleep)?;
                    if appeared() {
                        return Ok(Ok(Waited::Appeared));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_acquire(folder: Folder, digest: &Digest) -> Result<TryKeyLock, StorageError> {
        let name = file_name(digest);
        loop {
            return Ok(match Self::attempt(&folder, &name)? {
                Attempt::Taken(file) => TryKeyLock::Taken(Self { file, folder, name }),
                Attempt::Busy => TryKeyLock::Busy,
                Attempt::Unsupported => TryKeyLock::Unsupported,
                Attempt::Lost => continue,
            });
        }
    }

    fn attempt(folder: &Folder, name: &str) -> Result<Attempt, StorageError> {
        let mut file = folder.make_file(name)?;
        let error = |error| folder.error("lock", name, error);
        Ok(match try_exclusive(&file).map_err(error)? {
            Tried::Busy => Attempt::Busy,
            Tried::Unsupported => {
                // Nobody can hold a lock here, so the file says nothing.
                let _ = folder.remove_file(name);
                Attempt::Unsupported
            }
            // The holder before removed its file, and this is the one that nobody finds any more.
            Tried::Taken if !folder.still_is(name, &file) => Attempt::Lost,
            Tried::Taken => {
                write_holder(&mut file).map_err(error)?;
                Attempt::Taken(file)
            }
        })
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while it is held: whoever opened it meanwhile finds that it is no longer named.
        let _ = self.folder.remove_file(&self.name);
        // Said aloud, since a forked child may still have the file open.
        let _ = self.file.unlock();
    }
}

/// Removes the lock files of processes that ended while they held them; gives how many.
///
/// Each is held while it is removed, as by its holder, so that nobody can come to hold it unnamed.
pub(crate) fn remove_unheld(folder: &Folder) -> Result<usize, StorageError> {
    let mut n_removed = 0;
    for name in folder.names()? {
        let Ok(file) = folder.file(&name) else { continue };
        if matches!(try_exclusive(&file), Ok(Tried::Taken)) && folder.still_is(&name, &file) {
            n_removed += usize::from(folder.remove_file(&name).is_ok());
        }
    }
    Ok(n_removed)
}

#[derive(Debug)]
pub(crate) enum TryKeyLock {
    Taken(KeyLock),
    Busy,
    Unsupported,
}

enum Attempt {
    Taken(File),
    Busy,
    Unsupported,
    Lost,
}

fn file_name(digest: &Digest) -> String {
    format!("{digest}.lock")
}

fn write_holder(file: &mut File) -> io::Result<()> {
    let text = serde_json::to_vec(&Holder::this_process())?;
    file.set_len(0)?;
    file.rewind()?;
    // A full disk does not keep anybody from working: the lock counts, not the text.
    let _ = file.write_all(&text);
    Ok(())
}

fn read_holder(folder: &Folder, name: &str) -> Option<Holder> {
    serde_json::from_slice(&folder.read(name, MAX_HOLDER_BYTES).ok()?).ok()
}
