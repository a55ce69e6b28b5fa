//! `shapeyard encode`, as a person calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;
use std::process::Command;
#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
use common::interrupt_after;
use common::{Folder, model, read_npy_f32, run, shapeyard};

/// `encode` with the tiny encoder on the engine that every machine has.
fn encode(folder: &Folder, out: &str) -> Command {
    let mut command = shapeyard();
    command.arg("encode").arg(model("encoder.onnx")).arg("--tokenizer");
    command.arg(model("tiny_tokenizer.json")).args(["--backend", "rten", "--max-length", "32"]);
    command.arg("--out").arg(folder.path(out));
    command
}

fn lines(folder: &Folder, name: &str) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(folder.path(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn texts() -> Folder {
    let folder = Folder::new();
    folder.write("docs/a.txt", "one\ntwo\nthree\n");
    folder.write("docs/b/records.jsonl", "{\"text\": \"x\"}\n\n{\"text\": \"y z\"}\n");
    folder.write("docs/picture.png", b"\x89PNG\0");
    folder
}

#[test]
fn every_row_is_told_apart() {
    let folder = texts();
    let mut command = encode(&folder, "e.npy");
    command.arg(folder.path("docs")).args([
        "--chunk-lines",
        "2",
        "--normalize",
        "--format",
        "json",
    ]);
    let json = run(&mut command).done().json();
    assert_eq!((&json["n_rows"], &json["n_dims"]), (&4.into(), &16.into()));
    assert_eq!(json["skipped"][0]["reason"]["kind"], "not_text");
    let (header, values) = read_npy_f32(&folder.path("e.npy"));
    assert!(header.contains("'shape': (4, 16)"), "{header}");
    for row in values.chunks_exact(16) {
        let length: f32 = row.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5);
    }
    let lines = lines(&folder, "e.npy.units.jsonl");
    let spans: Vec<_> = lines.iter().map(|line| line["span"].clone()).collect();
    let wanted = serde_json::json!([
        {"lines": {"first": 1, "last": 2}}, {"lines": {"first": 3, "last": 3}},
        {"record": {"index": 0, "line": 1}}, {"record": {"index": 1, "line": 3}},
    ]);
    assert_eq!(serde_json::Value::from(spans), wanted);
    assert_eq!(lines[3]["row"], 3);
    assert_eq!(lines[2]["n_tokens"], 3);
    assert!(lines[0]["path"].as_str().unwrap().ends_with("docs/a.txt"));
    // Its own list is a `.jsonl` without texts; the next run passes it over.
    let mut again = encode(&folder, "e.npy");
    run(again.arg(folder.path("."))).done();
}

#[test]
fn without_pooling_every_token_has_a_row() {
    let folder = texts();
    run(encode(&folder, "e.safetensors").arg(folder.path("docs")).args(["--pool", "none"])).done();
    let lines = lines(&folder, "e.safetensors.units.jsonl");
    let mut next = 0;
    for line in &lines {
        assert_eq!(line["row"], next);
        assert_eq!(line["n_rows"], line["n_tokens"]);
        next += line["n_rows"].as_u64().unwrap();
    }
    let file = fs::read(folder.path("e.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    assert_eq!(tensors.tensor("embeddings").unwrap().shape(), [usize::try_from(next).unwrap(), 16]);
}

#[test]
fn what_is_cut_is_counted() {
    let folder = texts();
    let long = folder.write("long.txt", "a ".repeat(100));
    let ran = run(encode(&folder, "e.npy").arg(long)).done();
    assert!(ran.stdout.contains("1 unit cut at 32 tokens"), "{}", ran.stdout);
    assert_eq!(lines(&folder, "e.npy.units.jsonl")[0]["truncated"], true);
}

#[test]
fn more_tokens_than_the_model_has_positions_are_explained() {
    let folder = texts();
    let long = folder.write("long.txt", "a ".repeat(100));
    let mut command = encode(&folder, "e.npy");
    let ran = run(command.arg(long).args(["--chunk-lines", "0", "--token-budget", "1"]));
    assert_eq!(ran.code, 0, "32 tokens fit into 64 positions");
    let mut command = shapeyard();
    command.arg("encode").arg(model("encoder.onnx")).arg("--tokenizer");
    command.arg(model("tiny_tokenizer.json")).args(["--backend", "rten"]);
    let ran = run(command.arg(folder.path("long.txt")).arg("--out").arg(folder.path("f.npy")));
    ran.refused(3, &["if the model takes fewer than 102 tokens, lower --max-length"]);
}

#[test]
fn bad_input_is_named() {
    let folder = texts();
    let docs = folder.path("docs");
    let empty = folder.write("empty/blank.txt", " \n");
    let bad = folder.write("bad.jsonl", "{\"text\": 1}\n");
    let path = |name: &str| folder.path(name);
    let with = |command: &mut Command| run(command);
    with(encode(&folder, "e.npy").arg(path("missing")))
        .refused(2, &["no file or folder", "missing"]);
    with(encode(&folder, "e.npy").arg(&empty)).refused(2, &["no text in", "blank.txt"]);
    with(encode(&folder, "e.npy").arg(&bad)).refused(2, &["bad.jsonl:1: invalid type"]);
    with(encode(&folder, "e.npy").arg(docs.join("picture.png"))).refused(2, &["is not UTF-8 text"]);
    with(encode(&folder, "e.npz").arg(&docs)).refused(2, &["neither .npy nor .safetensors"]);
    with(encode(&folder, "no/e.npy").arg(&docs)).refused(2, &["cannot be written"]);
    with(encode(&folder, "e.npy").arg(&docs).args(["--pool", "max"]))
        .refused(2, &["mean, cls, none"]);
    assert_eq!(folder.names(), ["bad.jsonl", "docs", "empty"]);
}

#[test]
fn model_and_tokenizer_must_fit() {
    let folder = texts();
    let with = |model_file: &str, tokenizer: &Path, more: &[&str]| {
        let mut command = shapeyard();
        command.arg("encode").arg(model(model_file)).arg("--tokenizer").arg(tokenizer);
        command.args(["--backend", "rten"]).args(more).arg(folder.path("docs"));
        run(command.arg("--out").arg(folder.path("e.npy")))
    };
    let tiny = model("tiny_tokenizer.json");
    with("dense.onnx", &tiny, &[]).refused(2, &["no text encoder", "`input_ids`"]);
    with("encoder.onnx", &model("dense.onnx"), &[]).refused(2, &["is no tokenizer"]);
    with("encoder.onnx", &folder.path("none.json"), &[]).refused(2, &["cannot be read"]);
    with("encoder.onnx", &tiny, &["--max-length", "2"]).refused(2, &["no room", "the least is 3"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_is_taken_up() {
    let folder = Folder::new();
    let records: String = (0..10_000).map(|n| format!("{{\"text\": \"a {n} b\"}}\n")).collect();
    let records = folder.write("records.jsonl", records);
    let command = |out: &str| {
        let mut command = encode(&folder, out);
        command.args(["--token-budget", "1", "--sessions", "1", "--threads", "1"]).arg(&records);
        command
    };
    let code = interrupt_after(&mut command("e.npy"), Duration::from_millis(700));
    // A machine that is done by then has nothing to take up.
    if code == Some(130) {
        assert!(!folder.path("e.npy").exists());
        let kept = folder.path("e.npy.partial").exists();
        let ran = run(command("e.npy").args(["--resume", "--format", "json"])).done();
        assert_eq!(ran.json()["n_resumed"].as_u64().unwrap() > 0, kept);
        assert!(!folder.path("e.npy.partial").exists(), "it is of no use any more");
    }
    run(&mut command("whole.npy")).done();
    let (resumed, whole) = (folder.path("e.npy"), folder.path("whole.npy"));
    assert!(fs::read(resumed).unwrap() == fs::read(whole).unwrap());
}

/// The same command where no file may have more than so many blocks, as on a disk that is full.
#[cfg(unix)]
fn limited(command: &Command, n_blocks: usize) -> Command {
    let mut limited = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {n_blocks}; exec \"$@\"");
    limited.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    limited
}

/// Records below a name so long that their list takes more room than what is kept of them.
#[cfg(unix)]
fn records_with_a_long_list(folder: &Folder, n: usize) -> PathBuf {
    let records: String = (0..n).map(|n| format!("{{\"text\": \"a {n} b\"}}\n")).collect();
    folder.write(&format!("{0}/{0}/records.jsonl", "long".repeat(50)), records)
}

/// Too few for the list of 400 such records, and enough for what is kept of 800.
#[cfg(unix)]
const N_BLOCKS: usize = 180;

#[cfg(unix)]
#[test]
fn what_cannot_be_written_is_kept() {
    let folder = Folder::new();
    let records = records_with_a_long_list(&folder, 400);
    let mut command = encode(&folder, "e.npy");
    command.arg(&records);
    let ran = run(&mut limited(&command, N_BLOCKS));
    ran.refused(2, &["e.npy.units.jsonl", "400 of 400 units are kept", "--resume goes on"]);
    assert_eq!(folder.names()[0], "e.npy.partial", "no temporary file is left");
    let ran = run(command.args(["--resume", "--format", "json"])).done();
    assert_eq!(ran.json()["n_resumed"], 400);

    let mut command = encode(&folder, "f.npy");
    let ran = run(&mut limited(command.arg(&records), 1));
    ran.refused(2, &["f.npy.units.jsonl` cannot be written", "f.npy.partial` cannot"]);
    let first = ran.stderr.find("units.jsonl` cannot").unwrap();
    assert!(first < ran.stderr.find("what was done could not be kept").unwrap());
}

#[cfg(unix)]
#[test]
fn what_an_earlier_run_kept_outlives_a_run_that_did_not_take_it_up() {
    let folder = Folder::new();
    let records = records_with_a_long_list(&folder, 400);
    let other = folder.write(&format!("{0}/{0}/other.jsonl", "long".repeat(50)), {
        (400..800).map(|n| format!("{{\"text\": \"a {n} b\"}}\n")).collect::<String>()
    });
    let command = |records: &Path| {
        let mut command = encode(&folder, "e.npy");
        command.arg(records);
        command
    };
    for records in [&records, &other] {
        run(&mut limited(&command(records), N_BLOCKS)).refused(2, &["are kept"]);
    }
    let ran = run(command(&records).args(["--resume", "--format", "json"])).done();
    assert_eq!(ran.json()["n_resumed"], 400);
}

#[test]
fn a_file_that_is_too_large_is_named() {
    let folder = texts();
    folder.write("docs/large.txt", "a long line\n".repeat(10));
    let mut command = encode(&folder, "e.npy");
    let ran = run(command.arg(folder.path("docs")).args(["--max-file-bytes", "50"]));
    assert_eq!(ran.code, 1, "{ran:?}");
    let large = "docs/large.txt: longer than 50 bytes; raise --max-file-bytes";
    assert!(ran.stderr.contains(large), "{ran:?}");
    assert!(ran.stderr.contains("left out: 1 non-text file; --format json"), "{ran:?}");
}

#[test]
fn a_damaged_file_is_not_taken_up() {
    let folder = texts();
    let partial = folder.write("e.npy.partial", "garbage");
    let docs = folder.path("docs");
    let resume = || run(encode(&folder, "e.npy").arg(&docs).arg("--resume"));
    resume().refused(2, &["e.npy.partial", "delete it or leave out --resume"]);
    fs::remove_file(partial).unwrap();
    resume().done();
}

/// A file of an interrupted run that says something else about itself than it did.
#[cfg(unix)]
fn rewrite_metadata(path: &Path, name: &str, value: &str) {
    let file = fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    assert!(metadata.insert(name.to_owned(), value.to_owned()).is_some(), "{metadata:?}");
    let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
    fs::write(path, safetensors::serialize(tensors.tensors(), Some(metadata)).unwrap()).unwrap();
}

#[cfg(unix)]
#[test]
fn vectors_of_another_setting_are_not_taken_up() {
    let folder = Folder::new();
    let records = records_with_a_long_list(&folder, 400);
    let command = |more: &[&str]| {
        let mut command = encode(&folder, "e.npy");
        command.arg(&records).args(more);
        command
    };
    run(&mut limited(&command(&[]), N_BLOCKS)).refused(2, &["400 of 400 units are kept"]);
    for (more, differs) in [
        (&["--pool", "cls"][..], "it was made with pool mean, this run has cls"),
        (&["--normalize"], "it was made with normalize false, this run has true"),
        (&["--token-budget", "64"], "this run has 64"),
    ] {
        run(command(more).arg("--resume")).refused(2, &[differs, "leave out --resume"]);
    }
    let partial = folder.path("e.npy.partial");
    let kept = fs::read(&partial).unwrap();
    rewrite_metadata(&partial, "backend", "rten of tomorrow");
    run(command(&[]).arg("--resume")).refused(2, &["made with backend rten of tomorrow"]);
    fs::write(&partial, kept).unwrap();
    let ran = run(command(&["--resume", "--format", "json"]).arg("--quiet")).done();
    assert_eq!(ran.json()["n_resumed"], 400);
}

/// The superuser reads what nobody may; as somebody else the program is a copy, since the build's own folder
/// may be closed to others.
#[cfg(unix)]
#[test]
fn unreadable_files_of_a_folder_are_named_and_tell_in_the_exit_code() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65534;
    let open = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = texts();
    open(&folder.path("."), 0o777);
    open(&folder.path("docs/a.txt"), 0o000);
    for (from, name) in [
        (PathBuf::from(env!("CARGO_BIN_EXE_shapeyard")), "shapeyard"),
        (model("encoder.onnx"), "encoder.onnx"),
        (model("tiny_tokenizer.json"), "tokenizer.json"),
    ] {
        fs::copy(from, folder.path(name)).unwrap();
        open(&folder.path(name), 0o755);
    }
    let mut command = Command::new(folder.path("shapeyard"));
    if fs::metadata(folder.path("docs")).unwrap().uid() == 0 {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir(folder.path(".")).env_remove("ORT_DYLIB_PATH");
    command.args(["encode", "encoder.onnx", "--tokenizer", "tokenizer.json", "docs"]);
    command.args(["--backend", "rten", "--max-length", "32", "--out", "e.npy"]);
    let ran = run(&mut command);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("a.txt") && ran.stderr.contains("ermission denied"), "{ran:?}");
    assert_eq!(lines(&folder, "e.npy.units.jsonl").len(), 2);
}
