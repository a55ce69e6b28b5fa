//! `shapeyard run`, as a person calls it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::fs;
use std::io::{Cursor, Write as _};
use std::process::Command;
#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
use common::interrupt_after;
use common::{Folder, model, npy, npy_f32, read_npy_f32, run, shapeyard};
use safetensors::{Dtype, tensor::TensorView};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const X: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
const X_PLUS_ONE: [f32; 8] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];

/// `run` of a model on the engine that every machine has.
fn run_model(name: &str) -> Command {
    let mut command = shapeyard();
    command.arg("run").arg(model(name)).args(["--backend", "rten"]);
    command
}

/// `run add_one.onnx` on a file with this content.
fn add_one(folder: &Folder, content: &[u8]) -> common::Ran {
    let file = folder.write("x.npy", content);
    let input = format!("x={}", file.display());
    run(run_model("add_one.onnx").args(["--input", &input]).arg("--out").arg(folder.path("y.npy")))
}

#[test]
fn a_tensor_goes_in_and_one_comes_out() {
    let folder = Folder::new();
    let ran = add_one(&folder, &npy_f32("(2, 4)", &X)).done();
    let (header, values) = read_npy_f32(&folder.path("y.npy"));
    assert!(header.contains("'shape': (2, 4)"), "{header}");
    assert_eq!(values, X_PLUS_ONE);
    assert!(ran.stdout.contains("backend  rten"), "{}", ran.stdout);
    assert_eq!(folder.names(), ["x.npy", "y.npy"]);
}

#[test]
fn any_order_of_bytes_and_axes_is_taken() {
    let folder = Folder::new();
    // The columns of two rows of four.
    let turned: Vec<u8> =
        [0.0f32, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0].iter().flat_map(|x| x.to_be_bytes()).collect();
    add_one(&folder, &npy("'>f4'", true, "(2, 4)", &turned)).done();
    assert_eq!(read_npy_f32(&folder.path("y.npy")).1, X_PLUS_ONE);
}

#[test]
fn every_kind_of_file_carries_the_same_tensors() {
    let folder = Folder::new();
    let x = folder.write("x.npy", npy_f32("(2, 4)", &X));
    let once = |inputs: &[String], out: &str| {
        let out = folder.path(out);
        run(run_model("add_one.onnx").args(inputs).arg("--out").arg(&out)).done();
    };
    let single = ["--input".to_owned(), format!("x={}", x.display())];
    once(&single, "y.safetensors");
    once(&single, "y.npz");
    once(&single, "folder");
    assert_eq!(read_npy_f32(&folder.path("folder/y.npy")).1, X_PLUS_ONE);
    for file in ["y.npz", "y.safetensors"] {
        // An output `y` is no input `x`: the file is read, and its names are checked.
        let inputs = folder.path(file);
        let ran = run(run_model("add_one.onnx")
            .arg("--inputs")
            .arg(&inputs)
            .arg("--out")
            .arg(folder.path("z.npy")));
        ran.refused(2, &[file, "no input `y`", "it takes `x`"]);
    }
}

#[test]
fn named_inputs_come_from_one_file() {
    let folder = Folder::new();
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    archive.start_file("x.npy", options).unwrap();
    archive.write_all(&npy_f32("(2, 4)", &X)).unwrap();
    folder.write("inputs.npz", archive.finish().unwrap().into_inner());
    let elements: Vec<u8> = X.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2, 4], &elements).unwrap();
    folder.write("inputs.safetensors", safetensors::serialize([("x", view)], None).unwrap());
    for file in ["inputs.npz", "inputs.safetensors"] {
        let mut command = run_model("add_one.onnx");
        command.arg("--inputs").arg(folder.path(file)).arg("--out").arg(folder.path("y.npy"));
        run(&mut command).done();
        assert_eq!(read_npy_f32(&folder.path("y.npy")).1, X_PLUS_ONE, "{file}");
        fs::remove_file(folder.path("y.npy")).unwrap();
    }
}

#[test]
fn inputs_without_a_batch_and_several_outputs() {
    let folder = Folder::new();
    let file = |name: &str, shape: &str, values: &[f32]| {
        format!("{name}={}", folder.write(&format!("{name}.npy"), npy_f32(shape, values)).display())
    };
    let identity: Vec<f32> = (0..16u8).map(|n| f32::from(u8::from(n % 5 == 0))).collect();
    let inputs =
        [file("x", "(2, 4)", &X), file("scale", "()", &[2.0]), file("table", "(4, 4)", &identity)];
    let args: Vec<&str> = inputs.iter().flat_map(|input| ["--input", input]).collect();
    let ran = run(run_model("scalars.onnx")
        .args(&args)
        .args(["--format", "json", "--repeat", "3", "--threads", "1", "--spin", "--out"])
        .arg(folder.path("out")));
    let json = ran.done().json();
    assert_eq!((&json["schema"], &json["command"]), (&1.into(), &"run".into()));
    assert_eq!(json["backend"], "rten");
    assert_eq!(json["repeats"]["n"], 3);
    assert_eq!(json["session"], serde_json::json!({"n_threads": 1, "waiting": "spin"}));
    assert_eq!(json["outputs"][1]["shape"], serde_json::json!([4, 4]));
    let doubled: Vec<f32> = X.iter().map(|x| x * 2.0).collect();
    assert_eq!(read_npy_f32(&folder.path("out/y.npy")).1, doubled);
    assert_eq!(read_npy_f32(&folder.path("out/table_doubled.npy")).1[0], 2.0);
    let many = run(run_model("scalars.onnx").args(&args).arg("--out").arg(folder.path("y.npy")));
    many.refused(2, &["holds one output", "the model gives 2"]);
}

#[test]
fn files_that_hold_something_else_are_named_with_a_remedy() {
    let folder = Folder::new();
    let good = npy_f32("(2, 4)", &X);
    let cases: [(&[u8], &[&str]); 9] = [
        (
            &npy("'<f8'", false, "(2, 4)", &[0; 64]),
            &["holds f64", "takes f32", "astype(numpy.float32)"],
        ),
        (&npy_f32("(8,)", &X), &["has 1 axes", "takes 2", "reshape"]),
        (&npy_f32("(1, 8)", &X), &["axis 1 of `x` is 8", "fixes it at 4"]),
        (&good[..good.len() - 1], &["damaged", "takes 32 bytes, it has 31"]),
        (&[&good[..], b"more"].concat(), &["damaged", "it has 36"]),
        (&good[..20], &["damaged", "header is cut off"]),
        (b"PK\x03\x04", &["damaged", "does not begin like .npy"]),
        (&npy("'|O'", false, "(1,)", b"\x80\x04."), &["Python objects", "convert"]),
        (&npy("[('a', '<i4')]", false, "(1,)", &[0; 4]), &["records of several fields"]),
    ];
    for (content, parts) in cases {
        let ran = add_one(&folder, content);
        ran.refused(2, &["x.npy"]);
        ran.refused(2, parts);
        assert_eq!(folder.names(), ["x.npy"], "nothing may be left behind");
    }
}

#[test]
fn inputs_must_be_those_of_the_model() {
    let folder = Folder::new();
    let x = folder.write("x.npy", npy_f32("(2, 4)", &X)).display().to_string();
    let out = folder.path("y.npy");
    let with = |inputs: &[&str]| {
        let args = inputs.iter().flat_map(|input| ["--input", input]);
        run(run_model("add_one.onnx").args(args).arg("--out").arg(&out))
    };
    let named = format!("x={x}");
    with(&[]).refused(2, &["input `x` (f32) is missing", "--input x=FILE.npy"]);
    with(&[&format!("z={x}")]).refused(2, &["x.npy", "no input `z`", "it takes `x`"]);
    with(&[&named, &named]).refused(2, &["x.npy", "given twice"]);
    with(&["x=missing.npy"]).refused(2, &["`missing.npy` cannot be read"]);
    with(&[&format!("x={}", model("dense.onnx").display())])
        .refused(2, &["no .npy file by its name"]);
    with(&["x.npy"]).refused(2, &["NAME=FILE.npy"]);
    for (file, part) in [("a.npz", "damaged"), ("a.safetensors", "damaged"), ("a.bin", "neither")] {
        let file = folder.write(file, "garbage");
        let mut command = run_model("add_one.onnx");
        run(command.arg("--inputs").arg(&file).arg("--out").arg(&out)).refused(2, &[part]);
    }
}

#[test]
fn a_place_that_takes_no_files_is_found_before_the_work() {
    let folder = Folder::new();
    let x = format!("x={}", folder.write("x.npy", npy_f32("(2, 4)", &X)).display());
    let to = |out: &str| {
        run(run_model("add_one.onnx").args(["--input", &x]).arg("--out").arg(folder.path(out)))
    };
    to("no/such/folder/y.npy").refused(2, &["cannot be written"]);
    to("y.txt").refused(2, &["unknown kind", ".safetensors"]);
    to("x.npy/y").refused(2, &["cannot be written"]);
    assert_eq!(folder.names(), ["x.npy"]);
}

#[test]
fn who_cannot_serve_says_so() {
    let folder = Folder::new();
    let x = format!("x={}", folder.write("x.npy", npy_f32("(2, 4)", &X)).display());
    let with = |name: &str, more: &[&str]| {
        let mut command = shapeyard();
        command.arg("run").arg(model(name)).args(["--input", &x]).args(more);
        run(command.arg("--out").arg(folder.path("y.npy")))
    };
    with("add_one.onnx", &["--backend", "abacus"]).refused(2, &["no backend `abacus`", "rten"]);
    with("unknown_operator.onnx", &["--backend", "rten"])
        .refused(3, &["does not serve this model"]);
    with("no_such_model.onnx", &[]).refused(2, &["cannot be read"]);
    with("tiny_tokenizer.json", &[]).refused(2, &["cannot be used"]);
    let named = ["--onnxruntime", "no/such/library.so"];
    with("add_one.onnx", &named)
        .refused(3, &["onnxruntime is not usable here", "no/such/library.so"]);
    // Asked for by name, another engine needs no library.
    let ran = with("add_one.onnx", &[&named[..], &["--backend", "rten"]].concat()).done();
    assert!(ran.stdout.contains("rten"));
}

#[cfg(unix)]
#[test]
fn a_cache_that_cannot_be_used_is_only_an_error_where_it_was_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    let x = format!("x={}", folder.write("x.npy", npy_f32("(2, 4)", &X)).display());
    let cache = folder.path("cache");
    fs::create_dir(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let command = || {
        let mut command = shapeyard();
        command.arg("run").arg(model("add_one.onnx")).args(["--input", &x]);
        command.env("SHAPEYARD_CACHE", &cache);
        command.arg("--out").arg(folder.path("y.npy"));
        command
    };
    let usual = run(&mut command()).done();
    assert!(usual.stderr.contains("no compiled artifact is used"), "{usual:?}");
    run(command().arg("--cache").arg(&cache)).refused(2, &["written by others"]);
    let unasked = run(command().args(["--backend", "rten"])).done();
    assert_eq!(unasked.stderr, "", "an engine without artifacts needs no cache");
}

#[test]
fn quiet_prints_nothing_and_json_one_object() {
    let folder = Folder::new();
    let x = format!("x={}", folder.write("x.npy", npy_f32("(2, 4)", &X)).display());
    let with = |more: &[&str]| {
        let mut command = run_model("add_one.onnx");
        run(command.args(["--input", &x]).args(more).arg("--out").arg(folder.path("y.npy"))).done()
    };
    let quiet = with(&["--quiet"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    let json = with(&["--format", "json"]).json();
    assert_eq!(json["route"], "exact");
    assert_eq!(json["outputs"][0]["file"], folder.path("y.npy").display().to_string());
}

#[test]
fn equal_outputs_give_equal_files() {
    let folder = Folder::new();
    let x = format!("x={}", folder.write("x.npy", npy_f32("(2, 4)", &X)).display());
    for out in ["y.npy", "y.npz", "y.safetensors"] {
        let write = || {
            let mut command = run_model("add_one.onnx");
            run(command.args(["--input", &x]).arg("--out").arg(folder.path(out))).done();
            fs::read(folder.path(out)).unwrap()
        };
        assert_eq!(write(), write(), "{out}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let folder = Folder::new();
    // Enough that a million runs take far longer than the interrupt.
    let large = npy_f32("(50000, 4)", &vec![1.0; 200_000]);
    let x = format!("x={}", folder.write("x.npy", large).display());
    let mut command = run_model("add_one.onnx");
    command.args(["--input", &x, "--repeat", "1000000"]).arg("--out").arg(folder.path("y.npy"));
    let code = interrupt_after(&mut command, Duration::from_millis(700));
    assert_eq!(code, Some(130));
    assert_eq!(folder.names(), ["x.npy"]);
}
