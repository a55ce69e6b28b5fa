#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "the functions of a C API, and calls of the HIP runtime")]

mod api;
mod device;
mod dtype;
mod error;
mod file;
mod graph;
mod host;
mod kernel;
mod onnx;
mod operators;
mod program;
mod settings;
mod shape;
mod source;

use std::path::PathBuf;

/// The variable that the double's settings are read from when it is first called.
pub const SETTINGS_VARIABLE: &str = settings::VARIABLE;

/// The function that changes the settings of a loaded double, beside those of the C API: it takes a text
/// that ends in a zero, and answers a status.
pub const CHANGE_FUNCTION: &std::ffi::CStr = c"migraphx_gpu_double_change";

/// The shared library, beside the running program or one folder above it, where Cargo puts both.
#[must_use]
pub fn library_path() -> Option<PathBuf> {
    let name = format!(
        "{}migraphx_c_gpu_double{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let program = std::env::current_exe().ok()?;
    program.ancestors().skip(1).take(2).map(|folder| folder.join(&name)).find(|path| path.exists())
}
