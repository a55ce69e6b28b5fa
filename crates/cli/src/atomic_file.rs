//! Files that are there whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

/// Temporary files that no commit has named yet. A program that ends without unwinding has to remove them
/// itself.
static UNFINISHED: Unfinished = Unfinished(Mutex::new(BTreeSet::new()));

/// Removes what is not committed; for the way out that drops nothing.
pub(crate) fn remove_unfinished() {
    UNFINISHED.remove_all();
}

#[derive(Debug)]
struct Unfinished(Mutex<BTreeSet<PathBuf>>);

impl Unfinished {
    fn add(&'static self, path: &Path) -> Listed {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Listed { list: self, path: path.to_owned() }
    }

    fn remove_all(&self) {
        for path in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // The program ends; nobody is left who could do anything about it.
            let _ = fs::remove_file(path);
        }
    }
}

/// A temporary file's place in the list, left when it is committed or dropped.
#[derive(Debug)]
struct Listed {
    list: &'static Unfinished,
    path: PathBuf,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.path);
    }
}

/// How long another's lock of the folder is waited for. Ours last milliseconds; a person may hold one for as long as
/// this very program runs, as `flock . shapeyard …` does.
const PATIENCE: Duration = Duration::from_secs(2);

/// The right to read a file and to write it anew, which ends with the handle: nobody else of this program changes a file
/// of that folder. `None` where there are no locks, or somebody keeps one; the file is whole all the same.
pub(crate) fn alone_beside(path: &Path) -> Option<File> {
    let folder = File::open(folder_of(path)).ok()?;
    let end = Instant::now() + PATIENCE;
    loop {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return None,
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file that appears under its name when it is committed; dropped before, it leaves nothing behind.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
    _listed: Listed,
}

impl AtomicFile {
    /// Makes a temporary file beside `path`, so that a folder that takes no files is found now and not
    /// after the work.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".shapeyard-");
        // A temporary file is for its owner alone; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder_of(path))?;
        let listed = UNFINISHED.add(file.path());
        let writer = BufWriter::with_capacity(1 << 20, file);
        Ok(Self { path: path.to_owned(), writer, _listed: listed })
    }

    /// Gives the file its name.
    pub(crate) fn commit(self) -> io::Result<()> {
        let file = self.writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl io::Seek for AtomicFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.writer.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sudden_end_removes_only_what_is_unfinished() {
        // Its own list: other tests have unfinished files too.
        static LIST: Unfinished = Unfinished(Mutex::new(BTreeSet::new()));
        let folder = tempfile::tempdir().unwrap();
        let [done, open] = ["done", "open"].map(|name| folder.path().join(name));
        fs::write(&done, "").unwrap();
        fs::write(&open, "").unwrap();
        drop(LIST.add(&done));
        let _listed = LIST.add(&open);
        LIST.remove_all();
        assert!(done.exists() && !open.exists());
    }

    #[test]
    fn only_a_committed_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"first").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"second").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_known_at_once() {
        let folder = tempfile::tempdir().unwrap();
        assert!(AtomicFile::create(folder.path()).is_err());
        assert!(AtomicFile::create(&folder.path().join("no/such/file")).is_err());
    }
}
