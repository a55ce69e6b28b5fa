//! What was copied to or from a bundle.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;
use shapeyard_cache::BundleReport;

use super::damage;
use crate::exit::Code;
use crate::human;

/// What was copied, and where to.
#[derive(Serialize)]
pub(super) struct Copied {
    pub(super) from: Vec<PathBuf>,
    pub(super) to: PathBuf,
    #[serde(flatten)]
    pub(super) report: BundleReport,
}

impl Copied {
    /// Whether everything that was to be copied is there now.
    pub(super) fn code(&self) -> Code {
        let is_whole = self.report.missing.is_empty() && self.report.damaged.is_empty();
        if is_whole { Code::Done } else { Code::No }
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let BundleReport { copied, n_bytes, already_there, missing, damaged } = &self.report;
        let (n, size, to) = (copied.len(), human::bytes(*n_bytes), self.to.display());
        writeln!(out, "copied      {n} ({size}) to `{to}`")?;
        if !already_there.is_empty() {
            writeln!(out, "there       {} already", already_there.len())?;
        }
        missing.iter().try_for_each(|digest| writeln!(out, "missing     {digest}"))?;
        damage::write(damaged, |_| "\n            not copied".to_owned(), out)
    }
}
