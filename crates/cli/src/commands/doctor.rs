//! `shapeyard doctor`.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use shapeyard_core::BackendId;
use shapeyard_core::backend::{ArtifactUse, Backend, DeviceReport, Probe, Status};

use crate::backends;
use crate::cli::Global;
use crate::exit::Code;
use crate::migraphx_args::{DeviceArgs, EngineArgs};
use crate::output::{Output, Report};

const AFTER_HELP: &str = "\
Examples:
  shapeyard doctor
  shapeyard doctor --onnxruntime lib/libonnxruntime.so
  shapeyard doctor --migraphx /opt/rocm/lib/libmigraphx_c.so --target ref
  shapeyard doctor --device 1 --no-graphs
  shapeyard doctor --format json | jq -r .auto

Ends with 0 if at least one backend is usable, with 3 if none is.";

/// Show which backends work here, where they were looked for, and what to install
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    migraphx: EngineArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(crate) fn run(args: &Args, global: &Global, output: &Output) -> Result<Code> {
    let registry = backends::registry(global, Arc::new(args.migraphx.backend(&args.device)?));
    let backends = registry.probe();
    let first = |needs_programs: bool| {
        let mut pairs = registry.backends().iter().zip(&backends);
        let serves = |backend: &dyn Backend| {
            needs_programs == (backend.capabilities().artifacts == ArtifactUse::Required)
        };
        let found = pairs.find(|(backend, probe)| probe.is_usable() && serves(backend.as_ref()));
        found.map(|(_, probe)| probe.backend.clone())
    };
    let (auto, auto_compiled) = (first(false), first(true));
    let target = args.migraphx.target().to_string();
    let findings = Findings { auto, auto_compiled, migraphx_target: target, backends };
    let is_any = findings.auto.is_some() || findings.auto_compiled.is_some();
    output.result(&findings)?;
    Ok(if is_any { Code::Done } else { Code::Backend })
}

#[derive(Serialize)]
struct Findings {
    /// Who answers where none is named and the model is one that it takes.
    auto: Option<BackendId>,
    /// Who answers in its place for models whose programs are in the cache.
    auto_compiled: Option<BackendId>,
    /// What migraphx was asked to run programs on.
    migraphx_target: String,
    /// In the order of preference.
    backends: Vec<Probe>,
}

impl Report for Findings {
    const COMMAND: &'static str = "doctor";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for probe in &self.backends {
            write_probe(probe, out)?;
            if probe.backend == shapeyard_migraphx::ID {
                writeln!(out, "  target       {} (--target)", self.migraphx_target)?;
            }
            writeln!(out)?;
        }
        if let Some(backend) = &self.auto_compiled {
            let warm = "`shapeyard warm` puts them there";
            writeln!(
                out,
                "--backend auto: {backend} answers, where programs for the work are in the cache; {warm}"
            )?;
        }
        match &self.auto {
            Some(backend) if self.auto_compiled.is_some() => {
                writeln!(out, "                otherwise {backend}, where it takes the model")
            }
            Some(backend) => {
                writeln!(out, "--backend auto: {backend} answers, where it takes the model")
            }
            None => writeln!(out, "--backend auto: no backend is usable here"),
        }
    }
}

fn write_device(device: &DeviceReport, out: &mut dyn Write) -> io::Result<()> {
    let DeviceReport { index, name, architecture, pci_address, .. } = device;
    let driver = device.driver.as_deref().unwrap_or("unknown");
    let [free, total, budget] = [device.free_bytes, device.total_bytes, device.budget_bytes]
        .map(|bytes| format!("{} MiB", bytes >> 20));
    writeln!(out, "  device {index}     {name}, {architecture}, {pci_address}")?;
    writeln!(
        out,
        "    runtime    {} ({}), driver {driver}",
        device.runtime,
        device.library.display()
    )?;
    writeln!(out, "    memory     {free} of {total} free; programs and buffers may take {budget}")?;
    writeln!(out, "    graphs     {}", device.graphs)?;
    writeln!(out, "    padding    {}", device.padding)
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
    for device in &probe.devices {
        write_device(device, out)?;
    }
    for step in &probe.searched {
        writeln!(out, "  looked at    {}: {}", step.place, step.outcome)?;
    }
    Ok(())
}
