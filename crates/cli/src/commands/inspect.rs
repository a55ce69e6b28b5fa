//! `shapeyard inspect`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use shapeyard_core::model::onnx::ForeignValue;
use shapeyard_core::model::{Described, Digest, ExternalFile};
use shapeyard_core::{DataType, Dim, Model, Signature, TensorSpec};

use crate::exit::Code;
use crate::human;
use crate::output::{Output, Report};

const AFTER_HELP: &str = "\
Examples:
  shapeyard inspect model.onnx
  shapeyard inspect model.onnx --format json | jq .inputs

An axis is an extent, the name of a symbol that a request gives a value, or `?`, which is free and has no \
name. No runtime library is needed.";

/// Show what a model takes and gives: inputs, outputs, symbols, operators, weights
#[derive(Debug, clap::Args)]
#[command(after_long_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The ONNX file
    model: PathBuf,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Code> {
    output.result(&Inspection::of(&Model::describe(&args.model)?)?)?;
    Ok(Code::Done)
}

#[derive(Serialize)]
struct Inspection<'a> {
    path: String,
    n_bytes: u64,
    digest: Digest,
    /// `onnx` or `gguf`.
    format: &'static str,
    /// The version of the format.
    ir_version: i64,
    opsets: &'a BTreeMap<String, i64>,
    producer: &'a str,
    inputs: Vec<Port<'a>>,
    outputs: Vec<Port<'a>>,
    /// Inputs and outputs that keep the model from being served.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    foreign: &'a [ForeignValue],
    symbols: &'a [String],
    operators: &'a BTreeMap<String, usize>,
    n_parameter_bytes: u64,
    external_files: &'a [ExternalFile],
}

/// An input or output.
#[derive(Serialize)]
struct Port<'a> {
    name: &'a str,
    dtype: DataType,
    /// Absent where not even the number of axes is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<Axis<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index_limit: Option<usize>,
    #[serde(skip)]
    shape_text: String,
}

/// A number, a name or null.
#[derive(Serialize)]
#[serde(untagged)]
enum Axis<'a> {
    Fixed(usize),
    Symbol(&'a str),
    Unnamed,
}

impl<'a> Inspection<'a> {
    fn of(Described { model, foreign }: &'a Described) -> Result<Self> {
        let signature = model.signature();
        let ports =
            |specs: &'a [TensorSpec]| specs.iter().map(|spec| port(signature, spec)).collect();
        Ok(Self {
            path: model.path().display().to_string(),
            n_bytes: model.n_bytes(),
            digest: model.digest()?,
            format: if model.gguf().is_some() { "gguf" } else { "onnx" },
            ir_version: model.ir_version(),
            opsets: model.opsets(),
            producer: model.producer(),
            inputs: ports(&signature.inputs),
            outputs: ports(&signature.outputs),
            foreign,
            symbols: &signature.symbols,
            operators: model.operators(),
            n_parameter_bytes: model.n_parameter_bytes(),
            external_files: model.external_files(),
        })
    }
}

fn port<'a>(signature: &'a Signature, spec: &'a TensorSpec) -> Port<'a> {
    let axis = |dim: &Dim| match dim {
        Dim::Fixed(extent) => Axis::Fixed(*extent),
        Dim::Symbol(symbol) => Axis::Symbol(signature.symbol_name(*symbol)),
        Dim::Unnamed => Axis::Unnamed,
    };
    Port {
        name: &spec.name,
        dtype: spec.dtype,
        shape: spec.shape.as_ref().map(|dims| dims.iter().map(axis).collect()),
        index_limit: spec.index_limit,
        shape_text: signature.shape_text(spec),
    }
}

impl Report for Inspection<'_> {
    const COMMAND: &'static str = "inspect";

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "model      {} ({})", self.path, human::bytes(self.n_bytes))?;
        writeln!(out, "digest     {}", self.digest)?;
        let version = self.ir_version;
        if self.format == "gguf" {
            writeln!(out, "format     GGUF version {version}")?;
        } else {
            writeln!(out, "format     IR version {version}, {}", opsets(self.opsets))?;
        }
        if !self.producer.is_empty() {
            writeln!(out, "producer   {}", self.producer)?;
        }
        writeln!(out, "weights    {}", human::bytes(self.n_parameter_bytes))?;
        for file in self.external_files {
            writeln!(out, "           in {} ({})", file.location, human::bytes(file.n_bytes))?;
        }
        let symbols =
            if self.symbols.is_empty() { "none".to_owned() } else { self.symbols.join(", ") };
        writeln!(out, "symbols    {symbols}")?;
        self.inputs.iter().try_for_each(|port| port.line("input", out))?;
        self.outputs.iter().try_for_each(|port| port.line("output", out))?;
        for ForeignValue { name, kind, is_input, .. } in self.foreign {
            let side = if *is_input { "input" } else { "output" };
            writeln!(out, "{side:<10} {name}: {kind}, which cannot be served")?;
        }
        if self.operators.is_empty() {
            return Ok(());
        }
        let total: usize = self.operators.values().sum();
        writeln!(out, "operators  {total}: {}", operators(self.operators))
    }
}

impl Port<'_> {
    fn line(&self, kind: &str, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{kind:<10} {}: {} {}", self.name, self.dtype, self.shape_text)?;
        match self.index_limit {
            Some(limit) => writeln!(out, ", an index below {limit}"),
            None => writeln!(out),
        }
    }
}

fn opsets(opsets: &BTreeMap<String, i64>) -> String {
    let named = opsets.iter().map(|(domain, version)| match domain.as_str() {
        "" => format!("opset {version}"),
        domain => format!("{domain} {version}"),
    });
    named.collect::<Vec<_>>().join(", ")
}

/// The most frequent first.
fn operators(operators: &BTreeMap<String, usize>) -> String {
    let mut counted: Vec<_> = operators.iter().collect();
    counted.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), name.as_str()));
    let named = counted.into_iter().map(|(name, count)| format!("{count} {name}"));
    named.collect::<Vec<_>>().join(", ")
}
