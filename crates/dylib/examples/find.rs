//! Looks for a library around this program and by the system's loader, and says what was where.
//!
//! ```sh
//! cargo run -p shapeyard-dylib --example find -- libonnxruntime.so OrtGetApiBase
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

use std::env;
use std::path::Path;
use std::process::ExitCode;

use shapeyard_dylib::{Candidate, Library, Refusal, Search, program_folder, search};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [name, function] = arguments.as_slice() else {
        eprintln!("usage: find LIBRARY FUNCTION");
        return ExitCode::FAILURE;
    };
    let near = program_folder().into_iter().flat_map(|folder| Candidate::around(&folder, name));
    let load = |path: &Path| {
        let library = Library::open(path)?;
        let found = library.symbol(function).is_some();
        found.then_some(library).ok_or(Refusal::Unfit(format!("it has no `{function}`")))
    };
    let Search { result, steps } = search(near.chain([Candidate::by_loader(name)]), load);
    for step in &steps {
        println!("{step}");
    }
    match result {
        Ok(library) => {
            println!("loaded {}", library.path().display());
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}
