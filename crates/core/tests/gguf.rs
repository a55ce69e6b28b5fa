//! Reading GGUF files: whole, truncated, damaged and hostile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::Cursor;

use proptest::prelude::*;
use shapeyard_core::Model;
use shapeyard_core::model::ModelError;
use shapeyard_core::model::gguf::{
    self, EncoderKind, EncoderSizes, GgufError, GgufFile, GgufType, GgufValue,
};

/// Writes what a test wants in a file, wrong things included.
#[derive(Default)]
struct Writer {
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    n_data: usize,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

impl Writer {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        self.entries.push([&text(key), &kind.to_le_bytes()[..], value].concat());
        self
    }

    fn uint(&mut self, key: &str, value: u32) -> &mut Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    /// A tensor with extents innermost first, as in the file.
    fn tensor(&mut self, name: &str, extents: &[u64], kind: u32, offset: u64) -> &mut Self {
        let mut bytes = text(name);
        bytes.extend((extents.len() as u32).to_le_bytes());
        extents.iter().for_each(|extent| bytes.extend(extent.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        self.tensors.push(bytes);
        self
    }

    fn f32(&mut self, name: &str, extents: &[u64]) -> &mut Self {
        let offset = self.n_data as u64;
        let n_bytes = 4 * extents.iter().product::<u64>() as usize;
        self.n_data += n_bytes.next_multiple_of(32);
        self.tensor(name, extents, 0, offset)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        bytes.extend(self.entries.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + self.n_data, 0);
        bytes
    }
}

/// An encoder with one layer, 2 heads, vectors of 4.
fn encoder() -> Writer {
    let mut file = Writer::default();
    file.entry("general.architecture", 8, &text("bert"));
    for (key, value) in [
        ("block_count", 1),
        ("attention.head_count", 2),
        ("embedding_length", 4),
        ("feed_forward_length", 8),
    ] {
        file.uint(&format!("bert.{key}"), value);
    }
    file.entry("bert.attention.layer_norm_epsilon", 6, &1e-5f32.to_le_bytes());
    let tokens: Vec<u8> = ["a", "bc"].into_iter().flat_map(text).collect();
    let list = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &tokens].concat();
    file.entry("tokenizer.ggml.tokens", 9, &list);
    file.f32("token_embd.weight", &[4, 10]).f32("position_embd.weight", &[4, 6]);
    file.f32("token_embd_norm.weight", &[4]).f32("token_embd_norm.bias", &[4]);
    for (part, outward, inward) in gguf::layer_tensors(4, 8) {
        let extents =
            if inward == 0 { vec![outward as u64] } else { vec![inward as u64, outward as u64] };
        file.f32(&format!("blk.0.{part}.weight"), &extents);
        file.f32(&format!("blk.0.{part}.bias"), &[outward as u64]);
    }
    file
}

fn read(bytes: &[u8]) -> Result<GgufFile, GgufError> {
    gguf::read(Cursor::new(bytes))
}

#[test]
fn an_encoder_is_a_model_with_symbols() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encoder.any");
    fs::write(&path, encoder().bytes()).unwrap();
    let model = Model::open(&path).unwrap();
    let signature = model.signature();
    assert_eq!(signature.symbols, ["batch", "sequence"]);
    let inputs: Vec<_> =
        signature.inputs.iter().map(|it| (it.name.as_str(), it.index_limit)).collect();
    assert_eq!(inputs, [("input_ids", Some(10)), ("attention_mask", None)]);
    assert_eq!(signature.shape_text(&signature.outputs[0]), "[batch, sequence, 4]");
    let file = model.gguf().unwrap();
    assert_eq!(file.tensors["blk.0.ffn_up.weight"].shape, [8, 4]);
    assert_eq!(file.metadata["tokenizer.ggml.tokens"], GgufValue::List(2));
    assert_eq!(model.n_parameter_bytes(), file.n_tensor_bytes());
}

#[test]
fn every_truncation_is_a_typed_error() {
    let whole = encoder().bytes();
    // The last tensor has 16 bytes, and as many of padding that nobody needs.
    for length in 4..whole.len() - 16 {
        let error = read(&whole[..length]).unwrap_err();
        assert!(matches!(error, GgufError::Truncated { .. }), "{length}: {error}");
    }
    assert!(read(&whole).is_ok());
}

#[test]
fn sizes_that_overflow_are_refused() {
    let huge = u64::MAX / 2;
    for (extents, offset) in [
        (vec![huge, huge], 0),
        (vec![u64::MAX], 0),
        (vec![4, 4, 4, huge], 0),
        (vec![4], u64::MAX - 3),
        (vec![4], 1 << 40),
        (vec![0], 0),
        (vec![1; 5], 0),
    ] {
        let file = Writer::default().tensor("t", &extents, 0, offset).bytes();
        let error = read(&file).unwrap_err();
        let typed = matches!(error, GgufError::Malformed { .. } | GgufError::Truncated { .. });
        assert!(typed, "{extents:?} at {offset}: {error}");
    }
    for count in [u64::MAX, 1 << 40, 1 << 21] {
        for at in [8, 16] {
            let mut file = encoder().bytes();
            file[at..at + 8].copy_from_slice(&count.to_le_bytes());
            assert!(read(&file).is_err(), "{count} at {at}");
        }
    }
}

/// A file of little may not ask for much: what is loaded is as large as what is there.
#[test]
fn tensors_that_overlap_are_refused() {
    let mut file = Writer::default();
    file.f32("a", &[64]);
    assert!(read(&file.bytes()).is_ok());
    let error = read(&file.tensor("b", &[64], 0, 0).bytes()).unwrap_err();
    assert!(matches!(error, GgufError::Malformed { .. }), "{error}");
    assert!(error.to_string().contains("overlap"), "{error}");
}

#[test]
fn hostile_metadata_is_refused() {
    let list = |kind: u32, n: u64| [&kind.to_le_bytes()[..], &n.to_le_bytes()].concat();
    let cases: [(u32, Vec<u8>); 6] = [
        (8, u64::MAX.to_le_bytes().to_vec()),
        (9, list(8, u64::MAX)),
        (9, list(0, 1 << 50)),
        (9, [list(9, 1), list(9, 1), list(9, 1), list(9, 1), list(9, 1), list(0, 0)].concat()),
        (13, Vec::new()),
        (8, [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
    ];
    for (kind, value) in cases {
        let file = Writer::default().entry("key", kind, &value).bytes();
        assert!(read(&file).is_err(), "{kind}: {value:?}");
    }
    let twice = Writer::default().uint("key", 1).uint("key", 2).bytes();
    assert!(matches!(read(&twice), Err(GgufError::Malformed { .. })));
    for alignment in [0, 3, 1 << 30] {
        let file = Writer::default().uint("general.alignment", alignment).bytes();
        assert!(read(&file).is_err(), "{alignment}");
    }
}

#[test]
fn versions_types_and_architectures_are_named() {
    let mut file = encoder().bytes();
    file[4] = 9;
    assert!(matches!(read(&file), Err(GgufError::Version { found: 9 })));
    let file = Writer::default().tensor("t", &[4], 77, 0).bytes();
    assert!(matches!(read(&file), Err(GgufError::UnknownType { found: 77, .. })));
    let file = read(&Writer::default().entry("general.architecture", 8, &text("llama")).bytes());
    let error = EncoderSizes::of(&file.unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the file's architecture is `llama`; `bert` and `modern-bert` are served"
    );
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let mut file = encoder();
    file.tensors.retain(|tensor| !tensor[8..].starts_with(b"blk.0.attn_k.weight"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    let error = Model::open(&path).unwrap_err();
    let ModelError::Gguf { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("no `blk.0.attn_k.weight`"), "{source}");
    let mut read = read(&encoder().bytes()).unwrap();
    read.tensors.get_mut("blk.0.ffn_up.bias").unwrap().shape = vec![7];
    assert!(EncoderSizes::of(&read).unwrap_err().to_string().contains("[7], not [8]"));
}

/// The tiny encoder like ModernBERT, to be changed.
fn modern_encoder() -> GgufFile {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/modern_encoder.gguf");
    gguf::read(fs::File::open(path).unwrap()).unwrap()
}

#[test]
fn an_encoder_with_local_attention_says_so() {
    let sizes = EncoderSizes::of(&modern_encoder()).unwrap();
    let EncoderKind::ModernBert(local) = sizes.kind else { panic!("{sizes:?}") };
    assert_eq!((local.window, local.period, sizes.positions), (8, 3, 64));
    assert_eq!((local.global_base, local.local_base), (160_000.0, 10_000.0));
    let globals: Vec<usize> = (0..sizes.n_layers).filter(|it| local.is_global(*it)).collect();
    assert_eq!(globals, [0, 3]);
}

#[test]
fn a_variant_that_would_give_other_answers_is_refused_by_its_key() {
    let (uint, float) = (GgufValue::Uint, GgufValue::Float);
    let text = |it: &str| GgufValue::Text(it.to_owned());
    for (key, value) in [
        ("attention.sliding_window", uint(0)),
        ("attention.sliding_window", text("8")),
        ("attention.sliding_window_pattern", uint(0)),
        ("attention.sliding_window_pattern", GgufValue::List(4)),
        ("attention.head_count", uint(0)),
        ("attention.head_count", uint(3)),
        ("attention.head_count", uint(16)),
        ("attention.head_count_kv", uint(1)),
        ("attention.causal", GgufValue::Bool(true)),
        ("attention.layer_norm_epsilon", float(f64::NAN)),
        ("rope.freq_base", float(0.0)),
        ("rope.freq_base", float(f64::INFINITY)),
        ("rope.freq_base_swa", float(f64::NAN)),
        ("rope.dimension_count", uint(4)),
        ("rope.scaling.type", text("yarn")),
        ("hidden_activation", text("silu")),
        ("context_length", uint(u64::MAX)),
        ("block_count", uint(u64::MAX)),
        ("embedding_length", uint(u64::MAX - 1)),
        ("feed_forward_length", uint(u64::MAX)),
    ] {
        let mut file = modern_encoder();
        file.metadata.insert(format!("modern-bert.{key}"), value.clone());
        let error = EncoderSizes::of(&file).unwrap_err();
        assert!(matches!(error, GgufError::NotAnEncoder { .. }), "{key} = {value:?}: {error}");
    }
    for key in ["attention.sliding_window", "rope.freq_base", "rope.freq_base_swa"] {
        let mut file = modern_encoder();
        file.metadata.remove(&format!("modern-bert.{key}"));
        let error = EncoderSizes::of(&file).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    let mut file = modern_encoder();
    file.tensors.remove("blk.1.attn_norm.weight");
    let error = EncoderSizes::of(&file).unwrap_err().to_string();
    assert!(error.contains("no `blk.1.attn_norm.weight`"), "{error}");
}

#[test]
fn rows_fill_whole_blocks() {
    assert_eq!(GgufType::Q8_0.row_bytes(64), Some(68));
    assert_eq!(GgufType::Q8_0.row_bytes(33), None);
    assert_eq!(GgufType::F16.row_bytes(u64::MAX), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    #[test]
    fn damage_never_panics(changes in prop::collection::vec((0usize..1400, any::<u8>()), 1..6)) {
        let mut bytes = encoder().bytes();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(file) = read(&bytes) {
            for tensor in file.tensors.values() {
                prop_assert!(tensor.offset + tensor.n_bytes <= bytes.len() as u64);
            }
            prop_assert!(file.n_tensor_bytes() <= bytes.len() as u64);
            let _ = EncoderSizes::of(&file);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&[b"GGUF\x03\0\0\0".as_slice(), &bytes].concat());
    }
}
