//! Real text that every machine with this repository has: the sources of its dependencies.
//!
//! Cargo has fetched them in the versions that `Cargo.lock` names, so the corpus is the same everywhere.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Packages with much prose and code of several kinds.
const PACKAGES: [&str; 6] =
    ["tokenizers", "rten", "clap_builder", "tokio", "safetensors", "ndarray"];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// The folders of the corpus, in a fixed order.
///
/// # Errors
///
/// `cargo metadata` does not name them.
pub fn folders() -> Result<Vec<PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("the corpus is found by `cargo metadata`, which could not be started")?;
    ensure!(
        output.status.success(),
        "`cargo metadata` failed; name a corpus with --corpus instead:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout)
        .context("`cargo metadata` printed something else")?;
    let folder = |name: &str| {
        let package = metadata.packages.iter().find(|package| package.name == name);
        package.and_then(|package| package.manifest_path.parent()).map(PathBuf::from)
    };
    let folders: Vec<PathBuf> = PACKAGES.iter().filter_map(|name| folder(name)).collect();
    ensure!(
        !folders.is_empty(),
        "none of {PACKAGES:?} is a dependency; name a corpus with --corpus"
    );
    Ok(folders)
}
