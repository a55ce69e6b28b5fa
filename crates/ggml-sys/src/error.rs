//! Why a library cannot be had.

use std::path::PathBuf;

use shapeyard_dylib::{SearchStep, list};

/// Why no library was loaded; each variant asks for another reaction.
///
/// Where several places were tried, the variant tells of the first file that was there and could not
/// be used, and `steps` of every place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing is at any of the places: build or install ggml, or say where it is.
    #[error("ggml is at none of these places: {}", list(.steps))]
    #[non_exhaustive]
    NotFound {
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// A file is there and cannot be loaded: a damaged or half-installed library, one of another
    /// architecture, or one that needs a newer system.
    #[error("`{}` cannot be loaded: {reason}", .path.display())]
    #[non_exhaustive]
    Unloadable {
        /// The file, or the name that the system's loader was asked for.
        path: PathBuf,
        /// The system's words, or ours where it has none.
        reason: String,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// A library is there and is another one: correct the path.
    #[error("`{}` is not ggml: it has no `{missing}`", .path.display())]
    #[non_exhaustive]
    NotGgml {
        /// The file.
        path: PathBuf,
        /// A function that every ggml has.
        missing: &'static str,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// ggml is there and lacks functions that this crate needs: update it.
    #[error("`{}` is another ggml than this program knows: it lacks {}", .path.display(), named(.missing))]
    #[non_exhaustive]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Every function that it lacks.
        missing: Vec<&'static str>,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// ggml is there in a version whose functions and structures may differ from those that this crate
    /// declares: install one that it knows.
    #[error("`{}` is ggml {found}, and this program knows {wanted}", .path.display())]
    #[non_exhaustive]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that it tells.
        found: String,
        /// The versions that are taken, by what they begin with.
        wanted: &'static str,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
}

impl LoadError {
    /// Every place that was tried, in order.
    #[must_use]
    pub fn steps(&self) -> &[SearchStep] {
        match self {
            Self::NotFound { steps }
            | Self::Unloadable { steps, .. }
            | Self::NotGgml { steps, .. }
            | Self::Incomplete { steps, .. }
            | Self::Version { steps, .. } => steps,
        }
    }
}

/// A library of another age lacks dozens; the first tells enough.
fn named(missing: &[&str]) -> String {
    let first = missing.first().copied().unwrap_or_default();
    match missing.len() {
        0 | 1 => format!("`{first}`"),
        count => format!("`{first}` and {} more", count - 1),
    }
}
