//! What the suites share: where the models are, which backends can be used here, and how a test says that
//! it could not run.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shapeyard_core::backend::{Backend, Status};
use shapeyard_cpu::CpuOptions;

/// A generated model of `tests/models`.
#[must_use]
pub fn tiny_model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

/// A file of `tests/reference`.
#[must_use]
pub fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(name)
}

/// A file of the real model that `cargo xtask models` makes; says so and gives `None` where it is not made.
#[must_use]
pub fn real_model(test: &str, name: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("SHAPEYARD_TEST_MODELS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models"),
    };
    let path = root.join("minilm-l6").join(name);
    if path.exists() {
        return Some(path);
    }
    skipped(test, "the real model is not made; run `cargo xtask models`");
    None
}

/// The backends that can be used here; says which cannot.
#[must_use]
pub fn usable_backends(test: &str) -> Vec<Arc<dyn Backend>> {
    let mut backends = shapeyard_cpu::backends(&CpuOptions::default());
    backends.retain(|backend| match backend.probe().status {
        Status::Usable { .. } => true,
        Status::Unusable { reason, .. } => {
            skipped(test, &format!("without {}: {reason}", backend.id()));
            false
        }
    });
    backends
}

/// Says that a test, or a part of it, could not run: on stderr, and in the file that `cargo xtask test`
/// prints at its end.
#[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skipped(test: &str, reason: &str) {
    eprintln!("not run here: {test}: {reason}");
    if let Some(path) = std::env::var_os("SHAPEYARD_SKIP_LOG") {
        let log = OpenOptions::new().create(true).append(true).open(&path);
        // One write of one line: tests run side by side.
        if let Err(error) =
            log.and_then(|mut log| log.write_all(format!("{test}: {reason}\n").as_bytes()))
        {
            eprintln!("`{}` cannot be written: {error}", path.display());
        }
    }
}
