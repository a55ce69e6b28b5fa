//! Prints the units of files and folders: `cargo run -p shapeyard-encode --example units -- src README.md`

use std::path::PathBuf;

use shapeyard_encode::units::{UnitError, UnitOptions, collect};

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), UnitError> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        paths.push(".".into());
    }
    let collected = collect(&paths, &UnitOptions::default())?;
    for unit in &collected.units {
        println!("{} ({} bytes)", unit.source, unit.text.len());
    }
    for skipped in &collected.skipped {
        println!("skipped {skipped}");
    }
    Ok(())
}
