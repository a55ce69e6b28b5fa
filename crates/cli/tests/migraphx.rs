//! `shapeyard` with MIGraphX's interpreter on the CPU, as a person calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(unix)]

mod common;
#[path = "common/scene.rs"]
mod scene;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Ran, is_usable, model, npy, npy_f32, read_npy_f32, run, shapeyard};
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

/// The states of all shapes.
fn states(report: &Value) -> Vec<&str> {
    let shapes = report["shapes"].as_array().unwrap();
    shapes.iter().map(|shape| shape["state"].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_close(found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        assert!((found - wanted).abs() <= 1e-4, "{found} is not {wanted}");
    }
}

#[test]
fn what_was_warmed_runs_and_warming_again_costs_nothing() {
    here!("what_was_warmed_runs_and_warming_again_costs_nothing");
    let scene = Scene::new();
    let first = scene.warm_json("add_one.onnx", &["--buckets", "batch=..4"]);
    assert_eq!((&first["schema"], &first["command"]), (&json!(1), &json!("warm")));
    assert_eq!(states(&first), ["compiled"; 3]);
    assert!(first["shapes"][0]["n_bytes"].as_u64().unwrap() > 0);
    let text = scene.warm("add_one.onnx", &["--buckets", "batch=1,2,4,8"]).done().stdout;
    assert!(text.contains("4 shapes for migraphx in "), "{text}");
    assert!(text.contains(": 3 was there, 1 compiled\n"), "{text}");

    for (n_rows, route) in [(4, "exact"), (3, "padded"), (11, "split")] {
        let more = ["--format", "json"];
        let json = scene.run_rows("add_one.onnx", n_rows, &more).done().json();
        assert_eq!(json["backend"], "migraphx");
        assert_eq!(json["route"], route);
        let wanted: Vec<f32> = (0..n_rows * 4).map(|n| f32::from(n) + 1.0).collect();
        assert_close(&read_npy_f32(&scene.0.path("y.npy")).1, &wanted);
        let n_programs = json["programs"].as_array().unwrap().len();
        assert_eq!(n_programs, if route == "exact" { 1 } else { 4 });
    }
    let text = scene.run_rows("add_one.onnx", 11, &["--repeat", "2"]).done().stdout;
    assert!(text.contains("route    split, rebind, in 2 pieces, 1 row of padding\n"), "{text}");
    assert!(text.contains("loaded   4 programs from the cache\n"), "{text}");
}

#[test]
fn every_engine_answers_alike() {
    here!("every_engine_answers_alike");
    let scene = Scene::new();
    scene.warm("dense.onnx", &["--buckets", "batch=4"]).done();
    let values: Vec<f32> = (0..48u8).map(|n| f32::from(n % 7) / 3.0 - 1.0).collect();
    let file = scene.0.write("x.npy", npy_f32("(3, 16)", &values));
    let input = format!("x={}", file.display());
    let answer = |mut command: Command| {
        let out = scene.0.path("y.npy");
        run(command.args(["--input", &input]).arg("--out").arg(&out)).done();
        read_npy_f32(&out).1
    };
    let ours = answer(scene.on_ref("run", "dense.onnx", &[]));
    assert_close(&ours, &answer(scene.command("run", "dense.onnx", &["--backend", "rten"])));
    assert_close(&ours, &answer(scene.command("run", "dense.onnx", &[])));
}

#[test]
fn auto_leaves_what_cannot_be_split_to_others() {
    here!("auto_leaves_what_cannot_be_split_to_others");
    let scene = Scene::new();
    let mut warm = scene.command("warm", "running_sum.onnx", &["--target", "ref"]);
    assert_eq!(run(warm.args(["--buckets", "batch=1,4"])).code, 0);
    let x = scene.rows(9);
    let mut auto = scene.command("run", "running_sum.onnx", &["--target", "ref"]);
    let ran =
        run(auto.args(["--input", &x, "--format", "json"]).arg("--out").arg(scene.0.path("y.npy")));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_ne!(ran.json()["backend"], "migraphx");
}

#[test]
fn options_that_decide_answers_let_nobody_else_answer() {
    here!("options_that_decide_answers_let_nobody_else_answer");
    let scene = Scene::new();
    let warm = |more: &[&str]| {
        let mut command = scene.command("warm", "dense.onnx", &["--target", "ref"]);
        run(command.args(["--buckets", "batch=2"]).args(more))
    };
    let missing = ["--precision", "int8", "--calibration", "no_such.safetensors"];
    let refused = warm(&missing);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("no_such.safetensors"), "{refused:?}");
    let elsewhere = warm(&["--precision", "fp16", "--backend", "onnxruntime"]);
    assert_eq!(elsewhere.code, 2, "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("--precision is for migraphx"), "{elsewhere:?}");
}

#[test]
fn auto_prefers_programs_that_are_there_and_says_what_is_missing() {
    here!("auto_prefers_programs_that_are_there_and_says_what_is_missing");
    let scene = Scene::new();
    scene.warm("add_one.onnx", &["--buckets", "batch=2", "--padding", "never"]).done();
    let auto = |n_rows: u8, more: &[&str]| {
        let x = scene.rows(n_rows);
        let mut command = scene.command("run", "add_one.onnx", more);
        command.args(["--input", &x, "--format", "json", "--out"]).arg(scene.0.path("y.npy"));
        run(&mut command).done()
    };
    let options = ["--target", "ref", "--padding", "never"];
    assert_eq!(auto(2, &options).json()["backend"], "migraphx");
    let other = auto(3, &options);
    assert_ne!(other.json()["backend"], "migraphx");
    let reason = other.json()["passed_over"][0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.starts_with("migraphx has no program for batch=3 (nearest are batch=2)"));
    let command = "--target ref --padding never --cache";
    assert!(reason.contains(command) && reason.contains("--buckets batch=3`"), "{reason}");
    assert!(other.stderr.contains(&reason), "{other:?}");
    // Without a word about MIGraphX, that there is no GPU is no news.
    let quiet = auto(2, &[]);
    assert_eq!(quiet.stderr, "");
    assert!(quiet.json()["passed_over"][0]["reason"].as_str().unwrap().contains("no AMD GPU"));
}

#[test]
fn a_cold_shape_says_what_to_run_and_can_be_compiled_at_once() {
    here!("a_cold_shape_says_what_to_run_and_can_be_compiled_at_once");
    let scene = Scene::new();
    let cold = scene.run_rows("add_one.onnx", 2, &[]);
    cold.refused(3, &["no program for batch=2 is ready; none of this model is there"]);
    scene.warm("add_one.onnx", &["--buckets", "batch=1", "--padding", "never"]).done();
    let cold = scene.run_rows("add_one.onnx", 2, &["--padding", "never"]);
    let command = format!(
        "\n  shapeyard warm {} --backend migraphx --target ref --padding never --cache {} --buckets batch=2\n",
        model("add_one.onnx").display(),
        scene.cache().display()
    );
    cold.refused(3, &["nearest are batch=1", &command, "--compile-missing"]);

    let more = ["--compile-missing", "--format", "json"];
    let ran = scene.run_rows("add_one.onnx", 3, &more).done();
    assert!(ran.stderr.contains("note: compiling for batch=4"), "{ran:?}");
    assert_eq!((&ran.json()["route"], &ran.json()["tier"]), (&json!("padded"), &json!("standard")));
    let again = scene.run_rows("add_one.onnx", 2, &more).done();
    assert_eq!((&again.json()["route"], again.stderr.as_str()), (&json!("padded"), ""));
}

#[test]
fn text_is_encoded_in_shapes_that_are_there() {
    here!("text_is_encoded_in_shapes_that_are_there");
    let scene = Scene::new();
    for (n, text) in ["one", "two words", "a longer text of some more words", ""].iter().enumerate()
    {
        scene.0.write(&format!("docs/{n}.txt"), text);
    }
    let encode = |more: &[&str], out: &str| {
        let mut command = scene.command("encode", "encoder.onnx", more);
        command.arg(scene.0.path("docs")).arg("--tokenizer").arg(model("tiny_tokenizer.json"));
        run(command.args(["--format", "json", "--out"]).arg(scene.0.path(out)))
    };
    let on_ref = ["--backend", "migraphx", "--target", "ref"];
    let cold = encode(&on_ref, "e.npy");
    cold.refused(
        3,
        &["no program for texts of up to", "shapeyard warm ", "--buckets batch=8 sequence="],
    );
    scene.warm("encoder.onnx", &["--buckets", "batch=2", "sequence=8"]).done();
    let cold = encode(&on_ref, "e.npy");
    cold.refused(3, &["nearest are batch=2,sequence=8", "--buckets batch=2 sequence="]);
    scene.warm("encoder.onnx", &["--buckets", "batch=2", "sequence=32"]).done();
    let json = encode(&on_ref, "e.npy").done().json();
    assert_eq!(json["backend"], "migraphx");
    assert_eq!(json["programs"].as_array().unwrap().len(), 2);
    let plain = encode(&["--backend", "rten"], "plain.npy").done().json();
    assert_eq!(plain["n_rows"], json["n_rows"]);
    let (ours, theirs) = (scene.0.path("e.npy"), scene.0.path("plain.npy"));
    assert_close(&read_npy_f32(&ours).1, &read_npy_f32(&theirs).1);

    let other = Scene::new();
    let mut command = other.on_ref("encode", "encoder.onnx", &["--compile-missing"]);
    command.arg(scene.0.path("docs")).arg("--tokenizer").arg(model("tiny_tokenizer.json"));
    let ran = run(command.arg("--out").arg(other.0.path("e.npy"))).done();
    assert!(ran.stderr.contains("note: compiling for batch=8,sequence="), "{ran:?}");
    assert_close(&read_npy_f32(&other.0.path("e.npy")).1, &read_npy_f32(&theirs).1);
}

/// Starts a command in a process group of its own, as a terminal does.
fn start(command: &mut Command) -> Child {
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn ctrl_c_ends_the_compile_and_the_same_command_goes_on() {
    here!("ctrl_c_ends_the_compile_and_the_same_command_goes_on");
    let scene = Scene::new();
    let shapes = ["--buckets", "batch=1..16:1", "sequence=16", "--format", "json"];
    let child = start(&mut scene.on_ref("warm", "encoder.onnx", &shapes));
    let patience = Instant::now() + Duration::from_secs(60);
    while scene.n_entries() < 2 && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    // Everybody at the terminal hears it, the compiling process too.
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let ran = ended(child);
    ran.refused(
        130,
        &["interrupted; ", " of 16 shapes are in the cache; the same command goes on"],
    );
    let report = ran.json();
    let n_ready = report["n_ready"].as_u64().unwrap();
    assert!((2..16).contains(&n_ready), "{report}");
    assert_eq!(report["n_failed"], 0, "{report}");
    assert_eq!(n_ready, scene.n_entries() as u64);

    let again = scene.warm_json("encoder.onnx", &shapes[..3]);
    let n_hits = states(&again).iter().filter(|state| **state == "hit").count() as u64;
    assert_eq!((n_hits, &again["n_ready"]), (n_ready, &json!(16)));
    let left: Vec<_> = fs::read_dir(scene.cache().join("v1/entries")).unwrap().collect();
    assert!(!left.is_empty());
}

/// Waits until a command has said something on stderr; gives the command and what it said.
fn heard(command: &mut Command, wanted: &str) -> (Child, String) {
    let mut child = start(command);
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(wanted)));
    let line = line.unwrap().unwrap();
    // Whoever reads no longer must not end who writes.
    thread::spawn(move || lines.for_each(drop));
    (child, line)
}

fn press_ctrl_c(child: &Child) {
    let process = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &process]).status().unwrap().success());
}

fn interrupted(mut child: Child) -> Option<i32> {
    press_ctrl_c(&child);
    child.wait().unwrap().code()
}

#[test]
fn whoever_waits_says_for_whom_and_can_be_stopped() {
    here!("whoever_waits_says_for_whom_and_can_be_stopped");
    let scene = Scene::new();
    let slow = scene.slow_compiler();
    let x = scene.rows(2);
    let out = scene.0.path("y.npy");
    let mut first = scene.on_ref("run", "add_one.onnx", &["--compile-missing", "--input", &x]);
    first.env("SHAPEYARD_MIGRAPHX_WORKER", &slow).arg("--out").arg(&out);
    let (first, _) = heard(&mut first, "compiling for batch=2");
    let locks = scene.cache().join("v1/locks");
    while fs::read_dir(&locks).map_or(0, Iterator::count) == 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let mut second = scene.on_ref("warm", "add_one.onnx", &["--buckets", "batch=2"]);
    let (second, line) = heard(&mut second, "waiting for process");
    assert!(line.contains(&format!("process {} on ", first.id())), "{line}");
    assert_eq!(interrupted(second), Some(130));
    assert_eq!(interrupted(first), Some(130));
    assert!(!out.exists());
    assert_eq!(scene.n_entries(), 0);
}

/// Whether a process has told the system to ignore, and whether to hand it, a hangup.
#[cfg(target_os = "linux")]
fn hangup_is_ignored_and_caught(process: u32) -> [bool; 2] {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    ["SigIgn:", "SigCgt:"].map(|field| {
        let mask = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap() & 1 == 1
    })
}

#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_nohup_ignores_stays_ignored() {
    here!("a_hangup_that_nohup_ignores_stays_ignored");
    let scene = Scene::new();
    let slow = scene.slow_compiler();
    let warm = scene.on_ref("warm", "add_one.onnx", &["--buckets", "batch=2"]);
    // A suite that runs under nohup hands that on, and no shell takes it back.
    let [inherited, _] = hangup_is_ignored_and_caught(std::process::id());
    for (before, ignored) in [("trap '' HUP", true), (":", inherited)] {
        let expected = [ignored, !ignored];
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{before}; exec \"$@\""), "sh"]);
        shell.arg(warm.get_program()).args(warm.get_args());
        shell.env("SHAPEYARD_MIGRAPHX_WORKER", &slow);
        let mut child = start(&mut shell);
        let locks = scene.cache().join("v1/locks");
        while fs::read_dir(&locks).map_or(0, Iterator::count) == 0 {
            assert!(child.try_wait().unwrap().is_none(), "{:?}", ended(child));
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(hangup_is_ignored_and_caught(child.id()), expected, "{before}");
        assert_eq!(interrupted(child), Some(130));
        fs::remove_dir_all(&locks).unwrap();
    }
}

/// A run that takes minutes cannot be asked to stop, since it is a single call into the library.
#[cfg(target_os = "linux")]
#[test]
fn a_second_ctrl_c_does_not_wait_for_the_run_under_way() {
    here!("a_second_ctrl_c_does_not_wait_for_the_run_under_way");
    let scene = Scene::new();
    let bucket = ["--buckets", "batch=1", "height=4096", "width=2048", "--padding", "never"];
    scene.warm("conv.onnx", &bucket).done();
    let image = scene.0.write("image.npy", npy("'<f4'", false, "(1, 3, 4096, 2048)", &[]));
    let header = fs::metadata(&image).unwrap().len();
    File::options().write(true).open(&image).unwrap().set_len(header + (3 << 25)).unwrap();
    let input = format!("image={}", image.display());
    let mut command = scene.on_ref("run", "conv.onnx", &["--padding", "never", "--input", &input]);
    let mut child = start(command.arg("--out").arg(scene.0.path("out")));
    let maps = format!("/proc/{}/maps", child.id());
    while !fs::read_to_string(&maps).is_ok_and(|maps| maps.contains("libmigraphx_ref")) {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", ended(child));
        thread::sleep(Duration::from_millis(5));
    }
    // The program is loaded in far less; were it not, the first Ctrl-C would end the command.
    thread::sleep(Duration::from_secs(2));
    press_ctrl_c(&child);
    let mut said = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("press Ctrl-C again"), "{said}");
    assert!(child.try_wait().unwrap().is_none(), "the run goes on");
    press_ctrl_c(&child);
    let patience = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(10));
    }
    // One that still waits for its run is killed, and has no exit code then.
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_damaged_program_is_passed_over_and_made_again() {
    here!("a_damaged_program_is_passed_over_and_made_again");
    let scene = Scene::new();
    let report = scene.warm_json("add_one.onnx", &["--buckets", "batch=2,4"]);
    assert_eq!(report["n_ready"], 2);
    let json = scene.run_rows("add_one.onnx", 2, &["--format", "json"]).done().json();
    let payload = PathBuf::from(json["programs"][0]["file"].as_str().unwrap());
    let mut bytes = fs::read(&payload).unwrap();
    bytes[40] ^= 1;
    fs::remove_file(&payload).unwrap();
    fs::write(&payload, bytes).unwrap();
    let ran = scene.run_rows("add_one.onnx", 2, &["--format", "json"]).done();
    assert!(ran.stderr.contains("note: the program for batch=2 is damaged"), "{ran:?}");
    assert_eq!(ran.json()["route"], "padded");
    let cold = scene.run_rows("add_one.onnx", 2, &["--padding", "never"]);
    cold.refused(3, &["no program for batch=2"]);
    let again = scene.warm_json("add_one.onnx", &["--buckets", "batch=2,4"]);
    assert_eq!(states(&again), ["compiled", "hit"]);
}

#[test]
fn two_processes_compile_each_shape_once() {
    here!("two_processes_compile_each_shape_once");
    let scene = Scene::new();
    let shapes = ["--buckets", "batch=1..4:1", "sequence=8", "--format", "json"];
    let children = [(); 2].map(|()| start(&mut scene.on_ref("warm", "encoder.onnx", &shapes)));
    let reports = children.map(|child| {
        let ran = ended(child).done();
        (ran.json(), ran.stderr)
    });
    let all: Vec<&str> = reports.iter().flat_map(|(report, _)| states(report)).collect();
    let n = |wanted: &str| all.iter().filter(|state| **state == wanted).count();
    assert_eq!(n("compiled"), 4, "{reports:?}");
    assert_eq!(n("hit") + n("waited"), 4, "{reports:?}");
    let heard: String = reports.iter().map(|(_, stderr)| stderr.as_str()).collect();
    assert_eq!(heard.matches("waiting for process ").count(), n("waited"), "{heard}");
}

#[test]
fn what_cannot_be_compiled_is_told_in_the_compilers_words() {
    here!("what_cannot_be_compiled_is_told_in_the_compilers_words");
    let scene = Scene::new();
    let refused = scene.warm("unknown_operator.onnx", &["--buckets", "batch=1"]);
    refused.refused(1, &["batch=1: migraphx cannot serve", "Unknown operator: Frobnicate"]);
    let again = scene.warm("unknown_operator.onnx", &["--buckets", "batch=1"]);
    again.refused(1, &["Unknown operator: Frobnicate", "remembered from before; --retry"]);
    let retried = scene.warm("unknown_operator.onnx", &["--buckets", "batch=1", "--retry"]);
    retried.refused(1, &["Unknown operator: Frobnicate"]);
    assert!(!retried.stderr.contains("remembered"), "{retried:?}");

    let mixed = scene.warm("batch_mean.onnx", &["--buckets", "batch=1,4", "--format", "json"]);
    mixed.refused(
        1,
        &["batch=1: ", "batch=4: as batch=1", "output `y` changes with padding along `batch`"],
    );
    assert_eq!(states(&mixed.json()), ["failed"; 2]);
    let fast = scene.warm_json("batch_mean.onnx", &["--buckets", "batch=2,3", "--fail-fast"]);
    assert_eq!(states(&fast), ["failed", "not_tried"]);
    scene.warm("batch_mean.onnx", &["--buckets", "batch=4", "--padding", "never"]).done();
    scene.run_rows("batch_mean.onnx", 4, &["--padding", "never"]).done();
    let slow = scene.warm("add_one.onnx", &["--buckets", "batch=1", "--compile-timeout", "0s"]);
    slow.refused(1, &["it was not done after 0 s", "(--compile-timeout)"]);
}

#[test]
fn an_option_that_does_not_fit_the_model_is_told_once() {
    here!("an_option_that_does_not_fit_the_model_is_told_once");
    let scene = Scene::new();
    let ran =
        scene.warm("encoder.onnx", &["--rows", "nobody", "--buckets", "batch=1,2", "sequence=4"]);
    ran.refused(2, &["no input has the symbol `nobody`"]);
    assert_eq!((ran.stderr.matches("nobody").count(), ran.stdout.as_str()), (1, ""), "{ran:?}");
}

#[test]
fn axes_without_a_name_get_one() {
    here!("axes_without_a_name_get_one");
    let scene = Scene::new();
    scene.warm("unnamed_dims.onnx", &[]).refused(2, &["--axis x:0=SYMBOL"]);
    let named = ["--axis", "x:0=rows", "--axis", "y:0=rows", "--rows", "rows"];
    scene.warm("unnamed_dims.onnx", &[&named[..], &["--buckets", "rows=2,4"]].concat()).done();
    let ran = scene.run_rows("unnamed_dims.onnx", 7, &named).done();
    assert!(ran.stdout.contains("route    split"), "{ran:?}");
    let wanted: Vec<f32> = (0..28u8).map(f32::from).collect();
    assert_close(&read_npy_f32(&scene.0.path("y.npy")).1, &wanted);
    let cold =
        scene.run_rows("unnamed_dims.onnx", 3, &[&named[..], &["--padding", "never"]].concat());
    cold.refused(3, &["--axis x:0=rows --axis y:0=rows", "--buckets rows=3"]);
}

#[test]
fn explain_finds_what_was_warmed_under_the_same_options() {
    here!("explain_finds_what_was_warmed_under_the_same_options");
    let scene = Scene::new();
    scene.warm("add_one.onnx", &["--buckets", "batch=2", "--precision", "fp16"]).done();
    let explain = |more: &[&str]| {
        let mut command = shapeyard();
        command.args(["cache", "explain"]).arg(model("add_one.onnx")).args(more);
        run(command.args(["--target", "ref", "--buckets", "batch=2", "--cache"]).arg(scene.cache()))
    };
    let hit = explain(&["--precision", "fp16"]).done();
    assert!(hit.stdout.contains("batch=2  hit, in the cache"), "{hit:?}");
    let miss = explain(&[]);
    assert_eq!(miss.code, 1);
    assert!(miss.stdout.contains("precision: `fp32` here, `fp16` there"), "{miss:?}");
}

#[test]
fn many_inputs_of_many_types_come_back_whole() {
    here!("many_inputs_of_many_types_come_back_whole");
    let scene = Scene::new();
    scene.warm("scalars.onnx", &["--buckets", "batch=4"]).done();
    let file = |name: &str, content: Vec<u8>| {
        format!("{name}={}", scene.0.write(&format!("{name}.npy"), content).display())
    };
    let identity: Vec<f32> = (0..16u8).map(|n| f32::from(u8::from(n % 5 == 0))).collect();
    let x: Vec<f32> = (0..8u8).map(f32::from).collect();
    let inputs = [
        file("x", npy_f32("(2, 4)", &x)),
        file("scale", npy("'<f4'", false, "()", &2.0f32.to_le_bytes())),
        file("table", npy_f32("(4, 4)", &identity)),
    ];
    let args: Vec<&str> = inputs.iter().flat_map(|input| ["--input", input]).collect();
    run(scene.on_ref("run", "scalars.onnx", &args).arg("--out").arg(scene.0.path("out"))).done();
    let doubled: Vec<f32> = x.iter().map(|x| x * 2.0).collect();
    assert_close(&read_npy_f32(&scene.0.path("out/y.npy")).1, &doubled);
    assert_eq!(read_npy_f32(&scene.0.path("out/table_doubled.npy")).1.len(), 16);
}

#[test]
fn options_that_contradict_each_other_are_bad_input() {
    let scene = Scene::new();
    let wrong: [(&[&str], &str); 9] = [
        (&["--precision", "int8"], "8-bit products need calibration"),
        (&["--calibration", "a.safetensors"], "only int8 and fp8 are calibrated"),
        (&["--exhaustive-tune"], "only the target gpu"),
        (&["--precision", "fp16+bf16"], "contradicts"),
        (&["--fill", "x"], "INPUT=VALUE"),
        (&["--axis", "x=batch"], "TENSOR:AXIS=SYMBOL"),
        (&["--axis", "z:0=batch"], "neither an input nor an output `z`"),
        (&["--axis", "x:0=rows"], "axis 0 of `x` is `batch` by the model itself"),
        (&["--compile-timeout", "30"], "no unit"),
    ];
    for (more, part) in wrong {
        scene.warm("add_one.onnx", more).refused(2, &[part]);
    }
    let missing = ["--migraphx", "no/such.so", "--buckets", "batch=1"];
    scene.warm("add_one.onnx", &missing).refused(3, &["migraphx is not usable here", "no/such.so"]);
    let mut auto = scene.command("run", "add_one.onnx", &["--migraphx", "no/such.so"]);
    let x = scene.rows(1);
    let ran = run(auto.args(["--input", &x]).arg("--out").arg(scene.0.path("y.npy")));
    ran.refused(3, &["migraphx is not usable here", "no/such.so"]);
    let rten = scene.command("warm", "add_one.onnx", &["--backend", "rten"]);
    run(&mut { rten }).refused(3, &["rten does not make artifacts"]);
    assert_eq!(run(shapeyard().arg("migraphx-worker").stdin(Stdio::null())).code, 2);
}

#[test]
fn onnxruntime_loads_what_was_warmed() {
    let scene = Scene::new();
    let warmed = run(&mut scene.command("warm", "dense.onnx", &["--backend", "onnxruntime"]));
    if warmed.code == 3 {
        warmed.refused(3, &["onnxruntime is not usable here"]);
        return;
    }
    assert!(warmed.done().stdout.contains("any shape  compiled"));
    let planned = ["--backend", "onnxruntime", "--plan", "plan.json"];
    let planned = run(&mut scene.command("warm", "dense.onnx", &planned));
    planned.refused(2, &["--plan plan.json names shapes", "onnxruntime serves every shape"]);
    let again = run(&mut scene.command("warm", "dense.onnx", &["--backend", "onnxruntime"])).done();
    assert!(again.stdout.contains("any shape  was there"), "{again:?}");
    let values: Vec<f32> = (0..32u8).map(|n| f32::from(n) / 8.0).collect();
    let file = scene.0.write("x.npy", npy_f32("(2, 16)", &values));
    let input = format!("x={}", file.display());
    let answer = |more: &[&str]| {
        let mut command = scene.command("run", "dense.onnx", more);
        command.args(["--input", &input, "--format", "json", "--out"]).arg(scene.0.path("y.npy"));
        let json = run(&mut command).done().json();
        (json, read_npy_f32(&scene.0.path("y.npy")).1)
    };
    let (json, ours) = answer(&["--backend", "onnxruntime"]);
    assert_eq!(json["programs"].as_array().unwrap().len(), 1, "{json}");
    let (json, theirs) = answer(&["--backend", "rten"]);
    assert_eq!(json["programs"], json!([]));
    assert_close(&ours, &theirs);
}
