//! The real encoder against vectors that PyTorch computed (`tests/reference`).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::fs;
use std::sync::Arc;

use safetensors::SafeTensors;
use shapeyard_core::Model;
use shapeyard_core::backend::{Artifact, Backend, BackendError, CompileJob, LoadJob, Waiting};
use shapeyard_core::plan::Bucket;
use shapeyard_core::plan::calibrate::Split;
use shapeyard_cpu::{CpuOptions, Ggml, GgmlWeights};
use shapeyard_encode::pool::Pooling;
use shapeyard_encode::tokens::{TextTokenizer, Tokens};
use shapeyard_encode::{EncodeOptions, Encoder, Unobserved};
use shapeyard_tests::{real_model, reference, usable_backends};

const N_DIMS: usize = 384;

struct Reference {
    texts: Vec<String>,
    vectors: Vec<f32>,
    token_counts: Vec<i64>,
}

fn read_reference() -> Reference {
    let lines = fs::read_to_string(reference("texts.jsonl")).unwrap();
    let text = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["text"].as_str().unwrap().to_owned()
    };
    let bytes = fs::read(reference("minilm-l6.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name| tensors.tensor(name).unwrap().data().to_vec();
    let vectors = data("embeddings");
    let token_counts = data("token_counts");
    Reference {
        texts: lines.lines().map(text).collect(),
        vectors: vectors.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        token_counts: token_counts.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
    }
}

/// Encodes the reference texts; `None` where the real model is not there.
fn encode(
    test: &str,
    backend: &Arc<dyn Backend>,
    file: &str,
    token_budget: usize,
) -> Option<(Reference, Vec<Tokens>, Vec<f32>)> {
    encode_with(test, backend, file, token_budget, &[])
}

fn encode_with(
    test: &str,
    backend: &Arc<dyn Backend>,
    file: &str,
    token_budget: usize,
    artifacts: &[Artifact],
) -> Option<(Reference, Vec<Tokens>, Vec<f32>)> {
    let model = real_model(test, file)?;
    let tokenizer = real_model(test, "tokenizer.json")?;
    let reference = read_reference();
    let tokenizer = TextTokenizer::open(&tokenizer, 512).unwrap();
    let texts: Vec<&str> = reference.texts.iter().map(String::as_str).collect();
    let tokens = tokenizer.encode_all(&texts, 2).unwrap();
    let model = Model::open(model).unwrap();
    tokenizer.check_fits(model.signature()).unwrap();
    let executable = match backend.load(&LoadJob { artifacts, ..LoadJob::of(&model) }) {
        // ggml has none of the operators of dynamic quantisation.
        Err(BackendError::Model { .. }) if backend.id().as_str() == "ggml" => return None,
        executable => executable.unwrap(),
    };
    let encoder = Encoder::new(Arc::clone(backend), Arc::new(model), executable).unwrap();
    let options = EncodeOptions {
        pooling: Pooling::Mean,
        normalise: true,
        pad_id: 0,
        n_threads: 2,
        split: Some(Split { n_sessions: 2, n_threads: 1 }),
        token_budget: Some(token_budget),
        share_equal: false,
        waiting: Waiting::Sleep,
    };
    let mut embeddings = encoder.embeddings(&tokens, &options).unwrap();
    let report = encoder.encode(&tokens, &options, &mut embeddings, &Unobserved).unwrap();
    assert_eq!(report.totals.n_items, texts.len());
    let vectors = embeddings.values().to_vec();
    Some((reference, tokens, vectors))
}

#[test]
fn fp32_vectors_are_those_of_pytorch() {
    let test = "fp32_vectors_are_those_of_pytorch";
    for backend in usable_backends(test) {
        let run = encode(test, &backend, "minilm-l6.onnx", 1024);
        let Some((reference, tokens, vectors)) = run else { return };
        let counts: Vec<i64> = tokens.iter().map(|tokens| tokens.ids.len() as i64).collect();
        assert_eq!(counts, reference.token_counts);
        assert_eq!(vectors.len(), reference.vectors.len());
        // NaN would be lost in the largest difference.
        assert!(vectors.iter().all(|x| x.is_finite()), "{}", backend.id());
        let differences = vectors.iter().zip(&reference.vectors).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f32::max);
        eprintln!("{}: fp32 differs from PyTorch by at most {largest:e}", backend.id());
        assert!(largest < 1e-4, "{}: {largest}", backend.id());
    }
}

#[test]
fn int8_vectors_point_where_pytorch_s_do() {
    let test = "int8_vectors_point_where_pytorch_s_do";
    for backend in usable_backends(test) {
        // One text a batch: dynamic quantisation takes one scale for a whole batch, so rows that share one
        // move each other.
        let run = encode(test, &backend, "minilm-l6-int8.onnx", 1);
        let Some((reference, _, vectors)) = run else { continue };
        assert!(vectors.iter().all(|x| x.is_finite()), "{}", backend.id());
        let (least, mean) = cosines(&vectors, &reference.vectors);
        eprintln!("{}: INT8 cosine to PyTorch: least {least:.4}, mean {mean:.4}", backend.id());
        assert!(least > 0.95 && mean > 0.985, "{}: least {least}, mean {mean}", backend.id());
    }
}

/// The least cosine of vectors of length 1, and the mean.
fn cosines(a: &[f32], b: &[f32]) -> (f32, f32) {
    let rows = a.chunks(N_DIMS).zip(b.chunks(N_DIMS));
    let cosines: Vec<f32> = rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect();
    let least = cosines.iter().copied().fold(f32::INFINITY, f32::min);
    (least, cosines.iter().sum::<f32>() / cosines.len() as f32)
}

#[test]
fn narrow_gguf_vectors_point_where_pytorch_s_do() {
    let test = "narrow_gguf_vectors_point_where_pytorch_s_do";
    if !usable_backends(test).iter().any(|backend| backend.id().as_str() == "ggml") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // What is multiplied with 4-bit weights is rounded too, to 8 bits.
    for (weights, bound, mean_bound) in [
        (GgmlWeights::F16, 0.9999, 0.9999),
        (GgmlWeights::Q8_0, 0.999, 0.9995),
        (GgmlWeights::Q4K, 0.9, 0.96),
    ] {
        let options = CpuOptions { ggml_weights: Some(weights), ..CpuOptions::default() };
        let backend: Arc<dyn Backend> = Arc::new(Ggml::new(&options));
        let Some(path) = real_model(test, "minilm-l6.gguf") else { return };
        let output = folder.path().join(weights.name());
        let model = Model::open(path).unwrap();
        let job = CompileJob::new(&model, Bucket::default(), output);
        let artifact = backend.compile(&job).unwrap();
        let run = encode_with(test, &backend, "minilm-l6.gguf", 1024, &[artifact]);
        let Some((reference, _, vectors)) = run else { return };
        assert!(vectors.iter().all(|x| x.is_finite()));
        let (least, mean) = cosines(&vectors, &reference.vectors);
        eprintln!("ggml {}: cosine to PyTorch: least {least:.5}, mean {mean:.5}", weights.name());
        assert!(
            least > bound && mean > mean_bound,
            "{}: least {least}, mean {mean}",
            weights.name()
        );
    }
}
