//! Programs that requests have made for them, because whoever loaded the model said so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use shapeyard_core::backend::{
    Artifact, ArtifactSource, Backend as _, BackendError, Cancellation, Domain, LoadJob,
};
use shapeyard_core::plan::{Bucket, Steps};
use shapeyard_core::{Model, RunError, Tensor, Tier};
use shapeyard_migraphx::{MigraphxBackend, MigraphxOptions};

use super::common::{backend_with, bucket, compile, model, options, run, session};

/// Compiles what is asked for, and remembers it.
#[derive(Debug)]
struct Compiles {
    backend: Arc<MigraphxBackend>,
    model: Model,
    folder: tempfile::TempDir,
    asked: Mutex<Vec<Bucket>>,
}

impl ArtifactSource for Compiles {
    fn artifact(&self, bucket: &Bucket, _: Cancellation<'_>) -> Result<Artifact, BackendError> {
        self.asked.lock().unwrap().push(bucket.clone());
        compile(self.backend.as_ref(), &self.model, bucket.clone(), self.folder.path())
    }
}

fn x(n_rows: usize) -> Vec<Tensor> {
    vec![Tensor::from_slice(&[n_rows, 4], &vec![1.0_f32; n_rows * 4]).unwrap()]
}

#[test]
fn pitfall_31_ever_new_shapes_share_the_programs_of_the_steps() {
    let steps = BTreeMap::from([("batch".to_owned(), "..8".parse::<Steps>().unwrap())]);
    let options = MigraphxOptions { steps, ..options() };
    let Some(backend) = backend_with("on demand", options) else { return };
    let source = Arc::new(Compiles {
        backend: Arc::clone(&backend),
        model: model("add_one.onnx"),
        folder: tempfile::tempdir().unwrap(),
        asked: Mutex::default(),
    });
    let on_demand: Arc<dyn ArtifactSource> = source.clone();
    let job = LoadJob { on_demand: Some(&on_demand), ..LoadJob::of(&source.model) };
    let executable = backend.load(&job).unwrap();
    let mut lane = session(executable.as_ref());
    let mut tiers = Vec::new();
    // More rows than the first program holds are split over it, so nothing more is made.
    for n_rows in [3, 4, 2, 7, 20, 1] {
        let (report, outputs) = run(executable.as_ref(), lane.as_mut(), &x(n_rows)).unwrap();
        assert_eq!(outputs[0].shape(), [n_rows, 4]);
        tiers.push(report.tier);
    }
    let asked = source.asked.lock().unwrap().clone();
    assert_eq!(asked, [bucket([("batch", 4)])]);
    let standard = tiers.iter().filter(|tier| **tier == Tier::Standard).count();
    assert_eq!((standard, tiers[0]), (1, Tier::Standard));
    assert!(matches!(executable.domain(), Domain::Buckets(ready) if ready.buckets == asked));
}

#[test]
fn a_compile_that_fails_inside_a_request_is_that_requests_error() {
    let Some(backend) = backend_with("failing on demand", options()) else { return };
    let source = Arc::new(Compiles {
        backend: Arc::clone(&backend),
        model: model("unknown_operator.onnx"),
        folder: tempfile::tempdir().unwrap(),
        asked: Mutex::default(),
    });
    let on_demand: Arc<dyn ArtifactSource> = source.clone();
    let job = LoadJob { on_demand: Some(&on_demand), ..LoadJob::of(&source.model) };
    let executable = backend.load(&job).unwrap();
    let shape = source.model.signature().symbols.iter().map(|it| (it.clone(), 2)).collect();
    let requests = super::common::inputs(executable.as_ref(), &shape, 0);
    let mut lane = session(executable.as_ref());
    let error = run(executable.as_ref(), lane.as_mut(), &requests).unwrap_err();
    let RunError::Prepare { source, .. } = error else { panic!("{error}") };
    assert!(matches!(*source, BackendError::Model { .. }), "{source}");
}

#[test]
fn a_refusal_is_not_asked_for_again() {
    let Some(backend) = backend_with("refused on demand", options()) else { return };
    let source = Arc::new(Compiles {
        backend: Arc::clone(&backend),
        model: model("conv.onnx"),
        folder: tempfile::tempdir().unwrap(),
        asked: Mutex::default(),
    });
    let on_demand: Arc<dyn ArtifactSource> = source.clone();
    let job = LoadJob { on_demand: Some(&on_demand), ..LoadJob::of(&source.model) };
    let executable = backend.load(&job).unwrap();
    let mut lane = session(executable.as_ref());
    // A shape that is a step by itself.
    let image = [Tensor::from_slice(&[1, 3, 8, 8], &[1.0_f32; 192]).unwrap()];
    let error = run(executable.as_ref(), lane.as_mut(), &image).unwrap_err();
    assert!(matches!(error, RunError::Prepare { .. }), "{error}");
    assert_eq!(source.asked.lock().unwrap().len(), 1);
}

#[test]
fn a_step_that_cannot_hold_the_request_is_followed_by_exactly_its_shape() {
    // One has outputs that cannot be cut, the other takes no more than 6 columns: both are asked for 8 first.
    for name in ["rounded_up.onnx", "positions.onnx"] {
        let Some(backend) = backend_with("exact on demand", options()) else { return };
        let source = Arc::new(Compiles {
            backend: Arc::clone(&backend),
            model: model(name),
            folder: tempfile::tempdir().unwrap(),
            asked: Mutex::default(),
        });
        let on_demand: Arc<dyn ArtifactSource> = source.clone();
        let job = LoadJob { on_demand: Some(&on_demand), ..LoadJob::of(&source.model) };
        let executable = backend.load(&job).unwrap();
        let mut lane = session(executable.as_ref());
        let x = [Tensor::from_slice(&[2, 5], &[1.0_f32; 10]).unwrap()];
        // The second finds what the first had made.
        for _ in 0..2 {
            let (_, outputs) = run(executable.as_ref(), lane.as_mut(), &x).unwrap();
            assert_eq!(outputs[0].shape()[0], 2);
        }
        let asked = source.asked.lock().unwrap().clone();
        let wanted = [8, 5].map(|width| bucket([("batch", 2), ("width", width)]));
        assert_eq!(asked, wanted, "{name}");
    }
}
