//! The key of an artifact, and what makes another one.

use shapeyard_cache::Key;
use shapeyard_core::BackendId;
use shapeyard_core::model::Digest;

fn main() {
    let key = |compiler: &str| {
        Key::builder(Digest::of(b"a model's content"), BackendId::new("example"), "1")
            .bucket([("batch", 4)].into_iter().collect())
            .compiler(compiler)
            .build()
    };
    let (older, newer) = (key("compiler 1.0"), key("compiler 1.1"));
    println!("{}\n{}", older.digest(), newer.digest());
    for difference in newer.differences(&older) {
        println!("{difference}");
    }
}
