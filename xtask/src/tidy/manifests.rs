//! What every crate brings along.

use super::{Violation, Workspace, numbered};
use crate::metadata::Package;

pub(super) const COMPLETE: &str =
    "every crate takes the workspace's lints and describes itself; a published one has an example";

pub(super) fn complete(workspace: &Workspace) -> Vec<Violation> {
    workspace.packages.iter().flat_map(|package| lacks_of(workspace, package)).collect()
}

fn lacks_of(workspace: &Workspace, package: &Package) -> Vec<Violation> {
    let mut messages = Vec::new();
    if !takes_workspace_lints(workspace, package) {
        messages.push("`[lints]` with `workspace = true` is missing");
    }
    if package.description.as_deref().unwrap_or_default().trim().is_empty() {
        messages.push("`description` is missing; say in a line what the crate is for");
    }
    if package.published && !has_example(workspace, package) {
        messages.push("`examples/` is missing; show how the crate is used");
    }
    let (path, line) = workspace.manifest_place(package, "[package]");
    let violation =
        |message: &str| Violation { path: path.clone(), line, message: message.to_owned() };
    messages.into_iter().map(violation).collect()
}

/// A program for a library, a script for a program.
fn has_example(workspace: &Workspace, package: &Package) -> bool {
    let folder = format!("{}/examples/", package.folder);
    workspace.files.iter().any(|file| file.path.starts_with(&folder))
}

/// Read from the text, since `cargo metadata` says nothing about lints.
fn takes_workspace_lints(workspace: &Workspace, package: &Package) -> bool {
    let Some(file) = workspace.file(&format!("{}/Cargo.toml", package.folder)) else {
        return false;
    };
    let mut section = "";
    for (_, line) in numbered(&file.text) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') {
            section = line;
        } else if section == "[lints]" && line.replace(' ', "") == "workspace=true" {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{files, package};
    use super::*;

    const WHOLE: &str = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true # all of them\n";

    fn messages(manifest: &str, package: Package) -> Vec<String> {
        let made =
            files(&[("crates/a/Cargo.toml", manifest), ("crates/a/examples/b.rs", "fn main() {}")]);
        let made = Workspace { packages: vec![package], ..made };
        complete(&made).into_iter().map(|violation| violation.message).collect()
    }

    #[test]
    fn a_whole_crate_passes() {
        assert_eq!(messages(WHOLE, package("crates/a", &[])), [""; 0]);
    }

    #[test]
    fn lints_of_another_section_do_not_count() {
        let manifest = "[dependencies.a]\nworkspace = true\n";
        assert!(messages(manifest, package("crates/a", &[]))[0].contains("[lints]"));
    }

    #[test]
    fn a_bare_crate_is_told_what_is_missing() {
        let bare = Package { description: None, ..package("crates/b", &[]) };
        assert_eq!(messages(WHOLE, bare.clone()).len(), 3);
        assert_eq!(messages(WHOLE, Package { published: false, ..bare }).len(), 2);
    }
}
