//! `cargo xtask tidy`: the rules of the house that no compiler knows.
//!
//! A rule is a function from the workspace, as data, to what breaks it. So each one is tested on a
//! workspace that is made up.

mod arrows;
mod code;
mod docs;
mod manifests;
mod rust_source;
mod text;

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::metadata::Package;
use crate::paths::Layout;
use crate::{process, terminal};

/// Check the rules of the layout: arrows between crates, unsafe code, printing, globals, documents
///
/// Every violation is one line, `file:line: what is wrong and what to do`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask tidy
  cargo xtask tidy --rules                       what is checked")]
pub(crate) struct Args {
    /// List the rules instead of checking them
    #[arg(long)]
    rules: bool,
}

/// One rule: what it defends, in a sentence, and how it is checked.
struct Rule {
    defends: &'static str,
    check: fn(&Workspace) -> Vec<Violation>,
}

const RULES: [Rule; 12] = [
    Rule { defends: arrows::ONE_WAY, check: arrows::one_way },
    Rule { defends: arrows::CORE_IS_PURE, check: arrows::core_is_pure },
    Rule { defends: code::UNSAFE, check: code::no_unsafe },
    Rule { defends: code::FOREIGN, check: code::no_foreign_functions },
    Rule { defends: code::PRINTING, check: code::no_printing },
    Rule { defends: code::GLOBALS, check: code::no_globals },
    Rule { defends: text::UNFINISHED, check: text::no_unfinished_work },
    Rule { defends: manifests::COMPLETE, check: manifests::complete },
    Rule { defends: text::LENGTH, check: text::no_long_files },
    Rule { defends: text::PLACES, check: text::no_private_places },
    Rule { defends: docs::COMMANDS, check: docs::commands_exist },
    Rule { defends: docs::ROOMS, check: docs::architecture_names_every_crate },
];

pub(crate) fn run(layout: &Layout, args: &Args, commands: &[String]) -> Result<()> {
    if args.rules {
        RULES.iter().for_each(|rule| terminal::say(format_args!("- {}", rule.defends)));
        return Ok(());
    }
    let workspace = Workspace::read(layout, commands)?;
    let mut violations: Vec<Violation> =
        RULES.iter().flat_map(|rule| (rule.check)(&workspace)).collect();
    violations.sort();
    violations.iter().for_each(terminal::say);
    match violations.len() {
        0 => {
            let files = workspace.files.len();
            terminal::say(format_args!("{} rules hold in {files} files", RULES.len()));
            Ok(())
        }
        1 => bail!("tidy found 1 violation"),
        count => bail!("tidy found {count} violations"),
    }
}

/// What the rules look at.
#[derive(Debug, Default)]
struct Workspace {
    /// Text files that git tracks or would track.
    files: Vec<SourceFile>,
    packages: Vec<Package>,
    /// The commands of xtask.
    commands: Vec<String>,
}

#[derive(Debug)]
struct SourceFile {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

/// A broken rule at a place; ordered by place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    path: String,
    line: usize,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.path, self.line, self.message)
    }
}

impl Workspace {
    fn read(layout: &Layout, commands: &[String]) -> Result<Self> {
        let mut files = Vec::new();
        for path in listed_by_git(layout.root())? {
            if let Some(text) = read_text(&layout.root().join(&path))? {
                files.push(SourceFile { path, text });
            }
        }
        let packages = layout.metadata().packages.clone();
        Ok(Self { files, packages, commands: commands.to_vec() })
    }

    fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    fn rust_files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.extension() == "rs")
    }

    /// The first line of a crate's manifest that has `needle`, or the manifest's start.
    fn manifest_place(&self, package: &Package, needle: &str) -> (String, usize) {
        let path = format!("{}/Cargo.toml", package.folder);
        let line = self.file(&path).and_then(|file| file.lines_with(needle).next()).unwrap_or(1);
        (path, line)
    }
}

impl SourceFile {
    fn extension(&self) -> &str {
        Path::new(&self.path).extension().and_then(|extension| extension.to_str()).unwrap_or("")
    }

    /// Numbers of the lines that contain `needle`.
    fn lines_with<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        numbered(&self.text)
            .filter(move |(_, line)| line.contains(needle))
            .map(|(number, _)| number)
    }

    fn violation(&self, line: usize, message: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line, message: message.into() }
    }
}

/// Lines with their numbers, from 1 as editors count.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

/// Files that are new count too, so that a rule speaks before the commit and not after it.
fn listed_by_git(root: &Path) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.current_dir(root);
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let list = process::text(&mut git)
        .context("tidy takes the list of files from git, so it needs a clone")?;
    Ok(list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

/// The text of a file; none for one that is not text, or that was removed but not yet committed.
fn read_text(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod made_up {
    //! Workspaces that exist only for a test.

    use super::{SourceFile, Violation, Workspace};
    use crate::metadata::{Dependency, Package};

    pub(super) fn files(files: &[(&str, &str)]) -> Workspace {
        let made = |&(path, text): &(&str, &str)| SourceFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        Workspace { files: files.iter().map(made).collect(), ..Workspace::default() }
    }

    pub(super) fn package(folder: &str, dependencies: &[&str]) -> Package {
        let dependency = |name: &&str| Dependency {
            name: (*name).to_owned(),
            dev: false,
            folder: name.contains('/').then(|| (*name).to_owned()),
        };
        Package {
            folder: folder.to_owned(),
            description: Some("made up".to_owned()),
            published: true,
            dependencies: dependencies.iter().map(dependency).collect(),
        }
    }

    /// `file:line` of every violation.
    pub(super) fn places(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(|found| format!("{}:{}", found.path, found.line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_a_place_and_a_sentence() {
        let file = SourceFile { path: "a.rs".to_owned(), text: "one\ntwo\n".to_owned() };
        let line = file.lines_with("two").next().unwrap();
        assert_eq!(file.violation(line, "two is wrong").to_string(), "a.rs:2: two is wrong");
    }
}
