//! Where a library is looked for, and in which order.

use std::env;
use std::path::{Path, PathBuf};

use shapeyard_dylib::{Candidate, program_folder};

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
    named: Option<Candidate>,
    /// The folder of the program.
    program: Option<PathBuf>,
    loader: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        let named = Candidate::from_variable(DYLIB_PATH_VARIABLE);
        Self { named, program: program_folder(), loader: true }
    }
}

impl SearchOptions {
    /// This file and no other, whatever the environment says.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { named: Some(Candidate::given(path)), program: None, loader: false }
    }

    /// Looks as a program in `folder` does, and asks the system's loader only if told so.
    #[must_use]
    pub fn around(folder: impl Into<PathBuf>, loader: bool) -> Self {
        Self { named: None, program: Some(folder.into()), loader }
    }

    /// What named the only file that is tried, if one was named.
    #[must_use]
    pub fn named_by(&self) -> Option<(&'static str, &Path)> {
        self.named.as_ref().map(|named| (named.why, named.path.as_path()))
    }

    /// Every place in order; a named file is the only one.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        if let Some(named) = &self.named {
            return vec![named.clone()];
        }
        let name = file_name();
        let near = self.program.iter().flat_map(|folder| Candidate::around(folder, &name));
        let far = self.loader.then(|| Candidate::by_loader(&name));
        near.chain(far).collect()
    }
}

fn file_name() -> String {
    format!("{}ggml{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX)
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
        let candidates = SearchOptions::around("/clone/bin", true).candidates();
        assert_eq!(candidates[0].path.parent(), Some(Path::new("/clone/bin")));
        assert_eq!(candidates[1].path.parent(), Some(Path::new("/clone/lib/shapeyard")));
        assert_eq!(candidates.last(), Some(&Candidate::by_loader(file_name())));
    }
}
