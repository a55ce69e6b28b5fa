//! SHA-256 of files: pins of what is fetched, stamps of what is made.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// The digest of one file, in hexadecimal.
pub(crate) fn of_file(path: &Path) -> Result<String> {
    let mut file =
        File::open(path).with_context(|| format!("cannot open {} to hash it", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = file
            .read(&mut buffer)
            .with_context(|| format!("cannot read {} to hash it", path.display()))?;
        if read == 0 {
            return Ok(hex(hasher));
        }
        hasher.update(&buffer[..read]);
    }
}

/// One digest for several files and a word on what else shaped the result (versions, options).
pub(crate) fn of_inputs(files: &[PathBuf], circumstances: &str) -> Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(circumstances);
    for path in files {
        hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        hasher.update(of_file(path)?);
    }
    Ok(hex(hasher))
}

/// Whether `stamp` holds exactly `digest`; a stamp that is absent does not.
pub(crate) fn stamp_matches(stamp: &Path, digest: &str) -> Result<bool> {
    match fs::read_to_string(stamp) {
        Ok(found) => Ok(found.trim() == digest),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", stamp.display())),
    }
}

/// Records that what lies beside `stamp` was made from the inputs with this digest.
pub(crate) fn write_stamp(stamp: &Path, digest: &str) -> Result<()> {
    fs::write(stamp, format!("{digest}\n"))
        .with_context(|| format!("cannot write {}", stamp.display()))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(
            hex(Sha256::new_with_prefix("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn an_absent_stamp_matches_nothing() {
        let stamp = Path::new(env!("CARGO_MANIFEST_DIR")).join("no-such-stamp");
        assert!(!stamp_matches(&stamp, "").unwrap());
    }

    #[test]
    fn circumstances_change_the_digest_of_inputs() {
        assert_ne!(of_inputs(&[], "Python 3.12").unwrap(), of_inputs(&[], "Python 3.13").unwrap());
    }
}
