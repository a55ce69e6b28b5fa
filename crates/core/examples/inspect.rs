//! Prints what an ONNX file takes and gives, without any runtime library:
//! `cargo run -p shapeyard-core --example inspect -- MODEL.onnx`

use shapeyard_core::Model;
use shapeyard_core::model::ModelError;

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), ModelError> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "tests/models/encoder.onnx".to_owned());
    let model = Model::open(path)?;
    let signature = model.signature();
    println!("content {}", model.digest()?);
    for (kind, specs) in [("input", &signature.inputs), ("output", &signature.outputs)] {
        for spec in specs {
            println!("{kind} {}: {} {}", spec.name, spec.dtype, signature.shape_text(spec));
        }
    }
    Ok(())
}
