//! What holds for all commands, and the small ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::process::Stdio;

use common::{Folder, model, run, shapeyard};

#[test]
fn help_has_examples() {
    for command in [
        "",
        "inspect",
        "run",
        "encode",
        "calibrate",
        "plan",
        "warm",
        "doctor",
        "cache",
        "completions",
        "man",
    ] {
        let args = [command, "--help"];
        let ran = run(shapeyard().args(args.into_iter().filter(|arg| !arg.is_empty()))).done();
        assert!(ran.stdout.contains("Examples:\n  shapeyard "), "{command}: {}", ran.stdout);
        let name = if command.is_empty() { "shapeyard" } else { command };
        insta::assert_snapshot!(format!("help_{name}"), ran.stdout);
    }
}

#[test]
fn inspect_says_what_a_model_takes_and_gives() {
    let inspect =
        |name: &str, more: &[&str]| run(shapeyard().arg("inspect").arg(model(name)).args(more));
    let text = inspect("encoder.onnx", &[]).done().stdout;
    assert!(text.contains("input_ids: i64 [batch, sequence], an index below 128"), "{text}");
    let json = inspect("scalars.onnx", &["--format", "json"]).done().json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["inputs"][0]["shape"], serde_json::json!(["batch", 4]));
    assert_eq!(json["inputs"][1]["shape"], serde_json::json!([]));
    assert_eq!(json["symbols"], serde_json::json!(["batch"]));
    let unnamed = inspect("unnamed_dims.onnx", &["--format", "json"]).done().json();
    assert_eq!(unnamed["inputs"][0]["shape"], serde_json::json!([null, 4]));
    let types = inspect("mixed_types.onnx", &[]).done().stdout;
    for wanted in ["count: i32", "offset: i64", "flag: bool", "level: u8", "weight: f64"] {
        assert!(types.contains(wanted), "{types}");
    }
    let external = inspect("external.onnx", &["--format", "json"]).done().json();
    assert_eq!(external["external_files"][0]["location"], "external.bin");
    assert_eq!(external["digest"].as_str().unwrap().len(), 64);
}

#[test]
fn inspect_describes_what_cannot_be_served() {
    // Operator set 17; a graph that takes a tensor of strings `text` and gives one of f32 `y`.
    let model = b"\x42\x02\x10\x11\x3a\x19\x5a\x0c\x0a\x04text\x12\x04\x0a\x02\x08\x08\x62\x09\x0a\x01y\x12\x04\x0a\x02\x08\x01";
    let folder = Folder::new();
    let file = folder.write("strings.onnx", model);
    let inspect = |more: &[&str]| run(shapeyard().arg("inspect").arg(&file).args(more)).done();
    let text = inspect(&[]).stdout;
    assert!(text.contains("text: a tensor of strings, which cannot be served"), "{text}");
    assert_eq!(inspect(&["--format", "json"]).json()["foreign"][0]["is_input"], true);
    let run_it = run(shapeyard().arg("run").arg(&file).args(["--out", "y.npy"]));
    run_it.refused(2, &["`text` is a tensor of strings"]);
}

#[test]
fn inspect_refuses_what_is_no_model() {
    let folder = Folder::new();
    for (name, content) in [("empty.onnx", &b""[..]), ("garbage.onnx", b"\xff\xff\xff\xff")] {
        let file = folder.write(name, content);
        run(shapeyard().arg("inspect").arg(&file)).refused(2, &[name]);
    }
    run(shapeyard().arg("inspect").arg(folder.path("."))).refused(2, &["cannot be read"]);
}

#[test]
fn doctor_names_every_backend_and_where_it_looked() {
    let json = run(shapeyard().args(["doctor", "--format", "json"])).done().json();
    let ids: Vec<&str> = json["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["backend"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["migraphx", "onnxruntime", "rten", "ggml"]);
    assert!(ids.contains(&json["auto"].as_str().unwrap()));
    let named = run(shapeyard().args(["doctor", "--onnxruntime", "no/such.so"])).done().stdout;
    assert!(named.contains("onnxruntime: not usable"), "{named}");
    assert!(named.contains("looked at    no/such.so (the path that was given)"), "{named}");
    assert!(named.contains("--backend auto: rten answers"), "{named}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(shapeyard().args(["completions", shell])).done().stdout;
        assert!(script.contains("token-budget"), "{shell}");
    }
    let folder = Folder::new();
    run(shapeyard().args(["man", "--out"]).arg(folder.path("man/man1"))).done();
    assert!(folder.path("man/man1/shapeyard-encode.1").exists());
    assert!(folder.path("man/man1/shapeyard-cache-ls.1").exists());
    run(shapeyard().args(["man", "--out"]).arg(model("dense.onnx")))
        .refused(2, &["cannot be written"]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut command = shapeyard();
    command.args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_no_fault_of_the_program() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = shapeyard().arg("doctor").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("stdout cannot be written"), "{stderr}");
}

#[test]
fn a_wrong_command_line_is_bad_input() {
    // A hundred thousand threads would stop the machine.
    let threads = ["run", "m.onnx", "--out", "y.npy", "--threads", "100000"];
    let format = ["inspect", "--format", "xml", "m.onnx"];
    // The time of every run is kept.
    let repeat = ["run", "m.onnx", "--out", "y.npy", "--repeat", "18446744073709551615"];
    for args in [&["fly"][..], &["run"], &format, &["encode", "m.onnx"], &threads, &repeat] {
        assert_eq!(run(shapeyard().args(args)).code, 2, "{args:?}");
    }
}
