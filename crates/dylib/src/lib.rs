#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "loading a library runs its code")]

#[cfg(target_os = "linux")]
mod elf;
mod library;
mod mapped;
mod places;
mod search;

pub use library::{Library, OpenError, as_function, existing_file};
pub use mapped::mapped_file;
pub use places::{Candidate, installations, is_bare_name, path_variable, program_folder};
pub use search::{Failure, Outcome, Refusal, Search, SearchStep, Trace, list, search};
