//! Encoders from GGUF files on ggml, on the device that `SHAPEYARD_GGML_DEVICE` names: the answers of the ONNX
//! file with the same weights, and damaged files.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::thread;

use common::{
    assert_close, farthest, ggml, ggml_device, ggml_on_the_processor, ggml_options, inputs, lane,
    load, model, onnxruntime, rten, run,
};
use shapeyard_core::backend::{Artifact, BackendError, CompileJob, InUse, LoadJob, RunError};
use shapeyard_core::model::Digest;
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Backend, Executable, Model, Outputs, Tensor};
use shapeyard_cpu::{CpuOptions, Ggml, GgmlWeights};

/// How many rows of a matrix lie together in an artifact.
const PANEL: u64 = 16;

/// What a GGUF encoder says where one for ONNX says `outputs`: hidden tokens have no vector.
fn without_hidden(outputs: &Outputs, mask: &Tensor) -> Outputs {
    let mut shown = outputs.clone();
    let tensor = &mut shown.slots(1)[0];
    let width = *tensor.shape().last().unwrap();
    let rows = tensor.as_mut_slice::<f32>().unwrap().chunks_exact_mut(width);
    let hidden = rows.zip(mask.as_slice::<i64>().unwrap()).filter(|(_, mask)| **mask == 0);
    hidden.for_each(|(row, _)| row.fill(0.0));
    shown
}

#[test]
fn the_gguf_encoder_is_the_onnx_encoder() {
    let test = "the_gguf_encoder_is_the_onnx_encoder";
    let Some(backend) = ggml(test) else { return };
    let executable = load(backend.as_ref(), &model("encoder.gguf")).unwrap();
    let mut session = lane(executable.as_ref(), 1);
    for other in std::iter::once(rten()).chain(onnxruntime(test)) {
        let theirs = load(other.as_ref(), &model("encoder.onnx")).unwrap();
        for batch in [1, 3, 8, 2] {
            // The file has no types, and the masks of rows differ.
            let mut given = inputs(theirs.signature(), batch);
            given[2] = Tensor::zeroed(given[2].dtype(), given[2].shape()).unwrap();
            let (mut ours, mut wanted) = (Outputs::new(), Outputs::new());
            run(executable.as_ref(), session.as_mut(), &given[..2], &mut ours).unwrap();
            run(theirs.as_ref(), lane(theirs.as_ref(), 1).as_mut(), &given, &mut wanted).unwrap();
            let wanted = without_hidden(&wanted, &given[1]);
            assert_close(&ours, &wanted, 1e-4, "GGUF beside ONNX");
        }
    }
}

/// Ids that look random, and masks of which every text's has another length and one a hole.
fn texts(batch: usize, length: usize) -> [Tensor; 2] {
    let ids: Vec<i64> = (0..batch * length).map(|at| (at * 37 + 11) as i64 % 128).collect();
    let seen = |at: usize| {
        let (text, place) = (at / length, at % length);
        i64::from(place < length - text * length / (batch + 1) && (text != 1 || place != 2))
    };
    let mask: Vec<i64> = (0..ids.len()).map(seen).collect();
    [ids, mask].map(|values| Tensor::from_slice(&[batch, length], &values).unwrap())
}

#[test]
fn local_attention_and_rotations_are_those_of_the_onnx_encoder() {
    let test = "local_attention_and_rotations_are_those_of_the_onnx_encoder";
    let Some(backend) = ggml(test) else { return };
    let executable = load(backend.as_ref(), &model("modern_encoder.gguf")).unwrap();
    let from_onnx = load(backend.as_ref(), &model("modern_encoder.onnx")).unwrap();
    for other in std::iter::once(rten()).chain(onnxruntime(test)) {
        let theirs = load(other.as_ref(), &model("modern_encoder.onnx")).unwrap();
        // A window reaches 4 tokens to either side.
        for (batch, length) in [(1, 1), (2, 5), (3, 9), (4, 33), (1, 64), (2, 5)] {
            let given = texts(batch, length);
            let outputs = |executable: &dyn Executable| {
                let mut outputs = Outputs::new();
                let mut session = lane(executable, 1);
                run(executable, session.as_mut(), &given, &mut outputs).unwrap();
                outputs
            };
            let wanted = outputs(theirs.as_ref());
            let what = format!("{batch} x {length} from");
            assert_close(&outputs(from_onnx.as_ref()), &wanted, 1e-4, &format!("{what} ONNX"));
            let wanted = without_hidden(&wanted, &given[1]);
            assert_close(&outputs(executable.as_ref()), &wanted, 1e-4, &format!("{what} GGUF"));
        }
    }
}

/// Texts of all lengths in one batch give what each gives alone, and so do batches that come after others.
#[test]
fn texts_that_are_packed_give_what_they_give_alone() {
    let test = "texts_that_are_packed_give_what_they_give_alone";
    let Some(backend) = ggml(test) else { return };
    // Other devices choose how they multiply, and so the order of sums, by the number of rows.
    let tolerance = if ggml_device().is_some() { 1e-5 } else { 1e-6 };
    for file in ["encoder.gguf", "modern_encoder.gguf"] {
        let executable = load(backend.as_ref(), &model(file)).unwrap();
        for n_threads in [1, 3] {
            let mut session = lane(executable.as_ref(), n_threads);
            let mut vectors = |ids: &[i64], mask: &[i64], length: usize| {
                let shape = [ids.len() / length, length];
                let given = [ids, mask].map(|it| Tensor::from_slice(&shape, it).unwrap());
                let mut outputs = Outputs::new();
                run(executable.as_ref(), session.as_mut(), &given, &mut outputs).unwrap();
                outputs.tensors()[0].as_slice::<f32>().unwrap().to_vec()
            };
            for (lengths, length) in
                [(&[1, 60, 7, 0, 33][..], 64), (&[2, 2], 2), (&[0, 0], 3), (&[19, 3, 40], 40)]
            {
                let n = lengths.len() * length;
                let ids: Vec<i64> = (0..n).map(|at| (at * 37 + 11) as i64 % 128).collect();
                let mask: Vec<i64> =
                    (0..n).map(|at| i64::from(at % length < lengths[at / length])).collect();
                let together = vectors(&ids, &mask, length);
                let width = together.len() / n;
                for (text, rows) in together.chunks_exact(length * width).enumerate() {
                    let n_tokens = lengths[text];
                    let (shown, hidden) = rows.split_at(n_tokens * width);
                    assert!(hidden.iter().all(|&x| x == 0.0), "hidden tokens have no vector");
                    if n_tokens > 0 {
                        let ids = &ids[text * length..][..n_tokens];
                        let alone = vectors(ids, &vec![1; n_tokens], n_tokens);
                        let largest = alone.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                        let farthest = farthest(alone.iter().zip(shown));
                        assert!(farthest <= tolerance * largest, "{file}: {farthest} of {largest}");
                    }
                }
            }
        }
    }
}

#[test]
fn two_lanes_give_the_bytes_of_one() {
    let Some(backend) = ggml("two_lanes_give_the_bytes_of_one") else { return };
    let executable = load(backend.as_ref(), &model("encoder.gguf")).unwrap();
    let work = || {
        let mut session = lane(executable.as_ref(), 1);
        let one = |batch| {
            let mut outputs = Outputs::new();
            let given = inputs(executable.signature(), batch);
            run(executable.as_ref(), session.as_mut(), &given, &mut outputs).unwrap();
            outputs
        };
        (1..12).map(one).collect::<Vec<_>>()
    };
    let serial = work();
    thread::scope(|scope| {
        for lane in [scope.spawn(work), scope.spawn(work)] {
            assert!(lane.join().unwrap() == serial);
        }
    });
}

#[test]
fn a_text_longer_than_the_model_knows_is_an_error() {
    let Some(backend) = ggml("a_text_longer_than_the_model_knows_is_an_error") else { return };
    let given = |length| {
        let mask = Tensor::from_slice(&[1, length], &vec![1i64; length]).unwrap();
        [mask.clone(), mask]
    };
    for file in ["encoder.gguf", "modern_encoder.gguf"] {
        let executable = load(backend.as_ref(), &model(file)).unwrap();
        let mut session = lane(executable.as_ref(), 1);
        run(executable.as_ref(), session.as_mut(), &given(64), &mut Outputs::new()).unwrap();
        let error = run(executable.as_ref(), session.as_mut(), &given(65), &mut Outputs::new());
        assert!(matches!(error, Err(RunError::Library { .. })), "{file}: {error:?}");
        run(executable.as_ref(), session.as_mut(), &given(5), &mut Outputs::new()).unwrap();
    }
}

#[test]
fn engines_for_onnx_say_that_it_is_another_format() {
    for backend in
        std::iter::once(rten()).chain(onnxruntime("engines_for_onnx_say_that_it_is_another_format"))
    {
        let error = load(backend.as_ref(), &model("encoder.gguf")).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
        assert!(error.to_string().contains("only ggml reads"), "{error}");
    }
}

/// A user's file may change after it was opened; it is copied, so that this is an error and no signal.
#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error() {
    let Some(backend) = ggml("a_file_that_shrinks_after_it_was_opened_is_an_error") else { return };
    let whole = fs::read(common::path("encoder.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut ends: Vec<u64> = Vec::new();
    for tensor in model("encoder.gguf").gguf().unwrap().tensors.values() {
        ends.extend([tensor.offset, tensor.offset + tensor.n_bytes - 1]);
    }
    for end in ends {
        fs::write(&path, &whole).unwrap();
        let model = Model::open(&path).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(end).unwrap();
        let error = load(backend.as_ref(), &model).err().unwrap();
        assert!(matches!(error, BackendError::ModelFile(_)), "{end}: {error}");
    }
    fs::write(&path, &whole).unwrap();
    let executable = load(backend.as_ref(), &Model::open(&path).unwrap()).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    let given = inputs(executable.signature(), 2);
    let mut session = lane(executable.as_ref(), 1);
    run(executable.as_ref(), session.as_mut(), &given, &mut Outputs::new()).unwrap();
}

/// The model is at fault then, not the place that is written to.
#[test]
fn a_model_that_cannot_be_read_again_is_told_from_an_output_that_cannot_be_written() {
    let test = "a_model_that_cannot_be_read_again_is_told_from_an_output_that_cannot_be_written";
    if ggml(test).is_none() {
        return;
    }
    let options = CpuOptions { ggml_weights: Some(GgmlWeights::F16), ..ggml_options() };
    let backend = Ggml::new(&options);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::copy(common::path("encoder.gguf"), &path).unwrap();
    let model = Model::open(&path).unwrap();
    let compile = |output: &str| {
        backend.compile(&CompileJob::new(&model, Bucket::default(), folder.path().join(output)))
    };
    let error = compile("no/such/folder/narrow.gguf").unwrap_err();
    assert!(matches!(error, BackendError::Write { .. }), "{error}");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for n_left in [model.n_bytes() - 40, 100, 0] {
        file.set_len(n_left).unwrap();
        let error = compile("narrow.gguf").unwrap_err();
        assert!(matches!(error, BackendError::ModelFile(_)), "{n_left}: {error}");
    }
    fs::remove_file(&path).unwrap();
    let error = compile("narrow.gguf").unwrap_err();
    assert!(matches!(error, BackendError::ModelFile(_)), "{error}");
    assert!(!folder.path().join("narrow.gguf").exists());
}

/// What a store holds is mapped, and answers the bytes that copied weights do.
#[test]
fn a_held_artifact_answers_as_a_copied_one_does() {
    let test = "a_held_artifact_answers_as_a_copied_one_does";
    for weights in GgmlWeights::ALL {
        if ggml(test).is_none() {
            return;
        }
        let options = CpuOptions { ggml_weights: Some(weights), ..ggml_options() };
        let backend = Ggml::new(&options);
        let folder = tempfile::tempdir().unwrap();
        let model = model("encoder.gguf");
        let output = folder.path().join("narrow.gguf");
        let job = CompileJob::new(&model, Bucket::default(), output);
        let copied = backend.compile(&job).unwrap();
        let held = Artifact { in_use: InUse::by(()), ..copied.clone() };
        let answer = |artifact: Artifact| {
            let job = LoadJob { artifacts: &[artifact], ..LoadJob::of(&model) };
            let executable = backend.load(&job).unwrap();
            let given = inputs(executable.signature(), 3);
            let mut outputs = Outputs::new();
            let mut session = lane(executable.as_ref(), 2);
            run(executable.as_ref(), session.as_mut(), &given, &mut outputs).unwrap();
            outputs
        };
        assert!(answer(held) == answer(copied), "{}", weights.name());
    }
}

/// The file with one more tensor of zeros.
fn with_zeros(file: &str, name: &str, shape: &[u64]) -> Vec<u8> {
    let (mut whole, model) = (fs::read(common::path(file)).unwrap(), model(file));
    let tensors = &model.gguf().unwrap().tensors;
    let start = tensors.values().map(|it| it.offset).min().unwrap() as usize;
    let infos = tensors.iter().map(|(name, it)| 8 + name.len() + 4 + 8 * it.shape.len() + 4 + 8);
    let end = model.gguf().unwrap().metadata_end as usize + infos.sum::<usize>();
    let n_tensors = tensors.len() as u64 + 1;
    whole[8..16].copy_from_slice(&n_tensors.to_le_bytes());
    let data = whole.split_off(start);
    whole.truncate(end);
    whole.extend((name.len() as u64).to_le_bytes());
    whole.extend(name.as_bytes());
    whole.extend((shape.len() as u32).to_le_bytes());
    shape.iter().rev().for_each(|extent| whole.extend(extent.to_le_bytes()));
    whole.extend(0u32.to_le_bytes());
    let offset = data.len().next_multiple_of(32);
    whole.extend((offset as u64).to_le_bytes());
    whole.resize(whole.len().next_multiple_of(32), 0);
    whole.extend(data);
    whole.resize(whole.len().next_multiple_of(32), 0);
    whole.extend(vec![0; 4 * shape.iter().product::<u64>() as usize]);
    whole
}

/// Only artifacts have matrices as our product reads them; whatever else is in a file of a user's own is passed over.
#[test]
fn a_name_that_artifacts_use_means_nothing_in_a_file_of_a_users_own() {
    let test = "a_name_that_artifacts_use_means_nothing_in_a_file_of_a_users_own";
    let Some(backend) = ggml(test) else { return };
    let answer = |model: &Model| {
        let executable = load(backend.as_ref(), model).unwrap();
        let (mut session, mut outputs) = (lane(executable.as_ref(), 1), Outputs::new());
        let given = inputs(executable.signature(), 3);
        run(executable.as_ref(), session.as_mut(), &given, &mut outputs).unwrap();
        outputs
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // The matrix is 16 x 16.
    fs::write(&path, with_zeros("encoder.gguf", "blk.0.attn_q.panels", &[1, 16, PANEL])).unwrap();
    let extended = Model::open(&path).unwrap();
    assert!(extended.gguf().unwrap().tensors.contains_key("blk.0.attn_q.panels"));
    assert!(answer(&extended) == answer(&model("encoder.gguf")));
}

/// A type of panels that no product reads is found when the artifact is loaded, not by every request.
#[test]
fn panels_of_another_type_are_refused_at_load() {
    let test = "panels_of_another_type_are_refused_at_load";
    if ggml_on_the_processor(test).is_none() {
        return;
    }
    let options = CpuOptions { ggml_weights: Some(GgmlWeights::F16), ..ggml_options() };
    let (backend, folder) = (Ggml::new(&options), tempfile::tempdir().unwrap());
    let (model, output) = (model("encoder.gguf"), folder.path().join("narrow.gguf"));
    let artifact = backend.compile(&CompileJob::new(&model, Bucket::default(), output)).unwrap();
    let mut bytes = fs::read(&artifact.payload).unwrap();
    let name = b"blk.0.attn_q.panels";
    let at = bytes.windows(name.len()).position(|it| it == name).unwrap();
    // After the name the number of axes, three extents, and the type: bf16 has as many bytes.
    let dtype = at + name.len() + 4 + 3 * 8;
    assert_eq!(bytes[dtype], 1);
    bytes[dtype] = 30;
    fs::write(&artifact.payload, bytes).unwrap();
    let checksum = Digest::of_file(&artifact.payload).unwrap();
    let artifact = Artifact { checksum, ..artifact };
    let job = LoadJob { artifacts: &[artifact], ..LoadJob::of(&model) };
    let error = backend.load(&job).err().unwrap();
    assert!(matches!(error, BackendError::Artifact { .. }), "{error}");
    assert!(error.to_string().contains("blk.0.attn_q.panels"), "{error}");
}

/// Whatever a byte of the head becomes, the file is refused or serves; the process goes on.
#[test]
fn a_damaged_head_never_ends_the_process() {
    let Some(backend) = ggml("a_damaged_head_never_ends_the_process") else { return };
    for file in ["encoder.gguf", "modern_encoder.gguf"] {
        damage_every_byte_of_the_head(backend.as_ref(), file);
    }
}

fn damage_every_byte_of_the_head(backend: &dyn Backend, file: &str) {
    let whole = fs::read(common::path(file)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    // The head ends where the metadata and the list of tensors do; data cannot be damaged.
    let head = model(file).gguf().unwrap().tensors.values().map(|it| it.offset).min();
    // What opening another device costs, a few bytes have to be worth; an odd step meets both kinds of damage.
    let step = if ggml_device().is_some() { 17 } else { 1 };
    let mut n_served = 0;
    for at in (0..usize::try_from(head.unwrap()).unwrap()).step_by(step) {
        let mut damaged = whole.clone();
        damaged[at] ^= if at.is_multiple_of(2) { 0x01 } else { 0x80 };
        fs::write(&path, damaged).unwrap();
        let Ok(model) = Model::open(&path) else { continue };
        let Ok(executable) = load(backend, &model) else { continue };
        let given = inputs(executable.signature(), 2);
        let mut session = lane(executable.as_ref(), 1);
        let served = run(executable.as_ref(), session.as_mut(), &given, &mut Outputs::new());
        n_served += usize::from(served.is_ok());
    }
    assert!(n_served > 0, "damage to a name that nobody reads does not matter");
}
