//! The router's promises, on doubles: thousands of sets of programs, and compiles that can be held up and
//! made to fail at a given moment, which no real compiler can. `tests/suites/router.rs` of the workspace
//! proves the same router on the real engines.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod allocations;
mod background;
mod double;
mod recorder;
mod routing;
