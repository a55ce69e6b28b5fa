//! `shapeyard calibrate`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;

use common::{Folder, Ran, model, run, shapeyard};
use serde_json::Value;

/// Calibrates with few rounds, into a cache of the test's own.
fn calibrate(folder: &Folder, name: &str, more: &[&str]) -> Ran {
    let mut command = shapeyard();
    command.arg("calibrate").arg(model(name)).args(["--rounds", "1"]);
    if !more.contains(&"--max-length") {
        command.args(["--max-length", "32"]);
    }
    run(command.arg("--cache").arg(folder.path("cache")).args(more))
}

const RTEN: [&str; 4] = ["--backend", "rten", "--threads", "2"];

#[test]
fn prices_are_measured_and_kept() {
    let folder = Folder::new();
    let ran = calibrate(&folder, "encoder.onnx", &[&RTEN[..], &["--format", "json"]].concat());
    let json = ran.done().json();
    let [of] = &json["backends"].as_array().unwrap()[..] else { panic!("{json}") };
    assert_eq!(of["backend"], "rten");
    let splits = of["choices"].as_array().unwrap();
    assert_eq!(splits.len(), 2, "one session of two threads, and two of one");
    for split in splits {
        assert!(split["price"]["load"].as_f64().unwrap() > 0.0, "{split}");
        assert!(split["median_error"].is_number() && split["largest_error"].is_number());
        // Rows 1, 4 and 16 of 16 and of 32 tokens.
        assert_eq!(split["n_samples"], 6, "{split}");
    }
    let kept = of["kept_in"].as_str().unwrap();
    assert!(fs::metadata(kept).unwrap().len() > 0);
    assert!(kept.contains("v1/prices"), "{kept}");
}

#[test]
fn a_table_is_for_people() {
    let folder = Folder::new();
    let ran = calibrate(&folder, "dense.onnx", &RTEN).done();
    for part in ["BATCH", "ERROR", "2 sessions of 1 thread", "kept in"] {
        assert!(ran.stdout.contains(part), "{part:?} not in {}", ran.stdout);
    }
}

#[test]
fn what_a_model_does_not_take_is_named() {
    let folder = Folder::new();
    let long = [&RTEN[..], &["--max-length", "65"]].concat();
    calibrate(&folder, "encoder.onnx", &long)
        .refused(3, &["sequence=65 cannot be run", "--max-length"]);
    calibrate(&folder, "unknown_operator.onnx", &RTEN).refused(3, &["unknown_operator.onnx"]);
    calibrate(&folder, "encoder.onnx", &["--backend", "abacus"]).refused(2, &["abacus"]);
    calibrate(&folder, "encoder.onnx", &["--length-symbol", "width"])
        .refused(2, &["no symbol `width`"]);
    let library = ["--backend", "onnxruntime", "--onnxruntime", "no/such/library.so"];
    calibrate(&folder, "encoder.onnx", &library).refused(3, &["no/such/library.so"]);
    assert!(!folder.path("cache/v1/prices").exists(), "nothing is kept");
}

#[test]
fn auto_measures_whoever_is_usable_and_names_the_others() {
    let folder = Folder::new();
    let json = calibrate(&folder, "encoder.onnx", &["--format", "json"]).json();
    let measured = json["backends"].as_array().unwrap();
    assert!(measured.iter().any(|it| it["backend"] == "rten"), "{json}");
    let passed_over = json["passed_over"].as_array().unwrap();
    assert_eq!(measured.len() + passed_over.len() + json["failed"].as_array().unwrap().len(), 4);
}

#[test]
fn an_encoding_refines_what_was_calibrated_and_starts_nothing() {
    let folder = Folder::new();
    let texts: String = (0..40).map(|nth| format!("{{\"text\": \"x{nth}\"}}\n")).collect();
    let texts = folder.write("texts.jsonl", texts);
    let encode = || {
        let mut command = shapeyard();
        command.arg("encode").arg(model("encoder.onnx")).arg(&texts).args(RTEN);
        command.arg("--tokenizer").arg(model("tiny_tokenizer.json")).args(["--max-length", "32"]);
        command.args(["--sessions", "2", "--token-budget", "1"]);
        command.arg("--out").arg(folder.path("e.npy"));
        run(command.arg("--cache").arg(folder.path("cache"))).done();
    };
    encode();
    assert!(!folder.path("cache/v1/prices").exists(), "nobody calibrated");
    let json = calibrate(&folder, "encoder.onnx", &[&RTEN[..], &["--format", "json"]].concat());
    let kept = json.done().json()["backends"][0]["kept_in"].as_str().unwrap().to_owned();
    let n_runs = || {
        let file: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
        let splits = file["content"]["measurements"]["splits"].as_array().unwrap();
        let of = splits.iter().find(|it| it["split"]["n_sessions"] == 2).unwrap();
        let runs = of["runs"].as_array().unwrap().iter();
        runs.map(|it| it["n_runs"].as_f64().unwrap()).sum::<f64>()
    };
    let before = n_runs();
    encode();
    assert_eq!(n_runs(), before + 40.0);
}
