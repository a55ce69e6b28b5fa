//! A look at a library's file before the loader sees it.
//!
//! The loader maps a file by what its header says. Where the file is shorter than that (a copy that
//! was cut off), the process ends with a bus error, so the header is compared with the file first. And
//! the loader has no clear words for a library of another architecture.

use std::fs::File;
use std::path::Path;

use object::elf::{ELFMAG, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{NativeEndian, ReadCache, ReadRef};

#[cfg(target_pointer_width = "64")]
type Header = object::elf::FileHeader64<NativeEndian>;
#[cfg(not(target_pointer_width = "64"))]
type Header = object::elf::FileHeader32<NativeEndian>;

/// Architectures that the libraries we look for are built for, by ELF's number and Rust's name.
const MACHINES: [(u16, &str); 5] =
    [(3, "x86"), (21, "powerpc64"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64")];

/// Why the file at `path` cannot be a library for this program, if that shows from outside.
pub(crate) fn objection(path: &Path) -> Option<String> {
    // What cannot be opened here is left to the loader, which says why.
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    examine(&ReadCache::new(file), length)
}

fn examine<'a>(file: impl ReadRef<'a>, length: u64) -> Option<String> {
    if length == 0 {
        return Some("the file is empty".to_owned());
    }
    if !file.read_bytes_at(0, 4).is_ok_and(|start| start == ELFMAG) {
        return Some("it is not a shared library".to_owned());
    }
    let Ok(header) = file.read_at::<Header>(0) else {
        return Some("the file is cut off".to_owned());
    };
    let (true, Ok(endian)) = (header.is_supported(), header.endian()) else {
        return Some("it is built for another word size or byte order".to_owned());
    };
    let machine = header.e_machine(endian).0;
    if own_machine().is_some_and(|own| own != machine) {
        let (built_for, ours) = (machine_name(machine), std::env::consts::ARCH);
        return Some(format!("it is built for {built_for}, this program for {ours}"));
    }
    let segments = match header.program_headers(endian, file) {
        Ok(segments) => segments,
        Err(error) => return Some(format!("the file is cut off or damaged: {error}")),
    };
    let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
    let end = loaded.map(|it| it.p_offset(endian).saturating_add(it.p_filesz(endian))).max()?;
    (end > length).then(|| format!("the file is cut off: it has {length} of {end} bytes"))
}

fn own_machine() -> Option<u16> {
    MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).map(|(machine, _)| *machine)
}

fn machine_name(machine: u16) -> String {
    let known = MACHINES.iter().find(|(known, _)| *known == machine);
    known.map_or_else(|| format!("ELF machine {machine}"), |(_, name)| (*name).to_owned())
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
        assert_eq!(objection(Path::new("/proc/self/exe")), None);
    }

    #[test]
    fn a_file_that_is_cut_off_is_seen() {
        let whole = own_program();
        for length in [5, 20, 64, 100, 4096] {
            let said = said(&whole[..length]).unwrap();
            assert!(said.starts_with("the file is cut off"), "{length} bytes: {said}");
        }
    }

    #[test]
    fn other_architectures_are_named() {
        let mut program = own_program();
        let other: u16 = if own_machine() == Some(183) { 62 } else { 183 };
        program[18..20].copy_from_slice(&other.to_ne_bytes());
        let said_of_machine = said(&program).unwrap();
        assert!(said_of_machine.contains(&machine_name(other)), "{said_of_machine}");
        program[4] ^= 3;
        assert!(said(&program).unwrap().contains("word size"));
        program[4] ^= 3;
        program[5] ^= 3;
        assert!(said(&program).unwrap().contains("byte order"));
    }

    #[test]
    fn what_is_no_library_is_said_to_be_none() {
        assert_eq!(said(b"").unwrap(), "the file is empty");
        for text in [&b"INPUT(libmigraphx_c.so.3)"[..], b"a", b"\x7fEL"] {
            assert_eq!(said(text).unwrap(), "it is not a shared library");
        }
    }

    #[test]
    fn no_header_makes_it_panic() {
        let program = own_program();
        let start = &program[..4096];
        for at in 4..256 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = start.to_vec();
                damaged[at] = value;
                let _ = examine(&damaged[..], program.len() as u64);
            }
        }
    }
}
