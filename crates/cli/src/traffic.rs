//! Counting the shapes of the work in a file, as a workload to plan by.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use shapeyard_core::plan::Work;

use crate::atomic_file::{AtomicFile, alone_beside};
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
        self.record_traffic.clone().map(TrafficFile::read).transpose()
    }
}

impl TrafficFile {
    fn read(path: PathBuf) -> Result<Self> {
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
        Ok(Self { path, before })
    }

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

    /// Adds work to what is in the file by now: others may have counted theirs meanwhile.
    pub(crate) fn add(&self, work: &Work) -> Result<()> {
        let _alone = alone_beside(&self.path);
        let now = Self::read(self.path.clone())?;
        now.check(work)?;
        let all = now.before.with(work).unwrap_or_default();
        let write = || {
            let mut file = AtomicFile::create(&self.path)?;
            write!(file, "{all}")?;
            file.commit()
        };
        write().with_context(|| format!("`{}` cannot be written", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use shapeyard_core::plan::Histogram;

    use super::*;

    #[test]
    fn what_two_count_at_one_moment_counts_for_both() {
        const N: u64 = 25;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("traffic");
        let args = TrafficArgs { record_traffic: Some(path.clone()) };
        std::thread::scope(|scope| {
            for length in [10, 20] {
                // Both begin before the other has ended.
                let file = args.open().unwrap().unwrap();
                let work = Work::Histogram(Histogram::of(&[length]));
                scope.spawn(move || (0..N).for_each(|_| file.add(&work).unwrap()));
            }
        });
        let counted = TrafficFile::read(path).unwrap().before.histogram().into_owned();
        assert_eq!(counted.entries(), [(10, N), (20, N)]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
