//! `--backend auto` over programs and others, and what it counts, as a person calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(unix)]

mod common;
#[path = "common/scene.rs"]
mod scene;

use std::fs;
use std::path::Path;

use common::{Ran, is_usable, model, read_npy_f32, run, shapeyard};
use scene::Scene;
use serde_json::{Value, json};

/// Leaves the test where MIGraphX is not in reach.
macro_rules! here {
    ($test:literal) => {
        if !is_usable("migraphx", $test) {
            return;
        }
    };
}

/// Texts of 3 to some 12 tokens.
fn texts(scene: &Scene) {
    for (n, text) in ["one", "two words", "a longer text of some more words", ""].iter().enumerate()
    {
        scene.0.write(&format!("docs/{n}.txt"), text);
    }
}

fn encode(scene: &Scene, more: &[&str], out: &str) -> Ran {
    let mut command = scene.command("encode", "encoder.onnx", more);
    command.arg(scene.0.path("docs")).arg("--tokenizer").arg(model("tiny_tokenizer.json"));
    run(command.args(["--format", "json", "--out"]).arg(scene.0.path(out)))
}

fn run_auto(scene: &Scene, n_rows: u8, more: &[&str]) -> Ran {
    let x = scene.rows(n_rows);
    let mut command = scene.command("run", "add_one.onnx", &["--target", "ref"]);
    command.args(["--input", &x, "--format", "json", "--out"]).arg(scene.0.path("y.npy"));
    run(command.args(more))
}

#[track_caller]
fn assert_same_vectors(one: &Path, other: &Path) {
    let (one, other) = (read_npy_f32(one).1, read_npy_f32(other).1);
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(&other) {
        assert!((one - other).abs() <= 1e-4, "{one} is not {other}");
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Batches by backend, route and reason.
fn routes(report: &Value) -> Vec<(String, String, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let routes = report["routes"].as_array().unwrap().iter();
    routes.map(|it| (text(&it["backend"]), text(&it["route"]), it["fallback"][1].clone())).collect()
}

#[test]
fn a_forced_backend_that_is_cold_fails_and_leaves_nothing() {
    here!("a_forced_backend_that_is_cold_fails_and_leaves_nothing");
    let scene = Scene::new();
    texts(&scene);
    let ran = scene.run_rows("add_one.onnx", 2, &[]);
    ran.refused(3, &["no program for batch=2 is ready", "shapeyard warm "]);
    let ran = encode(&scene, &["--backend", "migraphx", "--target", "ref"], "e.npy");
    ran.refused(3, &["no program for texts of up to", "shapeyard warm "]);
    // The digest of the model is remembered there; nothing else is.
    assert_eq!((scene.0.names(), scene.n_entries()), (names(&["cache", "docs", "x.npy"]), 0));
}

#[test]
fn auto_answers_from_the_cpu_when_it_is_cold_and_says_so() {
    here!("auto_answers_from_the_cpu_when_it_is_cold_and_says_so");
    let scene = Scene::new();
    texts(&scene);
    for ran in [run_auto(&scene, 2, &[]), encode(&scene, &["--target", "ref"], "e.npy")] {
        let ran = ran.done();
        let json = ran.json();
        let backend = json["backend"].as_str().unwrap();
        assert_ne!(backend, "migraphx");
        assert!(ran.stderr.contains("migraphx has no program for "), "{ran:?}");
        assert!(ran.stderr.contains(&format!("{backend} answers instead")), "{ran:?}");
    }
    let written = names(&["cache", "docs", "e.npy", "e.npy.units.jsonl", "x.npy", "y.npy"]);
    assert_eq!((scene.0.names(), scene.n_entries()), (written, 0));
}

#[test]
fn texts_run_in_programs_where_these_hold_them_and_elsewhere_where_not() {
    here!("texts_run_in_programs_where_these_hold_them_and_elsewhere_where_not");
    let scene = Scene::new();
    texts(&scene);
    scene.warm("encoder.onnx", &["--buckets", "batch=2", "sequence=6"]).done();
    let ran = encode(&scene, &["--target", "ref"], "e.npy").done();
    let json = ran.json();
    let routes = routes(&json);
    assert!(routes.iter().any(|(backend, ..)| backend == "migraphx"), "{json}");
    let fallback = routes.iter().find(|(_, route, _)| route == "fallback").unwrap();
    assert_eq!(fallback.2, "not_ready");
    assert!(ran.stderr.contains(&format!("{} answers that", fallback.0)), "{ran:?}");
    encode(&scene, &["--backend", "rten"], "plain.npy").done();
    assert_same_vectors(&scene.0.path("e.npy"), &scene.0.path("plain.npy"));
    // The person sees the same.
    let mut command = scene.command("encode", "encoder.onnx", &["--target", "ref"]);
    command.arg(scene.0.path("docs")).arg("--tokenizer").arg(model("tiny_tokenizer.json"));
    let text = run(command.arg("--out").arg(scene.0.path("f.npy"))).done().stdout;
    assert!(text.contains(", fallback: no program was ready\n"), "{text}");
}

#[test]
fn what_is_not_compiled_when_the_work_is_done_is_given_up() {
    here!("what_is_not_compiled_when_the_work_is_done_is_given_up");
    let scene = Scene::new();
    texts(&scene);
    let slow = scene.slow_compiler();
    let mut command = scene.command("encode", "encoder.onnx", &["--target", "ref"]);
    command.arg(scene.0.path("docs")).arg("--tokenizer").arg(model("tiny_tokenizer.json"));
    command.args(["--compile-background", "--format", "json"]);
    command.env("SHAPEYARD_MIGRAPHX_WORKER", slow).arg("--out").arg(scene.0.path("e.npy"));
    let ran = run(&mut command).done();
    let json = ran.json();
    assert_ne!(json["backend"], "migraphx");
    assert!(ran.stderr.contains("answers that until it is compiled"), "{ran:?}");
    assert!(routes(&json).iter().all(|(_, route, reason)| {
        route == "fallback" && (reason == "compiling" || reason == "not_ready")
    }));
    let compiled = &json["compiled"];
    assert_eq!((&compiled["ready"], &compiled["failed"]), (&json!([]), &json!([])));
    assert!(!compiled["given_up"].as_array().unwrap().is_empty(), "{json}");
    assert_eq!(scene.n_entries(), 0);
}

#[test]
fn who_is_asked_for_alone_is_not_helped_in_the_background() {
    let scene = Scene::new();
    let ran = run_auto(&scene, 2, &["--backend", "migraphx", "--compile-background"]);
    ran.refused(2, &["--compile-background lets others answer meanwhile"]);
    let ran = run_auto(&scene, 2, &["--compile-missing", "--compile-background"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn one_request_runs_elsewhere_where_that_is_cheaper_or_less_padded() {
    here!("one_request_runs_elsewhere_where_that_is_cheaper_or_less_padded");
    let scene = Scene::new();
    scene.warm("add_one.onnx", &["--buckets", "batch=16"]).done();
    assert_eq!(run_auto(&scene, 2, &[]).done().json()["backend"], "migraphx");
    let limited = ["--max-padding", "50"];
    let json = run_auto(&scene, 2, &limited).done().json();
    assert_eq!(
        (&json["route"], &json["fallback"]["reason"]),
        (&json!("fallback"), &json!("padding"))
    );
    assert_eq!(run_auto(&scene, 9, &limited).done().json()["backend"], "migraphx");
    run_auto(&scene, 2, &["--backend", "migraphx", "--max-padding", "50"])
        .refused(2, &["--max-padding lets another backend answer"]);

    // Measured, so much padding takes longer on any machine.
    let scene = Scene::new();
    scene.warm("add_one.onnx", &["--buckets", "batch=4096"]).done();
    let measure = ["--target", "ref", "--rounds", "1", "--threads", "1"];
    let measured = run(&mut scene.command("calibrate", "add_one.onnx", &measure));
    assert!(measured.stdout.contains("migraphx"), "{measured:?}");
    let json = run_auto(&scene, 1, &[]).done().json();
    assert_eq!(json["fallback"]["reason"], "cheaper", "{json}");
}

#[test]
fn the_programs_of_a_plan_are_made_in_the_background_and_no_others() {
    here!("the_programs_of_a_plan_are_made_in_the_background_and_no_others");
    let scene = Scene::new();
    assert_eq!(run_auto(&scene, 2, &["--plan", "plan.json"]).code, 2, "nobody would make them");
    let ran = run_auto(&scene, 2, &["--compile-background", "--plan", "nowhere.json"]);
    ran.refused(2, &["the plan `nowhere.json` cannot be read"]);
    let prices = r#"{"device": {"token": 1e-4}, "cpu": {"token": 1e-2}, "compile": {"fixed": 5}}"#;
    scene.0.write("prices.json", prices);
    scene.0.write("served.txt", "16x1 900000\n");
    let mut command = scene.command("plan", "add_one.onnx", &["--target", "ref"]);
    command.args(["--row-counts", "16", "--workload"]).arg(scene.0.path("served.txt"));
    command.arg("--prices").arg(scene.0.path("prices.json"));
    run(command.arg("--out").arg(scene.0.path("plan.json"))).done();

    let x = scene.rows(2);
    let mut command = scene.command("run", "add_one.onnx", &["--target", "ref", "--input", &x]);
    command.args(["--compile-background", "--format", "json", "--plan"]);
    command.arg(scene.0.path("plan.json")).arg("--out").arg(scene.0.path("y.npy"));
    command.env("SHAPEYARD_MIGRAPHX_WORKER", scene.slow_compiler());
    let json = run(&mut command).done().json();
    assert_eq!(json["compiled"]["given_up"], json!([{"batch": 16}]), "{json}");
}

#[test]
fn the_shapes_of_the_work_are_counted_to_plan_by() {
    let scene = Scene::new();
    texts(&scene);
    let file = |name: &str| scene.0.path(name).display().to_string();
    let (lengths, requests) = (file("lengths.txt"), file("requests.txt"));
    for n in [1, 2] {
        let more = ["--backend", "rten", "--record-traffic", &lengths];
        encode(&scene, &more, "e.npy").done();
        let counted = fs::read_to_string(&lengths).unwrap();
        let sum: u64 =
            counted.lines().map(|it| it.split(' ').nth(1).unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(sum, 3 * n, "{counted}");
    }
    for rows in [2, 3, 3] {
        let more = ["--backend", "rten", "--repeat", "5", "--record-traffic", &requests];
        run_auto(&scene, rows, &more).done();
    }
    assert_eq!(fs::read_to_string(&requests).unwrap(), "2x1 5\n3x1 10\n");
    let more = ["--backend", "rten", "--record-traffic", &lengths];
    run_auto(&scene, 2, &more).refused(2, &["counts work of another kind"]);
    for (name, workload) in [("encoder.onnx", &lengths), ("add_one.onnx", &requests)] {
        let mut plan = shapeyard();
        run(plan.arg("plan").arg(model(name)).args(["--workload", workload])).done();
    }
}
