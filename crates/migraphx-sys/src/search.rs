//! Where a library is looked for, and in which order.

use std::path::{Path, PathBuf};

use shapeyard_dylib::{Candidate, installations, path_variable};

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
    named: Option<Candidate>,
    rocm_folders: Vec<(PathBuf, &'static str)>,
    /// The folder that holds installations called `rocm*`.
    installations: Option<PathBuf>,
    loader: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        let named = Candidate::from_variable(DYLIB_PATH_VARIABLE);
        let rocm_folders = ROCM_VARIABLES
            .into_iter()
            .filter_map(|variable| Some((path_variable(variable)?, variable)))
            .collect();
        let installations = cfg!(not(windows)).then(|| PathBuf::from("/opt"));
        Self { named, rocm_folders, installations, loader: true }
    }
}

impl SearchOptions {
    /// This file and no other, whatever the environment says.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { named: Some(Candidate::given(path)), ..Self::nowhere() }
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
        if let Some(named) = &self.named {
            return vec![named.clone()];
        }
        let mut candidates = Vec::new();
        for (folder, why) in &self.rocm_folders {
            candidates.extend(in_rocm_folder(folder, why));
        }
        for folder in self.installed() {
            candidates.extend(in_rocm_folder(&folder, "a ROCm installation"));
        }
        if self.loader {
            candidates.extend(FILE_NAMES.map(Candidate::by_loader));
        }
        candidates
    }

    fn installed(&self) -> Vec<PathBuf> {
        self.installations.iter().flat_map(|parent| installations(parent, "rocm")).collect()
    }
}

fn in_rocm_folder(folder: &Path, why: &'static str) -> Vec<Candidate> {
    let folders = LIBRARY_FOLDERS.iter().map(|inside| folder.join(inside));
    let files = folders.flat_map(|folder| FILE_NAMES.map(|name| folder.join(name)));
    files.map(|path| Candidate::new(path, why)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

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
}
