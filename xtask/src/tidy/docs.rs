//! Whether the documents say what is there.

use super::{SourceFile, Violation, Workspace, numbered};

pub(super) const COMMANDS: &str = "documents name only xtask commands that exist";
pub(super) const ROOMS: &str = "ARCHITECTURE.md names the folder of every crate";

const CALL: &str = "cargo xtask ";
const ARCHITECTURE: &str = "ARCHITECTURE.md";

pub(super) fn commands_exist(workspace: &Workspace) -> Vec<Violation> {
    let documents = workspace.files.iter().filter(|file| {
        let history = file.path.ends_with("CHANGELOG.md");
        !history && (file.extension() == "md" || file.path.starts_with(".ci/"))
    });
    documents.flat_map(|file| unknown_commands(workspace, file)).collect()
}

fn unknown_commands(workspace: &Workspace, file: &SourceFile) -> Vec<Violation> {
    let known = &workspace.commands;
    let unknown = numbered(&file.text).flat_map(|(number, line)| {
        called(line)
            .filter(|name| !known.iter().any(|command| command == name))
            .map(move |name| (number, name))
    });
    unknown
        .map(|(number, name)| {
            let message = format!("there is no `{CALL}{name}`; there are: {}", known.join(", "));
            file.violation(number, message)
        })
        .collect()
}

/// The commands that a line names; options and placeholders are none.
fn called(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices(CALL).filter_map(|(start, _)| {
        let rest = &line[start + CALL.len()..];
        let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '-')).unwrap_or(rest.len());
        Some(&rest[..end]).filter(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
    })
}

pub(super) fn architecture_names_every_crate(workspace: &Workspace) -> Vec<Violation> {
    let text = workspace.file(ARCHITECTURE).map_or("", |file| file.text.as_str());
    workspace
        .packages
        .iter()
        .filter(|package| !names_folder(text, &package.folder))
        .map(|package| Violation {
            path: ARCHITECTURE.to_owned(),
            line: 1,
            message: format!("`{}` is not described", package.folder),
        })
        .collect()
}

/// `crates/migraphx-sys` does not describe `crates/migraphx`.
fn names_folder(text: &str, folder: &str) -> bool {
    text.match_indices(folder).any(|(start, _)| {
        let after = text[start + folder.len()..].chars().next();
        !after.is_some_and(|after| after.is_alphanumeric() || after == '-' || after == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{files, package, places};
    use super::*;

    #[test]
    fn a_command_that_does_not_exist_is_found() {
        let text =
            "`cargo xtask tidy`\n`cargo xtask --help`, cargo xtask <command>\ncargo xtask ti\n";
        let made = files(&[("README.md", text), ("CHANGELOG.md", text)]);
        let made = Workspace { commands: vec!["tidy".to_owned()], ..made };
        assert_eq!(places(&commands_exist(&made)), ["README.md:3"]);
    }

    #[test]
    fn a_crate_that_is_not_described_is_found() {
        let packages = vec![package("crates/migraphx", &[]), package("crates/core", &[])];
        let made = files(&[(ARCHITECTURE, "`crates/core`: and `crates/migraphx-sys`\n")]);
        let made = Workspace { packages, ..made };
        let found = architecture_names_every_crate(&made);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("`crates/migraphx`"));
    }
}
