//! Compiles for Shapeyard's MIGraphX backend, in a process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    shapeyard_migraphx::worker::main()
}
