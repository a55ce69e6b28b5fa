//! MIGraphX behind safe types: the only unsafe code of this crate.
//!
//! Every call passes the [`gate`], so that none is under way when the process takes the library's
//! statics down.

#![allow(unsafe_code, reason = "calls of a C API")]

mod bindings;
pub(crate) mod gate;
mod handle;
mod library;
mod places;
mod program;

pub(crate) use bindings::Bindings;
pub(crate) use library::{ENVIRONMENT, Migraphx, dtype_of};
pub(crate) use places::Places;
pub(crate) use program::{Memory, Parse, Program, ValueShape};

/// A call that the library answered with an error. Its own words went to stderr: the C API has no other
/// place for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NativeError {
    /// The library refused.
    #[error("migraphx_{function} answered with status {status}")]
    Status { function: &'static str, status: u32 },
    /// The library has no such function.
    #[error("this MIGraphX has no migraphx_{function}; {since} or newer has")]
    Missing { function: &'static str, since: &'static str },
    /// The library answered with something that this crate does not know.
    #[error("{0}")]
    Unknown(String),
    /// The process is about to end.
    #[error("the process is about to end")]
    Ending,
}
