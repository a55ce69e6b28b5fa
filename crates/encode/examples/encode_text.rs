//! Encodes the paragraphs of a text file and prints which two are most alike:
//! `cargo run -p shapeyard-encode --example encode_text -- MODEL.onnx TOKENIZER.json FILE`

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use shapeyard_core::Model;
use shapeyard_core::backend::{LoadJob, Waiting};
use shapeyard_core::registry::{Choice, Registry};
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::TextTokenizer;
use shapeyard_encode::units::{UnitOptions, collect};
use shapeyard_encode::{EncodeOptions, Encoder, Unobserved};

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), Box<dyn Error>> {
    let tiny = ["tests/models/encoder.onnx", "tests/models/tiny_tokenizer.json", "README.md"];
    let mut args = std::env::args().skip(1);
    let [model, tokenizer, file] = tiny.map(|usual| args.next().unwrap_or(usual.to_owned()));

    let units = collect(&[file.into()], &UnitOptions::default())?.units;
    let tokenizer = TextTokenizer::open(Path::new(&tokenizer), 64)?;
    let texts: Vec<&str> = units.iter().map(|unit| unit.text.as_str()).collect();
    let tokens = tokenizer.encode_all(&texts, 2)?;

    let model = Model::open(model)?;
    tokenizer.check_fits(model.signature())?;
    let registry = Registry::new(shapeyard_cpu::backends(&shapeyard_cpu::CpuOptions::default()));
    let opened = registry.open(&Choice::Auto, &LoadJob::of(&model))?;
    let encoder = Encoder::new(opened.backend, Arc::new(model), opened.executable)?;
    let options = EncodeOptions {
        pooling: Pooling::Mean,
        normalise: true,
        pad_id: tokenizer.pad_id(),
        n_threads: 2,
        split: None,
        token_budget: None,
        share_equal: true,
        waiting: Waiting::Sleep,
    };
    let mut embeddings = encoder.embeddings(&tokens, &options)?;
    let report = encoder.encode(&tokens, &options, &mut embeddings, &Unobserved)?;
    println!("{} texts in {} batches on {}", units.len(), report.totals.n_batches, report.backend);

    let cosine = |a: usize, b: usize| -> f32 {
        embeddings.vectors(a).iter().zip(embeddings.vectors(b)).map(|(a, b)| a * b).sum()
    };
    let pairs = (0..units.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
    let alike = pairs.filter(|&(a, b)| units[a].text.trim() != units[b].text.trim());
    if let Some((a, b)) = alike.max_by(|&(a, b), &(c, d)| cosine(a, b).total_cmp(&cosine(c, d))) {
        println!("{:.3}\n  {}  {}", cosine(a, b), units[a].text, units[b].text);
    }
    Ok(())
}
