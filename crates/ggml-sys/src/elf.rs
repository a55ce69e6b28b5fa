//! A look at a library's file before the loader sees it.
//!
//! The loader maps a file by what its header says. Where the file is shorter than that (a copy that
//! was cut off), the process ends with a bus error, so the header is compared with the file first. And
//! the loader has no clear words for a library of another architecture.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const LOADED_SEGMENT: u64 = 1;

/// Architectures that ggml is built for, by ELF's number.
const MACHINES: [(u16, &str); 5] =
    [(3, "x86"), (21, "powerpc64"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64")];

/// Why the file at `path` cannot be a library for this program, if that shows from outside.
pub(crate) fn objection(path: &Path) -> Option<String> {
    // What cannot be opened here is left to the loader, which says why.
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    // The table of segments comes right after the header in every library that a linker writes.
    let mut start = Vec::new();
    file.by_ref().take(1 << 16).read_to_end(&mut start).ok()?;
    examine(&start, length)
}

fn examine(start: &[u8], length: u64) -> Option<String> {
    if length == 0 {
        return Some("the file is empty".to_owned());
    }
    if !start.starts_with(b"\x7fELF") {
        return Some("it is not a shared library".to_owned());
    }
    if start.len() < HEADER_BYTES {
        return Some("the file is cut off".to_owned());
    }
    if !is_own_class(start) {
        return Some("it is built for another word size or byte order".to_owned());
    }
    let machine = number(start, 18, 2)?;
    if own_machine().is_some_and(|own| u64::from(own) != machine) {
        let (built_for, ours) = (machine_name(machine), std::env::consts::ARCH);
        return Some(format!("it is built for {built_for}, this program for {ours}"));
    }
    let end = end_of_segments(start).max(end_of_table(start))?;
    (end > length).then(|| format!("the file is cut off: it has {length} of {end} bytes"))
}

fn is_own_class(start: &[u8]) -> bool {
    let word = if cfg!(target_pointer_width = "64") { 2 } else { 1 };
    let order = if cfg!(target_endian = "little") { 1 } else { 2 };
    start[4] == word && start[5] == order
}

fn own_machine() -> Option<u16> {
    MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).map(|(machine, _)| *machine)
}

fn machine_name(machine: u64) -> String {
    let known = MACHINES.iter().find(|(known, _)| u64::from(*known) == machine);
    known.map_or_else(|| format!("ELF machine {machine}"), |(_, name)| (*name).to_owned())
}

/// Where the table of segments ends; the header of narrower machines is another one.
fn end_of_table(start: &[u8]) -> Option<u64> {
    let count = number(start, 56, 2)?.saturating_mul(PROGRAM_HEADER_BYTES as u64);
    let end = number(start, 32, 8)?.saturating_add(count);
    cfg!(target_pointer_width = "64").then_some(end)
}

/// Where the last loaded segment ends; none where the table is not in the first bytes.
fn end_of_segments(start: &[u8]) -> Option<u64> {
    let table = usize::try_from(number(start, 32, 8)?).ok()?;
    let segments = start.get(table..usize::try_from(end_of_table(start)?).ok()?)?;
    let mut end = 0;
    for segment in segments.chunks_exact(PROGRAM_HEADER_BYTES) {
        if number(segment, 0, 4)? == LOADED_SEGMENT {
            end = end.max(number(segment, 8, 8)?.saturating_add(number(segment, 32, 8)?));
        }
    }
    Some(end)
}

/// An unsigned number of the file's byte order, which is ours.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(width)?)?;
    let mut wide = [0; 8];
    if cfg!(target_endian = "little") {
        wide[..width].copy_from_slice(field);
        Some(u64::from_le_bytes(wide))
    } else {
        wide[8 - width..].copy_from_slice(field);
        Some(u64::from_be_bytes(wide))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own program is as good an ELF file as any.
    fn own_program() -> Vec<u8> {
        let path = std::fs::read_link("/proc/self/exe").unwrap();
        std::fs::read(path).unwrap()
    }

    fn said(bytes: &[u8]) -> Option<String> {
        examine(bytes, bytes.len() as u64)
    }

    #[test]
    fn a_whole_file_meets_no_objection() {
        assert_eq!(said(&own_program()), None);
    }

    #[test]
    fn a_file_that_is_cut_off_is_seen() {
        let whole = own_program();
        for length in [20, HEADER_BYTES, 4096] {
            let said = said(&whole[..length]).unwrap();
            assert!(said.contains("cut off"), "{length} bytes: {said}");
        }
    }

    #[test]
    fn other_architectures_are_named() {
        let mut program = own_program();
        let other: u16 = if own_machine() == Some(183) { 62 } else { 183 };
        program[18..20].copy_from_slice(&other.to_ne_bytes());
        let said_of_machine = said(&program).unwrap();
        assert!(said_of_machine.contains(&machine_name(u64::from(other))), "{said_of_machine}");
        program[4] ^= 3;
        assert!(said(&program).unwrap().contains("word size"));
    }

    #[test]
    fn what_is_no_library_is_said_to_be_none() {
        assert_eq!(said(b"").unwrap(), "the file is empty");
        assert_eq!(said(b"INPUT(libggml-base.so)").unwrap(), "it is not a shared library");
    }

    #[test]
    fn no_header_makes_it_panic() {
        let program = own_program();
        let start = &program[..4096];
        for at in 4..256 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = start.to_vec();
                damaged[at] = value;
                let _ = examine(&damaged, program.len() as u64);
            }
        }
    }
}
