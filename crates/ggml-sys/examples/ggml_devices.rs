//! Finds ggml and lists its devices.
//!
//! ```sh
//! cargo run -p shapeyard-ggml-sys --example ggml_devices
//! cargo run -p shapeyard-ggml-sys --example ggml_devices -- target/lib/shapeyard/libggml.so
//! ```

#![allow(unsafe_code, reason = "the functions of a C API are called")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

use std::ffi::CStr;
use std::process::ExitCode;

use ggml_sys::{Library, SearchOptions};

fn main() -> ExitCode {
    let named = std::env::args_os().nth(1);
    let options = named.map_or_else(SearchOptions::default, SearchOptions::at);
    match Library::open(&options) {
        Ok(library) => {
            describe(&library);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(library: &Library) {
    println!("ggml {} at {}", library.version(), library.path().display());
    let api = &library.api;
    // SAFETY: it takes nothing and answers a number.
    let n_devices = unsafe { (api.backend_dev_count)() };
    for index in 0..n_devices {
        // SAFETY: the index is below the count.
        let device = unsafe { (api.backend_dev_get)(index) };
        // SAFETY: devices live as long as the library.
        let name = unsafe { (api.backend_dev_name)(device) };
        // SAFETY: a device's name ends in a zero and lives as long as the device.
        let name = unsafe { CStr::from_ptr(name) };
        // SAFETY: devices live as long as the library.
        let words = unsafe { (api.backend_dev_description)(device) };
        // SAFETY: a device's description ends in a zero and lives as long as the device.
        let words = unsafe { CStr::from_ptr(words) };
        println!("device {}: {}", name.to_string_lossy(), words.to_string_lossy());
    }
}
