//! What other devices than the processor compute, with ggml's operators alone: here on the processor, which has
//! them too.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use shapeyard_core::backend::{Artifact, Backend as _, CompileJob, LoadJob, SessionOptions};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, Outputs, Request, Tensor, TensorView};

use super::{Ggml, library};
use crate::GgmlWeights;
use crate::found::Found;

/// The processor as it is used, and as another device would be; `None` where ggml is not installed.
fn both(test: &str, weights: Option<GgmlWeights>) -> Option<[Ggml; 2]> {
    let found = |elsewhere| {
        let mut found = library::find(None, None);
        if let Ok(engine) = &mut found.library
            && elsewhere
        {
            Arc::get_mut(engine).unwrap().use_as_another();
        }
        found
    };
    let backend = |found: Found<_>| {
        let found = OnceLock::from(found);
        Ggml { library: None, device: None, weights, found }
    };
    let both = [false, true].map(found);
    if both[0].library.is_ok() {
        return Some(both.map(backend));
    }
    if let Some(log) = std::env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
        // One write of one line: tests run side by side.
        log.write_all(format!("{test}: ggml is not installed\n").as_bytes()).unwrap();
    }
    None
}

fn model(name: &str) -> Model {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models"));
    Model::open(folder.join(name)).unwrap()
}

/// Texts of several lengths, of which the second has a hole and, where the file is ours to read, the last shows
/// nothing.
fn inputs(model: &Model, batch: usize, length: usize) -> Vec<Tensor> {
    let ids: Vec<i64> = (0..batch * length).map(|at| (at * 37 + 11) as i64 % 128).collect();
    let is_seen = |at: usize| {
        let (text, place) = (at / length, at % length);
        let is_dark = model.gguf().is_some() && batch > 2 && text + 1 == batch;
        let is_hole = text == 1 && place == 2;
        !is_dark && !is_hole && place < length - text * length / (batch + 1)
    };
    let mask: Vec<i64> = (0..ids.len()).map(|at| is_seen(at).into()).collect();
    let of = |name: &str| match name {
        "input_ids" => ids.clone(),
        "attention_mask" => mask.clone(),
        _ => vec![0; ids.len()],
    };
    let inputs = model.signature().inputs.iter();
    inputs.map(|spec| Tensor::from_slice(&[batch, length], &of(&spec.name)).unwrap()).collect()
}

fn answers(backend: &Ggml, model: &Model, artifacts: &[Artifact]) -> Vec<Vec<f32>> {
    let executable = backend.load(&LoadJob { artifacts, ..LoadJob::of(model) }).unwrap();
    let mut session = executable.session(&SessionOptions::threads(1)).unwrap();
    let mut answer = |(batch, length)| {
        let tensors = inputs(model, batch, length);
        let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
        let request = Request::bind(executable.signature(), &views).unwrap();
        let mut outputs = Outputs::new();
        session.run(&request, &mut outputs).unwrap();
        outputs.tensors()[0].as_slice::<f32>().unwrap().to_vec()
    };
    // A window of the encoder with local attention reaches 4 tokens to either side.
    [(1, 1), (2, 5), (3, 9), (4, 33), (2, 5)].map(&mut answer).into()
}

fn assert_close(ours: &[Vec<f32>], theirs: &[Vec<f32>], tolerance: f32, what: &str) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        let is_near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
        let far = ours.iter().zip(theirs).position(|pair| !is_near(pair));
        assert_eq!(far, None, "{what}: {:?}", far.map(|at| (ours[at], theirs[at])));
    }
}

#[test]
fn operators_of_ggml_give_what_kernels_of_ours_give() {
    let test = "operators_of_ggml_give_what_kernels_of_ours_give";
    let Some([here, elsewhere]) = both(test, None) else { return };
    for file in ["encoder.gguf", "modern_encoder.gguf", "encoder.onnx", "modern_encoder.onnx"] {
        let model = model(file);
        let (ours, theirs) = (answers(&here, &model, &[]), answers(&elsewhere, &model, &[]));
        assert_close(&ours, &theirs, 1e-4, file);
    }
}

/// Other devices read narrow matrices by rows, and round what is multiplied with f16 to f16 too.
#[test]
fn narrow_matrices_by_rows_give_what_panels_give() {
    let test = "narrow_matrices_by_rows_give_what_panels_give";
    let Some(both) = both(test, Some(GgmlWeights::F16)) else { return };
    for file in ["encoder.gguf", "modern_encoder.gguf"] {
        let (model, folder) = (model(file), tempfile::tempdir().unwrap());
        let [ours, theirs] = [&both[0], &both[1]].map(|backend| {
            let output = folder.path().join("narrow.gguf");
            let job = CompileJob::new(&model, Bucket::default(), output);
            answers(backend, &model, &[backend.compile(&job).unwrap()])
        });
        assert_close(&ours, &theirs, 5e-2, file);
    }
}
