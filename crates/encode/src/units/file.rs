//! Reading one file, if it is text and not too long.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{SkipReason, Skipped, UnitError};

/// Why a file's text is not there.
#[derive(Debug)]
pub(super) enum Refusal {
    Io(io::Error),
    Content(SkipReason),
}

impl Refusal {
    pub(super) fn into_error(self, path: &Path) -> UnitError {
        match self {
            Self::Io(source) => UnitError::of_io(path, source),
            Self::Content(reason) => Skipped { path: path.to_owned(), reason }.into_error(),
        }
    }

    pub(super) fn into_reason(self) -> SkipReason {
        match self {
            Self::Io(error) => SkipReason::Unreadable { message: error.to_string() },
            Self::Content(reason) => reason,
        }
    }
}

/// The text of a file.
pub(super) fn read(path: &Path, limit: u64) -> Result<String, Refusal> {
    let file = File::open(path).map_err(Refusal::Io)?;
    let mut bytes = Vec::new();
    // Read by length and not by what the file system says: a pipe has no size, and files grow.
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Refusal::Io)?;
    if bytes.len() as u64 > limit {
        return Err(Refusal::Content(SkipReason::TooLarge { limit }));
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(not_text("a NUL", at));
    }
    String::from_utf8(bytes)
        .map_err(|error| not_text("invalid UTF-8", error.utf8_error().valid_up_to()))
}

fn not_text(found: &'static str, at: usize) -> Refusal {
    Refusal::Content(SkipReason::NotText { found, at })
}
