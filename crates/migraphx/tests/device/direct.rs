//! Requests that lie on the device are run where they are, and answer as those of the host do.

#![allow(
    unsafe_code,
    reason = "indices that the test vouches for, and memory that it claims to be a device's"
)]

use std::sync::Arc;

use hipgraph::{Device, DeviceBuffer, Settings, Stream};
use shapeyard_core::backend::Session as _;
use shapeyard_core::{
    BindingMode, DataType, Outputs, Request, Route, RunError, RunReport, Tensor, TensorView,
};
use shapeyard_migraphx::{
    DeviceOptions, DeviceRunError, DeviceTensor, DeviceTensorError, Graphs, MigraphxExecutable,
    MigraphxSession,
};
use tempfile::TempDir;

use crate::common::{Double, Extents, artifacts, cases, gpu, inputs, model, shape, with_graphs};

/// A session with what it takes to hand it memory of its device.
struct Bench {
    executable: Arc<MigraphxExecutable>,
    session: MigraphxSession,
    stream: Stream,
    _folder: TempDir,
}

/// A tensor on the device, and the memory that it lies in.
struct Placed {
    tensor: DeviceTensor,
    buffer: Arc<DeviceBuffer>,
}

impl Bench {
    /// Nothing where there is no device.
    fn new(test: &str, device: DeviceOptions, name: &str, compiled: &Extents) -> Option<Self> {
        let backend = gpu(test, device)?;
        let (model, folder) = (model(name), tempfile::tempdir().unwrap());
        let shapes = [compiled.iter().copied().collect()];
        let artifacts = artifacts(&backend, &model, &shapes, &folder).unwrap();
        let job = shapeyard_core::backend::LoadJob {
            artifacts: &artifacts,
            ..shapeyard_core::backend::LoadJob::of(&model)
        };
        let executable = backend.load_programs(&job).unwrap();
        let session = executable.open_session().unwrap();
        let stream = Stream::new(session.device().unwrap()).unwrap();
        Some(Self { executable, session, stream, _folder: folder })
    }

    fn inputs(&self, asked: &Extents, seed: usize) -> Vec<Tensor> {
        let executable: Arc<dyn shapeyard_core::backend::Executable> = self.executable.clone();
        inputs(&executable, &asked.iter().copied().collect(), seed)
    }

    /// What the same session answers to the same inputs on the host, in its own buffers.
    fn staged(&mut self, inputs: &[Tensor]) -> Vec<Tensor> {
        let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
        let signature =
            Arc::clone(shapeyard_core::backend::Executable::signature(&*self.executable));
        let request = Request::bind(&signature, &views).unwrap();
        let mut outputs = Outputs::new();
        let report = self.session.run(&request, &mut outputs).unwrap();
        assert_eq!(report.binding, BindingMode::Staged);
        outputs.into_tensors()
    }

    /// A tensor like one of the host, with what is in it.
    fn place(&self, like: &Tensor) -> Placed {
        let buffer = self.buffer(like.bytes().len());
        self.stream.write(&buffer, 0, like.bytes()).unwrap();
        let tensor = DeviceTensor::new(like.dtype(), like.shape(), Arc::clone(&buffer), 0).unwrap();
        // SAFETY: `inputs` makes indices that are inside of their tables.
        Placed { tensor: unsafe { tensor.with_checked_indices() }, buffer }
    }

    /// A tensor like one of the host, with other bytes in it.
    fn place_empty(&self, like: &Tensor) -> Placed {
        let placed = self.place(like);
        self.stream.fill(&placed.buffer, 0, placed.buffer.n_bytes(), 0xA5).unwrap();
        self.stream.synchronize().unwrap();
        placed
    }

    fn buffer(&self, n_bytes: usize) -> Arc<DeviceBuffer> {
        Arc::new(DeviceBuffer::new(self.stream.device(), n_bytes).unwrap())
    }

    fn run(&mut self, inputs: &[Placed], outputs: &[Placed]) -> Result<RunReport, DeviceRunError> {
        let inputs: Vec<DeviceTensor> = inputs.iter().map(|it| it.tensor.clone()).collect();
        let mut outputs: Vec<DeviceTensor> = outputs.iter().map(|it| it.tensor.clone()).collect();
        self.session.run_on_device(&inputs, &mut outputs)
    }

    fn assert_holds(&self, outputs: &[Placed], wanted: &[Tensor], what: &str) {
        assert_eq!(outputs.len(), wanted.len(), "{what}");
        for (output, wanted) in outputs.iter().zip(wanted) {
            let mut bytes = vec![0; wanted.bytes().len()];
            self.stream.read(&output.buffer, 0, &mut bytes).unwrap();
            assert_eq!(bytes, wanted.bytes(), "{what}");
        }
    }

    /// Runs on the host's memory and on the device's, and compares.
    fn assert_equal(
        &mut self,
        asked: &Extents,
        seed: usize,
        places: &Places,
        what: &str,
    ) -> RunReport {
        let inputs = self.inputs(asked, seed);
        let wanted = self.staged(&inputs);
        for (placed, input) in places.inputs.iter().zip(&inputs) {
            self.stream.write(&placed.buffer, 0, input.bytes()).unwrap();
        }
        let report = self.run(&places.inputs, &places.outputs).unwrap();
        self.assert_holds(&places.outputs, &wanted, what);
        assert_eq!(report.route, Route::Exact);
        report
    }

    fn places(&mut self, asked: &Extents) -> Places {
        let inputs = self.inputs(asked, 0);
        let outputs = self.staged(&inputs);
        Places {
            inputs: inputs.iter().map(|it| self.place(it)).collect(),
            outputs: outputs.iter().map(|it| self.place_empty(it)).collect(),
        }
    }
}

/// Memory for one request.
struct Places {
    inputs: Vec<Placed>,
    outputs: Vec<Placed>,
}

fn rows(n: usize) -> Extents {
    vec![("batch", n)]
}

fn direct_equals_staged(test: &str, graphs: Graphs) {
    for (name, compiled, _) in cases() {
        let Some(mut bench) = Bench::new(test, with_graphs(graphs), name, &compiled) else {
            return;
        };
        let places = bench.places(&compiled);
        let mut n_replayed = 0;
        for seed in 0..8 {
            let what = format!("{name}, run {seed}");
            let report = bench.assert_equal(&compiled, seed, &places, &what);
            assert_eq!(report.binding, BindingMode::DirectBind, "{what}");
            n_replayed += usize::from(report.replayed);
        }
        assert_eq!(n_replayed > 0, graphs != Graphs::Off, "{name}: {n_replayed} replays");
    }
}

#[test]
fn pitfall_52_direct_and_staged_runs_of_one_session_take_turns_and_answer_the_same() {
    let _double = Double::with("");
    direct_equals_staged("direct", Graphs::Auto);
    direct_equals_staged("direct without graphs", Graphs::Off);
    direct_equals_staged("direct with checked graphs", Graphs::Checked);
}

#[test]
fn pitfall_60_outputs_in_memory_of_the_program_reach_the_callers() {
    let _double = Double::with("extra=0,extra=2");
    direct_equals_staged("direct with extra outputs", Graphs::Auto);
}

#[test]
fn pitfall_56_outputs_of_the_callers_begin_at_zero() {
    let _double = Double::with("outputs-add-up");
    let asked = vec![("batch", 4), ("past", 3)];
    let new = Bench::new("adding up", DeviceOptions::default(), "memory.onnx", &asked);
    let Some(mut bench) = new else { return };
    let places = bench.places(&asked);
    for run in 0..8 {
        let report = bench.assert_equal(&asked, run, &places, &format!("run {run}"));
        assert_eq!(report.binding, BindingMode::DirectBind);
    }
}

#[test]
fn pitfall_54_addresses_that_drift_are_staged_for_a_while_and_come_back() {
    let _double = Double::with("");
    let asked = rows(4);
    let new = Bench::new("drifting addresses", DeviceOptions::default(), "dense.onnx", &asked);
    let Some(mut bench) = new else { return };
    let all: Vec<Places> = (0..5).map(|_| bench.places(&asked)).collect();
    let mut bindings = Vec::new();
    let settings = Settings::default();
    let n_staged = settings.probation_runs as usize;
    // Three runs until there is a graph, then another memory each time.
    let n_steady = settings.warm_runs as usize + 1;
    for run in 0..n_steady + n_staged + 8 {
        let places = if run < n_steady { &all[0] } else { &all[1 + run % 4] };
        bindings.push(bench.assert_equal(&asked, run, places, &format!("run {run}")).binding);
    }
    let fall = n_steady + settings.misses_to_staged as usize - 1;
    let direct = |binding: &BindingMode| *binding == BindingMode::DirectBind;
    assert!(bindings[..fall].iter().all(direct), "{bindings:?}");
    assert!(!bindings[fall..fall + n_staged].iter().any(direct), "{bindings:?}");
    assert!(direct(&bindings[fall + n_staged]), "{bindings:?}");
    // What stays where it is is replayed again, once its time staged is over.
    let last =
        (0..3 * n_staged).map(|run| bench.assert_equal(&asked, run, &all[0], "steady")).last();
    let last = last.unwrap();
    assert_eq!((last.binding, last.replayed), (BindingMode::DirectBind, true));
}

#[test]
fn what_does_not_fit_the_program_is_refused_and_the_next_request_is_served() {
    let _double = Double::with("");
    let asked = rows(4);
    let new = Bench::new("refusals", DeviceOptions::default(), "dense.onnx", &asked);
    let Some(mut bench) = new else { return };
    let good = bench.places(&asked);
    let wide = bench.inputs(&rows(3), 0);
    let inexact = bench.run(&[bench.place(&wide[0])], &good.outputs).unwrap_err();
    assert!(matches!(inexact, DeviceRunError::Run(RunError::NotReady { .. })), "{inexact}");
    let none = bench.run(&good.inputs, &[]).unwrap_err();
    assert!(matches!(none, DeviceRunError::OutputCount { found: 0, .. }), "{none}");
    let small = Tensor::zeroed(DataType::F32, &[1]).unwrap();
    let small = bench.run(&good.inputs, &[bench.place(&small)]).unwrap_err();
    assert!(matches!(small, DeviceRunError::Mismatch { .. }), "{small}");
    let missing = bench.run(&[], &good.outputs).unwrap_err();
    assert!(matches!(missing, DeviceRunError::Run(RunError::Bind(_))), "{missing}");
    let report = bench.assert_equal(&asked, 1, &good, "after refusals");
    assert_eq!(report.binding, BindingMode::DirectBind);
}

#[test]
fn pitfall_70_an_output_over_an_input_is_refused() {
    let _double = Double::with("");
    let asked = rows(4);
    let new = Bench::new("overlap", DeviceOptions::default(), "identity.onnx", &asked);
    let Some(mut bench) = new else { return };
    let input = bench.inputs(&asked, 0).remove(0);
    let placed = bench.place(&input);
    let both = Placed { tensor: placed.tensor.clone(), buffer: Arc::clone(&placed.buffer) };
    let error = bench.run(&[placed], &[both]).unwrap_err();
    assert!(matches!(error, DeviceRunError::Overlap { .. }), "{error}");
}

#[test]
fn indices_that_nobody_checked_are_refused() {
    let _double = Double::with("");
    let asked = vec![("batch", 4), ("sequence", 8)];
    let new = Bench::new("unchecked indices", DeviceOptions::default(), "encoder.onnx", &asked);
    let Some(mut bench) = new else { return };
    let mut places = bench.places(&asked);
    for (placed, input) in places.inputs.iter_mut().zip(bench.inputs(&asked, 0)) {
        let buffer = Arc::clone(&placed.buffer);
        placed.tensor = DeviceTensor::new(input.dtype(), input.shape(), buffer, 0).unwrap();
    }
    let error = bench.run(&places.inputs, &places.outputs).unwrap_err();
    assert!(matches!(error, DeviceRunError::UncheckedIndices { .. }), "{error}");
}

#[test]
fn memory_that_is_too_short_or_not_aligned_is_no_tensor() {
    let _double = Double::with("");
    let asked = rows(4);
    let new = Bench::new("odd memory", DeviceOptions::default(), "dense.onnx", &asked);
    let Some(bench) = new else { return };
    let buffer = bench.buffer(1024);
    let at = |n: usize, offset| DeviceTensor::new(DataType::F32, &[n], Arc::clone(&buffer), offset);
    assert!(at(64, 768).is_ok() && at(0, 1024).is_ok());
    assert!(matches!(at(65, 768), Err(DeviceTensorError::Beyond { .. })));
    assert!(matches!(at(1, usize::MAX), Err(DeviceTensorError::Beyond { .. })));
    assert!(matches!(at(1, 4), Err(DeviceTensorError::Unaligned { .. })));
    assert!(matches!(at(usize::MAX, 0), Err(DeviceTensorError::TooLarge { .. })));
}

/// Two devices are needed for memory of the wrong one; on a machine with one nothing is left to try.
#[test]
fn memory_of_another_device_is_refused() {
    let _double = Double::with("");
    let asked = rows(4);
    let new = Bench::new("another device", DeviceOptions::default(), "dense.onnx", &asked);
    let Some(mut bench) = new else { return };
    let hip = Arc::clone(bench.stream.device().hip());
    let Ok(other) = Device::new(hip, 1) else {
        crate::common::skipped("another device", "there is only one");
        return;
    };
    let mut places = bench.places(&asked);
    let input = bench.inputs(&asked, 0).remove(0);
    let buffer = Arc::new(DeviceBuffer::new(&other, input.bytes().len()).unwrap());
    let tensor = DeviceTensor::new(input.dtype(), input.shape(), Arc::clone(&buffer), 0).unwrap();
    places.inputs[0] = Placed { tensor, buffer };
    let error = bench.run(&places.inputs, &places.outputs).unwrap_err();
    assert!(matches!(error, DeviceRunError::WrongDevice { found: 1, .. }), "{error}");
}

/// The host's programs take nothing on a device; this needs none.
#[test]
fn programs_on_the_host_refuse_a_device() {
    use shapeyard_migraphx::{MigraphxBackend, Target};
    let _double = Double::with("");
    let options = crate::common::options(Target::Ref, DeviceOptions::default());
    let backend = MigraphxBackend::new(options).unwrap();
    let (model, folder) = (model("dense.onnx"), tempfile::tempdir().unwrap());
    let artifacts = artifacts(&backend, &model, &[shape([("batch", 4)])], &folder).unwrap();
    let job = shapeyard_core::backend::LoadJob {
        artifacts: &artifacts,
        ..shapeyard_core::backend::LoadJob::of(&model)
    };
    let mut session = backend.load_programs(&job).unwrap().open_session().unwrap();
    assert!(session.device().is_none());
    let error = session.run_on_device(&[], &mut []).unwrap_err();
    assert!(matches!(error, DeviceRunError::NoDevice), "{error}");
}
