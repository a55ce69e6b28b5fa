//! Compiles for MIGraphX on behalf of the suites: cargo tells a test where the programs of its own package
//! are, not those of another.

use std::process::ExitCode;

fn main() -> ExitCode {
    shapeyard_migraphx::worker::main()
}
