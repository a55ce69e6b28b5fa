//! Compiled programs on disk.

mod checksum;
mod key;

pub use key::{Difference, Environment, EnvironmentRule, KEY_VERSION, Key, KeyBuilder};
