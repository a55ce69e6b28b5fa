//! The model, who serves it, and the compile that takes long.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use shapeyard_cache::{CachedArtifacts, Store};
use shapeyard_core::Model;
use shapeyard_core::backend::{ArtifactSource, Backend, Executable, LoadJob, Optimisation, Status};
use shapeyard_core::plan::Bucket;
use shapeyard_core::registry::Registry;
use shapeyard_core::router::{BackgroundOptions, Router, RouterOptions, Wanted};
use shapeyard_cpu::Rten;
use shapeyard_migraphx::{
    CompileOptions, CompilePlace, Compiler, MigraphxBackend, MigraphxOptions, Target, WorkerProgram,
};

use super::Args;
use crate::concurrency::rows::Rows;
use crate::suite::{Host, Skipped};

/// The symbol that counts rows.
const ROWS: &str = "batch";

pub(super) struct Place {
    model: Arc<Model>,
    migraphx: Arc<dyn Backend>,
    program: Bucket,
    pub(super) compiler: String,
    pub(super) rows: Rows,
    folder: tempfile::TempDir,
}

impl Place {
    pub(super) fn make(args: &Args, host: &Host) -> Result<Self> {
        let model = Arc::new(Model::open(&args.model)?);
        let signature = model.signature();
        let names = signature.bound_symbols().map(|id| signature.symbol_name(id).to_owned());
        let one: Bucket = names.map(|name| (name, args.extent)).collect::<Bucket>().with(ROWS, 1);
        let migraphx = Arc::new(MigraphxBackend::new(options(args.sleep, host)?)?);
        let compiler = match migraphx.probe().status {
            Status::Usable { version, .. } => version,
            Status::Unusable { reason, remedy } => {
                bail!(Skipped(format!("MIGraphX cannot run here: {reason}; {remedy}")))
            }
        };
        let rows = Rows::of(&Rten::new().load(&LoadJob::of(&model))?, &one)?;
        let (program, folder) = (one.with(ROWS, args.rows), tempfile::tempdir()?);
        Ok(Self { model, migraphx, program, compiler, rows, folder })
    }

    /// rten alone.
    pub(super) fn alone(&self) -> Result<Arc<dyn Executable>> {
        Ok(Rten::new().load(&LoadJob::of(&self.model))?)
    }

    /// A router over rten and MIGraphX, which has no program yet and gets one meanwhile, in a cache of its
    /// own.
    pub(super) fn router(&self) -> Result<Arc<Router>> {
        let cache: PathBuf = tempfile::tempdir_in(self.folder.path())?.keep();
        let (backend, model) = (Arc::clone(&self.migraphx), Arc::clone(&self.model));
        let store = Arc::new(Store::open(Path::new(&cache))?);
        let source = CachedArtifacts::new(store, backend, model, Optimisation::Full)?;
        let source: Arc<dyn ArtifactSource> = Arc::new(source);
        let wanted = Wanted::Planned(vec![self.program.clone()]);
        let background = Some(BackgroundOptions { wanted, ..BackgroundOptions::new(source) });
        let registry = Registry::new(vec![Arc::clone(&self.migraphx), Arc::new(Rten::new())]);
        let options = RouterOptions { background, ..RouterOptions::default() };
        let opened = registry.open_routed(&LoadJob::of(&self.model), options)?;
        opened.router.context("MIGraphX and rten do not share the model")
    }
}

/// MIGraphX's interpreter; what compiles is this program, after a sleep.
fn options(sleep: u64, host: &Host) -> Result<MigraphxOptions> {
    let worker = host.hidden(host.migraphx_worker)?;
    let words = worker.get_args().map(|word| word.to_string_lossy().into_owned());
    let script = format!("sleep {sleep}; exec \"$0\" \"$@\"");
    let arguments: Vec<String> = ["-c".to_owned(), script]
        .into_iter()
        .chain([worker.get_program().to_string_lossy().into_owned()])
        .chain(words)
        .collect();
    let place = CompilePlace::worker(WorkerProgram::new("/bin/sh", arguments));
    Ok(MigraphxOptions {
        compile: CompileOptions { target: Target::Ref, ..CompileOptions::default() },
        compiler: Compiler { place, low_priority: true, ..Compiler::default() },
        ..MigraphxOptions::default()
    })
}
