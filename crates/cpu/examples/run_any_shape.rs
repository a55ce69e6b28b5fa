//! Runs a model at two batch sizes and says which backend answered.
//!
//! ```sh
//! cargo run -p shapeyard-cpu --example run_any_shape -- tests/models/dense.onnx
//! ```

#![allow(clippy::print_stdout)]

use std::error::Error;

use shapeyard_core::backend::{LoadJob, SessionOptions};
use shapeyard_core::registry::{Choice, Registry};
use shapeyard_core::{Dim, Model, Outputs, Request, Signature, Tensor, TensorError, TensorView};
use shapeyard_cpu::CpuOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "tests/models/dense.onnx".to_owned());
    let model = Model::open(path)?;
    let registry = Registry::new(shapeyard_cpu::backends(&CpuOptions::default()));
    let opened = registry.open(&Choice::Auto, &LoadJob::of(&model))?;
    for passed in &opened.passed_over {
        println!("{} does not serve: {}", passed.backend, passed.reason);
    }
    let signature = opened.executable.signature();
    let mut session = opened.executable.session(&SessionOptions::threads(1))?;
    let mut outputs = Outputs::new();
    for batch in [1, 3] {
        let tensors = zeros(signature, batch)?;
        let inputs: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
        let report = session.run(&Request::bind(signature, &inputs)?, &mut outputs)?;
        println!("{} took {:?}", report.backend, report.times.run);
        for (spec, tensor) in signature.outputs.iter().zip(outputs.tensors()) {
            println!("  {} {} {:?}", spec.name, tensor.dtype(), tensor.shape());
        }
    }
    Ok(())
}

/// Inputs of zeros; the first symbol is `batch`, other free axes are 8.
fn zeros(signature: &Signature, batch: usize) -> Result<Vec<Tensor>, TensorError> {
    let extent = |dim: &Dim| match *dim {
        Dim::Fixed(extent) => extent,
        Dim::Symbol(symbol) if symbol.index() == 0 => batch,
        Dim::Symbol(_) | Dim::Unnamed => 8,
    };
    let shape = |dims: &Option<Vec<Dim>>| dims.iter().flatten().map(extent).collect::<Vec<_>>();
    signature.inputs.iter().map(|spec| Tensor::zeroed(spec.dtype, &shape(&spec.shape))).collect()
}
