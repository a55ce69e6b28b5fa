//! Where everything lies while it is measured: a folder that goes away, on a disk.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use shapeyard_cache::{Key, Store};
use shapeyard_core::backend::BackendId;
use shapeyard_core::{Model, plan::Bucket};
use tempfile::TempDir;

/// As large as the store's own, so that only what is done with the bytes differs.
const BUFFER_BYTES: usize = 256 << 10;

/// A digest is remembered once the file is older than the coarsest clock of file systems.
const SETTLED_AFTER: Duration = Duration::from_millis(2500);

/// A temporary folder with a payload and a model in it.
#[derive(Debug)]
pub(crate) struct Place {
    folder: TempDir,
    /// The payload's bytes, for producers.
    pub(crate) bytes: Vec<u8>,
}

impl Place {
    /// Makes everything; it is removed with the value, and when the program is interrupted.
    pub(crate) fn make(folder: &Path, n_payload_bytes: usize, n_model_bytes: u64) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("shapeyard-bench-cache-")
            .tempdir_in(folder)
            .with_context(|| format!("no temporary folder in `{}`", folder.display()))?;
        let doomed = folder.path().to_owned();
        ctrlc::set_handler(move || {
            let _ = fs::remove_dir_all(&doomed);
            std::process::exit(130);
        })?;
        let mut bytes = vec![0; n_payload_bytes];
        incompressible().fill(&mut bytes);
        let place = Self { folder, bytes };
        fs::write(place.plain(), &place.bytes)?;
        write_model(&place.model(), n_model_bytes)?;
        let written = Instant::now();
        rustix::fs::sync();
        std::thread::sleep(SETTLED_AFTER.saturating_sub(written.elapsed()));
        Ok(place)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The payload as a plain file.
    pub(crate) fn plain(&self) -> PathBuf {
        self.path().join("plain")
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.path().join("model.onnx")
    }

    /// The root of the store.
    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("store")
    }

    /// The folder of an entry of the store.
    pub(crate) fn entry(&self, key: &Key) -> PathBuf {
        let digest = key.digest().to_string();
        self.root().join("v1/entries").join(&digest[..2]).join(digest)
    }
}

/// The folder for the folder: that of the build, which is on a disk.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("the program lies in no folder; use --folder");
    target.map(Path::to_owned)
}

/// The kind of a folder's file system.
pub(crate) fn file_system(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize().with_context(|| {
        format!("`{}` is no folder; name another by --folder", folder.display())
    })?;
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let kind = kind_of(&table, &folder).unwrap_or_else(|| "unknown".to_owned());
    if ["tmpfs", "ramfs"].contains(&kind.as_str()) {
        bail!("`{}` is in memory ({kind}); name a folder on a disk by --folder", folder.display());
    }
    Ok(kind)
}

/// The file system that is mounted nearest above `folder`; of several in one place the last.
fn kind_of(table: &str, folder: &Path) -> Option<String> {
    let mounts = table.lines().filter_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        Some((mount.split(' ').nth(4)?, system.split(' ').next()?))
    });
    let above = mounts.filter(|(point, _)| folder.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map(|(_, kind)| kind.to_owned())
}

/// The key of an artifact of the model, with as much in it as a backend would put there.
pub(crate) fn key(store: &Store, model: &Model, artifact: &str) -> Result<Key> {
    let digest = store.digests().of_model(model)?;
    let bucket: Bucket = [("batch", 4), ("sequence", 128)].into_iter().collect();
    Ok(Key::builder(digest, BackendId::new("bench"), "1")
        .bucket(bucket)
        .signature(model.signature())
        .precision("fp16")
        .compiler("none 1.0")
        .option("artifact", artifact)
        .build())
}

/// Reads a file through one buffer; gives its length.
pub(crate) fn read_through(path: &Path, buffer: &mut [u8]) -> io::Result<usize> {
    read_all(&mut File::open(path)?, buffer)
}

pub(crate) fn read_all(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n_bytes = 0;
    loop {
        match file.read(buffer)? {
            0 => return Ok(n_bytes),
            n => n_bytes += n,
        }
    }
}

pub(crate) fn buffer() -> Vec<u8> {
    vec![0; BUFFER_BYTES]
}

/// The digest of a file that is mapped, on the calling thread alone.
pub(crate) fn hash_mapped(path: &Path) -> io::Result<blake3::Hash> {
    Ok(blake3::Hasher::new().update_mmap(path)?.finalize())
}

/// The same bytes every time, and no two parts alike.
fn incompressible() -> blake3::OutputReader {
    blake3::Hasher::new().update(b"shapeyard bench").finalize_xof()
}

/// A `ValueInfoProto` that hands out the constant `w` as bytes.
const OUTPUT: &[u8] = b"\x0a\x01w\x12\x04\x0a\x02\x08\x03";

/// Writes the least that is an ONNX model: one constant of so many bytes.
fn write_model(path: &Path, n_bytes: u64) -> Result<()> {
    let mut tensor = Vec::new();
    put_number(&mut tensor, 1, n_bytes);
    put_number(&mut tensor, 2, 3);
    put_head(&mut tensor, 8, 1);
    tensor.push(b'w');
    put_head(&mut tensor, 9, n_bytes);
    let mut graph = Vec::new();
    put_head(&mut graph, 12, OUTPUT.len() as u64);
    graph.extend_from_slice(OUTPUT);
    put_head(&mut graph, 5, tensor.len() as u64 + n_bytes);
    let mut head = Vec::new();
    put_number(&mut head, 1, 8);
    put_head(&mut head, 8, 2);
    put_number(&mut head, 2, 17);
    put_head(&mut head, 7, (graph.len() + tensor.len()) as u64 + n_bytes);
    let mut file = BufWriter::new(File::create(path)?);
    for part in [&head, &graph, &tensor] {
        file.write_all(part)?;
    }
    io::copy(&mut incompressible().take(n_bytes), &mut file)?;
    file.into_inner()?.sync_all()?;
    Ok(())
}

/// A field of Protocol Buffers that is a number.
fn put_number(bytes: &mut Vec<u8>, field: u8, value: u64) {
    bytes.push(field << 3);
    put_varint(bytes, value);
}

/// The head of a field of so many bytes.
fn put_head(bytes: &mut Vec<u8>, field: u8, n_bytes: u64) {
    bytes.push(field << 3 | 2);
    put_varint(bytes, n_bytes);
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_one_that_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        write_model(&path, 100_000).unwrap();
        let model = Model::open(&path).unwrap();
        assert_eq!(model.n_parameter_bytes(), 100_000);
        assert_eq!(model.opsets()[""], 17);
    }

    #[test]
    fn the_nearest_mount_counts() {
        let table = "22 1 0:1 / / rw - ext4 /dev/a rw\n\
                     23 22 0:2 / /tmp rw,nosuid shared:1 - tmpfs tmpfs rw\n\
                     24 22 0:3 / /tmpother rw - xfs /dev/b rw\n";
        assert_eq!(kind_of(table, Path::new("/tmp/a")).unwrap(), "tmpfs");
        assert_eq!(kind_of(table, Path::new("/tmpo/a")).unwrap(), "ext4");
        assert_eq!(kind_of("", Path::new("/")), None);
    }
}
