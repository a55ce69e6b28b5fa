//! What xtask itself says, as opposed to the programs that it starts.
//!
//! A reader that went away (`cargo xtask tidy | head`) is no fault, hence the ignored results.

use std::fmt::Display;
use std::io::Write as _;

/// A line of output.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The start of a stage.
pub(crate) fn heading(title: impl Display) {
    say(format_args!("==> {title}"));
}

/// The reason of a failure, with what led to it.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
}
