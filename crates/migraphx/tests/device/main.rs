//! The backend on a GPU, through the very calls that it makes to AMD's library: a double of MIGraphX runs
//! small networks on the HIP device present (see `migraphx-gpu-double`). Its target `ref` computes the same
//! on the host, to the bit but for a few functions.
//!
//! Without a device each test says in one line what it skipped; `SHAPEYARD_REQUIRE_DEVICE` makes that a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

mod answers;
mod common;
mod direct;
mod faults;
mod lanes;
mod memory;
