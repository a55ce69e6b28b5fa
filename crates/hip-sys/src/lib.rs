#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "every function of a C API is unsafe to call")]

#[macro_use]
mod table;
mod api;
mod compiler;
mod device;
mod differing;
mod error;
mod open;
mod platform;
mod search;
mod types;

pub use api::Api;
pub use compiler::{Code, CompileError, Compiler};
pub use device::{DeviceAttribute, DeviceProperties, PointerAttributes, PointerKind};
pub use differing::CaptureInfo;
pub use error::{Fault, HipError, LoadError};
pub use open::Hip;
pub use platform::Platform;
pub use search::{DYLIB_PATH_VARIABLE, PLATFORM_VARIABLE, SearchOptions};
pub use shapeyard_dylib::{Outcome, SearchStep};
pub use types::*;
