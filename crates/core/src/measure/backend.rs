//! All that there is to measure of a model on one backend.

use super::{Lanes, MeasureError, Shape, Watch};
use crate::backend::{Artifact, Backend, LoadJob, SessionOptions};
use crate::plan::calibrate::Split;
use crate::plan::prices::Measurements;

/// What runs of a model cost on a backend that takes every shape, for every way to share out threads.
///
/// # Errors
///
/// [`MeasureError`]: the model cannot be loaded, or does not take one of the shapes.
pub fn any_shape(
    backend: &dyn Backend,
    job: &LoadJob<'_>,
    splits: &[Split],
    (shapes, n_rounds): (&[Shape], usize),
    watch: &dyn Watch,
) -> Result<Measurements, MeasureError> {
    let mut all = Measurements::new(backend.id());
    // The first load reads from the disk, and a library's first model makes what all models share.
    drop(backend.load(job)?);
    for &split in splits {
        let job = job.for_sessions(SessionOptions::threads(split.n_threads));
        let (mut lanes, seconds) = started(backend, &job, split, watch)?;
        all.of(split).loads.record(1, 1, seconds);
        for _ in 1..n_rounds {
            // Two at a time would share the memory that one has.
            drop(lanes);
            let seconds;
            (lanes, seconds) = started(backend, &job, split, watch)?;
            all.of(split).loads.record(1, 1, seconds);
        }
        all.of(split).runs = lanes.runs(shapes, n_rounds, watch)?;
    }
    Ok(all)
}

/// What programs of a model cost: to load, to run in the shapes that they have, and to compile as far as the
/// artifacts say. Each is loaded alone.
///
/// # Errors
///
/// [`MeasureError`]: a program cannot be loaded or does not run.
pub fn programs(
    backend: &dyn Backend,
    job: &LoadJob<'_>,
    split: Split,
    (programs, n_rounds): (&[(Shape, Artifact)], usize),
    watch: &dyn Watch,
) -> Result<Measurements, MeasureError> {
    let mut all = Measurements::new(backend.id());
    for (shape, artifact) in programs {
        let artifacts = std::slice::from_ref(artifact);
        let job = LoadJob { artifacts, sessions: SessionOptions::threads(split.n_threads), ..*job };
        // As above: from memory, like the loads that follow in production.
        drop(backend.load(&job)?);
        let (lanes, seconds) = started(backend, &job, split, watch)?;
        let of = all.of(split);
        of.loads.record(shape.rows, shape.length, seconds);
        of.runs.refine(&lanes.runs(std::slice::from_ref(shape), n_rounds, watch)?);
        if let Some(time) = artifact.compile_time() {
            all.compiles.record(shape.rows, shape.length, time.as_secs_f64());
        }
        all.sizes.record(shape.rows, shape.length, artifact.n_bytes as f64);
    }
    Ok(all)
}

/// Sessions, and the seconds from the file to them.
fn started(
    backend: &dyn Backend,
    job: &LoadJob<'_>,
    split: Split,
    watch: &dyn Watch,
) -> Result<(Lanes, f64), MeasureError> {
    let elapsed = watch.stopwatch();
    let lanes = Lanes::start(&backend.load(job)?, split)?;
    Ok((lanes, elapsed().as_secs_f64()))
}
