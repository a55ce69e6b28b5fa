//! From measured programs to a plan, and from a plan to programs, with MIGraphX's interpreter on the CPU.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(unix)]

mod common;

use std::path::Path;

use common::{Folder, Ran, is_usable, model, run, shapeyard};
use serde_json::Value;

/// A command on the model of one dense layer, with MIGraphX's interpreter and a cache of the test's own.
fn on_ref(folder: &Folder, command: &str, more: &[&str]) -> Ran {
    let mut built = shapeyard();
    built.arg(command).arg(model("dense.onnx")).args(["--target", "ref"]).args(more);
    run(built.arg("--cache").arg(folder.path("cache")))
}

fn json(folder: &Folder, command: &str, more: &[&str]) -> Value {
    on_ref(folder, command, &[more, &["--format", "json"]].concat()).done().json()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn programs_are_measured_and_plans_weigh_them() {
    if !is_usable("migraphx", "programs_are_measured_and_plans_weigh_them") {
        return;
    }
    let folder = Folder::new();
    let forced = ["--backend", "migraphx", "--rounds", "1"];
    on_ref(&folder, "calibrate", &forced).refused(2, &["no program of this model", "warm"]);
    json(&folder, "warm", &["--backend", "migraphx", "--buckets", "batch=1,8"]);
    let measured = json(&folder, "calibrate", &forced);
    let of = &measured["backends"][0];
    assert_eq!(of["n_programs"], 2);
    assert!(of["compile"]["fixed"].as_f64().unwrap() >= 0.0 && of["memory"].is_object(), "{of}");

    let served = folder.write("served.txt", "1x1 50\n8x1 900\n3x1 10\n");
    let options = ["--from-traffic", text(&served), "--row-counts", "1,4,8"];
    let planned = json(&folder, "plan", &options);
    let device = &planned["prices_from"]["device"];
    assert_eq!((&device["from"], &device["backend"]), (&"measured".into(), &"migraphx".into()));
    assert_eq!(planned["prices"]["memory"], of["memory"]);
    assert_eq!(planned["present"]["buckets"].as_array().unwrap().len(), 2);
    for it in planned["plan"]["buckets"].as_array().unwrap() {
        let is_there = it["bucket"]["batch"] != 4;
        assert_eq!(it["compile_seconds"].as_f64().unwrap() == 0.0, is_there, "{it}");
    }
}

#[test]
fn the_programs_of_a_plan_are_warmed_by_worth_and_again_cost_nothing() {
    if !is_usable("migraphx", "the_programs_of_a_plan_are_warmed_by_worth_and_again_cost_nothing") {
        return;
    }
    let folder = Folder::new();
    let served = folder.write("served.txt", "2x1 500000\n16x1 900000\n");
    let plan = folder.path("plan.json");
    let prices = r#"{"device": {"token": 1e-4}, "cpu": {"token": 1e-2}, "compile": {"fixed": 5}}"#;
    let prices = folder.write("prices.json", prices);
    let options = ["--workload", text(&served), "--row-counts", "2,16", "--prices", text(&prices)];
    let planned = json(&folder, "plan", &[&options[..], &["--out", text(&plan)]].concat());
    assert_eq!(planned["plan"]["buckets"].as_array().unwrap().len(), 2, "{planned}");

    let states = |more: &[&str]| {
        let warmed = json(&folder, "warm", &[&["--plan", text(&plan)], more].concat());
        let shapes = warmed["shapes"].as_array().unwrap();
        let state = |it: &Value| (it["bucket"]["batch"].clone(), it["state"].clone());
        shapes.iter().map(state).collect::<Vec<_>>()
    };
    let wanted = |state: &str| vec![(16.into(), state.into()), (2.into(), state.into())];
    assert_eq!(states(&[]), wanted("compiled"), "sixteen rows save more");
    assert_eq!(states(&[]), wanted("hit"));

    let warm_other = |plan: &Path| {
        let mut command = shapeyard();
        command.arg("warm").arg(model("encoder.onnx")).args(["--target", "ref", "--plan"]);
        run(command.arg(plan).arg("--cache").arg(folder.path("cache")))
    };
    warm_other(&plan).refused(2, &["made for another model"]);
    warm_other(&served).refused(2, &["is not what `shapeyard plan --out` writes"]);
    warm_other(&folder.path("none.json")).refused(2, &["cannot be read"]);
}
