//! What may not stand in Rust code.

use super::rust_source::{code_only, has_word, without_tests};
use super::{SourceFile, Violation, Workspace, numbered};

pub(super) const UNSAFE: &str = "only dylib, the `-sys` crates, hipgraph, migraphx and its double, cpu's ggml and bench's raw calls have unsafe code";
pub(super) const FOREIGN: &str = "only the `-sys` crates declare foreign functions";
pub(super) const PRINTING: &str = "only cli, bench and xtask print";
pub(super) const GLOBALS: &str = "nothing is kept in mutable globals or per thread";

const PRINTERS: [&str; 5] = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
const GLOBAL_MAKERS: [&str; 2] = ["lazy_static", "thread_local!"];

pub(super) fn no_unsafe(workspace: &Workspace) -> Vec<Violation> {
    let message = "unsafe code belongs in dylib, a `-sys` crate, hipgraph, migraphx or its double, cpu's ggml or bench's overhead and io";
    let files = workspace.rust_files().filter(|file| !may_be_unsafe(&file.path));
    files
        .flat_map(|file| {
            lines(file, &code_only(&file.text), |line| has_word(line, "unsafe"), message)
        })
        .collect()
}

pub(super) fn no_foreign_functions(workspace: &Workspace) -> Vec<Violation> {
    let message = "a foreign function belongs in a `-sys` crate, behind a safe face";
    let files = workspace.rust_files().filter(|file| !in_sys_crate(&file.path));
    files.flat_map(|file| lines(file, &code_only(&file.text), is_foreign, message)).collect()
}

pub(super) fn no_printing(workspace: &Workspace) -> Vec<Violation> {
    let message = "only cli, bench and xtask print; return it in a report or an error";
    let files = workspace.rust_files().filter(|file| !may_print(&file.path));
    files
        .flat_map(|file| {
            let code = without_tests(&code_only(&file.text));
            lines(file, &code, |line| PRINTERS.iter().any(|name| has_word(line, name)), message)
        })
        .collect()
}

pub(super) fn no_globals(workspace: &Workspace) -> Vec<Violation> {
    let message = "state belongs to a value that somebody owns, not to the process or a thread";
    workspace
        .rust_files()
        .flat_map(|file| lines(file, &code_only(&file.text), makes_global, message))
        .collect()
}

/// One violation for every line of code that is `wrong`.
fn lines(
    file: &SourceFile,
    code: &str,
    wrong: impl Fn(&str) -> bool,
    message: &str,
) -> Vec<Violation> {
    numbered(code)
        .filter(|(_, line)| wrong(line))
        .map(|(number, _)| file.violation(number, message))
        .collect()
}

/// Whether a block of declarations begins here; the type of a function or a callback has no block.
fn is_foreign(line: &str) -> bool {
    let after = line.split_once("extern").map_or("", |(_, after)| after);
    has_word(line, "extern") && after.trim_start_matches([' ', '"']).starts_with('{')
}

fn makes_global(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mutable = words.windows(2).any(|pair| pair == ["static", "mut"]);
    mutable || GLOBAL_MAKERS.iter().any(|name| has_word(line, name))
}

fn may_be_unsafe(path: &str) -> bool {
    const PLACES: [&str; 8] = [
        "crates/dylib/",
        "crates/hipgraph/",
        "crates/migraphx/",
        // It is a library of C functions.
        "crates/migraphx-gpu-double/",
        "crates/cpu/src/ggml",
        // An allocator that counts.
        "crates/cpu/tests/allocations.rs",
        // What ours is measured beside is the foreign call itself.
        "crates/bench/src/io/",
        "crates/bench/src/overhead/",
    ];
    in_sys_crate(path) || PLACES.iter().any(|place| path.starts_with(place))
}

fn in_sys_crate(path: &str) -> bool {
    path.strip_prefix("crates/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(name, _)| name.ends_with("-sys"))
}

/// Programs, and code that no user of a crate ever runs: examples, tests, build scripts.
fn may_print(path: &str) -> bool {
    const PROGRAMS: [&str; 4] = ["crates/cli/", "crates/bench/", "xtask/", "tests/"];
    let beside = ["examples", "tests", "benches", "fuzz_targets"];
    PROGRAMS.iter().any(|place| path.starts_with(place))
        || path.split('/').any(|part| beside.contains(&part))
        || path.ends_with("/build.rs")
        || path.ends_with("/tests.rs")
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{files, places};
    use super::*;

    #[test]
    fn unsafe_code_has_its_places() {
        let code = "// unsafe\nfn a() { unsafe { b(\"unsafe\") } }\n";
        let made = files(&[
            ("crates/core/src/a.rs", code),
            ("crates/hip-sys/src/a.rs", code),
            ("crates/hipgraph/src/a.rs", code),
            ("crates/cpu/src/ggml/a.rs", code),
            ("crates/bench/src/io/a.rs", code),
            ("crates/bench/src/overhead/a.rs", code),
            ("crates/bench/src/a.rs", code),
            ("crates/cpu/src/a.rs", "#![forbid(unsafe_code)]\n"),
        ]);
        assert_eq!(
            places(&no_unsafe(&made)),
            ["crates/core/src/a.rs:2", "crates/bench/src/a.rs:2"]
        );
    }

    #[test]
    fn foreign_functions_have_their_places() {
        let code = "\nextern \"C\" { fn a(); }\n";
        let made = files(&[
            ("crates/migraphx/src/a.rs", code),
            ("crates/migraphx-sys/src/a.rs", code),
            ("crates/core/src/a.rs", "extern crate alloc;\n"),
            ("crates/migraphx/src/b.rs", "type A = extern \"C\" fn();\nextern \"C\" fn a() {}\n"),
        ]);
        assert_eq!(places(&no_foreign_functions(&made)), ["crates/migraphx/src/a.rs:2"]);
    }

    #[test]
    fn libraries_do_not_print() {
        let code = "fn a() { eprintln!(\"b\"); }\n";
        let made = files(&[
            ("crates/encode/src/a.rs", code),
            ("crates/encode/examples/a.rs", code),
            ("crates/encode/src/b.rs", "#[cfg(test)]\nmod tests { fn a() { dbg!(1); } }\n"),
            ("crates/cli/src/a.rs", code),
            ("crates/core/src/a.rs", "/// println!(\"in a doc test\")\nfn println() {}\n"),
        ]);
        assert_eq!(places(&no_printing(&made)), ["crates/encode/src/a.rs:1"]);
    }

    #[test]
    fn nothing_is_global_and_mutable() {
        let made = files(&[
            ("crates/cli/src/a.rs", "static mut A: u8 = 0;\nstatic B: &'static str = \"\";\n"),
            ("crates/core/src/a.rs", "\nthread_local! { static A: u8 = 0; }\n"),
        ]);
        assert_eq!(places(&no_globals(&made)), ["crates/cli/src/a.rs:1", "crates/core/src/a.rs:2"]);
    }
}
