//! The backends of the program, and the options that choose among them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use shapeyard_core::backend::{
    ArtifactUse, Backend, BackendError, BackendId, Optimisation, Probe, Recipe, Status,
};
use shapeyard_core::registry::{Choice, OpenError, Registry};
use shapeyard_cpu::{CpuOptions, Ggml, OnnxRuntime};

use crate::cache_args::CacheArgs;
use crate::cli::Global;
use crate::exit::BadInput;
use crate::migraphx_args::MigraphxArgs;
use crate::padding_args::PaddingArgs;

/// What a command that runs a model takes.
#[derive(Debug, clap::Args)]
pub(crate) struct BackendArgs {
    /// Who runs the model: auto, migraphx, onnxruntime, rten or ggml
    ///
    /// `auto` takes the first that is usable and takes the model, and says why others were passed over;
    /// migraphx only where programs for the work are in the cache, beside the next, which answers what they do
    /// not, or what is cheaper there by the prices that `shapeyard calibrate` measured. One that is named
    /// answers alone or fails; --precision, --calibration and --fast-math name migraphx.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: Choice,
    /// Threads to use in all [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = up_to_a_thousand)]
    pub(crate) threads: Option<NonZeroUsize>,
    /// Compile shapes that have no program yet instead of failing; with --backend migraphx
    ///
    /// A compile takes from seconds to an hour. `shapeyard warm` does it ahead, for all shapes at once.
    #[arg(long)]
    pub(crate) compile_missing: bool,
    /// Compile shapes that have no program yet while others answer, and use each as soon as it is ready; with
    /// --backend auto
    ///
    /// What is not done when the work is, is given up.
    #[arg(long, conflicts_with = "compile_missing")]
    pub(crate) compile_background: bool,
    /// The programs that --compile-background makes, and no others: those of a plan that `shapeyard plan --out`
    /// wrote, what saves most first
    #[arg(long, value_name = "FILE.json", requires = "compile_background")]
    pub(crate) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) padding: PaddingArgs,
    #[command(flatten)]
    pub(crate) cache: CacheArgs,
    #[command(flatten)]
    pub(crate) migraphx: MigraphxArgs,
}

impl BackendArgs {
    /// Who is meant, options that are for one backend alone considered.
    pub(crate) fn choice(&self) -> Result<Choice, BadInput> {
        match self.migraphx.choice(&self.backend)? {
            Choice::Forced(id) if self.compile_background => Err(BadInput::new(format!(
                "--compile-background lets others answer meanwhile, and {id} was asked for alone; use \
                 --backend auto, or --compile-missing to wait"
            ))),
            Choice::Forced(id) if self.padding.is_given() => Err(BadInput::new(format!(
                "--max-padding lets another backend answer what would be padded more, and {id} was asked for \
                 alone; use --backend auto"
            ))),
            choice => Ok(choice),
        }
    }

    pub(crate) fn n_threads(&self) -> usize {
        let all = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all).get()
    }
}

/// A number of threads or sessions. No machine has more than some hundred processors, and an engine that
/// is told to starts every thread.
pub(crate) fn up_to_a_thousand(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(n) if n.get() <= 1000 => Ok(n),
        _ => Err("expected is a whole number from 1 to 1000".to_owned()),
    }
}

/// Every backend, the preferred ones first.
pub(crate) fn registry(global: &Global, migraphx: Arc<dyn Backend>) -> Registry {
    let cpu = shapeyard_cpu::backends(&cpu_options(global));
    Registry::new(std::iter::once(migraphx).chain(cpu).collect())
}

/// The backend of that name.
pub(crate) fn named(registry: &Registry, name: &BackendId) -> Result<Arc<dyn Backend>, OpenError> {
    let found = registry.backends().iter().find(|backend| backend.id() == *name);
    found.cloned().ok_or_else(|| unknown(registry, name))
}

/// The backend whose artifacts are meant, and what decides them: the first that makes any, or the one that
/// was named. It need not be usable here.
pub(crate) fn that_compiles(
    registry: &Registry,
    choice: &Choice,
    optimisation: Optimisation,
) -> Result<(Arc<dyn Backend>, Recipe)> {
    let mut backends = registry.backends().iter();
    let backend = match choice {
        Choice::Auto => backends
            .find(|backend| backend.capabilities().artifacts != ArtifactUse::None)
            .cloned()
            .ok_or_else(|| BadInput::new("no backend of this program makes artifacts"))?,
        Choice::Forced(name) => named(registry, name)?,
    };
    let recipe = backend.recipe(optimisation)?;
    Ok((backend, recipe))
}

fn unknown(registry: &Registry, name: &BackendId) -> OpenError {
    let known = registry.backends().iter().map(|backend| backend.id().to_string());
    OpenError::Unknown { name: name.clone(), known: known.collect::<Vec<_>>().join(", ") }
}

/// What the command line says to the backends on the processor.
pub(crate) fn cpu_options(global: &Global) -> CpuOptions {
    CpuOptions {
        onnxruntime: global.onnxruntime.clone(),
        ggml: global.ggml.clone(),
        ggml_device: global.ggml_device.clone(),
        ggml_weights: global.ggml_weights,
    }
}

/// A library that was named must work: another engine in its place would hide the mistake.
pub(crate) fn check_named_libraries(
    global: &Global,
    args: &BackendArgs,
    migraphx: &dyn Backend,
) -> Result<(), BackendError> {
    if args.choice().is_ok_and(|choice| choice != Choice::Auto) {
        return Ok(());
    }
    if args.migraphx.names_library() {
        check_usable(migraphx)?;
    }
    if global.onnxruntime.is_some() {
        check_usable(&OnnxRuntime::new(&cpu_options(global)))?;
    }
    if global.ggml.is_some() || global.ggml_device.is_some() {
        check_usable(&Ggml::new(&cpu_options(global)))?;
    }
    Ok(())
}

/// Checks that a backend can be used here.
pub(crate) fn check_usable(backend: &dyn Backend) -> Result<(), BackendError> {
    match backend.probe() {
        Probe { backend, status: Status::Unusable { reason, remedy }, .. } => {
            Err(BackendError::Unavailable { backend, reason, remedy })
        }
        _ => Ok(()),
    }
}
