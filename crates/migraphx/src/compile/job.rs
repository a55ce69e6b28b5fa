//! What is to be compiled and what came of it, as data that crosses processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{AxisSymbol, Dim, Signature};

use crate::exact_path;
use crate::options::{CompileOptions, Padding};
use crate::roles::NamedRoles;

/// What is to be compiled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Job {
    /// The version of this crate's code that asks: a worker of another one would decide differently.
    pub(crate) version: String,
    /// The library that has to do it: the very file that the caller loaded.
    #[serde(with = "exact_path")]
    pub(crate) library: PathBuf,
    #[serde(with = "exact_path")]
    pub(crate) model: PathBuf,
    /// What the model's content has to be.
    pub(crate) digest: Digest,
    /// Every symbol of the caller's signature where it stands; those of the file itself do no harm.
    pub(crate) declared: Vec<AxisSymbol>,
    pub(crate) bucket: Bucket,
    /// The device that the program is for, by the runtime's number; none for the host.
    pub(crate) device: Option<usize>,
    pub(crate) options: CompileOptions,
    /// What the content of the calibration has to be.
    pub(crate) calibration: Option<Digest>,
    pub(crate) padding: Padding,
    /// What an earlier compile found out that holds for every bucket.
    pub(crate) known: Option<Traits>,
    /// The file to write.
    #[serde(with = "exact_path")]
    pub(crate) output: PathBuf,
}

impl Job {
    /// Every symbol of a signature, where it stands.
    pub(crate) fn declared(signature: &Signature) -> Vec<AxisSymbol> {
        let specs = signature.inputs.iter().chain(&signature.outputs);
        let axes = specs.flat_map(|spec| {
            let dims = spec.shape.iter().flatten().enumerate();
            dims.map(|(axis, dim)| (spec.name.clone(), axis, *dim))
        });
        axes.filter_map(|(tensor, axis, dim)| match dim {
            Dim::Symbol(id) => {
                Some(AxisSymbol { tensor, axis, symbol: signature.symbol_name(id).to_owned() })
            }
            Dim::Fixed(_) | Dim::Unnamed => None,
        })
        .collect()
    }
}

/// What a compile finds out about the model and a later load has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traits {
    /// What every axis of every output follows.
    pub(crate) roles: NamedRoles,
    /// Whether a row's answer is the same wherever it stands, so that a request may be split.
    pub(crate) can_split: bool,
}

impl Traits {
    /// Where they stand among an artifact's notes.
    const NOTE: &'static str = "traits";

    /// The traits among an artifact's notes.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub(crate) fn of(notes: &BTreeMap<String, String>) -> Result<Self, String> {
        let note = notes.get(Self::NOTE).ok_or("it does not say what its outputs follow")?;
        serde_json::from_str(note).map_err(|error| error.to_string())
    }
}

/// What a compile made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) traits: Traits,
    /// Whether other buckets of the model have the same traits.
    pub(crate) holds_for_all: bool,
    /// Milliseconds by stage.
    pub(crate) times: BTreeMap<String, u64>,
    /// What the library said although it succeeded.
    #[serde(default)]
    pub(crate) log: String,
}

impl Made {
    /// What is kept with the artifact.
    pub(crate) fn notes(&self) -> BTreeMap<String, String> {
        // Lists of names and numbers always have a JSON form.
        let traits = serde_json::to_string(&self.traits).unwrap_or_default();
        let mut notes = BTreeMap::from([(Traits::NOTE.to_owned(), traits)]);
        for (stage, milliseconds) in &self.times {
            notes.insert(format!("{stage}_ms"), milliseconds.to_string());
        }
        if !self.log.trim().is_empty() {
            notes.insert("compiler_log".to_owned(), self.log.trim().to_owned());
        }
        notes
    }
}

/// Why nothing was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// The model cannot be compiled so, today or tomorrow.
    Model { words: String },
    /// The model's file is not the one that was asked for.
    Changed,
    /// The program could not be written.
    Write { words: String },
    /// The calibration cannot be used.
    Calibration { words: String },
    /// Something else failed, and may not another time.
    Failed { words: String },
}

/// What a worker answers.
pub(crate) type Answer = Result<Made, Refusal>;
