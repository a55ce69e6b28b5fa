//! Finds a HIP runtime and says what it sees.
//!
//! ```sh
//! cargo run -p hip-sys --example hip_devices
//! HIP_PLATFORM=nvidia cargo run -p hip-sys --example hip_devices
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

use std::process::ExitCode;

use hip_sys::{Hip, HipError, SearchOptions};

fn main() -> ExitCode {
    let hip = match Hip::open(&SearchOptions::default()) {
        Ok(hip) => hip,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    println!("runtime   {} ({})", hip.path().display(), hip.platform());
    for step in hip.steps() {
        println!("  looked at {step}");
    }
    match hip.compiler() {
        Ok(compiler) => {
            println!("compiler  {} {:?}", compiler.path().display(), compiler.version());
        }
        Err(error) => println!("compiler  {error}"),
    }
    match describe(&hip) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("devices   {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(hip: &Hip) -> Result<(), HipError> {
    println!("versions  runtime {}, driver {}", hip.runtime_version()?, hip.driver_version()?);
    for device in 0..hip.device_count()? {
        println!("device {device}  {:#?}", hip.device_properties(device)?);
    }
    Ok(())
}
