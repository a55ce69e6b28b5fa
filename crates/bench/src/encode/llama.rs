//! llama.cpp, driven through its own interface by a program that `cargo xtask setup --peers` builds.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use shapeyard_core::plan::calibrate::{Setting, Split};

use super::contender::Kind;

fn program() -> Option<PathBuf> {
    std::env::var_os("SHAPEYARD_LLAMA").filter(|path| !path.is_empty()).map(PathBuf::from)
}

pub(super) fn is_there() -> bool {
    program().is_some()
}

/// What it is measured with: what its own tools do (one context, flash attention, batches of 512 tokens, in
/// which it attends over all texts at once), and what a user can get out of it by trying. A context for each
/// thread is its best, since its threads wait for each other by spinning; with those, small batches and none come
/// out alike, and flash attention ahead of plain.
pub(super) fn kinds(n_threads: usize) -> Vec<Kind> {
    let whole = Split { n_sessions: 1, n_threads };
    let alone = Split { n_sessions: n_threads, n_threads: 1 };
    let kind = |split, token_budget, flash| {
        let setting = Setting { split, token_budget };
        Kind::Llama { setting, flash }
    };
    let mut kinds = vec![kind(whole, 512, true)];
    kinds.extend([1, 128, 256].map(|budget| kind(alone, budget, true)));
    kinds.push(kind(alone, 1, false));
    if whole != alone {
        kinds.push(kind(whole, 1, true));
    }
    kinds
}

/// Puts the program in the place of this one, whose output it gives.
pub(super) fn run(
    model: &Path,
    tokens: &Path,
    vectors: &Path,
    setting: Setting,
    flash: bool,
) -> Result<()> {
    let program = program().context("SHAPEYARD_LLAMA names no program")?;
    let Split { n_sessions, n_threads } = setting.split;
    let numbers = [n_sessions, n_threads, setting.token_budget].map(|it| it.to_string());
    let status = Command::new(&program)
        .args([model, tokens, vectors])
        .args(numbers)
        .arg(if flash { "on" } else { "off" })
        .stdout(Stdio::inherit())
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if status.success() { Ok(()) } else { bail!("llama.cpp ended with {status}") }
}
