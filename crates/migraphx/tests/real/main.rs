//! The backend against the real MIGraphX, through its target `ref`.
//!
//! Run inside the root that `cargo xtask migraphx-root` makes; `cargo xtask test` does so.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![cfg(unix)]

mod common;
mod compile;
mod dependence;
mod failing;
mod on_demand;
mod padding;
mod precision;
mod process_end;
mod tiers;
