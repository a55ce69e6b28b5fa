#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "every function of a C API is unsafe to call")]

#[macro_use]
mod table;
mod bindings;
mod data_types;
mod error;
mod library;
mod search;
mod version;

pub use bindings::*;
pub use data_types::{DataTypes, ShapeType, UnknownNumbering};
pub use error::LoadError;
pub use library::{Library, target_lock};
pub use search::{DYLIB_PATH_VARIABLE, SearchOptions};
pub use shapeyard_dylib::{Outcome, SearchStep};
pub use table::{MissingFunctions, OptionalFunction};
pub use version::{Version, VersionError};
