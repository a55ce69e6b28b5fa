//! Counting the shapes of the work in a file, as a workload to plan by.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use shapeyard_core::plan::Work;

use crate::atomic_file::AtomicFile;
use crate::exit::BadInput;

/// What a command takes that can count the shapes of its work.
#[derive(Debug, clap::Args)]
pub(crate) struct TrafficArgs {
    /// Count the shapes of this work in a file, beside those that it has: a workload for `shapeyard plan`
    #[arg(long, value_name = "FILE")]
    record_traffic: Option<PathBuf>,
}

/// A file of counts.
#[derive(Debug)]
pub(crate) struct TrafficFile {
    path: PathBuf,
    before: Work,
}

impl TrafficArgs {
    /// Reads what the file has counted so far, before there is work that could be lost.
    pub(crate) fn open(&self) -> Result<Option<TrafficFile>> {
        let Some(path) = self.record_traffic.clone() else { return Ok(None) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let unreadable = BadInput::new(format!("`{}` cannot be read", path.display()));
                return Err(error).context(unreadable);
            }
        };
        let before = text
            .parse()
            .map_err(|error| BadInput::new(format!("`{}`: {error}", path.display())))?;
        Ok(Some(TrafficFile { path, before }))
    }
}

impl TrafficFile {
    /// Checks that work of that kind may be counted here.
    pub(crate) fn check(&self, kind: &Work) -> Result<(), BadInput> {
        match self.before.with(kind) {
            Some(_) => Ok(()),
            None => Err(BadInput::new(format!(
                "`{}` counts work of another kind: rows that may be stacked and requests that came as they \
                 are do not mix; name another file",
                self.path.display()
            ))),
        }
    }

    /// Adds work.
    pub(crate) fn add(&self, work: &Work) -> Result<()> {
        self.check(work)?;
        let all = self.before.with(work).unwrap_or_default();
        let write = || {
            let mut file = AtomicFile::create(&self.path)?;
            write!(file, "{all}")?;
            file.commit()
        };
        write().with_context(|| format!("`{}` cannot be written", self.path.display()))
    }
}
