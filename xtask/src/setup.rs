//! `cargo xtask setup`: what the program uses at run time but no crate brings along.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::availability::Availability;
use crate::ggml::Part;
use crate::paths::{self, Layout};
use crate::python::Python;
use crate::{digest, ggml, terminal};

/// The variable under which every part of Shapeyard takes the path of ONNX Runtime.
pub(crate) const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

const RELEASE: &str = "1.31.1";
const EMBEDDED_SERVES: &str = "The embedded engine serves instead.";

/// Get ONNX Runtime and ggml to where the program looks for them
///
/// A library that is already there is used: the one that ORT_DYLIB_PATH names, or the one of an
/// earlier set-up. Otherwise it is fetched with pip and checked against a pinned digest. ggml is built
/// once, for this machine's processor, from the sources in a crate; that takes cmake (pip's, where
/// there is none), a compiler for C++ and about a minute. A machine without either is fine: the
/// embedded engine serves. With `--ggml-device` ggml gets its part for a kind of GPU as well, which
/// wants the compiler of that GPU's kernels and fails without it; the program computes there once
/// `shapeyard --ggml-device` names the GPU, and on the processor otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask setup
  cargo xtask setup --require-onnxruntime        fail rather than go without
  cargo xtask setup --without-ggml               no minute for building ggml
  cargo xtask setup --ggml-device cuda           for `shapeyard run --ggml-device CUDA0`; half an hour of processor time
  cargo xtask setup --peers                      llama.cpp too, which `bench encode` measures ours beside
  ORT_DYLIB_PATH=~/ort/libonnxruntime.so cargo xtask setup")]
pub(crate) struct Args {
    /// Fail when ONNX Runtime is not to be had
    #[arg(long)]
    require_onnxruntime: bool,
    /// Leave ggml out
    #[arg(long)]
    without_ggml: bool,
    /// Build ggml with its part for these GPUs too; later set-ups keep to it until another is named
    #[arg(long, value_name = "KIND", conflicts_with = "without_ggml")]
    ggml_device: Option<Part>,
    /// Build llama.cpp too, for benchmarks only; about five minutes
    #[arg(long, conflicts_with = "without_ggml")]
    peers: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("setup");
    match onnxruntime(layout)? {
        Availability::Ready(library) => {
            terminal::say(format_args!("ONNX Runtime: {}", layout.shown(&library)));
        }
        Availability::Missing(reason) if args.require_onnxruntime => bail!("{reason}"),
        Availability::Missing(reason) => {
            terminal::say(format_args!("ONNX Runtime: none. {reason} {EMBEDDED_SERVES}"));
        }
    }
    if args.without_ggml {
        return Ok(());
    }
    match ggml::library(layout, args.ggml_device)? {
        Availability::Ready(library) => {
            terminal::say(format_args!("ggml: {}", layout.shown(&library)));
        }
        Availability::Missing(reason) if args.ggml_device.is_some() => bail!("ggml: {reason}"),
        Availability::Missing(reason) => {
            terminal::say(format_args!("ggml: none. {reason} {EMBEDDED_SERVES}"));
        }
    }
    if args.peers {
        let llama = ggml::llama(layout)?.require().context("llama.cpp is not to be had")?;
        terminal::say(format_args!("llama.cpp: {}", layout.shown(&llama)));
    }
    Ok(())
}

/// The path of a usable library, found or fetched.
pub(crate) fn onnxruntime(layout: &Layout) -> Result<Availability<PathBuf>> {
    if let Some(given) = std::env::var_os(LIBRARY_VARIABLE).filter(|given| !given.is_empty()) {
        return named_by_user(LIBRARY_VARIABLE, Path::new(&given));
    }
    let Some(wheel) = Wheel::of_this_machine() else {
        return Ok(Availability::Missing(format!(
            "none is fetched for {} on {}; install it and set {LIBRARY_VARIABLE} to its path.",
            std::env::consts::OS,
            std::env::consts::ARCH
        )));
    };
    let library = layout.onnxruntime();
    let _guard = layout.lock()?;
    if library.is_file() {
        if digest::of_file(&library)? == wheel.library {
            return Ok(Availability::Ready(library));
        }
        terminal::say(format_args!(
            "{} is not ONNX Runtime {RELEASE} as published; it is replaced",
            layout.shown(&library)
        ));
    }
    fetch(layout, wheel)
}

/// A path that the user gave is taken at its word, and never replaced by another library.
pub(crate) fn named_by_user(variable: &str, path: &Path) -> Result<Availability<PathBuf>> {
    if path.is_file() {
        let absolute = std::path::absolute(path)
            .with_context(|| format!("cannot make {} absolute", path.display()))?;
        return Ok(Availability::Ready(absolute));
    }
    Ok(Availability::Missing(format!(
        "{variable} names {}, which is not a file; correct or unset it.",
        path.display()
    )))
}

/// A published package of ONNX Runtime, pinned as a whole and by the library that it holds.
#[derive(Debug)]
struct Wheel {
    architecture: &'static str,
    platform: &'static str,
    archive: &'static str,
    library: &'static str,
}

const WHEELS: [Wheel; 2] = [
    Wheel {
        architecture: "x86_64",
        platform: "manylinux_2_28_x86_64",
        archive: "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536",
        library: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Wheel {
        architecture: "aarch64",
        platform: "manylinux_2_28_aarch64",
        archive: "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc",
        library: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
];

impl Wheel {
    fn of_this_machine() -> Option<&'static Self> {
        let fits = cfg!(all(target_os = "linux", target_env = "gnu"));
        WHEELS.iter().find(|wheel| fits && wheel.architecture == std::env::consts::ARCH)
    }

    fn file_name(&self) -> String {
        format!("onnxruntime-{RELEASE}-cp312-cp312-{}.whl", self.platform)
    }
}

fn fetch(layout: &Layout, wheel: &Wheel) -> Result<Availability<PathBuf>> {
    let python = match Python::find()? {
        Availability::Ready(python) => python,
        Availability::Missing(reason) => return Ok(Availability::Missing(reason)),
    };
    let folder = layout.setup().join("onnxruntime");
    terminal::say(format_args!("fetching ONNX Runtime {RELEASE} with pip"));
    if let Availability::Missing(reason) = download(&python, wheel, &folder)? {
        return Ok(Availability::Missing(reason));
    }
    let archive = folder.join(wheel.file_name());
    check(&archive, wheel.archive)?;
    let member = format!("onnxruntime/capi/libonnxruntime.so.{RELEASE}");
    let unpacked = python.unzip(&archive, &member, &folder)?;
    check(&unpacked, wheel.library)?;
    install(&unpacked, &layout.onnxruntime())?;
    paths::remove_folder(&folder)?;
    Ok(Availability::Ready(layout.onnxruntime()))
}

/// The Python version is that of the package, not of the interpreter: only its library is wanted.
fn download(python: &Python, wheel: &Wheel, folder: &Path) -> Result<Availability<()>> {
    let package = format!("onnxruntime=={RELEASE}");
    let options = [
        "--no-deps",
        "--only-binary=:all:",
        "--implementation=cp",
        "--python-version=3.12",
        "--abi=cp312",
        "--platform",
        wheel.platform,
        &package,
        "--dest",
    ];
    let mut args: Vec<&OsStr> = options.into_iter().map(OsStr::new).collect();
    args.push(folder.as_os_str());
    python.pip("download", &args)
}

fn check(path: &Path, wanted: &str) -> Result<()> {
    let found = digest::of_file(path)?;
    if found == wanted {
        return Ok(());
    }
    bail!(
        "{} has the SHA-256 {found}, the pinned one is {wanted}; it is not used. Remove the file \
         and try again; if it happens again, the registry serves something else",
        path.display()
    )
}

/// Copies through a temporary file beside the target, so that no program ever loads a part.
pub(crate) fn install(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().context("the library has to lie in a folder")?;
    paths::create_folder(folder)?;
    let partial = to.with_extension("so.partial");
    fs::copy(from, &partial)
        .with_context(|| format!("cannot copy {} to {}", from.display(), partial.display()))?;
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot write {} to the disk", partial.display()))?;
    paths::publish(&partial, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_whole_digests() {
        for pin in WHEELS.iter().flat_map(|wheel| [wheel.archive, wheel.library]) {
            assert!(pin.len() == 64 && pin.bytes().all(|byte| byte.is_ascii_hexdigit()), "{pin}");
        }
    }

    #[test]
    fn a_wrong_path_of_the_user_is_named_and_not_replaced() {
        let Availability::Missing(reason) =
            named_by_user(LIBRARY_VARIABLE, Path::new("no/such.so")).unwrap()
        else {
            panic!("an absent file cannot be ready");
        };
        assert!(reason.contains("no/such.so"), "{reason}");
    }

    #[test]
    fn a_file_with_another_digest_is_refused() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = check(&manifest, WHEELS[0].library).unwrap_err().to_string();
        assert!(error.contains("pinned"), "{error}");
    }
}
