//! Programs that come from a store while requests wait for them.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use shapeyard_cache::{Ask, CachedArtifacts, Counters, Served, Store};
use shapeyard_core::backend::{
    ArtifactSource, Backend, Cancellation, Executable, LoadJob, Optimisation,
};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{Model, RunReport, Tensor, Tier};

use super::asked::ask;
use super::counting::Counting;
use super::requests::assert_alike;
use super::support::{Loaded, bucket, dynamic, migraphx, model, onnxruntime};

const N_THREADS: usize = 8;

fn cached(
    root: &Path,
    backend: Arc<dyn Backend>,
    model: &Arc<Model>,
) -> (Arc<Store>, Arc<CachedArtifacts>) {
    let store = Arc::new(Store::open(root).unwrap());
    let cached =
        CachedArtifacts::new(Arc::clone(&store), backend, Arc::clone(model), Optimisation::Full);
    (store, Arc::new(cached.unwrap()))
}

/// An executable without programs, which asks a source for each.
fn cold(
    backend: &Counting,
    cached: &Arc<CachedArtifacts>,
    model: &Arc<Model>,
) -> Arc<dyn Executable> {
    let source: Arc<dyn ArtifactSource> = Arc::clone(cached) as _;
    let source = backend.heard(source);
    backend.load(&LoadJob { on_demand: Some(&source), ..LoadJob::of(model) }).unwrap()
}

fn assert_counters_add_up(counters: Counters) {
    let Counters { lookups, hits, misses, negative, abandoned, .. } = counters;
    assert_eq!(lookups, hits + misses + negative + abandoned, "{counters:?}");
}

fn run_together(
    executable: &Arc<dyn Executable>,
    inputs: &[Tensor],
) -> Vec<(RunReport, Vec<Tensor>)> {
    thread::scope(|scope| {
        let run = || Loaded::new(Arc::clone(executable)).run(inputs).unwrap();
        let threads: Vec<_> = (0..N_THREADS).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn eight_threads_that_want_one_cold_shape_wait_for_one_compile() {
    let test = "one compile for eight threads";
    let (Some(inner), Some(reference)) = (migraphx(test), onnxruntime(test)) else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), Arc::new(model("encoder.onnx")));
    // Of the steps, powers of two, 4 and 8 hold it.
    let shape = bucket([("batch", 3), ("sequence", 5)]);
    let asked = ask(&mut dynamic(reference.as_ref(), "encoder.onnx"), [shape]).remove(0);

    let backend = Counting::new(&inner, N_THREADS);
    let (store, artifacts) = cached(folder.path(), Arc::clone(&backend) as _, &model);
    let executable = cold(&backend, &artifacts, &model);
    for (report, answer) in run_together(&executable, &asked.inputs) {
        assert_alike(&answer, &asked.answer, test);
        assert_eq!((report.tier, report.n_padded_rows), (Tier::Standard, 1));
    }
    assert_eq!(backend.n_compiles(), 1);
    let counters = store.counters();
    assert_eq!((counters.productions, counters.lookups), (1, N_THREADS as u64));
    assert_counters_add_up(counters);

    // As if in a new process: nothing is in memory.
    let backend = Counting::new(&inner, 1);
    let (store, artifacts) = cached(folder.path(), Arc::clone(&backend) as _, &model);
    let mut loaded = Loaded::new(cold(&backend, &artifacts, &model));
    for tier in [Tier::Standard, Tier::Rebind] {
        let (report, answer) = loaded.run(&asked.inputs).unwrap();
        assert_alike(&answer, &asked.answer, "from the store");
        assert_eq!(report.tier, tier);
    }
    assert_eq!((backend.n_compiles(), store.counters().hits), (0, 1));
    assert_counters_add_up(store.counters());
}

#[test]
fn optimised_models_of_onnxruntime_lie_in_the_same_store() {
    let Some(inner) = onnxruntime("cached models of ONNX Runtime") else { return };
    let (folder, model) = (tempfile::tempdir().unwrap(), Arc::new(model("encoder.onnx")));
    let shapes = [(1, 3), (4, 7)].map(|(batch, n)| bucket([("batch", batch), ("sequence", n)]));
    let asked = ask(&mut dynamic(inner.as_ref(), "encoder.onnx"), shapes);
    let mut n_compiles = Vec::new();
    for wanted in [[Served::Produced, Served::Hit], [Served::Hit, Served::Hit]] {
        let backend = Counting::new(&inner, 0);
        let (store, artifacts) = cached(folder.path(), Arc::clone(&backend) as _, &model);
        let get = || {
            let never = Cancellation::never();
            artifacts.get_or_compile(&Bucket::default(), &Ask::new(), never).unwrap()
        };
        let obtained = [get(), get()];
        assert_eq!([obtained[0].served, obtained[1].served], wanted);
        assert_counters_add_up(store.counters());
        n_compiles.push(backend.n_compiles());
        let job = LoadJob { artifacts: &[obtained[0].artifact.clone()], ..LoadJob::of(&model) };
        let mut loaded = Loaded::new(backend.load(&job).unwrap());
        for asked in &asked {
            assert_alike(&loaded.answer(&asked.inputs), &asked.answer, "an optimised model");
        }
    }
    assert_eq!(n_compiles, [1, 0]);
}
