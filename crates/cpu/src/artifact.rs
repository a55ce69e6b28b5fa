//! Artifacts that hold a whole model: how their files come to be, and what is said of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use shapeyard_core::backend::{Artifact, BackendError, CompileJob, InUse, Recipe};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;

/// Compiles a job by a recipe: `write` fills a file beside the one that is wanted, which takes that name once
/// all of it is on the disk.
pub(crate) fn compile(
    job: &CompileJob<'_>,
    recipe: &Recipe,
    write: impl FnOnce(&Path) -> Result<(), BackendError>,
) -> Result<Artifact, BackendError> {
    let cannot_write = |source| BackendError::Write { path: job.output.clone(), source };
    let folder = match job.output.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Made here first, so that a folder that cannot be written to is not taken for a bad model. A rename
    // from the same folder is what makes the artifact appear whole or not at all.
    let temporary = tempfile::Builder::new()
        .prefix(&format!(".{}-", recipe.backend))
        .suffix(".tmp")
        .make_in(folder, |path| File::create_new(path))
        .map_err(cannot_write)?
        .into_temp_path();
    write(&temporary)?;
    File::open(&temporary).and_then(|file| file.sync_all()).map_err(cannot_write)?;
    temporary.persist(&job.output).map_err(|error| cannot_write(error.error))?;
    Ok(Artifact {
        backend: recipe.backend.clone(),
        model: job.model.digest()?,
        bucket: Bucket::default(),
        optimisation: job.optimisation,
        fingerprint: recipe.fingerprint(),
        payload: job.output.clone(),
        n_bytes: fs::metadata(&job.output).map_err(cannot_write)?.len(),
        checksum: Digest::of_file(&job.output).map_err(cannot_write)?,
        notes: BTreeMap::new(),
        in_use: InUse::default(),
    })
}
