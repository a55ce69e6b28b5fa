//! The store from outside: threads, processes, faults. Named after the pitfalls that they show.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "all of it is tests, helpers included"
)]

mod artifacts;
mod bundles;
mod child;
mod collection;
mod common;
mod damage;
mod prices;
mod processes;
mod remembered;
mod safety;
mod storage;
mod threads;
