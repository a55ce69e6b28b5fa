//! The store from outside: threads, processes, faults. Named after the pitfalls that they show.

mod common;
mod threads;
