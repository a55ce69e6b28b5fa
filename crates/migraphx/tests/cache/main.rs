//! The store with the real MIGraphX: compiled once, never torn, never misread.
//!
//! Run inside the root that `cargo xtask migraphx-root` makes; `cargo xtask test` does so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

#[path = "../real/common.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod common;

mod child;
mod damage;
mod flight;
mod keys;
