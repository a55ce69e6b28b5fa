//! Where a library is looked for, and in which order.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable that names the library's file. It is strict: when that file does not work, no other
/// is tried.
pub const DYLIB_PATH_VARIABLE: &str = "MIGRAPHX_DYLIB_PATH";

/// Folders of a ROCm installation; a hint, so a folder without MIGraphX is passed over.
const ROCM_VARIABLES: [&str; 2] = ["ROCM_PATH", "HIP_PATH"];

/// What the library is called, the most exact name first.
#[cfg(not(windows))]
const FILE_NAMES: [&str; 2] = ["libmigraphx_c.so.3", "libmigraphx_c.so"];
#[cfg(windows)]
const FILE_NAMES: [&str; 1] = ["migraphx_c.dll"];

/// Where the library lies in a ROCm installation.
#[cfg(not(windows))]
const LIBRARY_FOLDERS: [&str; 2] = ["lib", "lib/migraphx/lib"];
#[cfg(windows)]
const LIBRARY_FOLDERS: [&str; 2] = ["bin", "lib"];

/// Where to look for the library.
///
/// [`SearchOptions::default`] is the usual search, with the environment as it is now. The order is:
///
/// 1. the file given with [`at`](Self::at), and no other;
/// 2. the file that the variable `MIGRAPHX_DYLIB_PATH` names, and no other;
/// 3. the folders that `ROCM_PATH` and `HIP_PATH` name;
/// 4. `/opt/rocm*`, the newest version first;
/// 5. what the system's loader finds by name (`LD_LIBRARY_PATH`, the linker's cache).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOptions {
    named: Option<(PathBuf, &'static str)>,
    rocm_folders: Vec<(PathBuf, &'static str)>,
    /// The folder that holds installations called `rocm*`.
    installations: Option<PathBuf>,
    loader: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        let named = set_variable(DYLIB_PATH_VARIABLE).map(|path| (path, DYLIB_PATH_VARIABLE));
        let rocm_folders = ROCM_VARIABLES
            .into_iter()
            .filter_map(|variable| Some((set_variable(variable)?, variable)))
            .collect();
        let installations = cfg!(not(windows)).then(|| PathBuf::from("/opt"));
        Self { named, rocm_folders, installations, loader: true }
    }
}

impl SearchOptions {
    /// This file and no other, whatever the environment says.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { named: Some((path.into(), "the path that was given")), ..Self::nowhere() }
    }

    /// No place at all: to be filled with `with_rocm_folder`, `with_installations` and
    /// `with_loader`.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { named: None, rocm_folders: Vec::new(), installations: None, loader: false }
    }

    /// Adds an installation of ROCm, tried after those that were added before.
    #[must_use]
    pub fn with_rocm_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.rocm_folders.push((folder.into(), "a ROCm folder that was given"));
        self
    }

    /// Looks for installations called `rocm*` in this folder in place of `/opt`.
    #[must_use]
    pub fn with_installations(mut self, folder: impl Into<PathBuf>) -> Self {
        self.installations = Some(folder.into());
        self
    }

    /// Whether to ask the system's loader last.
    #[must_use]
    pub fn with_loader(mut self, loader: bool) -> Self {
        self.loader = loader;
        self
    }

    /// Every place in order; a named file is the only one.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        if let Some((path, why)) = &self.named {
            return vec![Candidate { path: path.clone(), why }];
        }
        let mut candidates = Vec::new();
        for (folder, why) in &self.rocm_folders {
            candidates.extend(in_rocm_folder(folder, why));
        }
        for folder in self.installations.iter().flat_map(|parent| installations(parent)) {
            candidates.extend(in_rocm_folder(&folder, "a ROCm installation"));
        }
        if self.loader {
            let by_name = |name: &str| Candidate { path: name.into(), why: "the system's loader" };
            candidates.extend(FILE_NAMES.map(by_name));
        }
        candidates
    }
}

/// One file to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// A path, or a bare name for the loader.
    pub(crate) path: PathBuf,
    pub(crate) why: &'static str,
}

impl Candidate {
    /// Whether the loader is to find the file by itself.
    pub(crate) fn is_bare_name(&self) -> bool {
        self.path.file_name() == Some(self.path.as_os_str())
    }
}

/// One place where the library was looked for, and what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SearchStep {
    /// A file, or a bare name that the system's loader was asked for.
    pub place: PathBuf,
    /// Why this place was looked at.
    pub why: &'static str,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of one place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The library was loaded from here; no further place was looked at.
    Loaded,
    /// Nothing is there.
    Absent,
    /// Something is there that cannot be used, with the reason.
    Refused(String),
}

impl fmt::Display for SearchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.place.display(), self.why, self.outcome)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loaded => f.write_str("loaded"),
            Self::Absent => f.write_str("not there"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

fn set_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn in_rocm_folder(folder: &Path, why: &'static str) -> Vec<Candidate> {
    let folders = LIBRARY_FOLDERS.iter().map(|inside| folder.join(inside));
    let files = folders.flat_map(|folder| FILE_NAMES.map(|name| folder.join(name)));
    files.map(|path| Candidate { path, why }).collect()
}

/// The folders called `rocm*`, the newest first; each once, however many links lead to it.
fn installations(parent: &Path) -> Vec<PathBuf> {
    // A parent that is absent or closed has no installation for us; the error's steps show the rest.
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("rocm"));
    let unique: BTreeSet<PathBuf> = named
        .filter_map(|entry| entry.path().canonicalize().ok())
        .filter(|path| path.is_dir())
        .collect();
    let mut folders: Vec<PathBuf> = unique.into_iter().collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(numbers_of(folder)));
    folders
}

/// The numbers in a folder's name: `rocm-6.10.1` is newer than `rocm-6.9.3`.
fn numbers_of(folder: &Path) -> Vec<u64> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(options: &SearchOptions) -> Vec<PathBuf> {
        options.candidates().into_iter().map(|candidate| candidate.path).collect()
    }

    #[test]
    fn a_named_file_is_the_only_place() {
        assert_eq!(paths(&SearchOptions::at("a/b.so")), [PathBuf::from("a/b.so")]);
        let named = SearchOptions::at("a/b.so").with_rocm_folder("c").with_loader(true);
        assert_eq!(paths(&named), [PathBuf::from("a/b.so")]);
    }

    #[cfg(not(windows))]
    #[test]
    fn installations_are_tried_newest_first_and_once() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["rocm-6.9.3", "rocm-6.10.1", "rocm-7.1.0", "rocks-9.0"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("rocm-6.9.3", parent.path().join("rocm")).unwrap();
        std::os::unix::fs::symlink("rocm-5.0.0", parent.path().join("rocm-5")).unwrap();
        fs::write(parent.path().join("rocm-8.txt"), "").unwrap();
        let names: Vec<_> = installations(parent.path())
            .iter()
            .map(|folder| folder.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["rocm-7.1.0", "rocm-6.10.1", "rocm-6.9.3"]);
    }

    #[cfg(not(windows))]
    #[test]
    fn given_folders_come_before_installations_and_the_loader_last() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("rocm-7.1.0")).unwrap();
        let options = SearchOptions::nowhere()
            .with_rocm_folder("/given")
            .with_installations(parent.path())
            .with_loader(true);
        let places = paths(&options);
        assert_eq!(places[0], Path::new("/given/lib/libmigraphx_c.so.3"));
        assert!(places[4].ends_with("rocm-7.1.0/lib/libmigraphx_c.so.3"), "{places:?}");
        assert_eq!(places[8..], ["libmigraphx_c.so.3", "libmigraphx_c.so"].map(PathBuf::from));
    }

    #[test]
    fn a_bare_name_is_left_to_the_loader() {
        let candidate = |path: &str| Candidate { path: path.into(), why: "" };
        assert!(candidate("libmigraphx_c.so.3").is_bare_name());
        assert!(!candidate("./libmigraphx_c.so.3").is_bare_name());
    }
}
