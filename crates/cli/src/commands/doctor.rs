//! `shapeyard doctor`.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;
use shapeyard_core::BackendId;
use shapeyard_core::backend::{Probe, Status};

use crate::backends;
use crate::cli::Global;
use crate::exit::Code;
use crate::output::{Output, Report};

const AFTER_HELP: &str = "\
Examples:
  shapeyard doctor
  shapeyard doctor --onnxruntime lib/libonnxruntime.so
  shapeyard doctor --format json | jq -r .auto

Ends with 0 if at least one backend is usable, with 3 if none is.";

/// Show which backends work here, where they were looked for, and what to install
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {}

pub(crate) fn run(_args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let backends = backends::registry(global).probe();
    let auto = backends.iter().find(|probe| probe.is_usable()).map(|probe| probe.backend.clone());
    let code = if auto.is_some() { Code::Done } else { Code::Backend };
    output.result(&Findings { auto, backends })?;
    Ok(code)
}

#[derive(Serialize)]
struct Findings {
    /// Who answers where none is named and the model is one that it takes.
    auto: Option<BackendId>,
    /// In the order of preference.
    backends: Vec<Probe>,
}

impl Report for Findings {
    const COMMAND: &'static str = "doctor";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for probe in &self.backends {
            write_probe(probe, out)?;
            writeln!(out)?;
        }
        match &self.auto {
            Some(backend) => {
                writeln!(out, "--backend auto: {backend} answers, where it takes the model")
            }
            None => writeln!(out, "--backend auto: no backend is usable here"),
        }
    }
}

fn write_probe(probe: &Probe, out: &mut dyn Write) -> io::Result<()> {
    match &probe.status {
        Status::Usable { version, fingerprint } => {
            writeln!(out, "{}: usable, version {version}", probe.backend)?;
            writeln!(out, "  fingerprint  {fingerprint}")?;
        }
        Status::Unusable { reason, remedy } => {
            writeln!(out, "{}: not usable", probe.backend)?;
            writeln!(out, "  reason       {reason}")?;
            writeln!(out, "  remedy       {remedy}")?;
        }
    }
    for step in &probe.searched {
        writeln!(out, "  looked at    {}: {}", step.place, step.outcome)?;
    }
    Ok(())
}
