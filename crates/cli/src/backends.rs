//! The backends of the program, and the options that choose among them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use shapeyard_core::Model;
use shapeyard_core::backend::{
    ArtifactUse, Backend, BackendError, BackendId, LoadJob, Optimisation, Probe, Recipe,
    SessionOptions, Status,
};
use shapeyard_core::registry::{Choice, OpenError, Opened, Registry};
use shapeyard_cpu::{CpuOptions, Ggml, OnnxRuntime};

use crate::cli::Global;
use crate::exit::BadInput;
use crate::output::Output;

/// What a command that runs a model takes.
#[derive(Debug, clap::Args)]
pub(crate) struct BackendArgs {
    /// Who runs the model: auto, onnxruntime, rten or ggml
    ///
    /// `auto` takes the first that is usable and takes the model, and says why others were passed over. One
    /// that is named answers alone or fails.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: Choice,
    /// Threads to use in all [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = up_to_a_thousand)]
    pub(crate) threads: Option<NonZeroUsize>,
}

impl BackendArgs {
    pub(crate) fn n_threads(&self) -> usize {
        let all = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        self.threads.unwrap_or_else(all).get()
    }

    /// Loads a model on the backend that was chosen, and says which others did not serve. `sessions` are
    /// those that will be asked for: a backend that makes one to load the model makes it so.
    pub(crate) fn open(
        &self,
        global: &Global,
        model: &Model,
        sessions: SessionOptions,
        output: &Output,
    ) -> Result<Opened> {
        if self.backend == Choice::Auto {
            check_named_libraries(global)?;
        }
        let opened =
            registry(global).open(&self.backend, &LoadJob::of(model).for_sessions(sessions))?;
        for passed in &opened.passed_over {
            let instead = opened.backend.id();
            output.note(format_args!("{}; {instead} answers instead", passed.reason));
        }
        Ok(opened)
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
pub(crate) fn registry(global: &Global) -> Registry {
    Registry::new(shapeyard_cpu::backends(&cpu_options(global)))
}

/// The backend whose artifacts are meant, and what decides them: the first that makes any, or the one that
/// was named. It need not be usable here.
pub(crate) fn that_compiles(
    global: &Global,
    choice: &Choice,
    optimisation: Optimisation,
) -> Result<(Arc<dyn Backend>, Recipe)> {
    let registry = registry(global);
    let mut backends = registry.backends().iter();
    let backend = match choice {
        Choice::Auto => backends
            .find(|backend| backend.capabilities().artifacts != ArtifactUse::None)
            .ok_or_else(|| BadInput::new("no backend of this program makes artifacts"))?,
        Choice::Forced(name) => {
            let named = backends.find(|backend| backend.id() == *name);
            named.ok_or_else(|| unknown(&registry, name))?
        }
    };
    Ok((Arc::clone(backend), backend.recipe(optimisation)?))
}

fn unknown(registry: &Registry, name: &BackendId) -> OpenError {
    let known = registry.backends().iter().map(|backend| backend.id().to_string());
    OpenError::Unknown { name: name.clone(), known: known.collect::<Vec<_>>().join(", ") }
}

fn cpu_options(global: &Global) -> CpuOptions {
    CpuOptions { onnxruntime: global.onnxruntime.clone(), ggml: global.ggml.clone() }
}

/// A library that was named must work: another engine in its place would hide the mistake.
fn check_named_libraries(global: &Global) -> Result<(), BackendError> {
    let options = cpu_options(global);
    let named: [(bool, &dyn Backend); 2] = [
        (global.onnxruntime.is_some(), &OnnxRuntime::new(&options)),
        (global.ggml.is_some(), &Ggml::new(&options)),
    ];
    for (_, backend) in named.into_iter().filter(|(named, _)| *named) {
        if let Probe { backend, status: Status::Unusable { reason, remedy }, .. } = backend.probe()
        {
            return Err(BackendError::Unavailable { backend, reason, remedy });
        }
    }
    Ok(())
}
