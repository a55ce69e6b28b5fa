//! Compiles a model for two batch sizes and runs every other size on them.
//!
//! Needs MIGraphX, and the worker beside the example or named with `SHAPEYARD_MIGRAPHX_WORKER`:
//!
//! ```sh
//! cargo build -p shapeyard-migraphx --bin shapeyard-migraphx-worker
//! SHAPEYARD_MIGRAPHX_WORKER=target/debug/shapeyard-migraphx-worker \
//!     cargo run -p shapeyard-migraphx --example any_batch -- tests/models/add_one.onnx ref
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::env;
use std::error::Error;

use shapeyard_core::backend::{Artifact, Backend as _, CompileJob, LoadJob, SessionOptions};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Outputs, Request, Tensor};
use shapeyard_migraphx::{CompileOptions, MigraphxBackend, MigraphxOptions, Target};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let path = arguments.next().ok_or("give an ONNX file with one input, [batch, 4] of f32")?;
    let target = if arguments.next().as_deref() == Some("ref") { Target::Ref } else { Target::Gpu };
    let model = Model::open(path)?;
    let compile = CompileOptions { target, ..CompileOptions::default() };
    let backend = MigraphxBackend::new(MigraphxOptions { compile, ..MigraphxOptions::default() })?;

    let folder = tempfile::tempdir()?;
    let compile = |batch: usize| {
        let output = folder.path().join(format!("{batch}.mxr"));
        backend.compile(&CompileJob::new(&model, Bucket::from_iter([("batch", batch)]), output))
    };
    let artifacts: Vec<Artifact> = [2, 8].into_iter().map(compile).collect::<Result<_, _>>()?;
    let executable = backend.load(&LoadJob { artifacts: &artifacts, ..LoadJob::of(&model) })?;
    let mut session = executable.session(&SessionOptions::threads(1))?;

    for batch in [1, 2, 5, 8, 19] {
        let x = Tensor::zeroed(model.signature().inputs[0].dtype, &[batch, 4])?;
        let inputs = [x.view()];
        let request = Request::bind(executable.signature(), &inputs)?;
        let mut outputs = Outputs::new();
        let report = session.run(&request, &mut outputs)?;
        println!("{batch} rows: {:?}, {} program(s)", report.route, report.n_pieces);
    }
    Ok(())
}
