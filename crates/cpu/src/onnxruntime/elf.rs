//! Whether a library file is whole.
//!
//! The system's loader maps what a file's header promises; where the file ends earlier, as after a download
//! that was cut off, the process dies with a bus error instead of getting one it can answer.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

const HEADER: usize = 64;
const SEGMENT: usize = 56;

/// Checks that a 64-bit ELF file has all bytes that its segments take. Other files pass: what they lack,
/// the loader says.
pub(super) fn check_whole(path: &Path) -> Result<(), String> {
    match missing(path) {
        Ok(None) => Ok(()),
        Ok(Some((wanted, found))) => Err(format!(
            "the file is cut off: it has {found} of at least {wanted} bytes; fetch it again"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// The bytes wanted and found, if there are too few.
fn missing(path: &Path) -> io::Result<Option<(u64, u64)>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?.len();
    let mut header = [0; HEADER];
    if found < HEADER as u64 || file.read_exact(&mut header).is_err() || !is_elf_64_little(&header)
    {
        return Ok(None);
    }
    let table = u64_at(&header, 32);
    let n_segments = u64::from(u16_at(&header, 56));
    let table_end = table.saturating_add(n_segments * SEGMENT as u64);
    if usize::from(u16_at(&header, 54)) != SEGMENT || table_end > found {
        return Ok(Some((table_end, found)));
    }
    file.seek(SeekFrom::Start(table))?;
    let mut wanted = table_end;
    for _ in 0..n_segments {
        let mut segment = [0; SEGMENT];
        file.read_exact(&mut segment)?;
        wanted = wanted.max(u64_at(&segment, 8).saturating_add(u64_at(&segment, 32)));
    }
    Ok((wanted > found).then_some((wanted, found)))
}

fn is_elf_64_little(header: &[u8; HEADER]) -> bool {
    header.starts_with(b"\x7fELF\x02\x01")
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    (0..8).rev().fold(0, |value, n| value << 8 | u64::from(bytes[at + n]))
}

fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from(bytes[at + 1]) << 8 | u16::from(bytes[at])
}

#[cfg(all(test, target_os = "linux", target_pointer_width = "64", target_endian = "little"))]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_program_is_whole_until_it_is_cut() {
        let program = std::env::current_exe().unwrap();
        assert_eq!(check_whole(&program), Ok(()));
        let bytes = fs::read(&program).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cut = folder.path().join("cut");
        for n_bytes in [HEADER, HEADER + SEGMENT, 4096] {
            fs::write(&cut, &bytes[..n_bytes]).unwrap();
            assert!(check_whole(&cut).unwrap_err().contains("cut off"), "{n_bytes}");
        }
        fs::write(&cut, &bytes[..HEADER - 1]).unwrap();
        assert_eq!(check_whole(&cut), Ok(()));
    }
}
