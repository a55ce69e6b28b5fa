//! The real encoder in `f32` and INT8, where `SHAPEYARD_TEST_MODELS` says that it is.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{farthest, ggml, ggml_options, lane, load, onnxruntime, rten, run, write_down};
use shapeyard_core::backend::{Artifact, BackendError, CompileJob, LoadJob};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Backend, Model, Outputs, Tensor};
use shapeyard_cpu::{CpuOptions, Ggml, GgmlWeights};

const BATCH: usize = 3;
const SEQUENCE: usize = 37;
const LENGTHS: [usize; BATCH] = [SEQUENCE, 20, 9];

fn real(test: &str, name: &str) -> Option<Model> {
    let Some(folder) = std::env::var_os("SHAPEYARD_TEST_MODELS") else {
        eprintln!("{test} is skipped: SHAPEYARD_TEST_MODELS is not set");
        write_down(&format!("{test}: SHAPEYARD_TEST_MODELS is not set"));
        return None;
    };
    Some(Model::open(PathBuf::from(folder).join("minilm-l6").join(name)).unwrap())
}

/// Sentences of several lengths: `[CLS]`, words, `[SEP]`, padding.
fn tensors(model: &Model) -> Vec<Tensor> {
    let mut ids = vec![0i64; BATCH * SEQUENCE];
    let mut mask = ids.clone();
    for (row, length) in LENGTHS.into_iter().enumerate() {
        for at in 0..length {
            let word = i64::try_from(1996 + 91 * at + 7 * row).unwrap();
            ids[row * SEQUENCE + at] = if at == 0 {
                101
            } else if at + 1 == length {
                102
            } else {
                word
            };
            mask[row * SEQUENCE + at] = 1;
        }
    }
    let zeros = vec![0i64; BATCH * SEQUENCE];
    let of = |name: &str| match name {
        "input_ids" => &ids,
        "attention_mask" => &mask,
        _ => &zeros,
    };
    let shape = [BATCH, SEQUENCE];
    model
        .signature()
        .inputs
        .iter()
        .map(|spec| Tensor::from_slice(&shape, of(&spec.name)).unwrap())
        .collect()
}

fn result(backend: &dyn Backend, model: &Model, n_threads: usize) -> Vec<f32> {
    let executable = load(backend, model).unwrap();
    let mut outputs = Outputs::new();
    let mut session = lane(executable.as_ref(), n_threads);
    run(executable.as_ref(), session.as_mut(), &tensors(model), &mut outputs).unwrap();
    outputs.tensors()[0].as_slice::<f32>().unwrap().to_vec()
}

/// The least cosine between what two runs say of a token; padding says nothing.
fn worst_cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let tokens = a.chunks_exact(384).zip(b.chunks_exact(384)).enumerate();
    let real = tokens.filter(|(n, _)| n % SEQUENCE < LENGTHS[n / SEQUENCE]);
    let cosines = real.map(|(_, (a, b))| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    cosines.fold(1.0, |least: f32, cosine| {
        assert!(cosine.is_finite(), "a vector is none");
        least.min(cosine)
    })
}

#[test]
#[should_panic(expected = "no number")]
fn what_is_no_number_is_not_near() {
    farthest([(&1.0, &f32::NAN)]);
}

#[test]
#[should_panic(expected = "a vector is none")]
fn what_is_no_number_has_no_cosine() {
    worst_cosine(&[1.0; 384], &[f32::NAN; 384]);
}

#[test]
fn engines_and_threads_agree_on_the_real_encoder() {
    let test = "engines_and_threads_agree_on_the_real_encoder";
    let Some(model) = real(test, "minilm-l6.onnx") else { return };
    let ours = result(rten().as_ref(), &model, 1);
    let Some(backend) = onnxruntime(test) else { return };
    for n_threads in [1, 2] {
        let theirs = result(backend.as_ref(), &model, n_threads);
        let farthest = farthest(ours.iter().zip(&theirs));
        assert!(farthest < 1e-4, "{farthest}");
    }
}

#[test]
fn ggml_agrees_on_the_real_encoder() {
    let test = "ggml_agrees_on_the_real_encoder";
    let Some(model) = real(test, "minilm-l6.onnx") else { return };
    let Some(backend) = ggml(test) else { return };
    let reference = result(rten().as_ref(), &model, 1);
    for n_threads in [1, 2] {
        let ours = result(backend.as_ref(), &model, n_threads);
        let farthest = farthest(ours.iter().zip(&reference));
        println!("{n_threads} threads: {farthest:e}");
        assert!(farthest < 1e-4, "{farthest}");
    }
}

/// The tensors that an encoder without token types takes.
fn without_types(model: &Model) -> Vec<Tensor> {
    let mut tensors = tensors(model);
    tensors.truncate(2);
    tensors
}

#[test]
fn the_gguf_file_gives_the_vectors_of_the_onnx_file() {
    let test = "the_gguf_file_gives_the_vectors_of_the_onnx_file";
    let Some(onnx) = real(test, "minilm-l6.onnx") else { return };
    let Some(gguf) = real(test, "minilm-l6.gguf") else { return };
    let reference = result(rten().as_ref(), &onnx, 1);
    let error = load(rten().as_ref(), &gguf).err().unwrap();
    assert!(error.to_string().contains("GGUF"), "{error}");
    let Some(backend) = ggml(test) else { return };
    let executable = load(backend.as_ref(), &gguf).unwrap();
    let mut outputs = Outputs::new();
    let mut session = lane(executable.as_ref(), 2);
    run(executable.as_ref(), session.as_mut(), &without_types(&gguf), &mut outputs).unwrap();
    let ours = outputs.tensors()[0].as_slice::<f32>().unwrap();
    let tokens = ours.chunks_exact(384).zip(reference.chunks_exact(384)).enumerate();
    let real = tokens.filter(|(n, _)| n % SEQUENCE < LENGTHS[n / SEQUENCE]);
    let farthest = farthest(real.flat_map(|(_, (a, b))| a.iter().zip(b)));
    println!("GGUF: {farthest:e}");
    assert!(farthest < 1e-4, "{farthest}");
}

#[test]
fn narrower_weights_stay_near_the_original() {
    let test = "narrower_weights_stay_near_the_original";
    let Some(model) = real(test, "minilm-l6.gguf") else { return };
    let Some(plain) = ggml(test) else { return };
    let result = |backend: &dyn Backend, artifacts: &[Artifact]| {
        let job = LoadJob { artifacts, ..LoadJob::of(&model) };
        let executable = backend.load(&job).unwrap();
        let (mut session, mut outputs) = (lane(executable.as_ref(), 2), Outputs::new());
        run(executable.as_ref(), session.as_mut(), &without_types(&model), &mut outputs).unwrap();
        outputs.tensors()[0].as_slice::<f32>().unwrap().to_vec()
    };
    let reference = result(plain.as_ref(), &[]);
    let folder = tempfile::tempdir().unwrap();
    for (weights, share) in
        [(GgmlWeights::F16, 0.51), (GgmlWeights::Q8_0, 0.28), (GgmlWeights::Q4K, 0.18)]
    {
        let options = CpuOptions { ggml_weights: Some(weights), ..ggml_options() };
        let backend = Ggml::new(&options);
        let output = folder.path().join(format!("{weights:?}.gguf"));
        let job = CompileJob::new(&model, Bucket::default(), output);
        let artifact = backend.compile(&job).unwrap();
        assert!(artifact.n_bytes as f64 <= share * model.n_bytes() as f64, "{}", artifact.n_bytes);
        let error = plain.compile(&job).unwrap_err();
        assert!(matches!(error, BackendError::Unsupported { .. }), "{error}");
        let narrow = result(&backend, std::slice::from_ref(&artifact));
        let farthest = farthest(narrow.iter().zip(&reference));
        let cosine = worst_cosine(&reference, &narrow);
        println!("{weights:?}: farthest {farthest:e}, worst cosine of a token {cosine}");
        match weights {
            GgmlWeights::F16 => assert!(farthest < 1e-2, "{farthest}"),
            GgmlWeights::Q8_0 => assert!(cosine > 0.999, "{cosine}"),
            _ => assert!(cosine > 0.96, "{cosine}"),
        }
        fs::write(&artifact.payload, vec![0; artifact.n_bytes as usize]).unwrap();
        let error = backend.load(&LoadJob { artifacts: &[artifact], ..LoadJob::of(&model) });
        assert!(matches!(error.err().unwrap(), BackendError::Artifact { .. }));
    }
}

#[test]
fn int8_stays_near_f32_on_both_engines() {
    let test = "int8_stays_near_f32_on_both_engines";
    let Some(model) = real(test, "minilm-l6.onnx") else { return };
    let Some(small) = real(test, "minilm-l6-int8.onnx") else { return };
    let reference = result(rten().as_ref(), &model, 2);
    for backend in std::iter::once(rten()).chain(onnxruntime(test)) {
        let cosine = worst_cosine(&reference, &result(backend.as_ref(), &small, 2));
        println!("{}: {cosine}", backend.id());
        assert!(cosine > 0.9, "{}: {cosine}", backend.id());
    }
}
