//! What cargo knows about the workspace, read from `cargo metadata`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The workspace in cargo's words, with paths relative to its root.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) target_folder: PathBuf,
    pub(crate) packages: Vec<Package>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Package {
    /// The folder relative to the root, with forward slashes (`crates/core`).
    pub(crate) folder: String,
    pub(crate) description: Option<String>,
    pub(crate) published: bool,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// Whether only tests, examples and benchmarks see it.
    pub(crate) dev: bool,
    /// The folder relative to the root, for a crate of this workspace.
    pub(crate) folder: Option<String>,
}

/// Asks cargo about the workspace at `root`; no dependency is resolved, so this is quick and offline.
pub(crate) fn read(root: &Path) -> Result<Metadata> {
    let json = process::text(process::cargo().current_dir(root).args([
        "metadata",
        "--format-version=1",
        "--no-deps",
    ]))?;
    parse(root, &json).context("`cargo metadata` answered in a form that xtask does not know")
}

fn parse(root: &Path, json: &str) -> Result<Metadata> {
    let value: Value = serde_json::from_str(json).context("the answer is not JSON")?;
    let target = value["target_directory"].as_str().context("`target_directory` is missing")?;
    let packages = value["packages"].as_array().context("`packages` is missing")?;
    Ok(Metadata {
        target_folder: PathBuf::from(target),
        packages: packages
            .iter()
            .map(|package| parse_package(root, package))
            .collect::<Result<_>>()?,
    })
}

fn parse_package(root: &Path, value: &Value) -> Result<Package> {
    let name = value["name"].as_str().context("a package has no `name`")?;
    let manifest = value["manifest_path"].as_str().context("a package has no `manifest_path`")?;
    let folder = Path::new(manifest).parent().and_then(|folder| relative(root, folder));
    Ok(Package {
        folder: folder.with_context(|| format!("package {name} lies outside of the workspace"))?,
        description: value["description"].as_str().map(str::to_owned),
        // `null` means any registry, an empty list means none.
        published: value["publish"].as_array().is_none_or(|list| !list.is_empty()),
        dependencies: elements(&value["dependencies"])
            .map(|dependency| parse_dependency(root, dependency))
            .collect(),
    })
}

fn parse_dependency(root: &Path, value: &Value) -> Dependency {
    Dependency {
        name: value["name"].as_str().unwrap_or_default().to_owned(),
        dev: value["kind"] == "dev",
        folder: value["path"].as_str().and_then(|path| relative(root, Path::new(path))),
    }
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root).ok()?;
    Some(inside.to_string_lossy().replace('\\', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{
        "target_directory": "/repo/out",
        "packages": [{
            "name": "a-core", "manifest_path": "/repo/crates/core/Cargo.toml",
            "description": null, "publish": [],
            "dependencies": [
                {"name": "serde", "kind": null},
                {"name": "a-cpu", "kind": "dev", "path": "/repo/crates/cpu"}
            ]
        }]
    }"#;

    #[test]
    fn reads_what_the_rules_need() {
        let metadata = parse(Path::new("/repo"), JSON).unwrap();
        assert_eq!(metadata.target_folder, Path::new("/repo/out"));
        let package = &metadata.packages[0];
        assert_eq!((package.folder.as_str(), package.published), ("crates/core", false));
        assert_eq!(package.description, None);
        assert_eq!(package.dependencies[1].folder.as_deref(), Some("crates/cpu"));
        assert!(package.dependencies[1].dev && !package.dependencies[0].dev);
    }

    #[test]
    fn an_unknown_form_says_what_is_missing() {
        let error = parse(Path::new("/repo"), "{}").unwrap_err();
        assert!(error.to_string().contains("target_directory"), "{error}");
    }
}
