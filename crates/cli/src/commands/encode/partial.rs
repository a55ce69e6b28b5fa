//! What an interrupted run keeps, and how the next one takes it up.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use shapeyard_core::backend::{Probe, Status};
use shapeyard_core::model::Digest;
use shapeyard_core::{Model, Tensor, TensorView};
use shapeyard_encode::Embeddings;
use shapeyard_encode::units::Unit;

use super::args::Args;
use super::destination::beside;
use crate::atomic_file::AtomicFile;
use crate::exit::BadInput;
use crate::tensor_files;

/// The digest of a text.
type TextKey = [u8; 32];

/// The file beside the output, and what a vector depends on besides its text.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    made_by: HashMap<String, String>,
}

impl Partial {
    pub(super) fn of(model: &Model, args: &Args, probe: &Probe) -> Result<Self> {
        let unreadable = || BadInput::new(format!("`{}` cannot be read", args.tokenizer.display()));
        let tokenizer = Digest::of(&fs::read(&args.tokenizer).with_context(unreadable)?);
        let made_by = [
            ("model", model.digest()?.to_string()),
            ("tokenizer", tokenizer.to_string()),
            ("max-length", args.max_length.to_string()),
            ("pool", args.pool.to_string()),
            ("normalize", args.normalize.to_string()),
            ("backend", engine(probe)),
            // A model that is quantised dynamically gives a text other vectors in another batch.
            (
                "token-budget",
                args.token_budget.map_or("found on the job".to_owned(), |n| n.to_string()),
            ),
        ];
        let made_by = made_by.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Self { path: beside(&args.out, ".partial"), made_by })
    }

    /// Keeps the vectors of all units that are done, beside those that an earlier run has kept there; says
    /// of how many units there are vectors now.
    pub(super) fn keep(&self, units: &[Unit], embeddings: &Embeddings) -> Result<usize> {
        let keys: Vec<TextKey> = units.iter().map(key).collect();
        let before = self.kept_before(embeddings.n_dims());
        let mut all: HashMap<TextKey, &[f32]> =
            before.iter().flat_map(|kept| kept.iter(embeddings.n_dims())).collect();
        let done = (0..units.len()).filter(|&item| embeddings.is_done(item));
        let done: Vec<_> = done.map(|item| (keys[item], embeddings.vectors(item))).collect();
        all.extend(done.iter().copied());
        // What an earlier run has kept stays as it is where there is nothing to add.
        if !done.is_empty() {
            let bytes = self.bytes(&all, embeddings.n_dims())?;
            self.write(&bytes)
                .with_context(|| format!("`{}` cannot be written", self.path.display()))?;
        }
        Ok(keys.iter().filter(|key| all.contains_key(*key)).count())
    }

    /// What an earlier run of the same command has kept. It may have come further than one that was not
    /// told to go on from there. What cannot be taken up is of no use to this command, and is replaced.
    fn kept_before(&self, n_dims: usize) -> Option<Kept> {
        let bytes = fs::read(&self.path).ok()?;
        self.read(&bytes, n_dims).ok()
    }

    fn bytes(&self, all: &HashMap<TextKey, &[f32]>, n_dims: usize) -> Result<Vec<u8>> {
        let n_rows: Vec<u64> =
            all.values().map(|vectors| (vectors.len() / n_dims.max(1)) as u64).collect();
        let texts: Vec<u8> = all.keys().flatten().copied().collect();
        let vectors: Vec<f32> = all.values().copied().flatten().copied().collect();
        let vectors = Tensor::from_slice(&[vectors.len() / n_dims.max(1), n_dims], &vectors)?;
        let shape = [all.len(), size_of::<TextKey>()];
        let tensors = [
            ("n_rows", TensorView::from_slice(&shape[..1], &n_rows)?),
            ("texts", TensorView::from_slice(&shape, &texts)?),
            ("vectors", vectors.view()),
        ];
        Ok(tensor_files::to_safetensors(&tensors, Some(self.made_by.clone()))?)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = AtomicFile::create(&self.path)?;
        file.write_all(bytes)?;
        file.commit()
    }

    /// Takes up the vectors of units whose text was encoded before; says of how many. A missing file is
    /// nothing to take up.
    pub(super) fn restore(&self, units: &[Unit], embeddings: &mut Embeddings) -> Result<usize> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error).with_context(|| self.refused()),
        };
        let n_dims = embeddings.n_dims();
        let kept = self.read(&bytes, n_dims).with_context(|| self.refused())?;
        let mut n_restored = 0;
        for (item, unit) in units.iter().enumerate() {
            if let Some(rows) = kept.rows.get(&key(unit)) {
                let vectors = kept.vectors.get(rows.start * n_dims..rows.end * n_dims);
                let fits = vectors.is_some_and(|vectors| embeddings.restore(item, vectors));
                n_restored += usize::from(fits);
            }
        }
        Ok(n_restored)
    }

    fn refused(&self) -> BadInput {
        let path = self.path.display();
        BadInput::new(format!("`{path}` cannot be taken up; delete it or leave out --resume"))
    }

    fn read(&self, bytes: &[u8], n_dims: usize) -> Result<Kept> {
        let (tensors, made_by) = tensor_files::of_safetensors(&self.path, bytes)?;
        for (name, value) in &self.made_by {
            let found = made_by.get(name).map_or("nothing", String::as_str);
            ensure!(found == value, "it was made with {name} {found}, this run has {value}");
        }
        let tensor = |name: &str| {
            let found = tensors.iter().find(|(known, _)| known == name);
            found.map(|(_, tensor)| tensor).ok_or_else(|| anyhow!("it has no `{name}`"))
        };
        let (n_rows, texts, vectors) = (tensor("n_rows")?, tensor("texts")?, tensor("vectors")?);
        let known = vectors.shape().get(1);
        ensure!(known == Some(&n_dims), "its vectors do not have {n_dims} numbers");
        let mut rows = HashMap::new();
        let mut start = 0_usize;
        for (text, &n_rows) in
            texts.as_slice::<u8>()?.as_chunks().0.iter().zip(n_rows.as_slice::<u64>()?)
        {
            let end = usize::try_from(n_rows).ok().and_then(|n_rows| start.checked_add(n_rows));
            let end = end.filter(|&end| vectors.shape().first().is_some_and(|&known| end <= known));
            let end = end.ok_or_else(|| anyhow!("it promises more vectors than it has"))?;
            rows.insert(*text, start..end);
            start = end;
        }
        Ok(Kept { rows, vectors: vectors.as_slice::<f32>()?.to_vec() })
    }

    /// Deletes the file once its vectors stand in the output. That it cannot be deleted is no harm: it is
    /// read only by a run that is told to, and checked then.
    pub(super) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The engine, so exactly that another version of it is another engine.
fn engine(probe: &Probe) -> String {
    match &probe.status {
        Status::Usable { fingerprint, .. } => format!("{} {fingerprint}", probe.backend),
        Status::Unusable { .. } => probe.backend.to_string(),
    }
}

fn key(unit: &Unit) -> TextKey {
    *Digest::of(unit.text.as_bytes()).as_bytes()
}

/// Kept vectors by the digest of their text.
struct Kept {
    rows: HashMap<TextKey, Range<usize>>,
    vectors: Vec<f32>,
}

impl Kept {
    fn iter(&self, n_dims: usize) -> impl Iterator<Item = (TextKey, &[f32])> {
        self.rows.iter().filter_map(move |(key, rows)| {
            let vectors = self.vectors.get(rows.start * n_dims..rows.end * n_dims)?;
            Some((*key, vectors))
        })
    }
}
