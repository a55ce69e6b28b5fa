//! The files of a folder.

use std::path::{Component, Path, PathBuf};

use ignore::{DirEntry, WalkBuilder};

use super::{SkipReason, Skipped};

/// A file of a folder.
#[derive(Debug)]
pub(super) struct Found {
    /// Where the file is.
    pub(super) path: PathBuf,
    /// The same, the same on every system.
    pub(super) shown: PathBuf,
}

/// The files below a folder by name, without those that are hidden or that git would ignore.
pub(super) fn files(root: &Path) -> impl Iterator<Item = Result<Found, Skipped>> {
    let walk = WalkBuilder::new(root)
        .require_git(false)
        .follow_links(false)
        .sort_by_file_name(Ord::cmp)
        .build();
    walk.filter_map(move |entry| match entry {
        Ok(entry) => file(root, entry),
        Err(error) => Some(Err(unreadable(root, &error))),
    })
}

fn file(root: &Path, entry: DirEntry) -> Option<Result<Found, Skipped>> {
    let shown = shown(root, entry.path());
    let kind = entry.file_type();
    if entry.depth() == 0 || kind.is_some_and(|kind| kind.is_dir()) {
        return None;
    }
    let reason = match kind {
        _ if shown.to_str().is_none() => SkipReason::NameNotText,
        Some(kind) if kind.is_file() => {
            return Some(Ok(Found { path: entry.into_path(), shown }));
        }
        Some(kind) if kind.is_symlink() => SkipReason::Link,
        _ => SkipReason::NotAFile,
    };
    Some(Err(Skipped { path: shown, reason }))
}

/// The path with `/` between parts below the root; `.` as a root is left away.
fn shown(root: &Path, path: &Path) -> PathBuf {
    let below: Vec<_> = path
        .strip_prefix(root)
        .unwrap_or(path)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(Component::as_os_str)
        .collect();
    let mut shown =
        if root == Path::new(".") { PathBuf::new() } else { root.to_owned() }.into_os_string();
    for part in below {
        if !shown.is_empty() && !ends_with_separator(&shown) {
            shown.push("/");
        }
        shown.push(part);
    }
    shown.into()
}

fn ends_with_separator(path: &std::ffi::OsStr) -> bool {
    let last = path.as_encoded_bytes().last().copied();
    last.is_some_and(|byte| std::path::is_separator(byte.into()))
}

fn unreadable(root: &Path, error: &ignore::Error) -> Skipped {
    let path = path_of(error).map_or_else(|| root.to_owned(), |path| shown(root, path));
    let message = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
    Skipped { path, reason: SkipReason::Unreadable { message } }
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            path_of(err)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_as_the_root_was_named() {
        let show = |root: &str, path: &str| {
            shown(Path::new(root), Path::new(path)).to_str().unwrap().to_owned()
        };
        assert_eq!(show(".", "./src/lib.rs"), "src/lib.rs");
        assert_eq!(show("src", "src/units/mod.rs"), "src/units/mod.rs");
        assert_eq!(show("src/", "src/lib.rs"), "src/lib.rs");
        assert_eq!(show("../src", "../src/lib.rs"), "../src/lib.rs");
        assert_eq!(show("/", "/a"), "/a");
    }
}
