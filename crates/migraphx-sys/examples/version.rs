//! Finds MIGraphX and says what it is.
//!
//! ```sh
//! cargo run -p migraphx-sys --example version
//! cargo run -p migraphx-sys --example version -- /opt/rocm-7.1.0/lib/libmigraphx_c.so.3
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that reports to a person")]

use std::error::Error;
use std::process::ExitCode;

use migraphx_sys::{Library, SearchOptions, ShapeType};

fn main() -> ExitCode {
    let named = std::env::args_os().nth(1);
    let options = named.map_or_else(SearchOptions::default, SearchOptions::at);
    match Library::open(&options) {
        Ok(library) => {
            describe(&library);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            if let Some(source) = error.source() {
                eprintln!("because {source}");
            }
            ExitCode::FAILURE
        }
    }
}

fn describe(library: &Library) {
    println!("found at    {}", library.path().display());
    for step in library.steps() {
        println!("  looked at {step}");
    }
    match library.version() {
        Ok(version) => println!("version     {version}"),
        Err(error) => println!("version     not known: {error}"),
    }
    let float = library.data_types().number(ShapeType::Float).map(|number| number.0);
    println!("data types  {:?}: float is {float:?}", library.data_types());
    println!("optional functions:");
    for function in library.api.optional() {
        let present = if function.present { "there" } else { "-    " };
        println!("  {present}  {} (since {})", function.name, function.since);
    }
}
