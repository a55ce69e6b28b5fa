//! `shapeyard migraphx-worker`: the process in which a program is compiled.

use std::process::ExitCode;

use crate::interrupt;

pub(crate) fn run() -> ExitCode {
    // Whoever started this process ends it, and knows then that the compile did not die by itself.
    interrupt::leave_to_parent();
    shapeyard_migraphx::worker::main()
}
