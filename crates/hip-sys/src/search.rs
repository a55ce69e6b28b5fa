//! Where a runtime is looked for, and in which order.

use std::path::{Path, PathBuf};

use shapeyard_dylib::{Candidate, installations, path_variable};

use crate::platform::Platform;

/// The variable that chooses the platform, `amd` or `nvidia`, as it does for HIP's own tools. It is
/// strict: the other platform is not tried.
pub const PLATFORM_VARIABLE: &str = "HIP_PLATFORM";

/// The variable that names the runtime's file. It is strict: no other file is tried. A file whose name
/// has `cudart` in it is NVIDIA's unless `HIP_PLATFORM` says otherwise.
pub const DYLIB_PATH_VARIABLE: &str = "HIP_DYLIB_PATH";

/// Where to look for a runtime.
///
/// [`SearchOptions::default`] is the usual search, with the environment as it is now:
///
/// 1. the file given with [`at`](Self::at), or else named by `HIP_DYLIB_PATH`, and no other;
/// 2. for each platform (or the one that `HIP_PLATFORM` names): the folders of its installation that
///    `ROCM_PATH` and `HIP_PATH`, or `CUDA_PATH` and `CUDA_HOME` name; `/opt/rocm*`, the newest
///    version first, or `/usr/local/cuda`; and what the system's loader finds by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOptions {
    named: Option<(Platform, Candidate)>,
    platform: Result<Option<Platform>, String>,
    folders: Vec<(Platform, PathBuf, &'static str)>,
    /// The folder that holds installations called `rocm*`.
    installations: Option<PathBuf>,
    loader: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        let platform = platform_of(path_variable(PLATFORM_VARIABLE));
        let named = Candidate::from_variable(DYLIB_PATH_VARIABLE).map(|file| {
            let chosen = platform.clone().ok().flatten();
            (chosen.unwrap_or_else(|| platform_of_file(&file.path)), file)
        });
        let variables = [
            (Platform::Amd, "ROCM_PATH"),
            (Platform::Amd, "HIP_PATH"),
            (Platform::Nvidia, "CUDA_PATH"),
            (Platform::Nvidia, "CUDA_HOME"),
        ];
        let given = variables.into_iter().filter_map(|(platform, variable)| {
            Some((platform, path_variable(variable)?, variable))
        });
        let usual = (Platform::Nvidia, PathBuf::from("/usr/local/cuda"), "a CUDA installation");
        let unix = cfg!(not(windows));
        Self {
            named,
            platform,
            folders: given.chain(unix.then_some(usual)).collect(),
            installations: unix.then(|| PathBuf::from("/opt")),
            loader: true,
        }
    }
}

impl SearchOptions {
    /// This file and no other, whatever the environment says.
    #[must_use]
    pub fn at(platform: Platform, path: impl Into<PathBuf>) -> Self {
        let named = Some((platform, Candidate::given(path)));
        Self { named, ..Self::nowhere() }
    }

    /// No place at all, to be filled with `with_folder`, `with_installations` and `with_loader`.
    #[must_use]
    pub fn nowhere() -> Self {
        Self {
            named: None,
            platform: Ok(None),
            folders: Vec::new(),
            installations: None,
            loader: false,
        }
    }

    /// Only this platform, whatever `HIP_PLATFORM` says.
    #[must_use]
    pub fn on(mut self, platform: Platform) -> Self {
        self.platform = Ok(Some(platform));
        self
    }

    /// Adds an installation, tried after those that were added before.
    #[must_use]
    pub fn with_folder(mut self, platform: Platform, folder: impl Into<PathBuf>) -> Self {
        self.folders.push((platform, folder.into(), "a folder that was given"));
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

    /// The value of `HIP_PLATFORM` when it names no platform.
    pub(crate) fn unknown_platform(&self) -> Option<&str> {
        self.platform.as_ref().err().map(String::as_str)
    }

    /// Every place in order, each with whose runtime it may have; a named file is the only one.
    pub(crate) fn candidates(&self) -> Vec<(Platform, Candidate)> {
        if let Some(named) = &self.named {
            return vec![named.clone()];
        }
        let chosen = self.platform.as_ref().ok().copied().flatten();
        let wanted =
            Platform::ALL.into_iter().filter(|one| chosen.is_none_or(|chosen| chosen == *one));
        let on = |platform| self.candidates_on(platform).into_iter().map(move |it| (platform, it));
        wanted.flat_map(on).collect()
    }

    fn candidates_on(&self, platform: Platform) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (_, folder, why) in self.folders.iter().filter(|(of, ..)| *of == platform) {
            candidates.extend(in_folder(platform, folder, why));
        }
        if platform == Platform::Amd {
            let installed = self.installations.iter().flat_map(|it| installations(it, "rocm"));
            for folder in installed {
                candidates.extend(in_folder(platform, &folder, "a ROCm installation"));
            }
        }
        if self.loader {
            candidates.extend(platform.runtime_files().iter().map(Candidate::by_loader));
        }
        candidates
    }
}

/// An unknown name is an error and not the same as none: whoever set it meant something.
fn platform_of(value: Option<PathBuf>) -> Result<Option<Platform>, String> {
    let Some(value) = value else { return Ok(None) };
    let value = value.display().to_string();
    Platform::from_name(&value).map(Some).ok_or(value)
}

fn platform_of_file(path: &Path) -> Platform {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("cudart") { Platform::Nvidia } else { Platform::Amd }
}

fn in_folder(platform: Platform, folder: &Path, why: &'static str) -> Vec<Candidate> {
    let inside: &[&str] = if cfg!(windows) { &["bin"] } else { &["lib", "lib64"] };
    let folders = inside.iter().map(|inside| folder.join(inside));
    let files = folders.flat_map(|folder| {
        platform.runtime_files().iter().map(move |name| folder.join(name)).collect::<Vec<_>>()
    });
    files.map(|path| Candidate::new(path, why)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn paths(options: &SearchOptions) -> Vec<PathBuf> {
        options.candidates().into_iter().map(|(_, candidate)| candidate.path).collect()
    }

    #[test]
    fn a_named_file_is_the_only_place() {
        let named = SearchOptions::at(Platform::Amd, "a/b.so").with_loader(true);
        assert_eq!(paths(&named), [PathBuf::from("a/b.so")]);
    }

    #[cfg(not(windows))]
    #[test]
    fn a_chosen_platform_is_the_only_one() {
        let options = SearchOptions::nowhere().with_loader(true);
        assert_eq!(paths(&options).len(), 5);
        let names = paths(&options.on(Platform::Nvidia));
        assert_eq!(names, ["libcudart.so.13", "libcudart.so.12"].map(PathBuf::from));
    }

    #[cfg(not(windows))]
    #[test]
    fn folders_come_before_the_loader_and_the_newest_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["rocm-6.9.3", "rocm-6.10.1", "rocks-9.0"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let options = SearchOptions::nowhere()
            .with_folder(Platform::Amd, "/given")
            .with_installations(parent.path())
            .with_loader(true)
            .on(Platform::Amd);
        let places = paths(&options);
        assert_eq!(places[0], Path::new("/given/lib/libamdhip64.so.7"));
        assert!(places[6].ends_with("rocm-6.10.1/lib/libamdhip64.so.7"), "{places:?}");
        assert!(places[12].ends_with("rocm-6.9.3/lib/libamdhip64.so.7"), "{places:?}");
        assert_eq!(places[18], Path::new("libamdhip64.so.7"));
    }

    #[test]
    fn a_value_of_the_variable_that_means_nothing_is_kept() {
        assert_eq!(platform_of(None), Ok(None));
        assert_eq!(platform_of(Some("amd".into())), Ok(Some(Platform::Amd)));
        assert_eq!(platform_of(Some("intel".into())), Err("intel".to_owned()));
    }

    #[test]
    fn a_files_name_tells_its_platform() {
        assert_eq!(platform_of_file(Path::new("/a/libcudart.so.13")), Platform::Nvidia);
        assert_eq!(platform_of_file(Path::new("/a/libamdhip64.so.6")), Platform::Amd);
    }
}
