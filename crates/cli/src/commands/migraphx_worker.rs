//! `shapeyard migraphx-worker`: the process in which a program is compiled.

use std::process::ExitCode;

pub(crate) fn run() -> ExitCode {
    // Ctrl-C reaches every process of the terminal. Whoever started this one ends it, and knows then that
    // the compile did not die by itself. Without a handler it only looks like a crash.
    let _ = ctrlc::set_handler(|| {});
    shapeyard_migraphx::worker::main()
}
