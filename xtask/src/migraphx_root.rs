//! `cargo xtask migraphx-root`: the real MIGraphX on a machine without an AMD GPU.
//!
//! Debian's development suite has packages of MIGraphX, whose target `ref` computes on the CPU. They
//! need that suite's C library, so they are not installed but unpacked into a folder of their own, and
//! programs are run inside it. The machine's packages and settings stay as they are, and no rights are
//! needed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::availability::Availability;
use crate::paths::{self, Layout};
use crate::{digest, process, terminal};

/// The variable by which cargo runs tests through the root's script.
const RUNNER_VARIABLE: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";

const SUITE: &str = "sid";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// MIGraphX with its headers, and what the library needs for `ref`, the C library included.
const PACKAGES: [&str; 10] = [
    "libmigraphx-c3",
    "libmigraphx-c-dev",
    "migraphx-dev",
    "migraphx-tools",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libprotobuf32t64",
    "libsqlite3-0",
];

/// The HIP runtime with what it needs. Without a GPU its calls answer that there is none.
const HIP_PACKAGES: [&str; 16] = [
    "libamdhip64-6",
    "libamd-comgr3",
    "libhsa-runtime64-1",
    "libnuma1",
    "libllvm21",
    "libz3-4",
    "libxml2-16",
    "libzstd1",
    "libedit2",
    "libtinfo6",
    "libbsd0",
    "libmd0",
    "libffi8",
    "libelf1t64",
    "libdrm2",
    "libdrm-amdgpu1",
];

/// The target `gpu` cannot be loaded without the HIP runtime.
const GPU_ONLY: [&str; 2] = ["*libmigraphx_gpu.so*", "*libmigraphx_device.so*"];

/// Runs a program inside the root. Written into it, so that a person can use it too.
const RUN_SCRIPT: &str = r#"#!/bin/sh
# Runs a program as if the libraries of this folder were the system's: run PROGRAM [ARGUMENT...]
root=$(cd "$(dirname "$0")" && pwd -P) || exit 1
system=/usr/lib/x86_64-linux-gnu
libraries=$root$system
rights=
[ "$(id -u)" = 0 ] || rights=--map-root-user

# Best in a mount namespace of its own: children see the libraries, and the program its own path.
# Colons and commas in the path would have a meaning in the options of a mount, and where /lib is no
# link the dynamic linker lies elsewhere.
mountable() {
    case $libraries in *[:,\\]*) return 1 ;; esac
    [ -L /lib ] && unshare $rights --mount --propagation private \
        mount -t overlay overlay -o "lowerdir=$libraries:$system" "$system" 2>/dev/null
}
if mountable; then
    exec unshare $rights --mount --propagation private sh -c '
        mount -t overlay overlay -o "lowerdir=$1:$2" "$2" || exit 1
        shift 2
        exec "$@"' sh "$libraries" "$system" "$@"
fi

# Else by the dynamic linker. Children have to be started through this script again; it is named here.
export SHAPEYARD_MIGRAPHX_RUN="$root/run"
exec "$root/lib64/ld-linux-x86-64.so.2" \
    --library-path "$libraries/migraphx/lib:$libraries" "$@"
"#;

/// Unpack Debian's MIGraphX into a folder of its own, for tests against the real library
///
/// Nothing is installed and no rights are needed: packages are fetched with apt-get from the machine's
/// own mirror, some 30 MB, and unpacked below `target/setup/migraphx-root`. The script `run` in that
/// folder runs a program inside it. On a machine where this cannot be done, the command says why.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask migraphx-root
  cargo xtask migraphx-root --with-hip           the HIP runtime and the target `gpu` too, 90 MB
  cargo xtask migraphx-root --require            fail when it is not to be had
  target/setup/migraphx-root/run PROGRAM         run a program inside it")]
pub(crate) struct Args {
    /// Add the HIP runtime and MIGraphX's target `gpu`
    #[arg(long)]
    with_hip: bool,
    /// Make it anew, with the newest packages
    #[arg(long)]
    force: bool,
    /// Fail when it is not to be had
    #[arg(long)]
    require: bool,
}

pub(crate) fn run(layout: &Layout, args: &Args) -> Result<()> {
    terminal::heading("migraphx-root");
    let content = if args.with_hip { Content::WithHip } else { Content::Reference };
    if args.force {
        let _guard = layout.lock()?;
        paths::remove_folder(&folder(layout))?;
    }
    match prepare(layout, content)? {
        Availability::Ready(root) => {
            terminal::say(format_args!("MIGraphX: {}", layout.shown(&root.folder)));
            terminal::say(root.versions()?.trim_end());
        }
        Availability::Missing(reason) if args.require => bail!("{reason}"),
        Availability::Missing(reason) => {
            terminal::say(format_args!("MIGraphX: not available. {reason}"));
        }
    }
    Ok(())
}

/// What the root has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// The library with its target `ref`.
    Reference,
    /// That, the HIP runtime and the target `gpu`.
    WithHip,
}

impl Content {
    fn packages(self) -> Vec<&'static str> {
        let hip: &[&str] = if self == Self::WithHip { &HIP_PACKAGES } else { &[] };
        [&PACKAGES, hip].concat()
    }

    /// Changes with everything that decides what a root holds, apart from the packages' versions.
    fn recipe(self) -> Result<String> {
        let circumstances = format!("{SUITE} {} {RUN_SCRIPT}", self.packages().join(" "));
        digest::of_inputs(&[], &circumstances)
    }
}

/// A root that is there.
#[derive(Debug)]
pub(crate) struct MigraphxRoot {
    folder: PathBuf,
}

impl MigraphxRoot {
    /// The folder of `migraphx.h`.
    pub(crate) fn headers(&self) -> PathBuf {
        self.folder.join("usr").join("include").join("migraphx")
    }

    /// The script that runs a program inside the root.
    pub(crate) fn runner(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Makes cargo run tests, examples and programs inside the root.
    pub(crate) fn apply<'a>(&self, cargo: &'a mut Command) -> &'a mut Command {
        cargo.env(RUNNER_VARIABLE, self.runner())
    }

    /// A line `package version` for each package.
    fn versions(&self) -> Result<String> {
        let path = self.folder.join("versions.txt");
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A root with more than what is wanted serves too.
    fn holds(&self, content: Content) -> Result<bool> {
        let stamp = self.folder.join("made-by.sha256");
        let serves = |made: Content| digest::stamp_matches(&stamp, &made.recipe()?);
        Ok(serves(Content::WithHip)? || (content == Content::Reference && serves(content)?))
    }

    fn works(&self) -> Result<bool> {
        process::works(Command::new(self.runner()).args(["/bin/sh", "-c", ":"]))
    }
}

fn folder(layout: &Layout) -> PathBuf {
    layout.setup().join("migraphx-root")
}

/// The root, made now unless it is there.
pub(crate) fn prepare(layout: &Layout, content: Content) -> Result<Availability<MigraphxRoot>> {
    let root = MigraphxRoot { folder: folder(layout) };
    if let Some(reason) = unfit(&root.folder) {
        return Ok(Availability::Missing(reason));
    }
    let _guard = layout.lock()?;
    if root.holds(content)? {
        return Ok(Availability::Ready(root));
    }
    terminal::say("fetching MIGraphX with apt-get");
    let partial = layout.setup().join("migraphx-root.partial");
    paths::remove_folder(&partial)?;
    let made = make(&partial, content)?;
    if let Availability::Missing(reason) = made {
        paths::remove_folder(&partial)?;
        return Ok(Availability::Missing(reason));
    }
    paths::remove_folder(&root.folder)?;
    paths::publish(&partial.join("root"), &root.folder)?;
    paths::remove_folder(&partial)?;
    Ok(Availability::Ready(root))
}

/// Why there can be no root on this machine, at this place.
fn unfit(folder: &Path) -> Option<String> {
    let fits = cfg!(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"));
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if !fits || !is_debian(&release) {
        return Some("It is made on Debian for x86-64 only, from Debian's packages.".to_owned());
    }
    // Cargo splits the runner's line at blanks, and knows no quotes.
    folder.to_string_lossy().contains(char::is_whitespace).then(|| {
        format!(
            "Cargo cannot run tests by a script in {}, whose path has blanks.",
            folder.display()
        )
    })
}

fn is_debian(release: &str) -> bool {
    release.lines().any(|line| line.trim() == "ID=debian")
}

/// Fills `partial/root`; what is fetched stays beside it.
fn make(partial: &Path, content: Content) -> Result<Availability<()>> {
    let mirrors = mirrors();
    if mirrors.is_empty() {
        let reason = "The machine's apt sources name no mirror of Debian's main packages.";
        return Ok(Availability::Missing(reason.to_owned()));
    }
    let mut reason = String::new();
    for mirror in &mirrors {
        match Apt::create(&partial.join("apt"), mirror)?.download(&content.packages()) {
            Ok(packages) => return unpack_all(&packages, &partial.join("root"), content),
            Err(error) => reason = format!("It cannot be fetched: {}.", complaint(&error)),
        }
    }
    Ok(Availability::Missing(reason))
}

/// The first of apt's own complaints, or else the whole error.
fn complaint(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let first = text.lines().find_map(|line| line.strip_prefix("E: "));
    first.map_or(text.clone(), |line| line.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The addresses of Debian mirrors among the machine's apt sources, as apt itself reads them.
fn mirrors() -> Vec<String> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--no-release-info", "--format", format, "Created-By: Packages"]);
    // A machine without apt, or with sources that apt cannot read, has no mirror for us.
    process::text(&mut command).map(|targets| mirrors_of(&targets)).unwrap_or_default()
}

/// Other vendors' repositories lie beside Debian's and use the same names of suites, so an address that
/// ends as Debian's do comes first.
fn mirrors_of(targets: &str) -> Vec<String> {
    let mut mirrors: Vec<String> = Vec::new();
    for line in targets.lines() {
        let [uri, suite, "main"] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            continue;
        };
        let is_whole = !suite.contains(['-', '/']);
        if is_whole && !uri.starts_with("cdrom:") && !mirrors.iter().any(|known| known == uri) {
            mirrors.push(uri.to_owned());
        }
    }
    mirrors.sort_by_key(|uri| !uri.trim_end_matches('/').ends_with("/debian"));
    mirrors
}

/// An apt that knows one source and no installed package, apart from the machine's.
#[derive(Debug)]
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn create(folder: &Path, mirror: &str) -> Result<Self> {
        for inside in ["lists/partial", "cache/archives/partial", "packages"] {
            paths::create_folder(&folder.join(inside))?;
        }
        let apt = Self { folder: folder.to_owned() };
        apt.write("status", "")?;
        apt.write("sources.list", &format!("deb {}{mirror} {SUITE} main\n", signed_by()))?;
        apt.write("apt.conf", &apt.settings())?;
        Ok(apt)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    fn settings(&self) -> String {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let (lists, status, cache) = (at("lists"), at("status"), at("cache"));
        format!(
            "Dir::State::Lists \"{lists}\";\nDir::State::status \"{status}\";\n\
             Dir::Cache \"{cache}\";\nDir::Etc::sourcelist \"{}\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nAPT::Sandbox::User \"root\";\n\
             APT::Update::Error-Mode \"any\";\nAcquire::Check-Valid-Until \"false\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"2\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n",
            at("sources.list")
        )
    }

    /// The files of the newest versions.
    fn download(&self, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("packages");
        process::run_quietly(self.command().arg("update"))?;
        process::run_quietly(self.command().current_dir(&folder).arg("download").args(packages))?;
        let entries = fs::read_dir(&folder).context("cannot list the packages")?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Ok(files)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("-qq").env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

/// The distribution's keys, where the machine keeps them apart from those that apt trusts anyway.
fn signed_by() -> String {
    let keys = ["debian-archive-keyring.gpg", "debian-archive-keyring.pgp"];
    let paths = keys.map(|name| Path::new("/usr/share/keyrings").join(name));
    let found = paths.iter().find(|path| path.is_file());
    found.map_or_else(String::new, |path| format!("[signed-by={}] ", path.display()))
}

fn unpack_all(packages: &[PathBuf], root: &Path, content: Content) -> Result<Availability<()>> {
    for (link, target) in [("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        paths::create_folder(&root.join(target))?;
        link_folder(target, &root.join(link))?;
    }
    let left_out: &[&str] = if content == Content::WithHip { &[] } else { &GPU_ONLY };
    for package in packages {
        unpack(package, root, left_out)?;
    }
    finish(packages, root, content)
}

#[cfg(unix)]
fn link_folder(target: &str, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, link)
        .with_context(|| format!("cannot link {} to {target}", link.display()))
}

#[cfg(not(unix))]
fn link_folder(_target: &str, _link: &Path) -> Result<()> {
    bail!("a root is made on Debian only")
}

/// By way of a file: two processes with a pipe between them hide each other's failures.
fn unpack(package: &Path, root: &Path, left_out: &[&str]) -> Result<()> {
    let archive = package.with_extension("tar");
    let file = fs::File::create(&archive)
        .with_context(|| format!("cannot create {}", archive.display()))?;
    process::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(file))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--file"]).arg(&archive);
    tar.args(left_out.iter().map(|pattern| format!("--exclude={pattern}")));
    process::run_quietly(tar.arg("--directory").arg(root))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

/// What makes the unpacked files a root: the script, the versions, and last the stamp.
fn finish(packages: &[PathBuf], root: &Path, content: Content) -> Result<Availability<()>> {
    let made = MigraphxRoot { folder: root.to_owned() };
    write_script(&made.runner())?;
    if !root.join(LIBRARIES).join("libmigraphx_c.so.3").exists() {
        bail!("Debian's packages have no {LIBRARIES}/libmigraphx_c.so.3 any more");
    }
    if !made.works()? {
        let reason =
            "Programs cannot be run with the C library of Debian's development suite here.";
        return Ok(Availability::Missing(reason.to_owned()));
    }
    let mut versions = String::new();
    for package in packages {
        let mut show = Command::new("dpkg-deb");
        show.args(["--show", "--showformat=${Package} ${Version}"]).arg(package);
        versions += &process::text(&mut show)?;
        versions.push('\n');
    }
    fs::write(root.join("versions.txt"), versions)
        .context("cannot write the packages' versions")?;
    digest::write_stamp(&root.join("made-by.sha256"), &content.recipe()?)?;
    Ok(Availability::Ready(()))
}

fn write_script(path: &Path) -> Result<()> {
    fs::write(path, RUN_SCRIPT).with_context(|| format!("cannot write {}", path.display()))?;
    process::run_quietly(Command::new("chmod").args([OsStr::new("+x"), path.as_os_str()])).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_of_the_distribution_comes_first_and_once() {
        let targets = "https://other.example/apt/ bookworm main\n\
                       http://mirror.example/debian/ bookworm main\n\
                       http://mirror.example/debian/ bookworm-updates main\n\
                       http://mirror.example/debian/ bookworm main\n\
                       http://mirror.example/debian/ bookworm contrib\n\
                       http://mirror.example/debian-security/ bookworm-security main\n\
                       cdrom:[Debian]/ bookworm main\n\n";
        let expected = ["http://mirror.example/debian/", "https://other.example/apt/"];
        assert_eq!(mirrors_of(targets), expected);
        assert!(mirrors_of("").is_empty());
    }

    #[test]
    fn a_failure_is_told_in_apts_first_words() {
        let error =
            anyhow::anyhow!("`apt-get update` ended:\nW: old\nE: Failed  to fetch\nE: more");
        assert_eq!(complaint(&error), "Failed to fetch");
        assert_eq!(complaint(&anyhow::anyhow!("no disk")), "no disk");
    }

    #[test]
    fn only_debian_itself_is_debian() {
        assert!(is_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(!is_debian("ID=ubuntu\nID_LIKE=debian\n"));
    }

    #[test]
    fn a_path_with_blanks_is_named() {
        let reason = unfit(Path::new("/a folder/root")).unwrap();
        assert!(reason.contains("/a folder/root") || reason.contains("Debian"), "{reason}");
    }

    #[test]
    fn a_root_with_more_has_another_recipe() {
        assert_ne!(Content::Reference.recipe().unwrap(), Content::WithHip.recipe().unwrap());
    }
}
