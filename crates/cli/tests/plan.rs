//! `shapeyard plan`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::path::Path;

use common::{Folder, Ran, model, run, shapeyard};

fn plan(name: &str, workload: &Path, more: &[&str]) -> Ran {
    let mut command = shapeyard();
    run(command.arg("plan").arg(model(name)).arg("--workload").arg(workload).args(more))
}

const LENGTHS: &str = "# items\n10 4000\n12 1000\n100 700\n";

#[test]
fn a_plan_names_programs_and_reasons() {
    let folder = Folder::new();
    let workload = folder.write("lengths.txt", LENGTHS);
    let ran = plan("encoder.onnx", &workload, &["--policy", "fitted:2"]).done();
    assert!(ran.stderr.contains("prices are assumed"), "{ran:?}");
    for part in ["batch=40,sequence=100", "exact", "padded", "by assumed prices", "\n- "] {
        assert!(ran.stdout.contains(part), "{part:?} not in {}", ran.stdout);
    }
}

#[test]
fn json_has_the_whole_plan() {
    let folder = Folder::new();
    let workload = folder.write("lengths.txt", LENGTHS);
    let prices =
        folder.write("prices.json", r#"{"device": {"token": 1e-6}, "cpu": {"token": 1e-5}}"#);
    let prices = prices.to_str().unwrap();
    let options = ["--policy", "16,128", "--prices", prices, "--format", "json"];
    let ran = plan("encoder.onnx", &workload, &options).done();
    assert_eq!(ran.stderr, "");
    let json = ran.json();
    assert_eq!(json["command"], "plan");
    assert_eq!(json["prices_are_assumed"], false);
    assert_eq!(json["plan"]["totals"]["n_rows"], 5700);
    assert_eq!(json["plan"]["buckets"][0]["bucket"]["sequence"], 128);
    assert!(json["plan"]["batches"][0]["reason"].is_string());
}

#[test]
fn requests_of_a_model_without_lengths_get_rows() {
    let folder = Folder::new();
    let workload = folder.write("traffic.txt", "1x1 500\n3x1 400\n16x1 900\n");
    let options = ["--rows", "1,16", "--quiet", "--format", "json"];
    let json = plan("dense.onnx", &workload, &options).done().json();
    assert_eq!(json["rows_symbol"], "batch");
    assert_eq!(json["length_symbol"], "");
}

#[test]
fn a_plot_is_an_svg_file() {
    let folder = Folder::new();
    let workload = folder.write("lengths.txt", LENGTHS);
    let plot = folder.path("lengths.svg");
    plan("encoder.onnx", &workload, &["--plot", plot.to_str().unwrap()]).done();
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg ") && svg.contains("sequence in tokens"));
    assert_eq!(folder.names(), ["lengths.svg", "lengths.txt"]);
}

#[test]
fn what_is_wrong_is_named() {
    let folder = Folder::new();
    let lengths = folder.write("lengths.txt", LENGTHS);
    let nonsense = folder.write("nonsense.txt", "48\nlong\n");
    let refused = |workload: &Path, more: &[&str], part: &str| {
        plan("encoder.onnx", workload, more).refused(2, &[part]);
    };
    refused(&nonsense, &[], "line 2, `long`");
    refused(&folder.path("missing"), &[], "cannot be read");
    refused(&lengths, &["--policy", "1..100000:1"], "more than 4096 extents");
    refused(&lengths, &["--max-padding", "101"], "percentage");
    refused(
        &lengths,
        &["--length-symbol", "width"],
        "no symbol `width`; it has `batch`, `sequence`",
    );
    refused(&lengths, &["--prices", nonsense.to_str().unwrap()], "holds no prices");
    refused(&lengths, &["--plot", "no/such/folder/plot.svg"], "plot cannot be written");
    plan("unnamed_dims.onnx", &lengths, &[]).refused(2, &["nothing to plan"]);
}
