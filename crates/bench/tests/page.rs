//! The page that the repository keeps is what its records say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

#[test]
fn the_page_is_what_the_records_say() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let files = shapeyard_bench::report::files(&[docs.join("records")], None).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.path.clone()).collect();
    for file in files {
        let kept = fs::read_to_string(docs.join(&file.path)).unwrap_or_default();
        let name = file.path.display();
        assert!(kept == file.text, "{name}: run `cargo xtask bench report --write`");
    }
    for entry in fs::read_dir(docs.join("plots")).unwrap() {
        let name = Path::new("plots").join(entry.unwrap().file_name());
        assert!(names.contains(&name), "{}: no record has it any more; remove it", name.display());
    }
}
