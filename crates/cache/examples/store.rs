//! A store from outside: make an artifact, have it again, see why another is missing, ship it.
//!
//! `cargo run --example store` in the folder of this crate.

use std::error::Error;
use std::fs;
use std::path::Path;

use shapeyard_cache::{
    Ask, Explanation, Failure, Key, Limits, Produced, Store, StoreOptions, Waiting,
};
use shapeyard_core::BackendId;
use shapeyard_core::model::Digest;

/// Everything that decides what the artifact contains. A real backend adds more.
fn key(compiler: &str) -> Key {
    Key::builder(Digest::of(b"a model's content"), BackendId::new("example"), "1")
        .bucket([("batch", 4), ("sequence", 128)].into_iter().collect())
        .precision("fp16")
        .compiler(compiler)
        .build()
}

/// Stands in for a compiler that takes minutes.
fn compile(path: &Path) -> Result<Produced, Failure> {
    fs::write(path, "a compiled program")?;
    Ok(Produced::default())
}

#[allow(clippy::print_stdout, reason = "an example shows its result")]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let store = Store::open(folder.path().join("cache"))?;
    let on_wait = |waiting: &Waiting| println!("{waiting}");
    let ask = Ask::new().on_wait(&on_wait);

    let key_1_0 = key("compiler 1.0");
    for _ in 0..2 {
        let outcome = store.get_or_produce(&key_1_0, &ask, compile)?;
        println!("{:?}: {} bytes", outcome.served, outcome.entry.n_bytes());
    }

    if let Explanation::Miss { nearest } = store.explain(&key("compiler 1.1"))? {
        for difference in nearest.iter().flat_map(|near| &near.differences) {
            println!("a miss; {difference}");
        }
    }

    let refuse = |_: &Path| Err(Failure::permanent("op `Foo` is not supported"));
    if let Err(error) = store.get_or_produce(&key("compiler 0.9"), &ask, refuse) {
        println!("{error}");
    }

    let bundle = folder.path().join("bundle");
    store.export(&[key_1_0.digest()], &bundle)?;
    let shipped = StoreOptions::new().base(&bundle).open()?;
    let outcome = shipped.get_or_produce(&key_1_0, &ask, compile)?;
    println!("{:?} in {:?}", outcome.served, outcome.entry.place());
    drop(outcome);

    let report = store.collect(&Limits { max_bytes: Some(0), max_age: None })?;
    println!("{} collected; {:?}", report.removed.len(), store.counters());
    Ok(())
}
