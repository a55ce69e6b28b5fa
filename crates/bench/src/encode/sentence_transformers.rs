//! sentence-transformers, driven through its own interface by a script of ours.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use shapeyard_core::Model;

use super::contender::Kind;
use super::peers::{self, Peer};

const SCRIPT: &str = include_str!("sentence_transformers.py");

/// Names the folder of the encoder as sentence-transformers saves it, where no option does.
const MODEL_VARIABLE: &str = "SHAPEYARD_SENTENCE_TRANSFORMERS";

/// Texts a batch: what it takes where nobody says, and what measured best elsewhere on a processor.
const N_ROWS: [usize; 2] = [32, 8];

/// The package that Python finds, and the model for it.
#[derive(Clone, Debug)]
pub(super) struct Package {
    version: String,
    model: PathBuf,
    texts: PathBuf,
}

impl Package {
    /// # Errors
    ///
    /// Where Python, the package or the model is not there, with how to get it.
    pub(super) fn find(model: Option<&Path>, texts: PathBuf) -> Result<Self, String> {
        let named = std::env::var_os(MODEL_VARIABLE).filter(|it| !it.is_empty());
        let model = model.map(Path::to_owned).or_else(|| named.map(PathBuf::from)).ok_or(
            "sentence-transformers needs the encoder as it saves one; name that folder by --sentence-transformers",
        )?;
        #[derive(Deserialize)]
        struct Found {
            version: String,
        }
        let found: Found = peers::probe(SCRIPT).ok_or(
            "sentence-transformers is not installed; get it with `pip install sentence-transformers` (with PyTorch \
             about 3 GB), and name that Python in the variable PYTHON where it is not `python3`",
        )?;
        Ok(Self { version: found.version, model, texts })
    }
}

impl Peer for Package {
    /// It computes what the package's own weights say, which are f32: it is no rival of narrower ones.
    fn kinds(&self, model: &Path, n_threads: usize) -> Result<Vec<Kind>> {
        let is_quantised =
            |name: &String| name.contains("QuantizeLinear") || name.contains("Integer");
        if Model::open(model)?.operators().keys().any(is_quantised) {
            return Ok(Vec::new());
        }
        let kind = |n_rows| {
            let (model, texts) = (self.model.clone(), self.texts.clone());
            Kind::SentenceTransformers { model, texts, n_threads, n_rows }
        };
        Ok(N_ROWS.map(kind).into())
    }

    fn note(&self) -> String {
        format!(
            "sentence-transformers {}, in f32, sorts the texts by itself; its tokenising is taken off",
            self.version
        )
    }
}

/// Puts the script in the place of this program, whose output it gives.
pub(super) fn run(
    (model, texts): (&Path, &Path),
    tokens: &Path,
    vectors: &Path,
    n_threads: usize,
    n_rows: usize,
) -> Result<()> {
    let status = peers::script(SCRIPT)
        .arg("encode")
        .args([model, texts, tokens, vectors])
        .args([n_threads, n_rows].map(|it| it.to_string()))
        .stdin(Stdio::null())
        .status()
        .context("cannot start Python")?;
    if status.success() { Ok(()) } else { bail!("sentence-transformers ended with {status}") }
}
