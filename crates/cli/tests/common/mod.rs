//! What the tests of the program share.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program, with nothing of the caller's environment that changes what it says.
pub(crate) fn shapeyard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shapeyard"));
    command
        .env_remove("ORT_DYLIB_PATH")
        .env("SHAPEYARD_CACHE", "no/such/cache")
        .env_remove("MIGRAPHX_DYLIB_PATH")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LIB_BACKTRACE");
    command
}

/// A file below `tests/models`.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
}

/// What a run of the program gave.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Fails unless the program ended with `code` and an error that has all of `parts`.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains("error: "), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} not in {self:?}");
        }
    }

    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

pub(crate) fn run(command: &mut Command) -> Ran {
    Ran::of(command.output().unwrap())
}

/// Whether a backend is in reach; if not, that is written to the log of skipped tests.
pub(crate) fn is_usable(backend: &str, test: &str) -> bool {
    let json = run(shapeyard().args(["doctor", "--target", "ref", "--format", "json"])).json();
    let backends = json["backends"].as_array().unwrap();
    let found = backends.iter().find(|it| it["backend"] == backend).unwrap();
    if found["status"] == "usable" {
        return true;
    }
    let line = format!("shapeyard-cli {test}: {}", found["reason"].as_str().unwrap());
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
    false
}

/// A folder for one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Names of all files and folders, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A `.npy` file as NumPy writes it.
pub(crate) fn npy(descr: &str, first_axis_fastest: bool, shape: &str, elements: &[u8]) -> Vec<u8> {
    let order = if first_axis_fastest { "True" } else { "False" };
    let header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), elements].concat()
}

/// A `.npy` file of `f32`.
pub(crate) fn npy_f32(shape: &str, values: &[f32]) -> Vec<u8> {
    let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy("'<f4'", false, shape, &elements)
}

/// Sends Ctrl-C to a program some time after its start; gives its exit code.
#[cfg(unix)]
pub(crate) fn interrupt_after(command: &mut Command, time: std::time::Duration) -> Option<i32> {
    use std::process::Stdio;
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(time);
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    child.wait().unwrap().code()
}

/// The header's dictionary and the elements of a `.npy` file of `f32`.
pub(crate) fn read_npy_f32(path: &Path) -> (String, Vec<f32>) {
    let file = fs::read(path).unwrap();
    let length = usize::from(u16::from_le_bytes([file[8], file[9]]));
    let header = String::from_utf8(file[10..10 + length].to_vec()).unwrap();
    let (elements, _) = file[10 + length..].as_chunks::<4>();
    (header, elements.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}
