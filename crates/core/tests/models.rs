//! Reading real ONNX files: what is found in them, and what happens when they are damaged.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use shapeyard_core::model::onnx::{self, OnnxError};
use shapeyard_core::model::{Model, ModelError};
use shapeyard_core::{DataType, Signature};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models")
}

fn open(name: &str) -> Model {
    Model::open(models().join(name)).unwrap()
}

fn inputs(signature: &Signature) -> Vec<String> {
    let text = |spec: &_| signature.shape_text(spec);
    signature.inputs.iter().map(|i| format!("{} {} {}", i.name, i.dtype, text(i))).collect()
}

#[test]
fn the_encoder_has_symbols_and_index_limits() {
    let model = open("encoder.onnx");
    let signature = model.signature();
    assert_eq!(signature.symbols, ["batch", "sequence"]);
    assert_eq!(
        inputs(signature),
        [
            "input_ids i64 [batch, sequence]",
            "attention_mask i64 [batch, sequence]",
            "token_type_ids i64 [batch, sequence]",
        ]
    );
    let limits: Vec<_> = signature.inputs.iter().map(|input| input.index_limit).collect();
    assert_eq!(limits, [Some(128), None, Some(2)]);
    let output = &signature.outputs[0];
    assert_eq!(signature.shape_text(output), "[batch, sequence, 16]");
    assert_eq!(model.opsets().get(""), Some(&17));
}

#[test]
fn types_scalars_and_unnamed_axes_are_read() {
    assert_eq!(
        inputs(open("mixed_types.onnx").signature()),
        [
            "count i32 [batch, 3]",
            "offset i64 [batch, 3]",
            "flag bool [batch, 3]",
            "level u8 [batch, 3]",
            "weight f64 [batch, 3]",
        ]
    );
    assert!(inputs(open("scalars.onnx").signature()).contains(&"scale f32 []".to_owned()));
    assert_eq!(inputs(open("unnamed_dims.onnx").signature()), ["x f32 [?, 4]"]);
    assert_eq!(open("half.onnx").signature().inputs[0].dtype, DataType::F16);
    assert_eq!(open("bfloat.onnx").signature().inputs[0].dtype, DataType::BF16);
    assert_eq!(open("many_inputs.onnx").signature().inputs.len(), 190);
    assert_eq!(open("many_outputs.onnx").signature().outputs.len(), 12);
}

#[test]
fn initializers_are_no_inputs() {
    let model = open("initializer_inputs.onnx");
    assert_eq!(inputs(model.signature()), ["x f32 [batch, 4]"]);
    assert_eq!((model.ir_version(), model.opsets()[""]), (3, 8));
}

/// A copy of a model in a folder of its own.
fn copy(name: &str, to: &Path) -> PathBuf {
    let target = to.join(name);
    fs::copy(models().join(name), &target).unwrap();
    target
}

#[test]
fn the_digest_follows_content_and_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy("external.onnx", folder.path());
    let weights = copy("external.bin", folder.path());
    let digest = |path: &Path| Model::open(path).unwrap().digest().unwrap();
    let before = digest(&model);
    assert_eq!(before, open("external.onnx").digest().unwrap());
    let renamed = folder.path().join("other.onnx");
    fs::rename(&model, &renamed).unwrap();
    assert_eq!(digest(&renamed), before);
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_ne!(digest(&renamed), before);
    assert_ne!(open("add_one.onnx").digest().unwrap(), open("identity.onnx").digest().unwrap());
}

#[test]
fn missing_or_short_external_data_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy("external.onnx", folder.path());
    let error = Model::open(&model).unwrap_err();
    assert!(matches!(error, ModelError::ExternalDataUnreadable { .. }), "{error:?}");
    assert!(error.to_string().contains("external.bin"), "{error}");
    fs::write(folder.path().join("external.bin"), [0; 16]).unwrap();
    let error = Model::open(&model).unwrap_err();
    assert!(matches!(error, ModelError::ExternalDataTooShort { found: 16, .. }), "{error:?}");
}

#[test]
fn external_data_outside_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(models().join("external.onnx")).unwrap();
    // The same length, so that no length in the file has to change.
    let (from, to) = (b"external.bin", b"../xternal.b");
    let mut bytes = bytes;
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    let model = folder.path().join("model.onnx");
    fs::write(&model, bytes).unwrap();
    let error = Model::open(&model).unwrap_err();
    assert!(matches!(error, ModelError::ExternalDataOutside { .. }), "{error:?}");
}

#[test]
fn files_that_are_no_model_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let open = |content: &[u8]| {
        let path = folder.path().join("file.onnx");
        fs::write(&path, content).unwrap();
        match Model::open(&path).unwrap_err() {
            ModelError::Onnx { source, .. } => source,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(open(b""), OnnxError::Empty));
    let text = open(b"#!/bin/sh\necho this is a shell script, not a model\n");
    assert!(matches!(text, OnnxError::Truncated { .. } | OnnxError::Malformed { .. }), "{text:?}");
    // A valid message of protobuf that has none of a model's fields.
    assert!(matches!(open(&[0xa0, 0x06, 0x01]), OnnxError::NotAModel { missing: "graph" }));
    let whole = fs::read(models().join("dense.onnx")).unwrap();
    let half = open(&whole[..whole.len() / 2]);
    assert!(matches!(half, OnnxError::Truncated { .. }), "{half:?}");
    let error = Model::open(folder.path()).unwrap_err();
    assert!(matches!(error, ModelError::Unreadable { .. }), "{error:?}");
    let error = Model::open(folder.path().join("nowhere.onnx")).unwrap_err();
    assert!(matches!(error, ModelError::Unreadable { .. }), "{error:?}");
}

/// A message of field `number` that holds `content`.
fn message(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut len = content.len();
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn nesting_without_end_is_refused() {
    // A graph whose node has an attribute that is a graph whose node ...
    let mut graph = Vec::new();
    for _ in 0..10_000 {
        graph = message(1, &message(5, &message(6, &graph)));
    }
    let error = onnx::read(Cursor::new(message(7, &graph))).unwrap_err();
    assert!(matches!(error, OnnxError::TooDeep { .. }), "{error:?}");
}

#[test]
fn small_files_that_ask_for_much_work_are_read_at_once() {
    let string = |number, text: &str| message(number, text.as_bytes());
    let node = |operator: &str, input: &str, output: &str| {
        let parts = [string(1, "table"), string(1, input), string(2, output), string(4, operator)];
        let alias = [string(1, input), string(2, output), string(4, operator)];
        message(1, &if operator == "Gather" { parts.concat() } else { alias.concat() })
    };
    // A chain of aliases as long as the look-ups are many.
    let chain = (0..20_000).map(|n| node("Identity", &format!("n{n}"), &format!("n{}", n + 1)));
    let gathers = (0..20_000).map(|n| node("Gather", "n20000", &format!("g{n}")));
    let output = [string(1, "y"), message(2, &message(1, &[8, 1]))].concat();
    let graph: Vec<u8> = chain.chain(gathers).flatten().chain(message(12, &output)).collect();
    let file = [message(8, &[16, 17]), message(7, &graph)].concat();
    let model = onnx::read(Cursor::new(file)).unwrap();
    assert_eq!(model.operators["Gather"], 20_000);

    let dimension = message(1, &string(2, "n"));
    let shape = message(2, &dimension.repeat(100));
    let value = [string(1, "x"), message(2, &message(1, &[vec![8, 1], shape].concat()))].concat();
    let error = onnx::read(Cursor::new(message(7, &message(11, &value)))).unwrap_err();
    assert!(error.to_string().contains("too many axes"), "{error}");
    let error = onnx::read(Cursor::new(vec![0; 100])).unwrap_err();
    assert!(matches!(error, OnnxError::Malformed { .. }), "{error:?}");
}

#[test]
fn values_that_cannot_be_served_are_described_and_refused() {
    let value = |number, name: &str, kind: &[u8]| {
        message(number, &[message(1, name.as_bytes()), message(2, kind)].concat())
    };
    let graph = [
        value(11, "text", &message(1, &[8, 8])),
        value(11, "x", &message(1, &[8, 1])),
        value(12, "tags", &message(4, &[])),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("strings.onnx");
    fs::write(&path, [message(8, &[16, 17]), message(7, &graph.concat())].concat()).unwrap();
    let described = Model::describe(&path).unwrap();
    let foreign: Vec<_> = described
        .foreign
        .iter()
        .map(|it| (it.name.as_str(), it.kind.as_str(), it.is_input))
        .collect();
    assert_eq!(foreign, [("text", "a tensor of strings", true), ("tags", "a sequence", false)]);
    assert_eq!(described.model.signature().inputs.len(), 1);
    let error = Model::open(&path).unwrap_err();
    let ModelError::Onnx { source: OnnxError::UnsupportedValue { name, .. }, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(name, "text");
}

#[test]
fn every_truncation_of_a_model_is_an_error() {
    let whole = fs::read(models().join("mixed_types.onnx")).unwrap();
    let full = onnx::read(Cursor::new(&whole)).unwrap();
    for n_bytes in 0..whole.len() {
        // Cut between two top-level fields, a file may still be a model, but never the whole one.
        if let Ok(part) = onnx::read(Cursor::new(&whole[..n_bytes])) {
            assert_ne!(part, full, "cut at {n_bytes}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damage_makes_the_reader_panic(
        name in proptest::sample::select(&["conv.onnx", "external.onnx", "mixed_types.onnx"][..]),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let mut bytes = fs::read(models().join(name)).unwrap();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = onnx::read(Cursor::new(bytes));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = onnx::read(Cursor::new(bytes));
    }
}
