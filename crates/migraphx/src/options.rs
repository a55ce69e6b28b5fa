//! What the backend may be told.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Steps;

use crate::compile::WorkerProgram;
use crate::exact_path;

/// What the backend may be told.
#[derive(Clone, Debug)]
pub struct MigraphxOptions {
    /// The library to load. When it is given, nothing else is tried.
    pub library: Option<PathBuf>,
    /// What is compiled, and for what.
    pub compile: CompileOptions,
    /// What requests are padded with, and whether at all.
    pub padding: Padding,
    /// Programs of each shape that are loaded, so that as many sessions can run it at the same time.
    pub instances: NonZeroUsize,
    /// The devices that programs run on, for [`Target::Gpu`].
    pub device: DeviceOptions,
    /// Where and under which limits compiles run.
    pub compiler: Compiler,
    /// The shapes that are compiled when requests ask for them, and that plans use where no program is known
    /// to be ready, by symbol. A symbol that is not there gets powers of two up to what the work needs.
    pub steps: BTreeMap<String, Steps>,
}

impl Default for MigraphxOptions {
    fn default() -> Self {
        Self {
            library: None,
            compile: CompileOptions::default(),
            padding: Padding::default(),
            instances: NonZeroUsize::MIN,
            device: DeviceOptions::default(),
            compiler: Compiler::default(),
            steps: BTreeMap::new(),
        }
    }
}

/// The devices that programs run on, and what they may use there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Devices by the runtime's numbers, all of one architecture: programs are compiled for the first. There is a copy of each program on each of them at least, and
    /// sessions take turns on them; one that is named twice gets two.
    pub devices: Vec<usize>,
    /// Most memory of each device for programs, buffers and graphs, in bytes; `None` for what is free when the
    /// device is opened. What no run uses makes room for what one needs, and comes back later; a run that
    /// needs what others are using waits for them, a minute at most.
    pub memory: Option<u64>,
    /// Whether runs are captured and replayed.
    pub graphs: Graphs,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self { devices: vec![0], memory: None, graphs: Graphs::default() }
    }
}

/// Whether runs on a device are captured and replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Graphs {
    /// They are, where no fault of the runtime's is known.
    #[default]
    Auto,
    /// They are, with any runtime; the first replays of each graph are compared with runs without.
    Checked,
    /// They are not.
    Off,
}

/// What a program is compiled for. All of it is part of an artifact's recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileOptions {
    /// What runs it.
    pub target: Target,
    /// The numbers that it computes with.
    pub precision: Precision,
    /// Inputs as the model meets them, for [`Quantisation`]: one set a file, `.safetensors` with a tensor
    /// for each input.
    #[serde(with = "exact_path::list")]
    pub calibration: Vec<PathBuf>,
    /// Whether the compiler may trade accuracy for speed.
    pub fast_math: bool,
    /// Whether the compiler tries every kernel that it has. Takes many times as long.
    pub exhaustive_tune: bool,
}

impl CompileOptions {
    /// The content of the calibration, in the order of its files; `None` without any.
    pub(crate) fn calibration_digest(&self) -> Result<Option<Digest>, String> {
        if self.calibration.is_empty() {
            return Ok(None);
        }
        let mut contents = Vec::with_capacity(self.calibration.len() * 32);
        for file in &self.calibration {
            let digest = Digest::of_file(file)
                .map_err(|error| format!("`{}` cannot be read: {error}", file.display()))?;
            contents.extend_from_slice(digest.as_bytes());
        }
        Ok(Some(Digest::of(&contents)))
    }
}

/// What runs a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// An AMD GPU.
    #[default]
    Gpu,
    /// MIGraphX's plain interpreter on the CPU: slow, and right; for tests.
    Ref,
    /// MIGraphX on the CPU with oneDNN, which few builds have.
    Cpu,
}

impl Target {
    /// MIGraphX's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Ref => "ref",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The numbers that a program computes with.
///
/// Combinations that contradict each other, such as fp16 with bf16, cannot be written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Precision {
    /// How floats are stored.
    pub storage: Storage,
    /// Whether products are computed with 8 bits.
    pub quantisation: Option<Quantisation>,
}

/// How a program stores floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// As the model does.
    #[default]
    F32,
    /// 16 bits, IEEE 754.
    F16,
    /// 16 bits with the exponent of 32.
    BF16,
}

/// How products are computed with 8 bits. The ranges are measured, so calibration is needed: without it
/// the library says nothing and answers wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantisation {
    /// Integers.
    Int8,
    /// Floats.
    Fp8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantisation = self.quantisation.map(|it| match it {
            Quantisation::Int8 => "int8",
            Quantisation::Fp8 => "fp8",
        });
        let storage = match self.storage {
            Storage::F32 => None,
            Storage::F16 => Some("fp16"),
            Storage::BF16 => Some("bf16"),
        };
        match (quantisation, storage) {
            (None, None) => f.pad("fp32"),
            (Some(one), None) | (None, Some(one)) => f.pad(one),
            (Some(quantisation), Some(storage)) => write!(f, "{quantisation}+{storage}"),
        }
    }
}

/// A precision that contradicts itself or does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no precision: {reason}; write fp32, fp16, bf16, int8, fp8, or int8+fp16 and the like"
)]
pub struct InvalidPrecision {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for Precision {
    type Err = InvalidPrecision;

    fn from_str(text: &str) -> Result<Self, InvalidPrecision> {
        let invalid = |reason: String| InvalidPrecision { text: text.to_owned(), reason };
        let (mut storage, mut quantisation) = (None, None);
        for part in text.split('+') {
            let again = match part {
                "fp32" => storage.replace(Storage::F32).is_some(),
                "fp16" => storage.replace(Storage::F16).is_some(),
                "bf16" => storage.replace(Storage::BF16).is_some(),
                "int8" => quantisation.replace(Quantisation::Int8).is_some(),
                "fp8" => quantisation.replace(Quantisation::Fp8).is_some(),
                _ => return Err(invalid(format!("`{part}` is not known"))),
            };
            if again {
                return Err(invalid(format!("`{part}` contradicts what stands before it")));
            }
        }
        Ok(Self { storage: storage.unwrap_or_default(), quantisation })
    }
}

/// What requests are padded with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Padding {
    /// Whether requests are padded at all.
    pub policy: PaddingPolicy,
    /// The symbol that counts rows. Rows that are padding are copies of the last real one, and a request
    /// with too many rows is split. `None`: the symbol whose name has `batch` in it, if there is one.
    pub rows: Option<String>,
    /// What the other axes of an input are filled with, by input; 0 for one that is not there.
    #[serde(with = "numbers_as_text")]
    pub fills: BTreeMap<String, f64>,
}

/// JSON has no infinities, which additive masks are padded with.
mod numbers_as_text {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    type Texts = BTreeMap<String, String>;

    pub(super) fn serialize<S: Serializer>(
        numbers: &BTreeMap<String, f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts = numbers.iter().map(|(name, number)| (name.clone(), format!("{number:?}")));
        texts.collect::<Texts>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, f64>, D::Error> {
        let number = |(name, text): (String, String)| {
            text.parse().map(|number| (name, number)).map_err(D::Error::custom)
        };
        Texts::deserialize(deserializer)?.into_iter().map(number).collect()
    }
}

/// Whether requests are padded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingPolicy {
    /// They are. Before a compile the same rows are run without and with padding and among other rows, and
    /// a model whose answers change is refused.
    #[default]
    Checked,
    /// They are not: a request runs only in exactly its shape, and is not split.
    Never,
}

/// Where and under which limits compiles run.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The process that compiles.
    pub place: CompilePlace,
    /// How long one compile may take, on the clock: also while it waits for a processor.
    pub time_limit: Duration,
    /// How much memory one compile may use, in bytes; `None` for no limit. Watched on Linux.
    pub memory_limit: Option<u64>,
    /// Whether a worker gives way to everything else that wants the processors, as one should that compiles
    /// while requests run. On Linux it gets only what others leave, so that on a machine that is never idle it may
    /// end by the time limit.
    pub low_priority: bool,
}

impl Default for Compiler {
    fn default() -> Self {
        Self {
            place: CompilePlace::default(),
            time_limit: Duration::from_secs(3600),
            memory_limit: None,
            low_priority: false,
        }
    }
}

/// The process that compiles.
#[derive(Clone, Debug)]
pub struct CompilePlace(pub(crate) Place);

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Worker(WorkerProgram),
    ThisProcess,
}

impl Default for CompilePlace {
    fn default() -> Self {
        Self::worker(WorkerProgram::default())
    }
}

impl CompilePlace {
    /// A child process: its stderr becomes the error's text, it is held to its limits, and when it
    /// crashes, this process lives.
    #[must_use]
    pub const fn worker(program: WorkerProgram) -> Self {
        Self(Place::Worker(program))
    }

    /// This process: no worker program is needed. Limits are not kept, the library's words are on stderr
    /// and not in the error, and what makes the library crash ends the process.
    ///
    /// # Safety
    ///
    /// Some models make MIGraphX read or call what is not there, and some builds of it end the process on
    /// assertions. The caller vouches for the models that will be compiled.
    #[must_use]
    #[allow(unsafe_code, reason = "the caller takes over what the library leaves unchecked")]
    pub const unsafe fn this_process() -> Self {
        Self(Place::ThisProcess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_precision_is_written_as_it_is_read() {
        for text in ["fp32", "fp16", "bf16", "int8", "fp8", "int8+fp16", "fp8+bf16"] {
            assert_eq!(text.parse::<Precision>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn fills_that_are_no_json_numbers_come_back() {
        let fills = [("a", f64::NEG_INFINITY), ("b", -0.5), ("c", 1e300)];
        let fills = fills.map(|(name, value)| (name.to_owned(), value)).into();
        let padding = Padding { fills, ..Padding::default() };
        let text = serde_json::to_string(&padding).unwrap();
        assert_eq!(serde_json::from_str::<Padding>(&text).unwrap(), padding);
    }

    #[test]
    fn pitfall_34_a_contradiction_is_an_error() {
        for text in ["fp16+bf16", "int8+fp8", "fp16+fp16", "fp32+fp16"] {
            let error = text.parse::<Precision>().unwrap_err();
            assert!(error.to_string().contains("contradicts"), "{error}");
        }
        for text in ["", "fp64", "FP16", "fp16,int8"] {
            assert!(text.parse::<Precision>().unwrap_err().to_string().contains("is not known"));
        }
    }
}
