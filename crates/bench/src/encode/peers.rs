//! Python packages that do the same work, where they are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

use super::contender::Kind;
use super::{openvino, sentence_transformers};
use crate::suite::BadArgument;

/// A package that Python finds.
pub(super) trait Peer {
    /// What it is measured with on this ONNX file.
    ///
    /// # Errors
    ///
    /// What keeps the model from being read.
    fn kinds(&self, model: &Path, n_threads: usize) -> Result<Vec<Kind>>;

    /// What the reader of the contest should know.
    fn note(&self) -> String;
}

/// Those that are there; who is not is named on stderr with how to get it.
///
/// # Errors
///
/// Where none is there.
pub(super) fn find(
    sentence_transformers_model: Option<&Path>,
    texts: PathBuf,
) -> Result<Vec<Box<dyn Peer>>> {
    let openvino = openvino::Package::find().map(|it| Box::new(it) as Box<dyn Peer>);
    let sentences = sentence_transformers::Package::find(sentence_transformers_model, texts)
        .map(|it| Box::new(it) as Box<dyn Peer>);
    let (mut found, mut lacking) = (Vec::new(), Vec::new());
    for peer in [openvino, sentences] {
        match peer {
            Ok(peer) => found.push(peer),
            Err(reason) => lacking.push(reason),
        }
    }
    if found.is_empty() {
        bail!(BadArgument::new(format!("--peers found none: {}", lacking.join("; "))));
    }
    lacking.iter().for_each(|reason| eprintln!("without a peer: {reason}"));
    Ok(found)
}

/// Python with a script, whose arguments follow.
pub(super) fn script(source: &str) -> Command {
    let python = std::env::var_os("PYTHON").filter(|it| !it.is_empty());
    let mut command = Command::new(python.unwrap_or_else(|| "python3".into()));
    command.args(["-c", source]);
    command
}

/// What a script says of the package that it drives; nothing where Python does not import that.
pub(super) fn probe<T: DeserializeOwned>(source: &str) -> Option<T> {
    let output = script(source).arg("probe").output().ok()?;
    serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success())
}
