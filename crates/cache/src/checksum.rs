//! Digests of bytes, of files, and of files while they are copied.

use std::io::{self, Read, Write};

use shapeyard_core::model::Digest;

/// Large enough that system calls cost nothing, small enough to stay in a core's cache between the
/// reading and the hashing.
const BUFFER_BYTES: usize = 256 << 10;

/// A digest that is set apart from others by its context.
pub(crate) fn derived(context: &str, bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(bytes);
    finish(&hasher)
}

/// The digest of all that a reader gives, and its length. One pass.
///
/// Reads rather than maps: a file that is cut short while it is mapped ends the process.
pub(crate) fn of_reader(reader: impl Read) -> io::Result<(Digest, u64)> {
    of_copy(reader, io::sink())
}

/// Copies, and gives the digest and length of what was copied.
pub(crate) fn of_copy(mut from: impl Read, mut to: impl Write) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let n_bytes = match from.read(&mut buffer) {
            Ok(0) => return Ok((finish(&hasher), hasher.count())),
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = buffer.get(..n_bytes).unwrap_or_default();
        hasher.update(read);
        to.write_all(read)?;
    }
}

fn finish(hasher: &blake3::Hasher) -> Digest {
    let hex = hasher.finalize().to_hex();
    match hex.parse() {
        Ok(digest) => digest,
        Err(_) => unreachable!("a digest's own text is a digest"),
    }
}
