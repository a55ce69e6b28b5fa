//! What one run of a suite found, as data: one line of JSON.
//!
//! A record says where it comes from (sources, machine, libraries, settings), how much else the machine did
//! meanwhile, and what every contender took in every round. [`crate::compare`] compares two of them,
//! [`crate::report`] makes a page of many.

mod file;
mod machine;
mod noise;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use shapeyard_core::backend::{Backend, Status};
use shapeyard_core::plan::calibrate::Setting;

pub use self::file::{append, check_writable, read, replace};
pub use self::machine::Machine;
pub use self::noise::{Noise, Watch};
use crate::contest::Contest;
use crate::measure::peak_memory;

/// The form of a record; one of another form is not read.
pub const SCHEMA: u32 = 2;

/// Names the measured sources, as `git describe --always --dirty` does.
const REVISION_VARIABLE: &str = "SHAPEYARD_REVISION";

/// What one run of a suite found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The suite, as it is called.
    pub suite: String,
    /// The command that measures the same again.
    pub command: String,
    /// The measured sources, where they are known.
    pub revision: Option<String>,
    /// Whether they had changes that no revision has.
    pub dirty: bool,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// What it ran on.
    pub machine: Machine,
    /// Versions of the libraries that computed.
    pub libraries: BTreeMap<String, String>,
    /// What was set, as far as it decides what is measured.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// What else the machine did.
    pub noise: Noise,
    /// The most memory that the suite's own process had; contenders in processes of their own say theirs.
    pub peak_memory_bytes: Option<u64>,
    /// What was measured.
    pub contests: Vec<Contest>,
    /// Why nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

impl Record {
    /// An empty record of a suite that is about to begin.
    #[must_use]
    pub fn new(suite: &str, command: impl Into<String>) -> Self {
        let (revision, dirty) = revision();
        let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
        Self {
            schema: SCHEMA,
            suite: suite.to_owned(),
            command: command.into(),
            revision,
            dirty,
            began,
            machine: Machine::this(),
            libraries: BTreeMap::new(),
            settings: BTreeMap::new(),
            noise: Noise::default(),
            peak_memory_bytes: None,
            contests: Vec::new(),
            skipped: None,
        }
    }

    /// Notes a setting.
    pub fn set(&mut self, name: &str, value: impl Into<serde_json::Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Notes which file was used, without the machine's folders.
    pub fn set_file(&mut self, name: &str, path: &Path) {
        let file = path.file_name().unwrap_or(path.as_os_str());
        self.set(name, file.to_string_lossy().into_owned());
    }

    /// Notes the version of a library.
    pub fn library(&mut self, name: &str, version: impl Into<String>) {
        self.libraries.insert(name.to_owned(), version.into());
    }

    /// Notes the library behind a backend.
    pub fn library_of(&mut self, backend: &dyn Backend) {
        if let Status::Usable { version, .. } = backend.probe().status {
            self.library(backend.id().as_str(), version);
        }
    }

    /// Takes down what the machine and this process did.
    pub fn finish(&mut self, watch: &Watch) {
        self.noise = watch.noise();
        self.peak_memory_bytes = peak_memory().ok();
    }

    /// Prints what a person reads.
    pub fn print(&self) {
        println!("{}: {}", self.suite, self.machine.in_short());
        if let Some(reason) = &self.skipped {
            println!("skipped: {reason}");
            return;
        }
        let list = |pairs: &mut dyn Iterator<Item = String>| pairs.collect::<Vec<_>>().join(", ");
        if !self.libraries.is_empty() {
            let mut libraries = self.libraries.iter().map(|(name, it)| format!("{name} {it}"));
            println!("libraries: {}", list(&mut libraries));
        }
        if !self.settings.is_empty() {
            let shown = self.settings.iter().filter(|(_, it)| !it.is_array() && !it.is_object());
            println!("settings: {}", list(&mut shown.map(|(name, it)| format!("{name} {it}"))));
        }
        self.contests.iter().for_each(Contest::print);
        println!("\n{}", self.noise);
    }
}

/// How one of ours ran an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// The backend's name.
    pub(crate) backend: String,
    /// What it found, and was run with.
    pub(crate) setting: Setting,
}

/// The setting's name under which `encode` keeps the [`Way`] of a contender on a model.
pub(crate) fn way_of(model: &str, contender: &str) -> String {
    format!("{model}: {contender}")
}

/// The measured sources, and whether they have changes that no revision has.
fn revision() -> (Option<String>, bool) {
    match std::env::var(REVISION_VARIABLE) {
        Ok(revision) => match revision.strip_suffix("-dirty") {
            Some(clean) => (Some(clean.to_owned()), true),
            None => (Some(revision), false),
        },
        Err(_) => (None, false),
    }
}
