//! Shapeyard measured beside its alternatives: in one run, on one machine, round by round.
//!
//! The rounds of all contenders are interleaved, so that a noisy minute hits them alike. Where memory is
//! compared, every contender runs in a process of its own, so that its peak is its own.
//!
//! * [`suite::Suite`] is what all suites are, and says how one joins.
//! * [`contest`] measures; [`record`] is what a run leaves; [`compare`] tells two runs apart and
//!   [`report`] makes a page of them.
//! * The suites that take a user's own model are here; those about the project's own parts are in the program
//!   `shapeyard-bench`, which `cargo xtask bench` runs.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "suites report to a person")]

pub mod calls;
pub mod child;
pub mod coldstart;
pub mod command;
pub mod compare;
pub mod contest;
pub mod corpus;
mod direct;
pub mod encode;
pub mod inputs;
pub mod measure;
pub mod plot;
pub mod random;
pub mod record;
pub mod report;
pub mod serve_mix;
pub mod suite;
pub mod table;
