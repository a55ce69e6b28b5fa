#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "every function of a C API is unsafe to call")]

#[macro_use]
mod table;
mod bindings;
mod error;
mod library;
mod search;

pub use bindings::*;
pub use error::LoadError;
pub use library::Library;
pub use search::{DYLIB_PATH_VARIABLE, SearchOptions};
pub use shapeyard_dylib::{Outcome, SearchStep};
