//! What may not stand in any file, code or not.
//!
//! The forbidden words are put together from parts here, so that this file does not name them.

use super::rust_source::has_word;
use super::{SourceFile, Violation, Workspace, numbered};

pub(super) const UNFINISHED: &str = "unfinished work is not marked and left behind";
pub(super) const LENGTH: &str = "no source file is longer than 700 lines, unless it is generated";
pub(super) const PLACES: &str =
    "no file names a folder of somebody's machine or the host of a package registry";

const MAX_LINES: usize = 700;

const MARKS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimplement", "ed!"),
];

/// Folders that exist on one machine only.
const PRIVATE_FOLDERS: [&str; 5] = [
    concat!("/", "home/"),
    concat!("/", "root/"),
    concat!("/", "work/"),
    concat!("/", "Users/"),
    concat!("/", "tmp/research"),
];

/// Registries are reached by their clients, whose settings say where.
const REGISTRY_HOSTS: [&str; 8] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("npmjs", ".com"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("proxy.golang", ".org"),
];

pub(super) fn no_unfinished_work(workspace: &Workspace) -> Vec<Violation> {
    let written = ["rs", "py", "md", "toml", "sh", "yml", "yaml"];
    let files = workspace
        .files
        .iter()
        .filter(|file| written.contains(&file.extension()) || file.path.starts_with(".ci/"));
    files
        .flat_map(|file| {
            violations(file, |line| {
                let mark = MARKS.iter().find(|mark| has_word(line, mark))?;
                Some(format!("`{mark}`: do it, or say in an issue that it is open"))
            })
        })
        .collect()
}

pub(super) fn no_long_files(workspace: &Workspace) -> Vec<Violation> {
    let sources = ["rs", "py", "sh"];
    workspace
        .files
        .iter()
        .filter(|file| sources.contains(&file.extension()) && !is_generated(file))
        .filter_map(|file| {
            let count = file.text.lines().count();
            let message = format!("{count} lines; split the file where its subject does");
            (count > MAX_LINES).then(|| file.violation(MAX_LINES + 1, message))
        })
        .collect()
}

pub(super) fn no_private_places(workspace: &Workspace) -> Vec<Violation> {
    // Cargo itself writes where a crate came from.
    let files = workspace.files.iter().filter(|file| !file.path.ends_with("Cargo.lock"));
    files.flat_map(|file| violations(file, private_place)).collect()
}

fn private_place(line: &str) -> Option<String> {
    if let Some(folder) = PRIVATE_FOLDERS.iter().find(|folder| names_folder(line, folder)) {
        return Some(format!("`{folder}` is a folder of one machine; use a relative path"));
    }
    let host = REGISTRY_HOSTS.iter().find(|host| line.contains(*host))?;
    Some(format!("`{host}` is the host of a registry; leave it to the registry's client"))
}

/// Whether the folder stands at the start of a path, and not in the middle of a longer one.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        !before.is_some_and(|before| before.is_alphanumeric() || "._-~/})".contains(before))
    })
}

fn is_generated(file: &SourceFile) -> bool {
    file.text.lines().take(5).any(|line| line.contains("@generated"))
}

fn violations(file: &SourceFile, wrong: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
    numbered(&file.text)
        .filter_map(|(number, line)| Some(file.violation(number, wrong(line)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{files, places};
    use super::*;

    #[test]
    fn marks_of_unfinished_work_are_found_in_words_and_in_code() {
        let [comment, _, call, _] = MARKS;
        let text = format!("// {comment}: later\nfn a() {{ {call}() }}\nlet {comment}_LIST = 1;\n");
        let made = files(&[("a.rs", &text), ("vocabulary.json", &text)]);
        assert_eq!(places(&no_unfinished_work(&made)), ["a.rs:1", "a.rs:2"]);
    }

    #[test]
    fn long_files_are_found_unless_they_are_generated() {
        let long = "\n".repeat(MAX_LINES + 1);
        let generated = format!("// @generated\n{long}");
        let made = files(&[("a.rs", &long), ("b.rs", &generated), ("c.json", &long)]);
        assert_eq!(places(&no_long_files(&made)), ["a.rs:701"]);
    }

    #[test]
    fn private_folders_are_found_at_the_start_of_a_path() {
        let [home, ..] = PRIVATE_FOLDERS;
        let text = format!("cd {home}me\ncd \"{home}me\"\ncd my{home}\nhttps://a.b{home}\n");
        let made = files(&[("a.md", &text)]);
        assert_eq!(places(&no_private_places(&made)), ["a.md:1", "a.md:2"]);
    }

    #[test]
    fn registry_hosts_are_found_except_where_cargo_writes_them() {
        let text = format!("index = \"https://index.{}\"\n", REGISTRY_HOSTS[0]);
        let made = files(&[("deny.toml", &text), ("Cargo.lock", &text)]);
        assert_eq!(places(&no_private_places(&made)), ["deny.toml:1"]);
    }
}
