//! Where a library is looked for, and in which order.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

/// The variable that names the library's file. It is strict: when that file does not work, no other
/// is tried.
pub const DYLIB_PATH_VARIABLE: &str = "GGML_DYLIB_PATH";

/// Where to look for the library.
///
/// [`SearchOptions::default`] is the usual search, with the environment as it is now. The order is:
///
/// 1. the file given with [`at`](Self::at), and no other;
/// 2. the file that the variable `GGML_DYLIB_PATH` names, and no other;
/// 3. beside the program, and in `lib/shapeyard` of the three folders above;
/// 4. what the system's loader finds by name (`LD_LIBRARY_PATH`, the linker's cache).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOptions {
    named: Option<(PathBuf, &'static str)>,
    /// The folder of the program.
    program: Option<PathBuf>,
    loader: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        let named = env::var_os(DYLIB_PATH_VARIABLE)
            .filter(|value| !value.is_empty())
            .map(|path| (PathBuf::from(path), DYLIB_PATH_VARIABLE));
        let program =
            env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
        Self { named, program, loader: true }
    }
}

impl SearchOptions {
    /// This file and no other, whatever the environment says.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let named = Some((path.into(), "the path that was given"));
        Self { named, program: None, loader: false }
    }

    /// Looks as a program in `folder` does, and asks the system's loader only if told so.
    #[must_use]
    pub fn around(folder: impl Into<PathBuf>, loader: bool) -> Self {
        Self { named: None, program: Some(folder.into()), loader }
    }

    /// What named the only file that is tried, if one was named.
    #[must_use]
    pub fn named_by(&self) -> Option<(&'static str, &Path)> {
        self.named.as_ref().map(|(path, why)| (*why, path.as_path()))
    }

    /// Every place in order; a named file is the only one.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        if let Some((path, why)) = &self.named {
            return vec![Candidate { path: path.clone(), why }];
        }
        let name = file_name();
        let mut candidates = Vec::new();
        for (above, folder) in self.program.iter().flat_map(|it| it.ancestors().take(4)).enumerate()
        {
            let (path, why) = match above {
                0 => (folder.join(&name), "beside the program"),
                _ => (folder.join("lib/shapeyard").join(&name), "the installation's libraries"),
            };
            candidates.push(Candidate { path, why });
        }
        if self.loader {
            candidates.push(Candidate { path: name.into(), why: "the system's loader" });
        }
        candidates
    }
}

fn file_name() -> String {
    format!("{}ggml{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_the_only_place() {
        let candidates = SearchOptions::at("a/b.so").candidates();
        assert_eq!(candidates.len(), 1);
        assert_eq!(candidates[0].path, Path::new("a/b.so"));
    }

    #[test]
    fn places_come_from_near_to_far() {
        let candidates = SearchOptions::around("/clone/target/debug/deps", true).candidates();
        let places: Vec<_> = candidates.iter().map(|it| it.path.parent().unwrap()).collect();
        let wanted = [
            "/clone/target/debug/deps",
            "/clone/target/debug/lib/shapeyard",
            "/clone/target/lib/shapeyard",
            "/clone/lib/shapeyard",
            "",
        ];
        assert_eq!(places, wanted.map(Path::new));
        assert!(candidates[4].is_bare_name());
    }
}
