//! Unfinished work, and how it becomes an entry.
//!
//! A producer writes into a folder of an unpredictable name beside the entry's place. The payload is
//! synced and read back, the manifest is written last, and one rename makes both an entry. So an entry
//! is there as a whole or not at all, whoever is killed whenever.

use std::fs::{File, Permissions};
use std::io::{self, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::Advice;
use rustix::io::Errno;
use tempfile::TempDir;

use crate::checksum;
use crate::clock;
use crate::error::StorageError;
use crate::folder::{FILE_MODE, FOLDER_MODE, Folder, TEMPORARY, last_name};
use crate::lock::{self, Tried};
use crate::manifest::{MANIFEST, Manifest, PAYLOAD, Payload};

/// Where no lock tells whether its maker lives, unfinished work is left alone for this long.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);
/// With less room left than this, what was just written may have been cut off unnoticed.
const SUSPICIOUS_BYTES: u64 = 64 << 10;
/// Somebody may sweep a folder away in the moment between its making and its locking.
const MAX_ATTEMPTS: usize = 16;

/// Permissions of what is published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    pub(crate) folder: u32,
    pub(crate) file: u32,
}

impl Modes {
    /// For a cache: its owner's only.
    pub(crate) const OWN: Self = Self { folder: FOLDER_MODE, file: FILE_MODE };
    /// For what is shipped to others: they may read.
    pub(crate) const SHIPPED: Self = Self { folder: 0o755, file: 0o644 };
}

/// A folder in which an entry is being made. Its lock says that its maker lives.
#[derive(Debug)]
pub(crate) struct Staging {
    shard: Folder,
    folder: Folder,
    temporary: TempDir,
    modes: Modes,
    may_lock: bool,
}

impl Staging {
    pub(crate) fn new(shard: Folder, modes: Modes, may_lock: bool) -> Result<Self, StorageError> {
        for _ in 0..MAX_ATTEMPTS {
            let temporary = shard.make_temporary(TEMPORARY)?;
            let name = last_name(temporary.path());
            let folder = match shard.folder(&name) {
                Ok(folder) => folder,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            };
            let is_ours =
                !may_lock || !matches!(lock::try_exclusive(folder.handle()), Ok(Tried::Busy));
            if is_ours && shard.still_is(&name, folder.handle()) {
                return Ok(Self { shard, folder, temporary, modes, may_lock });
            }
        }
        Err(shard.error("create a folder in", "", io::ErrorKind::ResourceBusy.into()))
    }

    /// Where the producer writes. Nothing stands there yet.
    pub(crate) fn payload_path(&self) -> PathBuf {
        self.folder.path().join(PAYLOAD)
    }

    /// Whether the place can still be written to, now that a producer has come back. A producer that
    /// failed here may have had no other reason, and one that succeeded may not have noticed.
    pub(crate) fn check_place(&self, n_bytes: Option<u64>) -> Result<(), StorageError> {
        check_written(&self.folder, n_bytes)?;
        self.folder.put("probe", &[0; 4096], FILE_MODE)?;
        self.folder.remove_file("probe")
    }

    /// Syncs the payload, reads it back and writes the manifest that `describe` makes of it.
    ///
    /// `Ok(None)` when there is no payload.
    pub(crate) fn complete(
        &self,
        describe: impl FnOnce(Payload) -> Manifest,
    ) -> Result<Option<Complete>, StorageError> {
        let file = match self.folder.file(PAYLOAD) {
            Ok(file) => file,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let error = |what, error| self.folder.error(what, PAYLOAD, error);
        let permissions = Permissions::from_mode(self.modes.file);
        file.set_permissions(permissions).map_err(|reason| error("own", reason))?;
        file.sync_all().map_err(|reason| error("sync", reason))?;
        let payload = read_whole(&file).map_err(|reason| error("read", reason))?;
        forget_cached_pages(&file);
        let again = read_whole(&file).map_err(|reason| error("read back", reason))?;
        if again != payload {
            let reason = io::Error::other("it does not read as it was written");
            return Err(error("read back", reason));
        }
        self.remove_what_else_was_written()?;
        let manifest = describe(payload);
        self.folder.put(MANIFEST, &manifest.to_bytes(), self.modes.file)?;
        Ok(Some(Complete { file, payload, manifest }))
    }

    /// Makes the complete work an entry. `Ok(false)` when one stands there already.
    pub(crate) fn publish(&self, complete: &Complete) -> Result<bool, StorageError> {
        let name = last_name(self.temporary.path());
        let digest = complete.manifest.digest.to_string();
        let permissions = Permissions::from_mode(self.modes.folder);
        let handle = self.folder.handle();
        handle.set_permissions(permissions).map_err(|error| self.folder.error("own", "", error))?;
        // Before it can be found, so that collection never finds it unmarked.
        if self.may_lock {
            let _ = lock::try_shared(&complete.file);
        }
        match self.shard.rename(&name, &self.shard, &digest) {
            Ok(()) => {
                // It is there for everybody. Were the rename lost in a crash, it would be made again.
                let _ = self.shard.sync();
                Ok(true)
            }
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn remove_what_else_was_written(&self) -> Result<(), StorageError> {
        for name in self.folder.names()?.iter().filter(|name| *name != PAYLOAD) {
            match self.folder.remove_file(name) {
                Err(error) if error.source.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {
                    self.folder.remove_tree(name)?;
                }
                removed => removed?,
            }
        }
        Ok(())
    }
}

/// A payload and a manifest that only lack their name.
#[derive(Debug)]
pub(crate) struct Complete {
    pub(crate) file: File,
    /// What was read back.
    pub(crate) payload: Payload,
    pub(crate) manifest: Manifest,
}

/// Length and checksum of a whole file, whose position is then at its start.
pub(crate) fn read_whole(mut file: &File) -> io::Result<Payload> {
    file.rewind()?;
    let (checksum, n_bytes) = checksum::of_reader(file)?;
    file.rewind()?;
    Ok(Payload { n_bytes, checksum })
}

/// Fails where a payload may have been cut off: by the end of the room, by a limit on the length of
/// files, or to another length than its producer gave.
pub(crate) fn check_written(folder: &Folder, n_bytes: Option<u64>) -> Result<(), StorageError> {
    folder.metadata("")?;
    check_room(folder, SUSPICIOUS_BYTES)?;
    let Ok(metadata) = folder.metadata(PAYLOAD) else { return Ok(()) };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize).current;
    let is_cut = n_bytes.is_some_and(|n_bytes| n_bytes != metadata.len());
    if is_cut || limit.is_some_and(|limit| metadata.len() >= limit) {
        return Err(folder.error("write", PAYLOAD, io::ErrorKind::FileTooLarge.into()));
    }
    Ok(())
}

/// Fails when less than so much room is left where a folder lies.
pub(crate) fn check_room(folder: &Folder, n_bytes: u64) -> Result<(), StorageError> {
    match fs4::available_space(folder.path()) {
        Ok(left) if left < n_bytes => {
            Err(folder.error("write to", "", io::ErrorKind::StorageFull.into()))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(folder.error("look at the room in", "", error)),
    }
}

/// So that the second reading asks the disk and not the memory. Where that cannot be, it is only a
/// second look at the same memory.
fn forget_cached_pages(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

fn is_taken(error: &StorageError) -> bool {
    let codes = [Errno::EXIST, Errno::NOTEMPTY, Errno::NOTDIR];
    codes.iter().any(|code| error.source.raw_os_error() == Some(code.raw_os_error()))
}

/// Removes what was left by processes that ended in the middle; gives how many things.
pub(crate) fn sweep(folder: &Folder, may_lock: bool) -> Result<usize, StorageError> {
    let mut n_swept = 0;
    for name in folder.names()?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        // Its lock is held until it is gone: whoever has just made it and not locked it yet finds it
        // taken, and makes another.
        if let Some(_lock) = claim_abandoned(folder, name, may_lock) {
            let removed = match folder.remove_file(name) {
                Err(_) => folder.remove_tree(name),
                removed => removed,
            };
            n_swept += usize::from(removed.is_ok());
        }
    }
    Ok(n_swept)
}

/// The right to remove unfinished work: its lock, or its age where there is no lock.
fn claim_abandoned(folder: &Folder, name: &str, may_lock: bool) -> Option<Option<Folder>> {
    let by_age = || {
        let modified_ms = clock::modified_ms(&folder.metadata(name).ok()?);
        let age_ms = clock::now_ms().saturating_sub(modified_ms);
        (age_ms > clock::millis(ABANDONED_AFTER)).then_some(None)
    };
    match folder.folder(name) {
        Ok(unfinished) if may_lock => match lock::try_exclusive(unfinished.handle()) {
            Ok(Tried::Taken) => Some(Some(unfinished)),
            Ok(Tried::Busy) => None,
            Ok(Tried::Unsupported) | Err(_) => by_age(),
        },
        _ => by_age(),
    }
}
