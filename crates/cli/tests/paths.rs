//! Paths that are not UTF-8: everything works that need not put them into JSON.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(target_os = "linux")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Folder, is_usable, model, npy_f32, read_npy_f32, run, shapeyard};

/// A folder with a byte in its name that begins no character.
struct Odd {
    folder: PathBuf,
    _above: Folder,
}

impl Odd {
    fn new() -> Self {
        let above = Folder::new();
        let folder = above.path("").join(OsStr::from_bytes(b"odd\xff"));
        fs::create_dir(&folder).unwrap();
        for name in ["add_one.onnx", "external.onnx", "external.bin"] {
            fs::copy(model(name), folder.join(name)).unwrap();
        }
        fs::write(folder.join("x.npy"), npy_f32("(2, 4)", &[1.0; 8])).unwrap();
        Self { folder, _above: above }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `NAME=FILE` for a file in the folder.
    fn named(&self, name: &str, file: &str) -> OsString {
        let mut named = OsString::from(format!("{name}="));
        named.push(self.path(file));
        named
    }

    fn run_add_one(&self, backend: &[&str], out: &Path) -> Command {
        let mut command = shapeyard();
        command.arg("run").arg(self.path("add_one.onnx")).args(backend);
        command.arg("--input").arg(self.named("x", "x.npy")).arg("--out").arg(out);
        command.arg("--cache").arg(self.path("cache"));
        command
    }
}

#[test]
fn models_inputs_and_outputs_may_be_called_anything() {
    let odd = Odd::new();
    for backend in ["rten", "onnxruntime"] {
        if !is_usable(backend, "models_inputs_and_outputs_may_be_called_anything") {
            continue;
        }
        let out = odd.path(&format!("{backend}.npy"));
        run(&mut odd.run_add_one(&["--backend", backend], &out)).done();
        assert_eq!(read_npy_f32(&out).1, [2.0; 8], "{backend}");
    }
}

#[test]
fn programs_are_compiled_kept_and_run_there() {
    if !is_usable("migraphx", "programs_are_compiled_kept_and_run_there") {
        return;
    }
    let odd = Odd::new();
    let on_ref = ["--backend", "migraphx", "--target", "ref"];
    for name in ["add_one.onnx", "external.onnx"] {
        let mut warm = shapeyard();
        warm.arg("warm").arg(odd.path(name)).args(on_ref).args(["--buckets", "batch=2"]);
        run(warm.arg("--cache").arg(odd.path("cache"))).done();
    }
    let out = odd.path("y.npy");
    run(&mut odd.run_add_one(&on_ref, &out)).done();
    assert_eq!(read_npy_f32(&out).1, [2.0; 8]);
    let of_cache = |arguments: &[&OsStr]| {
        let mut command = shapeyard();
        command.arg("cache").args(arguments).arg("--cache").arg(odd.path("cache"));
        run(&mut command).done().stdout
    };
    assert!(of_cache(&["ls".as_ref()]).contains("2 entries"));
    assert!(of_cache(&["verify".as_ref()]).contains("sound       2"));
    let bundle = odd.path("bundle");
    assert!(of_cache(&["export".as_ref(), bundle.as_os_str()]).contains("copied      2"));
}

#[test]
fn json_that_could_not_hold_a_path_is_refused_before_the_work() {
    let odd = Odd::new();
    let out = odd.path("y.npy");
    let ran = run(odd.run_add_one(&["--backend", "rten"], &out).args(["--format", "json"]));
    ran.refused(2, &["is not UTF-8, which JSON cannot hold", "--format text"]);
    assert!(!out.exists());
}

#[test]
fn a_corpus_says_which_of_its_files_it_cannot_name() {
    let odd = Odd::new();
    let above = odd.folder.parent().unwrap();
    let corpus = above.join("corpus");
    fs::create_dir(&corpus).unwrap();
    fs::write(corpus.join("good.txt"), "a line\n").unwrap();
    fs::write(corpus.join(OsStr::from_bytes(b"bad\xff.txt")), "a line\n").unwrap();
    let mut encode = shapeyard();
    encode.arg("encode").arg(model("encoder.onnx")).arg(&corpus);
    encode.arg("--tokenizer").arg(model("tiny_tokenizer.json"));
    encode.arg("--out").arg(above.join("v.npy"));
    let ran = run(encode.args(["--backend", "rten", "--format", "json"]));
    assert!(ran.json().to_string().contains("bad\u{fffd}.txt"), "{ran:?}");
}
