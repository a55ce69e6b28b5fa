//! Places where a library may be.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// One file to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// A file, or a bare name that the system's loader is to find.
    pub path: PathBuf,
    /// Why this place is tried, in words for whoever reads the trace.
    pub why: &'static str,
}

impl Candidate {
    /// A file and why it is tried.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, why: &'static str) -> Self {
        Self { path: path.into(), why }
    }

    /// A file that the caller was told of.
    #[must_use]
    pub fn given(path: impl Into<PathBuf>) -> Self {
        Self::new(path, "the path that was given")
    }

    /// A name that the system's loader is to find (`LD_LIBRARY_PATH`, the linker's cache).
    #[must_use]
    pub fn by_loader(name: impl Into<PathBuf>) -> Self {
        Self::new(name, "the system's loader")
    }

    /// The file that an environment variable names; none where it is unset or empty.
    #[must_use]
    pub fn from_variable(variable: &'static str) -> Option<Self> {
        Some(Self::new(path_variable(variable)?, variable))
    }

    /// A file beside the program in `folder`, then in `lib/shapeyard` of the three folders above:
    /// an installation's `bin`, or a build's `target/debug/deps`.
    #[must_use]
    pub fn around(folder: &Path, name: &str) -> Vec<Self> {
        let libraries = |above: &Path| above.join("lib/shapeyard").join(name);
        let above = folder.ancestors().skip(1).take(3);
        let above = above.map(|it| Self::new(libraries(it), "the installation's libraries"));
        [Self::new(folder.join(name), "beside the program")].into_iter().chain(above).collect()
    }
}

/// Whether a path is only a name, which the system's loader looks for by its own rules.
#[must_use]
pub fn is_bare_name(path: &Path) -> bool {
    path.file_name() == Some(path.as_os_str())
}

/// The path that an environment variable holds; none where it is unset or empty.
#[must_use]
pub fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of this process's program, where the system says.
#[must_use]
pub fn program_folder() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.to_owned())
}

/// The folders in `parent` whose names start with `prefix`, the newest version first; each once,
/// however many links lead to it.
#[must_use]
pub fn installations(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    // A parent that is absent or closed has no installation for us; the trace shows the rest.
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
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

    #[cfg(unix)]
    #[test]
    fn installations_come_newest_first_and_once() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["rocm-6.9.3", "rocm-6.10.1", "rocm-7.1.0", "rocks-9.0"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("rocm-6.9.3", parent.path().join("rocm")).unwrap();
        std::os::unix::fs::symlink("rocm-5.0.0", parent.path().join("rocm-5")).unwrap();
        fs::write(parent.path().join("rocm-8.txt"), "").unwrap();
        let names: Vec<_> = installations(parent.path(), "rocm")
            .iter()
            .map(|folder| folder.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["rocm-7.1.0", "rocm-6.10.1", "rocm-6.9.3"]);
    }

    #[test]
    fn only_a_name_is_left_to_the_loader() {
        assert!(is_bare_name(Path::new("libonnxruntime.so")));
        for path in ["./libonnxruntime.so", "/lib/libonnxruntime.so", "lib/a.so", "..", ""] {
            assert!(!is_bare_name(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn places_around_a_program_come_from_near_to_far() {
        let candidates = Candidate::around(Path::new("/clone/target/debug/deps"), "a.so");
        let folders: Vec<_> = candidates.iter().map(|it| it.path.parent().unwrap()).collect();
        let wanted = [
            "/clone/target/debug/deps",
            "/clone/target/debug/lib/shapeyard",
            "/clone/target/lib/shapeyard",
            "/clone/lib/shapeyard",
        ];
        assert_eq!(folders, wanted.map(Path::new));
    }

    #[test]
    fn an_unset_variable_names_nothing() {
        assert_eq!(Candidate::from_variable("SHAPEYARD_NO_SUCH_VARIABLE"), None);
    }
}
