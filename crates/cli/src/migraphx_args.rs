//! The options of the MIGraphX backend.

use std::env;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use shapeyard_core::Signature;
use shapeyard_core::backend::BackendError;
use shapeyard_core::registry::Choice;
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, DeviceOptions, Graphs, MigraphxBackend,
    MigraphxOptions, Padding, PaddingPolicy, Precision, Target, WorkerProgram,
};

use crate::backends::up_to_a_thousand;
use crate::exit::BadInput;
use crate::quantity::{Size, Span};

/// The command of this program that compiles one program and ends.
pub(crate) const WORKER: &str = "migraphx-worker";

/// Names another program to compile with.
const WORKER_VARIABLE: &str = "SHAPEYARD_MIGRAPHX_WORKER";

/// What a command that may use MIGraphX takes. All but the library and what follows `--instances` decides
/// which artifacts are meant: what was warmed with an option is found with the same option.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the backend migraphx")]
pub(crate) struct MigraphxArgs {
    #[command(flatten)]
    engine: EngineArgs,
    /// The numbers that programs compute with: fp32, fp16 or bf16, and int8 or fp8 for products, alone or
    /// as in int8+fp16. 8 bits need --calibration
    #[arg(long, value_name = "FORMAT", default_value_t)]
    precision: Precision,
    /// Inputs as the model meets them, from which the ranges of 8-bit numbers are taken: a tensor for each
    /// input; may be repeated
    #[arg(long, value_name = "FILE.safetensors")]
    calibration: Vec<PathBuf>,
    /// Try every kernel for every operation and keep the fastest. Compiles take many times as long; gpu
    /// only
    #[arg(long)]
    exhaustive_tune: bool,
    /// Let the compiler trade accuracy for speed
    #[arg(long)]
    fast_math: bool,
    /// Whether a request may be padded to a larger shape: checked, after a test that padding does not
    /// change the model's answers; never, so that every request needs a program of exactly its shape
    #[arg(long, value_name = "HOW", default_value = "checked", hide_possible_values = true,
        value_parser = PossibleValuesParser::new(["checked", "never"]).map(|name| policy(&name)))]
    padding: PaddingPolicy,
    /// The symbol that counts rows, which may be split and padded with copies [default: the one with
    /// `batch` in its name]
    #[arg(long, value_name = "SYMBOL")]
    rows: Option<String>,
    /// What an input's other axes are padded with, such as input_ids=1; 0 for those not named; may be
    /// repeated
    #[arg(long = "fill", value_name = "INPUT=VALUE")]
    fills: Vec<Fill>,
    /// Copies of each program in memory, so that as many sessions can run one shape side by side
    #[arg(long, value_name = "N", default_value = "1", value_parser = up_to_a_thousand)]
    instances: NonZeroUsize,
    #[command(flatten)]
    device: DeviceArgs,
    /// How long one compile may take, such as 30min
    #[arg(long, value_name = "TIME", default_value = "1h")]
    compile_timeout: Span,
    /// How much memory one compile may use, such as 16GiB [default: no limit]
    #[arg(long, value_name = "SIZE")]
    compile_memory: Option<Size>,
}

/// How programs run on GPUs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the backend migraphx")]
pub(crate) struct DeviceArgs {
    /// The GPU to run on, by HIP's number; may be repeated, and sessions take turns on them [default: 0]
    #[arg(long = "device", value_name = "N")]
    devices: Vec<usize>,
    /// Most memory of each GPU for programs and buffers, such as 8GiB; what was not used for longest makes
    /// room [default: what is free when it is opened]
    #[arg(long, value_name = "SIZE")]
    device_memory: Option<Size>,
    /// Never capture runs on a GPU and replay them
    #[arg(long, conflicts_with = "check_graphs")]
    no_graphs: bool,
    /// Compare the first replays of each captured run with runs that are not, and use graphs even with a
    /// runtime that is known to spoil some
    #[arg(long)]
    check_graphs: bool,
}

/// Which MIGraphX, and what it runs programs on.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of the backend migraphx")]
pub(crate) struct EngineArgs {
    /// The MIGraphX library to load. When it does not work, nothing else is tried
    ///
    /// Without this option the library is looked for at MIGRAPHX_DYLIB_PATH, where ROCm is installed, and
    /// where the system keeps its libraries. `shapeyard doctor` says what was found.
    #[arg(long = "migraphx", value_name = "PATH")]
    library: Option<PathBuf>,
    /// What runs the programs: gpu, an AMD GPU; ref, MIGraphX's interpreter on the CPU, which is slow and
    /// there to try things out; cpu, which few builds have
    #[arg(long, value_name = "TARGET", default_value_t, hide_possible_values = true,
        value_parser = PossibleValuesParser::new(["gpu", "ref", "cpu"]).map(|name| target(&name)))]
    target: Target,
}

impl DeviceArgs {
    fn options(&self) -> DeviceOptions {
        let mut device = DeviceOptions::default();
        if !self.devices.is_empty() {
            device.devices.clone_from(&self.devices);
        }
        device.memory = self.device_memory.map(|size| size.0);
        device.graphs = match (self.no_graphs, self.check_graphs) {
            (true, _) => Graphs::Off,
            (_, true) => Graphs::Checked,
            _ => Graphs::Auto,
        };
        device
    }
}

impl EngineArgs {
    /// The backend, to be looked at.
    pub(crate) fn backend(&self, device: &DeviceArgs) -> Result<MigraphxBackend, BackendError> {
        MigraphxBackend::new(MigraphxOptions {
            library: self.library.clone(),
            compile: CompileOptions { target: self.target, ..CompileOptions::default() },
            device: device.options(),
            ..MigraphxOptions::default()
        })
    }

    pub(crate) const fn target(&self) -> Target {
        self.target
    }
}

fn target(name: &str) -> Target {
    match name {
        "ref" => Target::Ref,
        "cpu" => Target::Cpu,
        _ => Target::Gpu,
    }
}

fn policy(name: &str) -> PaddingPolicy {
    match name {
        "never" => PaddingPolicy::Never,
        _ => PaddingPolicy::Checked,
    }
}

/// `INPUT=VALUE`.
#[derive(Clone, Debug, PartialEq)]
struct Fill {
    input: String,
    value: f64,
}

/// A value that is no `INPUT=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected INPUT=VALUE with a number, such as input_ids=1")]
struct NotAFill;

impl FromStr for Fill {
    type Err = NotAFill;

    fn from_str(text: &str) -> Result<Self, NotAFill> {
        let (input, value) = text.rsplit_once('=').ok_or(NotAFill)?;
        let value: f64 = value.trim().parse().map_err(|_| NotAFill)?;
        if input.is_empty() || value.is_nan() {
            return Err(NotAFill);
        }
        Ok(Self { input: input.to_owned(), value })
    }
}

impl MigraphxArgs {
    /// The backend that was asked for.
    pub(crate) fn backend(&self) -> Result<MigraphxBackend, BackendError> {
        let compile = CompileOptions {
            target: self.engine.target,
            precision: self.precision,
            calibration: self.calibration.clone(),
            fast_math: self.fast_math,
            exhaustive_tune: self.exhaustive_tune,
        };
        let fills = self.fills.iter().map(|fill| (fill.input.clone(), fill.value)).collect();
        MigraphxBackend::new(MigraphxOptions {
            library: self.engine.library.clone(),
            compile,
            padding: Padding { policy: self.padding, rows: self.rows.clone(), fills },
            instances: self.instances,
            device: self.device.options(),
            compiler: Compiler {
                place: compile_place(),
                time_limit: self.compile_timeout.0,
                memory_limit: self.compile_memory.map(|size| size.0),
                ..Compiler::default()
            },
            ..MigraphxOptions::default()
        })
    }

    /// Who is meant by `named`: some options decide what the answers are, so nobody else may answer under
    /// them.
    pub(crate) fn choice(&self, named: &Choice) -> Result<Choice, BadInput> {
        let Some(option) = self.deciding_option() else { return Ok(named.clone()) };
        match named {
            Choice::Auto => Ok(Choice::Forced(shapeyard_migraphx::ID)),
            Choice::Forced(id) if *id == shapeyard_migraphx::ID => Ok(named.clone()),
            Choice::Forced(id) => Err(BadInput::new(format!(
                "{option} is for migraphx, and {id} was asked for; leave one of them out"
            ))),
        }
    }

    fn deciding_option(&self) -> Option<&'static str> {
        let given = [
            ("--precision", self.precision != Precision::default()),
            ("--calibration", !self.calibration.is_empty()),
            ("--fast-math", self.fast_math),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    pub(crate) const fn names_library(&self) -> bool {
        self.engine.library.is_some()
    }

    pub(crate) const fn instances(&self) -> NonZeroUsize {
        self.instances
    }

    pub(crate) const fn may_pad(&self) -> bool {
        matches!(self.padding, PaddingPolicy::Checked)
    }

    /// The symbol that counts rows.
    pub(crate) fn rows<'a>(&'a self, signature: &'a Signature) -> Option<&'a str> {
        let mut bound = signature.bound_symbols().map(|symbol| signature.symbol_name(symbol));
        match &self.rows {
            Some(rows) => bound.find(|name| name == rows),
            None => bound.find(|name| name.to_lowercase().contains("batch")),
        }
    }

    /// The options that differ from what is usual, to say the same again.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Words::default();
        words.value("--migraphx", self.engine.library.as_ref().map(|path| path.display()));
        words.value("--target", Some(self.engine.target).filter(|it| *it != Target::default()));
        words.value("--precision", Some(self.precision).filter(|it| *it != Precision::default()));
        for file in &self.calibration {
            words.value("--calibration", Some(file.display()));
        }
        words.flag("--exhaustive-tune", self.exhaustive_tune);
        words.flag("--fast-math", self.fast_math);
        words.value("--padding", (!self.may_pad()).then_some("never"));
        words.value("--rows", self.rows.as_ref());
        for Fill { input, value } in &self.fills {
            words.value("--fill", Some(format_args!("{input}={value}")));
        }
        words.0
    }
}

/// The words of a command line.
#[derive(Debug, Default)]
struct Words(Vec<String>);

impl Words {
    fn flag(&mut self, name: &str, is_set: bool) {
        self.0.extend(is_set.then(|| name.to_owned()));
    }

    fn value(&mut self, name: &str, value: Option<impl ToString>) {
        self.0.extend(value.into_iter().flat_map(|value| [name.to_owned(), value.to_string()]));
    }
}

/// This program compiles in a process of its own, so that one file is all that has to be installed.
fn compile_place() -> CompilePlace {
    let is_named = env::var_os(WORKER_VARIABLE).is_some_and(|program| !program.is_empty());
    match env::current_exe() {
        Ok(program) if !is_named => CompilePlace::worker(WorkerProgram::new(program, [WORKER])),
        _ => CompilePlace::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        migraphx: MigraphxArgs,
    }

    fn parse(text: &str) -> Result<MigraphxArgs, clap::Error> {
        let words = std::iter::once("program").chain(text.split_whitespace());
        Program::try_parse_from(words).map(|program| program.migraphx)
    }

    #[test]
    fn what_was_said_is_said_again() {
        let text = "--migraphx lib/a.so --target ref --precision int8+fp16 --calibration a.safetensors \
                    --calibration b.safetensors --fast-math --padding never --rows n --fill a=b=1.5";
        let args = parse(text).unwrap();
        assert_eq!(args.words().join(" "), text);
        let options = args.backend().unwrap().options().clone();
        assert_eq!(options.compile.calibration.len(), 2);
        assert_eq!(options.padding.fills, BTreeMap::from([("a=b".to_owned(), 1.5)]));
        let device = parse("--device 1 --device 3 --device-memory 8GiB --check-graphs").unwrap();
        let device = device.backend().unwrap().options().device.clone();
        assert_eq!((device.devices, device.memory), (vec![1, 3], Some(8 << 30)));
        assert_eq!(device.graphs, Graphs::Checked);
        let none: [&str; 0] = [];
        assert_eq!(parse("--target gpu --instances 2 --padding checked").unwrap().words(), none);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "--target tpu",
            "--precision fp16+bf16",
            "--padding sometimes",
            "--fill x",
            "--fill x=NaN",
            "--instances 0",
            "--compile-timeout 30",
            "--compile-memory 16G",
            "--no-graphs --check-graphs",
            "--device first",
        ] {
            parse(text).unwrap_err();
        }
        for text in
            ["--precision int8", "--calibration a.safetensors", "--target ref --exhaustive-tune"]
        {
            let error = parse(text).unwrap().backend().unwrap_err();
            assert!(matches!(error, BackendError::Option { .. }), "{error}");
        }
    }
}
