use std::io::Write as _;

use shapeyard_core::{DataType, Dim, TensorSpec};

use super::*;

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/tiny_tokenizer.json");

const CLS: u32 = 2;
const SEP: u32 = 3;

fn tiny(max_length: usize) -> TextTokenizer {
    TextTokenizer::open(TINY, max_length).unwrap()
}

/// The tiny tokenizer with some of its settings replaced.
fn changed(changes: &serde_json::Value) -> tempfile::NamedTempFile {
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(TINY).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        json[key] = value.clone();
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json.to_string().as_bytes()).unwrap();
    file
}

#[test]
fn special_tokens_frame_a_text() {
    let tokens = tiny(16).encode("a b").unwrap();
    assert_eq!(tokens.ids.len(), 4);
    assert_eq!((tokens.ids[0], tokens.ids[3]), (CLS, SEP));
    assert_eq!(tokens.type_ids, [0; 4]);
    assert!(!tokens.truncated);
}

#[test]
fn a_long_text_keeps_its_start_and_the_special_tokens() {
    let text = "a b c d e f g h";
    let whole = tiny(10).encode(text).unwrap();
    assert_eq!(whole.ids.len(), 10);
    assert!(!whole.truncated);
    let cut = tiny(9).encode(text).unwrap();
    assert_eq!(cut.ids[..8], whole.ids[..8]);
    assert_eq!(cut.ids[8], SEP);
    assert!(cut.truncated);
}

#[test]
fn truncation_is_noticed_without_special_tokens() {
    let file = changed(&serde_json::json!({"post_processor": null}));
    let tokenizer = |max_length| TextTokenizer::open(file.path(), max_length).unwrap();
    let whole = tokenizer(3).encode("a b c").unwrap();
    assert_eq!((whole.ids.len(), whole.truncated), (3, false));
    let cut = tokenizer(2).encode("a b c").unwrap();
    assert_eq!((&cut.ids[..], cut.truncated), (&whole.ids[..2], true));
    assert_eq!(cut.type_ids.len(), 2);
}

#[test]
fn settings_of_the_file_are_not_taken() {
    let padding = serde_json::json!({
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 7, "pad_type_id": 0, "pad_token": "[PAD]",
    });
    let truncation = serde_json::json!({
        "direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 0,
    });
    let file = changed(&serde_json::json!({"padding": padding, "truncation": truncation}));
    let tokenizer = TextTokenizer::open(file.path(), 16).unwrap();
    let text = "a b c d e";
    assert_eq!(tokenizer.encode(text).unwrap(), tiny(16).encode(text).unwrap());
    assert_eq!(tokenizer.pad_id(), 7);
    assert_eq!(tiny(16).pad_id(), 0);
}

#[test]
fn many_texts_keep_their_order() {
    let tokenizer = tiny(16);
    let texts: Vec<String> = (0..100).map(|n| format!("a {n} b")).collect();
    let one_by_one: Vec<Tokens> =
        texts.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
    assert_eq!(tokenizer.encode_all(&texts, 2).unwrap(), one_by_one);
}

#[test]
fn a_length_that_leaves_no_room_is_refused() {
    for max_length in [0, 2] {
        let error = TextTokenizer::open(TINY, max_length).unwrap_err();
        assert!(matches!(error, TokenizeError::MaxLengthTooSmall { n_special: 2, .. }));
    }
    assert_eq!(tiny(3).encode("a b c").unwrap().ids.len(), 3);
}

#[test]
fn other_files_are_refused() {
    let missing = TextTokenizer::open("no/such/tokenizer.json", 8).unwrap_err();
    assert!(matches!(missing, TokenizeError::Unreadable { .. }));
    for content in ["", "{}", "not json", "[1, 2]"] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        let error = TextTokenizer::open(file.path(), 8).unwrap_err();
        assert!(matches!(error, TokenizeError::NotATokenizer { .. }), "{content:?}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

fn signature(index_limit: Option<usize>) -> Signature {
    let shape = Some(vec![Dim::Unnamed, Dim::Unnamed]);
    let name = "input_ids".to_owned();
    let ids = TensorSpec { name, dtype: DataType::I64, shape, index_limit };
    Signature { inputs: vec![ids], ..Signature::default() }
}

#[test]
fn a_padding_id_outside_the_table_is_found() {
    let padding = serde_json::json!({
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 500, "pad_type_id": 0, "pad_token": "[PAD]",
    });
    let file = changed(&serde_json::json!({"padding": padding}));
    let tokenizer = TextTokenizer::open(file.path(), 16).unwrap();
    let error = tokenizer.check_fits(&signature(Some(128))).unwrap_err();
    assert!(matches!(error, TokenizeError::DoesNotFit { largest_id: 500, n_rows: 128, .. }));
    assert!(tokenizer.check_fits(&signature(Some(501))).is_ok());
}

#[test]
fn a_table_with_too_few_rows_is_found() {
    let tokenizer = tiny(16);
    assert_eq!(tokenizer.largest_id(), 127);
    assert!(tokenizer.check_fits(&signature(Some(128))).is_ok());
    assert!(tokenizer.check_fits(&signature(None)).is_ok());
    let error = tokenizer.check_fits(&signature(Some(127))).unwrap_err();
    assert!(matches!(error, TokenizeError::DoesNotFit { largest_id: 127, n_rows: 127, .. }));
}
