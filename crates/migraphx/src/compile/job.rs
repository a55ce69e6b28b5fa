//! What is to be compiled and what came of it, as data that crosses processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shapeyard_core::AxisSymbol;
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Dim, Signature};

use crate::options::{CompileOptions, Padding};
use crate::roles::Role;

/// What is to be compiled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The library that has to do it: the very file that the caller loaded.
    pub(crate) library: PathBuf,
    pub(crate) model: PathBuf,
    /// What the model's content has to be.
    pub(crate) digest: Digest,
    pub(crate) declared: Vec<Declared>,
    pub(crate) bucket: Bucket,
    pub(crate) options: CompileOptions,
    /// What the content of the calibration has to be.
    pub(crate) calibration: Option<Digest>,
    pub(crate) padding: Padding,
    /// The file to write.
    pub(crate) output: PathBuf,
}

/// A symbol of the signature at its axis, so that a worker sees the same signature.
pub(crate) type Declared = AxisSymbol;

impl Job {
    /// Every symbol of a signature, where it stands; those of the file itself are among them and do no
    /// harm.
    pub(crate) fn declared(signature: &Signature) -> Vec<Declared> {
        let specs = signature.inputs.iter().chain(&signature.outputs);
        let axes = specs.flat_map(|spec| {
            spec.shape
                .iter()
                .flatten()
                .enumerate()
                .map(|(axis, dim)| (spec.name.clone(), axis, *dim))
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

/// What a compile found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) roles: Vec<Vec<Role>>,
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
        let roles = serde_json::to_string(&self.roles).unwrap_or_default();
        let mut notes = BTreeMap::from([(super::ROLES.to_owned(), roles)]);
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
    /// The library is missing something or failed.
    Library { words: String },
}

/// What a worker answers.
pub(crate) type Answer = Result<Made, Refusal>;
