//! OpenVINO, driven through its Python package by a script of ours.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use shapeyard_core::plan::Batch;
use shapeyard_core::plan::calibrate::{Setting, Split, splits};

use super::contender::Kind;
use super::peers::{self, Peer};

const SCRIPT: &str = include_str!("openvino.py");

/// What texts fill before the next batch begins: little enough for the caches, and what measured best elsewhere.
const TOKEN_BUDGETS: [usize; 2] = [512, 4096];

/// In which numbers it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Precision {
    F32,
    /// Eight bits of mantissa, which some processors multiply several times as fast.
    Bf16,
}

impl Precision {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The package that Python finds.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Package {
    version: String,
    /// Whether this processor computes in bf16 by itself.
    has_bf16: bool,
}

impl Package {
    /// # Errors
    ///
    /// Where Python or the package is not there, with how to get it.
    pub(super) fn find() -> Result<Self, String> {
        peers::probe(SCRIPT).ok_or_else(|| {
            "OpenVINO is not installed; get it with `pip install openvino`, and name that Python in the variable \
             PYTHON where it is not `python3`"
                .to_owned()
        })
    }
}

impl Peer for Package {
    /// One stream with large batches, and every split with small ones.
    fn kinds(&self, _: &Path, n_threads: usize) -> Result<Vec<Kind>> {
        let [small, large] = TOKEN_BUDGETS;
        let whole = Setting { split: Split { n_sessions: 1, n_threads }, token_budget: large };
        let with = |split| Setting { split, token_budget: small };
        let settings: Vec<Setting> =
            std::iter::once(whole).chain(splits(n_threads).into_iter().map(with)).collect();
        let precisions = [Some(Precision::F32), self.has_bf16.then_some(Precision::Bf16)];
        let of =
            |precision| settings.iter().map(move |&setting| Kind::Openvino { setting, precision });
        Ok(precisions.into_iter().flatten().flat_map(of).collect())
    }

    fn note(&self) -> String {
        let computes = if self.has_bf16 { "computes" } else { "does not compute" };
        format!("OpenVINO {} says that this processor {computes} in bf16 by itself", self.version)
    }
}

/// Puts the script in the place of this program, whose output it gives.
pub(super) fn run(
    model: &Path,
    tokens: &Path,
    vectors: &Path,
    batches: &[Batch],
    split: Split,
    precision: Precision,
) -> Result<()> {
    let mut child = peers::script(SCRIPT)
        .arg("encode")
        .args([model, tokens, vectors])
        .args([split.n_sessions, split.n_threads].map(|it| it.to_string()))
        .arg(precision.name())
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    let items: Vec<&[usize]> = batches.iter().map(|batch| batch.items.as_slice()).collect();
    let mut stdin = child.stdin.take().context("Python has no input")?;
    stdin.write_all(&serde_json::to_vec(&items)?).context("Python reads no batches")?;
    drop(stdin);
    let status = child.wait()?;
    if status.success() { Ok(()) } else { bail!("OpenVINO ended with {status}") }
}
