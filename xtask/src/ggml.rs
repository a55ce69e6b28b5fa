//! ggml as a shared library, and llama.cpp as a contender, built once from the sources that a published
//! crate carries.

mod pack;
mod part;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub(crate) use self::pack::pack;
pub(crate) use self::part::Part;
use crate::availability::Availability;
use crate::paths::{self, Layout};
use crate::python::{self, Python};
use crate::{digest, process, setup, terminal};

/// The variable under which every part of Shapeyard takes the path of ggml.
const LIBRARY_VARIABLE: &str = "GGML_DYLIB_PATH";

/// The crate whose sources are built; its own code is not.
const CRATE: &str = "llama-cpp-sys-2";
const RELEASE: &str = "0.1.161";
const CHECKSUM: &str = "e9bea77fde41bbc15a278891cd5edd2ba07c5260d162614b41080ba1f100b39b";

/// The same for both, so that only what they do with ggml is compared. Stand-alone ggml leaves out
/// llamafile's matrix products, which costs 38 % more processor time. Its OpenMP would be one more library
/// to find at run time.
const OPTIONS: [&str; 6] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DCMAKE_POSITION_INDEPENDENT_CODE=ON",
    "-DGGML_NATIVE=ON",
    "-DGGML_LLAMAFILE=ON",
    "-DGGML_OPENMP=OFF",
];

/// The least release of cmake, for `LINK_LIBRARY_OVERRIDE`.
const LEAST_CMAKE: [u32; 2] = [3, 24];

/// The path of a usable library: the one that the user named, that of an earlier set-up, or one that is
/// built now. Whoever asks for no part gets the one that was asked for last.
pub(crate) fn library(layout: &Layout, asked: Option<Part>) -> Result<Availability<PathBuf>> {
    if let Some(given) = std::env::var_os(LIBRARY_VARIABLE).filter(|given| !given.is_empty()) {
        if asked.is_some() {
            bail!(
                "{LIBRARY_VARIABLE} names a library, so one that is built here would not be used; unset it"
            );
        }
        return setup::named_by_user(LIBRARY_VARIABLE, Path::new(&given));
    }
    if !cfg!(unix) {
        let reason = format!("none is built on this system; set {LIBRARY_VARIABLE} to its path.");
        return Ok(Availability::Missing(reason));
    }
    let library = layout.ggml();
    let _guard = layout.lock()?;
    let choice = library.with_extension("choice");
    let part = asked.map_or_else(|| Part::chosen_before(&choice), Ok)?;
    let name = format!("libggml{}", std::env::consts::DLL_SUFFIX);
    let takes = part.build_takes();
    let product = Product { recipe: "ggml", target: "whole", file: &name, part, takes };
    let installed = product.installed(layout, &library)?;
    if matches!(installed, Availability::Ready(_)) {
        part.choose(&choice)?;
    }
    Ok(installed)
}

/// llama.cpp with the program that encodes with it, built now unless it is there.
pub(crate) fn llama(layout: &Layout) -> Result<Availability<PathBuf>> {
    if !cfg!(unix) {
        return Ok(Availability::Missing("none is built on this system.".to_owned()));
    }
    let _guard = layout.lock()?;
    let target = "llama-encode";
    let (part, takes) = (Part::Cpu, "five minutes");
    let product = Product { recipe: "llama", target, file: target, part, takes };
    product.installed(layout, &layout.llama())
}

/// What is built from the crate's sources.
#[derive(Clone, Copy, Debug)]
struct Product<'a> {
    /// The folder below `xtask` that says how.
    recipe: &'static str,
    target: &'static str,
    /// What the build leaves.
    file: &'a str,
    part: Part,
    /// How long building it takes.
    takes: &'static str,
}

impl Product<'_> {
    /// At `place`, built unless it is there and of this recipe.
    fn installed(self, layout: &Layout, place: &Path) -> Result<Availability<PathBuf>> {
        let stamp = place.with_extension("sha256");
        let recipe = layout.root().join("xtask").join(self.recipe);
        let inputs = ["CMakeLists.txt", "encode.cpp"].map(|name| recipe.join(name));
        let inputs: Vec<PathBuf> = inputs.into_iter().filter(|path| path.is_file()).collect();
        let wanted = digest::of_inputs(&inputs, &circumstances(self.part))?;
        if place.is_file() && digest::stamp_matches(&stamp, &wanted)? {
            return Ok(Availability::Ready(place.to_owned()));
        }
        let built = match self.build(layout, &recipe)? {
            Availability::Ready(built) => built,
            missing @ Availability::Missing(_) => return Ok(missing),
        };
        setup::install(&built, place)?;
        digest::write_stamp(&stamp, &wanted)?;
        paths::remove_folder(&self.folder(layout))?;
        Ok(Availability::Ready(place.to_owned()))
    }

    fn folder(self, layout: &Layout) -> PathBuf {
        layout.setup().join(self.recipe)
    }

    fn build(self, layout: &Layout, recipe: &Path) -> Result<Availability<PathBuf>> {
        let folder = self.folder(layout);
        paths::remove_folder(&folder)?;
        let cmake = match cmake(layout)? {
            Availability::Ready(cmake) => cmake,
            Availability::Missing(reason) => return Ok(Availability::Missing(reason)),
        };
        if !compiles_cxx()? {
            let reason = "it is built with a compiler for C++, which is missing (on Debian: `apt install \
                          g++ make`).";
            return Ok(Availability::Missing(reason.to_owned()));
        }
        if let Availability::Missing(reason) = self.part.compiler()? {
            return Ok(Availability::Missing(reason));
        }
        let sources = match sources(&folder.join("crate"))? {
            Availability::Ready(sources) => sources,
            Availability::Missing(reason) => return Ok(Availability::Missing(reason)),
        };
        terminal::say(format_args!("building {}, which takes about {}", self.recipe, self.takes));
        let build = folder.join("build");
        let mut defined = OsString::from("-DLLAMA_SOURCES=");
        defined.push(&sources);
        let mut configure = Command::new(&cmake);
        configure.arg("-S").arg(recipe).arg("-B").arg(&build);
        let mut make = Command::new(&cmake);
        make.arg("--build").arg(&build).args(["--target", self.target, "--parallel"]);
        let n_jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let options = configure.args(OPTIONS).args(self.part.options()).arg(defined);
        for step in [options, make.arg(n_jobs.to_string())] {
            process::run_quietly(step).with_context(|| {
                format!("{} could not be built of its published sources", self.recipe)
            })?;
        }
        Ok(Availability::Ready(build.join("out").join(self.file)))
    }
}

/// What decides a product besides its recipe. It is built for this very processor, and one that lacks
/// an instruction would end the program.
fn circumstances(part: Part) -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features =
        cpus.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let architecture = std::env::consts::ARCH;
    let options = [&OPTIONS, part.options()].concat().join(" ");
    format!("{CHECKSUM} {architecture} {options} {}", features.unwrap_or_default())
}

/// The machine's own cmake, or one that pip brings.
fn cmake(layout: &Layout) -> Result<Availability<PathBuf>> {
    if is_new_enough(&process::said(Command::new("cmake").arg("--version"))?) {
        return Ok(Availability::Ready(PathBuf::from("cmake")));
    }
    let lacking = |reason: String| {
        Availability::Missing(format!("it is built with cmake, which is missing: {reason}"))
    };
    let python = match Python::find()? {
        Availability::Ready(python) => python,
        Availability::Missing(reason) => return Ok(lacking(reason)),
    };
    if let Availability::Missing(reason) = python.install(layout, python::CMAKE)? {
        return Ok(lacking(reason));
    }
    Ok(Availability::Ready(python::CMAKE.folder(layout).join("cmake/data/bin/cmake")))
}

/// Whether cmake is of a release that the recipes are written for.
fn is_new_enough(said: &str) -> bool {
    let version = said.lines().next().and_then(|line| line.strip_prefix("cmake version "));
    let mut numbers = version.unwrap_or_default().split('.').map(|it| it.parse::<u32>().ok());
    [numbers.next().flatten(), numbers.next().flatten()] >= LEAST_CMAKE.map(Some)
}

/// Whether there is what cmake compiles C++ with: the user's choice or one of the usual names.
fn compiles_cxx() -> Result<bool> {
    let chosen = std::env::var("CXX").unwrap_or_default();
    // What follows the name, as in `ccache g++`, are arguments.
    let chosen: Vec<&str> = chosen.split_whitespace().take(1).collect();
    let names = if chosen.is_empty() { vec!["c++", "g++", "clang++"] } else { chosen };
    for name in names {
        if process::works(Command::new(name).arg("--version"))? {
            return process::works(Command::new("make").arg("--version"));
        }
    }
    Ok(false)
}

/// The folder of llama.cpp in the crate's sources, which cargo fetches and checks.
fn sources(folder: &Path) -> Result<Availability<PathBuf>> {
    write_package(folder)?;
    let mut fetch = process::cargo();
    // Optional parts of other dependencies are not looked at; nothing here is compiled.
    if let Err(error) = process::run_quietly(fetch.arg("fetch").current_dir(folder)) {
        return Ok(Availability::Missing(format!("its sources cannot be fetched: {error:#}.")));
    }
    check_pin(&folder.join("Cargo.lock"))?;
    let json = process::text(process::cargo().current_dir(folder).args([
        "metadata",
        "--format-version=1",
        "--offline",
    ]))?;
    let sources = source_folder(&json)?.join("llama.cpp");
    if !sources.join("ggml/CMakeLists.txt").is_file() {
        bail!("{} holds no ggml; its layout has changed", sources.display());
    }
    Ok(Availability::Ready(sources))
}

/// A package that only names the crate, so that cargo's own settings of registries hold.
fn write_package(folder: &Path) -> Result<()> {
    let manifest = format!(
        "[package]\nname = \"ggml-sources\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\n{CRATE} = {{ version = \"={RELEASE}\", default-features = false }}\n"
    );
    paths::create_folder(&folder.join("src"))?;
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write("Cargo.toml", &manifest)?;
    write("src/lib.rs", "")
}

fn check_pin(lock: &Path) -> Result<()> {
    let text =
        fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    if text.contains(&format!("checksum = \"{CHECKSUM}\"")) {
        return Ok(());
    }
    bail!("the registry serves another {CRATE} {RELEASE} than the pinned one; it is not used")
}

fn source_folder(metadata: &str) -> Result<PathBuf> {
    let value: Value = serde_json::from_str(metadata).context("cargo's answer is not JSON")?;
    let packages = value["packages"].as_array().context("`packages` is missing")?;
    let package = packages.iter().find(|package| package["name"] == CRATE);
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("cargo does not say where {CRATE} is"))?;
    Ok(Path::new(manifest).parent().unwrap_or(Path::new("")).to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn the_folder_is_read_from_what_cargo_says() {
        let json = r#"{"packages": [
            {"name": "other", "manifest_path": "/a/other/Cargo.toml"},
            {"name": "llama-cpp-sys-2", "manifest_path": "/a/sources/Cargo.toml"}
        ]}"#;
        assert_eq!(source_folder(json).unwrap(), Path::new("/a/sources"));
        assert!(source_folder(r#"{"packages": []}"#).is_err());
    }

    #[test]
    fn cmake_of_a_system_is_taken_from_3_24_on() {
        let said = |version| format!("cmake version {version}\n\nCMake suite maintained by\n");
        for (version, taken) in [("3.25.1", true), ("4.0.0-rc1", true), ("3.22.1", false)] {
            assert_eq!(is_new_enough(&said(version)), taken, "{version}");
        }
        assert!(!is_new_enough("") && !is_new_enough("another program"));
    }

    #[test]
    fn the_pin_is_a_whole_digest() {
        assert!(CHECKSUM.len() == 64 && CHECKSUM.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert!(circumstances(Part::Cpu).starts_with(CHECKSUM));
    }

    #[test]
    fn every_part_is_a_product_of_its_own() {
        let of = |part: &Part| circumstances(*part);
        let all: BTreeSet<String> = Part::value_variants().iter().map(of).collect();
        assert_eq!(all.len(), Part::value_variants().len());
    }
}
