//! Folders that are held open, and names in them that are opened without following links.
//!
//! Every path below a root is walked one name at a time from an open folder, and a link on the way is
//! an error: whoever can place a link cannot lead a read or a write out of the root.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use tempfile::TempDir;

use crate::error::StorageError;

/// Folders are their owner's only.
pub(crate) const FOLDER_MODE: u32 = 0o700;
/// Files are their owner's only.
pub(crate) const FILE_MODE: u32 = 0o600;
/// How every name of unfinished work starts.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    handle: File,
    path: PathBuf,
}

impl Folder {
    /// Opens a root. The path to it is the user's choice, links included.
    pub(crate) fn open_root(path: &Path) -> Result<Self, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| StorageError::new("open", path, errno.into()))?;
        Ok(Self { handle: handle.into(), path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn handle(&self) -> &File {
        &self.handle
    }

    /// Opens a folder in this one.
    pub(crate) fn folder(&self, name: &str) -> Result<Self, StorageError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = self.open_at(name, flags, "open")?;
        Ok(Self { handle, path: self.path.join(name) })
    }

    /// Opens a folder in this one, and makes it where it is missing.
    pub(crate) fn make_folder(&self, name: &str, mode: u32) -> Result<Self, StorageError> {
        match self.folder(name) {
            Err(error) if error.is_not_found() => {}
            opened => return opened,
        }
        match rustix::fs::mkdirat(&self.handle, name, Mode::from_raw_mode(mode)) {
            Ok(()) => self.sync()?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(self.error("create", name, errno.into())),
        }
        self.folder(name)
    }

    /// Opens a regular file for reading.
    pub(crate) fn file(&self, name: &str) -> Result<File, StorageError> {
        // A pipe in the place of a file would otherwise wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = self.open_at(name, flags, "open")?;
        let metadata = file.metadata().map_err(|error| self.error("look at", name, error))?;
        if metadata.is_file() {
            Ok(file)
        } else {
            Err(self.error("open", name, io::Error::other("it is no regular file")))
        }
    }

    /// Opens a file for reading and writing, and makes it where it is missing.
    pub(crate) fn make_file(&self, name: &str) -> Result<File, StorageError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_at(name, flags, "create")
    }

    fn open_at(&self, name: &str, flags: OFlags, what: &'static str) -> Result<File, StorageError> {
        rustix::fs::openat(&self.handle, name, flags, Mode::from_raw_mode(FILE_MODE))
            .map(File::from)
            .map_err(|errno| self.error(what, name, errno.into()))
    }

    /// The content of a small file; longer than `limit` is an error.
    pub(crate) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, StorageError> {
        let mut bytes = Vec::new();
        let read = self.file(name)?.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.error("read", name, error))?;
        if bytes.len() as u64 > limit {
            let reason = io::Error::other(format!("it is longer than {limit} bytes"));
            return Err(self.error("read", name, reason));
        }
        Ok(bytes)
    }

    /// Puts a small file in its place, whole or not at all.
    pub(crate) fn put(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), StorageError> {
        let error = |error| self.error("write", name, error);
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(&self.path)
            .map_err(error)?;
        file.write_all(bytes).map_err(error)?;
        file.as_file().sync_all().map_err(error)?;
        file.persist(self.path.join(name)).map_err(|failed| error(failed.error))?;
        self.sync()
    }

    /// A folder of an unpredictable name for unfinished work.
    pub(crate) fn make_temporary(&self, prefix: &str) -> Result<TempDir, StorageError> {
        tempfile::Builder::new()
            .prefix(prefix)
            .rand_bytes(12)
            .permissions(Permissions::from_mode(FOLDER_MODE))
            .tempdir_in(&self.path)
            .map_err(|error| self.error("create a folder in", "", error))
    }

    /// Moves `name` to a place in another folder of the same file system.
    pub(crate) fn rename(&self, name: &str, to: &Self, new: &str) -> Result<(), StorageError> {
        rustix::fs::renameat(&self.handle, name, &to.handle, new)
            .map_err(|errno| self.error("move", name, errno.into()))
    }

    pub(crate) fn remove_file(&self, name: &str) -> Result<(), StorageError> {
        rustix::fs::unlinkat(&self.handle, name, AtFlags::empty())
            .map_err(|errno| self.error("remove", name, errno.into()))
    }

    pub(crate) fn remove_tree(&self, name: &str) -> Result<(), StorageError> {
        fs::remove_dir_all(self.path.join(name)).map_err(|error| self.error("remove", name, error))
    }

    /// What stands at a name, itself and not what it may point to.
    pub(crate) fn metadata(&self, name: &str) -> Result<Metadata, StorageError> {
        fs::symlink_metadata(self.path.join(name))
            .map_err(|error| self.error("look at", name, error))
    }

    /// Whether `name` still is the file that was opened.
    pub(crate) fn still_is(&self, name: &str, opened: &File) -> bool {
        match (self.metadata(name), opened.metadata()) {
            (Ok(named), Ok(opened)) => same_file(&named, &opened),
            _ => false,
        }
    }

    /// The names in the folder, in order.
    pub(crate) fn names(&self) -> Result<Vec<String>, StorageError> {
        let error = |errno: rustix::io::Errno| self.error("list", "", errno.into());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.handle).map_err(error)? {
            let entry = entry.map_err(error)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            // Nothing here has a name that is no text.
            names.extend(
                name.to_str().filter(|name| !matches!(*name, "." | "..")).map(str::to_owned),
            );
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes renames, new names and removals in this folder last.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        self.handle.sync_all().map_err(|error| self.error("sync", "", error))
    }

    pub(crate) fn error(&self, what: &'static str, name: &str, source: io::Error) -> StorageError {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        StorageError::new(what, path, source)
    }
}

pub(crate) fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The last part of a path that this crate made.
pub(crate) fn last_name(path: &Path) -> String {
    path.file_name().map(OsString::from).unwrap_or_default().to_string_lossy().into_owned()
}
