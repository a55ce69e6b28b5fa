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
    let ran = plan("encoder.onnx", &workload, &["--buckets", "auto:2", "--explain"]).done();
    assert!(ran.stderr.contains("prices are assumed"), "{ran:?}");
    for part in ["batch=40,sequence=100", "exact", "padded", "programs: assumed", "\n- "] {
        assert!(ran.stdout.contains(part), "{part:?} not in {}", ran.stdout);
    }
    let brief = plan("encoder.onnx", &workload, &["--buckets", "auto:2"]).done().stdout;
    assert!(brief.contains("--explain") && !brief.contains("exact"), "{brief}");
}

#[test]
fn json_has_the_whole_plan() {
    let folder = Folder::new();
    let workload = folder.write("lengths.txt", LENGTHS);
    let prices =
        folder.write("prices.json", r#"{"device": {"token": 1e-6}, "cpu": {"token": 1e-5}}"#);
    let prices = prices.to_str().unwrap();
    let options = ["--buckets", "16,128", "--prices", prices, "--format", "json"];
    let ran = plan("encoder.onnx", &workload, &options).done();
    assert_eq!(ran.stderr, "");
    let json = ran.json();
    assert_eq!(json["command"], "plan");
    assert_eq!(json["prices_from"]["device"]["from"], "file");
    assert_eq!(json["plan"]["totals"]["n_rows"], 5700);
    assert_eq!(json["plan"]["buckets"][0]["bucket"]["sequence"], 128);
    assert!(json["plan"]["batches"][0]["reason"].is_string());
}

#[test]
fn requests_of_a_model_without_lengths_get_rows() {
    let folder = Folder::new();
    let workload = folder.write("traffic.txt", "1x1 500\n3x1 400\n16x1 900\n");
    let options = ["--row-counts", "1,16", "--quiet", "--format", "json"];
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
    refused(&lengths, &["--buckets", "1..100000:1"], "more than 4096 extents");
    refused(&lengths, &["--buckets", "fitted"], "write `auto:8` for the 8 that suit best");
    refused(&lengths, &["--max-padding", "101"], "percentage");
    refused(&lengths, &["--max-padding-tokens", "2"], "--max-padding");
    refused(
        &lengths,
        &["--length-symbol", "width"],
        "no symbol `width`; it has `batch`, `sequence`",
    );
    refused(&lengths, &["--prices", nonsense.to_str().unwrap()], "holds no prices");
    for (text, part) in [
        (r#"{"cpu": {"tokens": 1e-5}}"#, "unknown field `tokens`"),
        (r#"{"device": {"launch": -1e-3}}"#, "`device.launch` is -0.001; expected is 0 or more"),
    ] {
        let prices = folder.write("prices.json", text);
        refused(&lengths, &["--prices", prices.to_str().unwrap()], part);
    }
    refused(&lengths, &["--plot", "no/such/folder/plot.svg"], "plot cannot be written");
    plan("unnamed_dims.onnx", &lengths, &[]).refused(2, &["nothing to plan"]);
}

#[test]
fn prices_that_were_measured_here_are_used_and_named() {
    let folder = Folder::new();
    let (workload, cache) = (folder.write("lengths.txt", LENGTHS), folder.path("cache"));
    let cache = ["--cache", cache.to_str().unwrap()];
    let calibrate = |name: &str| {
        let mut command = shapeyard();
        command.arg("calibrate").arg(model(name)).args(["--backend", "rten", "--rounds", "1"]);
        run(command.args(["--max-length", "32", "--threads", "1", "--format", "json"]).args(cache))
    };
    let measured = calibrate("encoder.onnx").done().json();
    let json = |name: &str| {
        let more = [&cache[..], &["--format", "json"]].concat();
        plan(name, &workload, &more).done().json()
    };
    let planned = json("encoder.onnx");
    assert_eq!(planned["prices_from"]["device"]["from"], "assumed");
    let cpu = &planned["prices_from"]["cpu"];
    assert_eq!((&cpu["from"], &cpu["backend"]), (&"measured".into(), &"rten".into()));
    let choice = &measured["backends"][0]["choices"][0];
    // Fitted to batches like the work's.
    assert_eq!(cpu["price"]["load"], choice["price"]["load"]);
    assert_eq!(planned["prices"]["cpu"], cpu["price"]);
    let text = plan("encoder.onnx", &workload, &cache).done();
    assert!(text.stderr.contains("the prices of programs are assumed"), "{text:?}");
    assert!(text.stdout.contains("cpu: rten, 1 session of 1 thread, measured "), "{text:?}");

    // Of another model they say nothing; nor where the file was touched.
    assert_eq!(json("tokens.onnx")["prices_from"]["cpu"]["from"], "assumed");
    let kept = measured["backends"][0]["kept_in"].as_str().unwrap();
    let touched = fs::read_to_string(kept).unwrap().replacen("cost\": 0.", "cost\": 1.", 1);
    fs::write(kept, touched).unwrap();
    assert_eq!(json("encoder.onnx")["prices_from"]["cpu"]["from"], "assumed");
}

#[test]
fn traffic_is_planned_beside_the_programs_there_are() {
    let folder = Folder::new();
    let traffic = folder.write("served.txt", "1x20 4000\n8x100 900\n");
    let planned = |format: &str| {
        let mut command = shapeyard();
        command.arg("plan").arg(model("encoder.onnx")).arg("--from-traffic").arg(&traffic);
        run(command.args(["--present", "batch=8", "sequence=512", "--format", format])).done()
    };
    let text = planned("text").stdout;
    for part in ["present    1 program, 1 of them used", "saves      ", "paid after"] {
        assert!(text.contains(part), "{part:?} not in {text}");
    }
    let json = planned("json").json();
    let present = &json["present"];
    assert_eq!(present["buckets"].as_array().unwrap().len(), 1);
    let of = |at: &serde_json::Value| at["totals"]["seconds"].as_f64().unwrap();
    let saved = present["saved_seconds"].as_f64().unwrap();
    assert!((of(present) - of(&json["plan"]) - saved).abs() < 1e-9 && saved > 0.0, "{present}");
    assert!(present["break_even_runs"].as_u64().unwrap() > 0);
    let both = ["--workload", "a", "--from-traffic", "b"];
    run(shapeyard().arg("plan").arg(model("encoder.onnx")).args(both))
        .refused(2, &["--from-traffic"]);
    run(shapeyard().arg("plan").arg(model("encoder.onnx"))).refused(2, &["--workload"]);
}

#[test]
fn a_plan_that_was_written_is_of_one_model() {
    let folder = Folder::new();
    let (workload, out) = (folder.write("lengths.txt", LENGTHS), folder.path("plan.json"));
    let printed = ["--format", "json", "--out", out.to_str().unwrap()];
    let ran = plan("encoder.onnx", &workload, &printed).done();
    assert_eq!(fs::read_to_string(&out).unwrap(), ran.stdout);
    let warm = |name: &str, plan: &Path| {
        let cache = folder.path("cache");
        let mut command = shapeyard();
        command.arg("warm").arg(model(name)).arg("--cache").arg(cache).arg("--plan").arg(plan);
        run(&mut command)
    };
    // Plans are for who compiles shapes, and here is none.
    warm("encoder.onnx", &out).refused(3, &["migraphx is not usable here"]);
}
