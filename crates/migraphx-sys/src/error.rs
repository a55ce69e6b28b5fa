//! Why a library cannot be had.

use std::ffi::CStr;
use std::path::PathBuf;

use shapeyard_dylib::{SearchStep, list};

use crate::data_types::UnknownNumbering;

/// Why no library was loaded; each variant asks for another reaction.
///
/// Where several places were tried, the variant tells of the first file that was there and could not
/// be used, and `steps` of every place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Nothing is at any of the places: install MIGraphX, or say where it is.
    #[error("MIGraphX is at none of these places: {}", list(.steps))]
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
    #[error("`{}` is not MIGraphX: it has no `{}`", .path.display(), .missing.to_string_lossy())]
    #[non_exhaustive]
    NotMigraphx {
        /// The file.
        path: PathBuf,
        /// A function that every MIGraphX has.
        missing: &'static CStr,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// MIGraphX is there and lacks functions that this crate needs: update it.
    #[error("`{}` is too old: it lacks {}; {hint}", .path.display(), named(.missing))]
    #[non_exhaustive]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Every required function that it lacks.
        missing: Vec<&'static CStr>,
        /// What to install.
        hint: &'static str,
        /// Every place that was tried.
        steps: Vec<SearchStep>,
    },
    /// MIGraphX is there and numbers its data types in a way that this crate does not know: update
    /// this crate.
    #[error("`{}` numbers its data types in a way that is not known", .path.display())]
    #[non_exhaustive]
    TooNew {
        /// The file.
        path: PathBuf,
        /// What it answered.
        source: UnknownNumbering,
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
            | Self::NotMigraphx { steps, .. }
            | Self::TooOld { steps, .. }
            | Self::TooNew { steps, .. } => steps,
        }
    }
}

/// A library of another age lacks dozens; the first tells enough.
fn named(missing: &[&CStr]) -> String {
    let first = missing.first().copied().unwrap_or_default().to_string_lossy();
    match missing.len() {
        0 | 1 => format!("`{first}`"),
        count => format!("`{first}` and {} more", count - 1),
    }
}
