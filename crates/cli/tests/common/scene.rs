//! MIGraphX's interpreter, a folder and a cache, as the tests of the program use them.

#![allow(dead_code, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::common::{Folder, Ran, model, npy_f32, run, shapeyard};

/// A folder with a cache in it.
pub(crate) struct Scene(pub(crate) Folder);

impl Scene {
    pub(crate) fn new() -> Self {
        Self(Folder::new())
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.0.path("cache")
    }

    /// A command on a model and this cache.
    pub(crate) fn command(&self, command: &str, name: &str, more: &[&str]) -> Command {
        let mut built = shapeyard();
        built.arg(command).arg(model(name)).args(more).arg("--cache").arg(self.cache());
        built
    }

    /// A command for MIGraphX's interpreter.
    pub(crate) fn on_ref(&self, command: &str, name: &str, more: &[&str]) -> Command {
        let mut built = self.command(command, name, more);
        built.args(["--backend", "migraphx", "--target", "ref"]);
        built
    }

    pub(crate) fn warm(&self, name: &str, more: &[&str]) -> Ran {
        run(&mut self.on_ref("warm", name, more))
    }

    pub(crate) fn warm_json(&self, name: &str, more: &[&str]) -> Value {
        self.warm(name, &[more, &["--format", "json"]].concat()).json()
    }

    /// `run` of a model with one input `x` of rows of four.
    pub(crate) fn run_rows(&self, name: &str, n_rows: u8, more: &[&str]) -> Ran {
        let (x, out) = (self.rows(n_rows), self.0.path("y.npy"));
        run(self.on_ref("run", name, more).args(["--input", &x]).arg("--out").arg(out))
    }

    pub(crate) fn rows(&self, n_rows: u8) -> String {
        let values: Vec<f32> = (0..n_rows * 4).map(f32::from).collect();
        let file = self.0.write("x.npy", npy_f32(&format!("({n_rows}, 4)"), &values));
        format!("x={}", file.display())
    }

    pub(crate) fn n_entries(&self) -> usize {
        let shards = fs::read_dir(self.cache().join("v1/entries")).into_iter().flatten();
        let names = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
        names
            .filter(|it| !it.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b"."))
            .count()
    }

    /// A program that compiles for ever.
    pub(crate) fn slow_compiler(&self) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let script = self.0.write("compiler.sh", "#!/bin/sh\nexec sleep 600\n");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        script
    }
}
