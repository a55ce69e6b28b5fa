//! What every suite's record says of the machine, and how a record reaches a file.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// How a record is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables for a person.
    #[default]
    Text,
    /// One JSON object with every single time.
    Json,
}

/// Which sources were measured, as `cargo xtask bench` says.
pub(crate) fn revision() -> Option<String> {
    std::env::var("SHAPEYARD_REVISION").ok()
}

/// The processor's name and how many of it there are.
pub(crate) fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let name =
        name.and_then(|line| line.split(':').nth(1)).map_or("an unknown processor", str::trim);
    let n_cpus = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {n_cpus} logical processors")
}

/// Processes that wanted to run, on average over the last minute.
pub(crate) fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Appends a record as one line of JSON.
pub(crate) fn append(path: &Path, record: &impl Serialize) -> Result<()> {
    let unwritable = || format!("`{}` cannot be written", path.display());
    let mut file =
        OpenOptions::new().create(true).append(true).open(path).with_context(unwritable)?;
    let mut line = serde_json::to_vec(record)?;
    line.push(b'\n');
    file.write_all(&line).with_context(unwritable)
}
