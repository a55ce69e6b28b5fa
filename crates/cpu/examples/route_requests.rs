//! Routes requests over two backends of different cost, and says who answered what, and why.
//!
//! `cargo run --example route_requests -- tests/models/dense.onnx`

use std::env;
use std::error::Error;
use std::sync::Arc;

use shapeyard_core::backend::{Backend as _, LoadJob, SessionOptions};
use shapeyard_core::engine::{Engine, EngineOptions, InferRequest};
use shapeyard_core::plan::Prices;
use shapeyard_core::plan::prices::Price;
use shapeyard_core::router::{Router, RouterOptions};
use shapeyard_core::{Dim, Executable, Model, Outputs, Recorder, Shape, Tensor};
use shapeyard_cpu::{CpuOptions, OnnxRuntime, Rten};

/// The first takes long to start a batch and little for each token; `shapeyard calibrate` measures such prices.
const PRICES: Prices = Prices {
    device: Price { load: 0.0, launch: 1e-3, token: 1e-6, token_length: 0.0 },
    cpu: Price { load: 0.0, launch: 0.0, token: 100e-6, token_length: 0.0 },
    compile: shapeyard_core::plan::prices::PerProgram { fixed: 0.0, token: 0.0 },
    memory: shapeyard_core::plan::prices::PerProgram { fixed: 0.0, token: 0.0 },
};

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args().nth(1).ok_or("name an ONNX file whose inputs are f32")?;
    let model = Model::open(path)?;
    let job = LoadJob::of(&model);
    let preferred = OnnxRuntime::new(&CpuOptions::default()).load(&job)?;
    let fallback = Rten::new().load(&job)?;
    let options = RouterOptions { prices: Some(PRICES), ..RouterOptions::default() };
    let router = Router::new(preferred, fallback, options)?;
    // What is served is counted, so that `shapeyard plan` can say which programs that is worth.
    let served = Arc::new(Recorder::new(Arc::new(router), "batch", ""));

    let executable = Arc::clone(&served) as Arc<dyn Executable>;
    let session = SessionOptions::threads(1);
    let engine =
        Engine::start(&executable, &EngineOptions { n_sessions: 2, session, queue_capacity: 16 })?;
    for n_rows in [1, 4, 16, 64, 256] {
        let request = InferRequest { inputs: inputs(&model, n_rows)?, outputs: Outputs::new() };
        let report = engine.submit(request)?.wait()?.report;
        match &report.fallback {
            Some(fallback) => {
                println!("{n_rows} rows: {} answered, since {}", report.backend, fallback.reason);
            }
            None => println!("{n_rows} rows: {} answered", report.backend),
        }
    }
    println!("served:\n{}", served.workload().work);
    Ok(())
}

/// Ones of the model's shape, every free axis `n_rows`.
fn inputs(model: &Model, n_rows: usize) -> Result<Vec<Tensor>, Box<dyn Error>> {
    let mut inputs = Vec::new();
    for spec in &model.signature().inputs {
        let dims = spec.shape.as_deref().unwrap_or_default().iter();
        let extent = |dim: &Dim| if let Dim::Fixed(extent) = dim { *extent } else { n_rows };
        let shape: Shape = dims.map(extent).collect();
        inputs.push(Tensor::from_slice(&shape, &vec![1.0_f32; shape.iter().product()])?);
    }
    Ok(inputs)
}
