//! The account of the device's memory.

use shapeyard_core::backend::BackendError;
use shapeyard_core::plan::Bucket;
use shapeyard_migraphx::DeviceOptions;

use crate::common::{Double, Pair, assert_same, gpu, inputs, model, run, session, shape, try_load};

fn with_memory(n_bytes: u64) -> DeviceOptions {
    DeviceOptions { memory: Some(n_bytes), ..DeviceOptions::default() }
}

#[test]
fn pitfall_83_what_does_not_fit_is_refused_before_anything_is_asked_of_the_device() {
    let _double = Double::with("");
    let Some(backend) = gpu("no room", with_memory(100)) else { return };
    let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
    let error = try_load(&backend, &model, &[shape([("batch", 4)])], &folder).err().unwrap();
    assert!(matches!(error, BackendError::DeviceMemory { .. }), "{error}");
    assert!(error.to_string().contains("budget of 100"), "{error}");
}

#[test]
fn pitfall_83_programs_make_room_for_each_other_and_come_back() {
    let _double = Double::with("");
    let Some(all) = gpu("room for some", DeviceOptions::default()) else { return };
    let buckets: Vec<Bucket> = [1, 2, 4, 8, 16].map(|n| shape([("batch", n)])).into();
    drop(Pair::load(&all, "dense.onnx", &buckets));
    // A program takes what the device gives in one piece, a few MiB.
    let mut n_served = 0;
    for budget in [8 << 20, 64 << 20] {
        let backend = gpu("room for some", with_memory(budget)).unwrap();
        let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
        let Ok(few) = try_load(&backend, &model, &buckets, &folder) else { continue };
        n_served += 1;
        let pair = Pair::load(&all, "dense.onnx", &buckets);
        let (mut lane, mut host) = (session(&few), session(&pair.host));
        for round in 0..3 {
            for n in [1, 2, 4, 8, 16, 3, 30] {
                let inputs = inputs(&few, &shape([("batch", n)]), round);
                let (_, found) = run(&few, lane.as_mut(), &inputs).unwrap();
                let (_, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
                assert_same(&found, &wanted, &format!("{n} rows in {budget} bytes"));
            }
        }
    }
    assert!(n_served > 0, "no budget sufficed");
}
