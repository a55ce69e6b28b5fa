//! The environment in which tests, benchmarks and the demo run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::availability::Availability;
use crate::models::{self, Encoder};
use crate::paths::Layout;
use crate::setup;

/// What was prepared, as far as this machine can.
#[derive(Debug)]
pub(crate) struct Runtime {
    library: Availability<PathBuf>,
    /// In place of a library that may be there: a path that is not, since without any the program
    /// would look for itself.
    hidden: Option<PathBuf>,
    models: PathBuf,
    encoder: Availability<Encoder>,
}

impl Runtime {
    /// Runs the set-up and makes the models.
    pub(crate) fn prepare(layout: &Layout, hide_onnxruntime: bool) -> Result<Self> {
        let hidden = hide_onnxruntime
            .then(|| layout.setup().join("hidden-by-request").join("libonnxruntime.so"));
        let library = match hidden {
            Some(_) => Availability::Missing("hidden by --hide-onnxruntime.".to_owned()),
            None => setup::onnxruntime(layout)?,
        };
        let encoder = models::encoder(layout)?;
        Ok(Self { library, hidden, models: layout.models(), encoder })
    }

    /// Tells a program where the prepared things are.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if let Some(path) = &self.hidden {
            command.env(setup::LIBRARY_VARIABLE, path);
        } else if let Availability::Ready(path) = &self.library {
            command.env(setup::LIBRARY_VARIABLE, path);
        }
        command.env("SHAPEYARD_TEST_MODELS", &self.models)
    }

    /// The real model, or why there is none.
    pub(crate) fn encoder(&self) -> Result<&Encoder> {
        match &self.encoder {
            Availability::Ready(encoder) => Ok(encoder),
            Availability::Missing(reason) => bail!("the model cannot be made: {reason}"),
        }
    }

    /// A line `name: reason` for everything that this machine does without.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        lacks.extend(self.library.lack("ONNX Runtime"));
        lacks.extend(self.encoder.lack("the model MiniLM-L6"));
        lacks
    }
}
