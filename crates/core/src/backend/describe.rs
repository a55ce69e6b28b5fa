//! What backends say of themselves, as data.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::DataType;

/// A backend's name, such as `onnxruntime`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendId(Cow<'static, str>);

impl BackendId {
    /// The name that a backend gives itself.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for BackendId {
    fn from(name: String) -> Self {
        Self(Cow::Owned(name))
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Compiler, library, driver, architecture and every setting that changes generated code, in one line.
///
/// Equal fingerprints may share artifacts and measurements.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(pub String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Which shapes a backend's programs take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapeSupport {
    /// One program takes every shape.
    Dynamic,
    /// A program takes one shape.
    Static,
}

/// What artifacts are to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactUse {
    /// It makes none.
    None,
    /// They make loading faster.
    Optional,
    /// Nothing loads without.
    Required,
}

/// What a backend can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Which shapes its programs take.
    pub shapes: ShapeSupport,
    /// What artifacts are to it.
    pub artifacts: ArtifactUse,
    /// The element types that it takes and gives.
    pub dtypes: Vec<DataType>,
}

/// Whether a backend can be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
pub enum Status {
    /// It can.
    Usable {
        /// The version of what will run.
        version: String,
        /// What artifacts and measurements are kept under.
        fingerprint: Fingerprint,
    },
    /// It cannot.
    Unusable {
        /// What is missing or wrong.
        reason: String,
        /// What to install or set.
        remedy: String,
    },
}

/// One step of a search for a library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchStep {
    /// The place, and why it was looked at.
    pub place: String,
    /// What was found there.
    pub outcome: String,
}

/// What a backend found when it looked whether it can be used here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The backend.
    pub backend: BackendId,
    /// Whether it can be used.
    #[serde(flatten)]
    pub status: Status,
    /// Where it looked, in order.
    pub searched: Vec<SearchStep>,
    /// The devices that it would run on; none for the CPU.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceReport>,
}

/// A device, as a person may want to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its number in the runtime.
    pub index: usize,
    /// The product's name.
    pub name: String,
    /// What kernels are compiled for.
    pub architecture: String,
    /// Its address on the bus.
    pub pci_address: String,
    /// The file that the runtime was loaded from.
    pub library: PathBuf,
    /// The runtime's version, as it numbers itself.
    pub runtime: String,
    /// The driver's version.
    pub driver: Option<String>,
    /// Memory that nobody uses, in bytes.
    pub free_bytes: u64,
    /// Memory in all, in bytes.
    pub total_bytes: u64,
    /// What programs and buffers may take, in bytes.
    pub budget_bytes: u64,
    /// What they take now, in bytes.
    pub used_bytes: u64,
    /// Programs that were loaded so far, the same one again included.
    pub n_loads: u64,
    /// Programs and buffers that made room for others so far.
    pub n_evictions: u64,
    /// Whether runs are captured and replayed; if not, why.
    pub graphs: String,
    /// Captures and replays that failed so far; the runs were answered without.
    pub n_failed_graphs: u64,
    /// Why the last of them did.
    pub failed_graph: Option<String>,
    /// Where padding is made; if not on the device, why.
    pub padding: String,
}

impl Probe {
    /// Whether the backend can be used.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        matches!(self.status, Status::Usable { .. })
    }
}
