//! Which crate may know which.

use super::{Violation, Workspace};
use crate::metadata::Package;

pub(super) const ONE_WAY: &str = "crates depend on each other only along the arrows of the design";
pub(super) const CORE_IS_PURE: &str = "core knows no engine, no GPU library and no tokenizer";

/// What a crate may depend on.
#[derive(Debug, Clone, Copy)]
enum Allowed {
    Only(&'static [&'static str]),
    Everything,
}

/// Every crate has a row, so that a new one has to find its place in the design first. Tests and
/// examples (dev-dependencies) are free: they are nobody's foundation.
const ARROWS: [(&str, Allowed); 15] = [
    ("crates/core", Allowed::Only(&[])),
    ("crates/cache", Allowed::Only(&["crates/core"])),
    ("crates/dylib", Allowed::Only(&[])),
    ("crates/hip-sys", Allowed::Only(&["crates/dylib"])),
    ("crates/migraphx-sys", Allowed::Only(&["crates/dylib", "crates/hip-sys"])),
    ("crates/ggml-sys", Allowed::Only(&["crates/dylib"])),
    ("crates/hipgraph", Allowed::Only(&["crates/hip-sys"])),
    // Of MIGraphX it may not know more than the C header says: it is there to be compared.
    ("crates/migraphx-gpu-double", Allowed::Only(&["crates/hip-sys"])),
    (
        "crates/migraphx",
        Allowed::Only(&[
            "crates/core",
            "crates/cache",
            "crates/hipgraph",
            "crates/migraphx-sys",
            "crates/hip-sys",
        ]),
    ),
    (
        "crates/cpu",
        Allowed::Only(&["crates/core", "crates/cache", "crates/dylib", "crates/ggml-sys"]),
    ),
    ("crates/encode", Allowed::Only(&["crates/core"])),
    ("crates/cli", Allowed::Everything),
    ("crates/bench", Allowed::Everything),
    ("tests", Allowed::Everything),
    // The first thing that a clone builds waits for no other crate.
    ("xtask", Allowed::Only(&[])),
];

/// Parts of names that core may not even use in its tests.
const FOREIGN_TO_CORE: [&str; 6] = ["ort", "rten", "hip", "migraphx", "ggml", "tokenizers"];

pub(super) fn one_way(workspace: &Workspace) -> Vec<Violation> {
    workspace.packages.iter().flat_map(|package| arrows_of(workspace, package)).collect()
}

fn arrows_of(workspace: &Workspace, package: &Package) -> Vec<Violation> {
    let Some((_, allowed)) = ARROWS.iter().find(|(folder, _)| *folder == package.folder) else {
        let (path, line) = workspace.manifest_place(package, "name");
        let message = format!("{} has no row in ARROWS of xtask's tidy/arrows.rs", package.folder);
        return vec![Violation { path, line, message }];
    };
    let Allowed::Only(targets) = *allowed else { return Vec::new() };
    let wrong =
        package.dependencies.iter().filter(|dependency| !dependency.dev).filter_map(|dependency| {
            let folder = dependency.folder.as_deref()?;
            (!targets.contains(&folder)).then_some((dependency, folder))
        });
    wrong
        .map(|(dependency, folder)| {
            let (path, line) = workspace.manifest_place(package, &dependency.name);
            let message = format!("{} may not depend on {folder}", package.folder);
            Violation { path, line, message }
        })
        .collect()
}

pub(super) fn core_is_pure(workspace: &Workspace) -> Vec<Violation> {
    let Some(core) = workspace.packages.iter().find(|package| package.folder == "crates/core")
    else {
        return Vec::new();
    };
    core.dependencies
        .iter()
        .filter(|dependency| dependency.name.split('-').any(|part| FOREIGN_TO_CORE.contains(&part)))
        .map(|dependency| {
            let (path, line) = workspace.manifest_place(core, &dependency.name);
            Violation { path, line, message: format!("core may not know {}", dependency.name) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{files, package, places};
    use super::*;

    fn workspace(packages: Vec<Package>) -> Workspace {
        Workspace { packages, ..files(&[("crates/core/Cargo.toml", "[dependencies]\nort = 2\n")]) }
    }

    #[test]
    fn an_arrow_may_not_turn() {
        let made = workspace(vec![package("crates/core", &["crates/cpu"])]);
        assert_eq!(one_way(&made)[0].message, "crates/core may not depend on crates/cpu");
        let made = workspace(vec![package("crates/cpu", &["crates/core", "serde"])]);
        assert_eq!(one_way(&made), []);
    }

    #[test]
    fn tests_may_use_what_they_like() {
        let mut encode = package("crates/encode", &["crates/cpu"]);
        encode.dependencies[0].dev = true;
        assert_eq!(one_way(&workspace(vec![encode])), []);
    }

    #[test]
    fn a_crate_without_a_row_is_named() {
        let made = workspace(vec![package("crates/surprise", &[])]);
        assert!(one_way(&made)[0].message.contains("no row"));
    }

    #[test]
    fn core_knows_no_engine() {
        let made = workspace(vec![package("crates/core", &["ort", "oneshot", "rten-tensor"])]);
        assert_eq!(
            places(&core_is_pure(&made)),
            ["crates/core/Cargo.toml:2", "crates/core/Cargo.toml:1"]
        );
    }
}
