//! ggml beside the embedded engine, on the same ONNX files; on the device that `SHAPEYARD_GGML_DEVICE` names.

// Helpers of tests are no tests to the lints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod common;

use std::fs;
use std::path::PathBuf;
use std::thread;

use common::onnx::{FLOAT, Graph, INT64};
use common::{
    assert_close, ggml, ggml_device, ggml_on_the_processor, ggml_options, inputs, lane, load,
    model, onnxruntime, rten, run, shape,
};
use shapeyard_core::backend::{BackendError, LoadJob, Status};
use shapeyard_core::registry::Registry;
use shapeyard_core::{Backend, Executable, Model, Outputs, RunError, Tensor, Tier};
use shapeyard_cpu::{CpuOptions, Ggml};

const SERVED: [&str; 11] = [
    "identity.onnx",
    "add_one.onnx",
    "dense.onnx",
    "encoder.onnx",
    "external.onnx",
    "many_inputs.onnx",
    "many_outputs.onnx",
    "scalars.onnx",
    "fixed_leading.onnx",
    "unnamed_dims.onnx",
    "initializer_inputs.onnx",
];

fn results(backend: &dyn Backend, name: &str, batches: &[usize]) -> Vec<Outputs> {
    let executable = load(backend, &model(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut session = lane(executable.as_ref(), 1);
    let one = |&batch: &usize| result(executable.as_ref(), session.as_mut(), batch);
    batches.iter().map(one).collect()
}

fn result(
    executable: &dyn Executable,
    session: &mut dyn shapeyard_core::backend::Session,
    batch: usize,
) -> Outputs {
    let mut outputs = Outputs::new();
    run(executable, session, &inputs(executable.signature(), batch), &mut outputs).unwrap();
    outputs
}

#[test]
fn the_same_files_give_the_same_answers() {
    let Some(backend) = ggml("the_same_files_give_the_same_answers") else { return };
    let others: Vec<_> = onnxruntime("the_same_files_give_the_same_answers").into_iter().collect();
    for name in SERVED {
        let ours = results(backend.as_ref(), name, &[1, 3, 8, 2]);
        // The embedded engine opens external data under other names only.
        let embedded = (name != "external.onnx").then(rten);
        for other in embedded.iter().chain(&others) {
            let theirs = results(other.as_ref(), name, &[1, 3, 8, 2]);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_close(ours, theirs, 1e-4, name);
            }
        }
    }
}

#[test]
fn a_mean_over_the_batch_is_taken_over_the_batch() {
    let Some(backend) = ggml("a_mean_over_the_batch_is_taken_over_the_batch") else { return };
    let ours = results(backend.as_ref(), "batch_mean.onnx", &[1, 4, 3]);
    let theirs = results(rten().as_ref(), "batch_mean.onnx", &[1, 4, 3]);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_close(ours, theirs, 1e-5, "batch mean");
    }
}

#[test]
fn the_first_operator_that_is_missing_is_named() {
    let Some(backend) = ggml("the_first_operator_that_is_missing_is_named") else { return };
    for (name, words) in [
        ("unknown_operator.onnx", "no operator `Frobnicate`"),
        ("conv.onnx", "no operator `Conv`"),
        ("half.onnx", "input `x` is f16"),
        ("mixed_types.onnx", "input `level` is u8"),
        ("future_opset.onnx", "operator set 999"),
    ] {
        let error = load(backend.as_ref(), &model(name)).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

/// What no request can be answered with is refused when the model is loaded, on the host as on the device.
#[test]
fn cases_that_are_not_computed_are_refused_at_load() {
    let Some(backend) = ggml("cases_that_are_not_computed_are_refused_at_load") else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = || {
        let graph = Graph::default().input("x", INT64, &[0, 4]).output("y", INT64, &[0, 4]);
        graph.integers("one", &[1])
    };
    let to = |dtype| [("to", dtype)];
    for (graph, words) in [
        (graph().node("Cast", &["x"], "h", &to(10)).node("Cast", &["h"], "y", &to(7)), "`Cast`"),
        (graph().node("Mod", &["x", "x"], "y", &[("fmod", 1)]), "`Mod`"),
        (graph().node("CumSum", &["x", "one"], "y", &[("reverse", 1)]), "`CumSum`"),
        (graph().node("CumSum", &["x", "one"], "y", &[("exclusive", 1)]), "`CumSum`"),
        (graph().node("Sin", &["x"], "y", &[]), "`Sin`"),
        (
            graph().node("Cast", &["x"], "h", &to(FLOAT)).node("Equal", &["x", "h"], "y", &[]),
            "`Equal`",
        ),
    ] {
        let error = load(backend.as_ref(), &graph.model(folder.path())).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    // What fails on a trial of zeros alone is served.
    let divided = graph().node("Div", &["x", "x"], "y", &[]).model(folder.path());
    let executable = load(backend.as_ref(), &divided).unwrap();
    let x = Tensor::from_slice(&[1, 4], &[1i64, 2, 3, 4]).unwrap();
    let mut session = lane(executable.as_ref(), 1);
    run(executable.as_ref(), session.as_mut(), &[x], &mut Outputs::new()).unwrap();
}

/// Another backend would not help: the file has to be put there again.
#[test]
fn a_file_that_is_cut_or_gone_is_told_from_one_that_is_not_taken() {
    let test = "a_file_that_is_cut_or_gone_is_told_from_one_that_is_not_taken";
    let Some(backend) = ggml(test) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::copy(common::path("dense.onnx"), &path).unwrap();
    let model = Model::open(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(model.n_bytes() - 1).unwrap();
    let error = load(backend.as_ref(), &model).err().unwrap();
    assert!(matches!(error, BackendError::ModelFile(_)), "{error}");
    fs::remove_file(&path).unwrap();
    let error = load(backend.as_ref(), &model).err().unwrap();
    assert!(matches!(error, BackendError::ModelFile(_)), "{error}");
}

/// What a file of a few bytes declares or makes is refused before memory is asked for.
#[test]
fn tensors_larger_than_any_host_has_are_refused() {
    let Some(backend) = ggml("tensors_larger_than_any_host_has_are_refused") else { return };
    let folder = tempfile::tempdir().unwrap();
    let of = |shape: &[u64]| {
        let graph = Graph::default().input("x", INT64, shape).output("y", INT64, shape);
        graph.node("Identity", &["x"], "y", &[])
    };
    let declared = [of(&[1 << 40]), of(&[1 << 33, 1 << 33]), of(&[0, 1 << 40])];
    let grown = |node: fn(Graph) -> Graph| {
        let graph = Graph::default().input("x", FLOAT, &[0, 4]).output("y", INT64, &[1 << 32]);
        node(graph.integers("n", &[1 << 16, 1 << 16]).integers("one", &[1]))
    };
    let made = [
        grown(|graph| graph.node("ConstantOfShape", &["n"], "y", &[])),
        grown(|graph| graph.node("Expand", &["one", "n"], "y", &[])),
        grown(|graph| {
            let zeros = |graph: Graph, shape: &str, zeros: &str| {
                graph.node("ConstantOfShape", &[shape], zeros, &[])
            };
            let graph = graph.integers("column", &[1 << 16, 1]).integers("row", &[1, 1 << 16]);
            let graph = zeros(zeros(graph, "column", "a"), "row", "b");
            graph.node("Add", &["a", "b"], "y", &[])
        }),
        grown(|graph| {
            let graph =
                graph.integers("many", &[1 << 14]).node("ConstantOfShape", &["many"], "a", &[]);
            graph.node("Concat", &["a"; 1 << 13], "y", &[("axis", 0)])
        }),
    ];
    for graph in declared.into_iter().chain(made) {
        let error = load(backend.as_ref(), &graph.model(folder.path())).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
        assert!(error.to_string().contains("more elements than the host computes with"), "{error}");
    }
}

/// The library goes through a graph by calling itself; the stack of a thread has room for some 33,000 calls.
#[test]
fn a_chain_of_any_length_is_served() {
    let Some(backend) = ggml("a_chain_of_any_length_is_served") else { return };
    let folder = tempfile::tempdir().unwrap();
    let graph = Graph::default().input("x0", FLOAT, &[0, 4]).output("x50000", FLOAT, &[0, 4]);
    let one =
        |graph: Graph, n: u32| graph.node("Relu", &[&format!("x{n}")], &format!("x{}", n + 1), &[]);
    let model = (0..50_000).fold(graph, one).model(folder.path());
    let x = Tensor::from_slice(&[1, 4], &[-1.0f32, 0.0, 2.0, -3.0]).unwrap();
    let served = || {
        let executable = load(backend.as_ref(), &model).unwrap();
        let mut outputs = Outputs::new();
        let mut session = lane(executable.as_ref(), 1);
        run(executable.as_ref(), session.as_mut(), &[x], &mut outputs).unwrap();
        assert_eq!(outputs.tensors()[0].as_slice::<f32>().unwrap(), [0.0, 0.0, 2.0, 0.0]);
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(2 << 20);
        thread.spawn_scoped(scope, served).unwrap().join().unwrap();
    });
}

#[test]
fn two_lanes_give_the_bytes_of_one() {
    let Some(backend) = ggml("two_lanes_give_the_bytes_of_one") else { return };
    let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
    let work = || {
        let mut session = lane(executable.as_ref(), 1);
        // More shapes than a lane keeps graphs, twice.
        let batches = (1..12).chain(1..12);
        batches
            .map(|batch| result(executable.as_ref(), session.as_mut(), batch))
            .collect::<Vec<_>>()
    };
    let serial = work();
    thread::scope(|scope| {
        for lane in [scope.spawn(work), scope.spawn(work)] {
            assert!(lane.join().unwrap() == serial);
        }
    });
}

#[test]
fn threads_do_not_change_the_result() {
    let test = "threads_do_not_change_the_result";
    let Some(backend) = ggml_on_the_processor(test) else { return };
    let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
    let with = |n_threads| {
        let mut session = lane(executable.as_ref(), n_threads);
        result(executable.as_ref(), session.as_mut(), 5);
        result(executable.as_ref(), session.as_mut(), 8)
    };
    assert_close(&with(1), &with(2), 1e-6, "two threads");
}

#[test]
fn a_graph_is_described_once_a_shape() {
    let Some(backend) = ggml("a_graph_is_described_once_a_shape") else { return };
    let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
    let (mut session, mut outputs) = (lane(executable.as_ref(), 1), Outputs::new());
    let mut places = Vec::new();
    for (n, (batch, tier)) in [
        (8, Tier::Cached),
        (8, Tier::Rebind),
        (3, Tier::Cached),
        (8, Tier::Cached),
        (8, Tier::Rebind),
    ]
    .into_iter()
    .enumerate()
    {
        let mut tensors = inputs(executable.signature(), batch);
        tensors[0].as_mut_slice::<i64>().unwrap().rotate_left(n);
        let report = run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
        assert_eq!(report.tier, tier, "run {n}");
        places.push(outputs.tensors()[0].bytes().as_ptr().addr());
        let (mut fresh, mut wanted) = (lane(executable.as_ref(), 1), Outputs::new());
        run(executable.as_ref(), fresh.as_mut(), &tensors, &mut wanted).unwrap();
        assert!(outputs == wanted, "run {n}");
    }
    places.dedup();
    assert_eq!(places.len(), 1, "outputs stay where they are");
}

#[test]
fn a_request_without_rows_gets_none_back() {
    let Some(backend) = ggml("a_request_without_rows_gets_none_back") else { return };
    let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
    let outputs = result(executable.as_ref(), lane(executable.as_ref(), 1).as_mut(), 0);
    let spec = &executable.signature().outputs[0];
    assert_eq!(outputs.tensors()[0].shape(), shape(executable.signature(), spec, 0));
    let executable = load(backend.as_ref(), &model("fixed_leading.onnx")).unwrap();
    let tensors = inputs(executable.signature(), 0);
    let mut session = lane(executable.as_ref(), 1);
    let error =
        run(executable.as_ref(), session.as_mut(), &tensors, &mut Outputs::new()).unwrap_err();
    assert!(matches!(&error, RunError::Empty { output, .. } if output == "prototypes"), "{error}");
}

#[test]
fn negative_indices_count_from_the_end_and_others_are_refused() {
    let Some(backend) = ggml("negative_indices_count_from_the_end_and_others_are_refused") else {
        return;
    };
    let executable = load(backend.as_ref(), &model("encoder.onnx")).unwrap();
    let (mut session, mut outputs) = (lane(executable.as_ref(), 1), Outputs::new());
    let mut tensors = inputs(executable.signature(), 1);
    let limit = i64::try_from(executable.signature().inputs[0].index_limit.unwrap()).unwrap();
    tensors[0].as_mut_slice::<i64>().unwrap()[0] = limit - 1;
    run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
    let wanted = outputs.clone();
    tensors[0].as_mut_slice::<i64>().unwrap()[0] = -1;
    run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
    assert!(outputs == wanted);
    tensors[0].as_mut_slice::<i64>().unwrap()[0] = limit;
    run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap_err();
    tensors[0].as_mut_slice::<i64>().unwrap()[0] = -1;
    run(executable.as_ref(), session.as_mut(), &tensors, &mut outputs).unwrap();
    assert!(outputs == wanted, "the lane works on after an error");
}

#[test]
fn inputs_that_are_not_aligned_are_copied() {
    let Some(backend) = ggml("inputs_that_are_not_aligned_are_copied") else { return };
    let executable = load(backend.as_ref(), &model("add_one.onnx")).unwrap();
    let whole = Tensor::from_slice(&[1, 4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    let mut bytes = [0; 17];
    let start = usize::from(bytes.as_ptr().addr().is_multiple_of(4));
    bytes[start..start + 16].copy_from_slice(whole.bytes());
    let moved = &bytes[start..start + 16];
    let view = shapeyard_core::TensorView::new(whole.dtype(), whole.shape(), moved).unwrap();
    let views = [view];
    let request = shapeyard_core::Request::bind(executable.signature(), &views).unwrap();
    let mut outputs = Outputs::new();
    lane(executable.as_ref(), 1).run(&request, &mut outputs).unwrap();
    assert_eq!(outputs.tensors()[0].as_slice::<f32>().unwrap(), [2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn what_is_no_library_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    fs::write(&text, "no library\n").unwrap();
    for path in [text, folder.path().join("missing.so"), PathBuf::from("libm.so.6")] {
        let backend = Ggml::new(&CpuOptions { ggml: Some(path), ..CpuOptions::default() });
        let probe = backend.probe();
        let Status::Unusable { reason, remedy } = probe.status else { panic!("it is no ggml") };
        assert!(reason.contains("the path that was given names"), "{reason}");
        assert!(remedy.contains("cargo xtask setup"), "{remedy}");
        assert_eq!(probe.searched.len(), 1, "a named path is strict");
        let error = load(&backend, &model("dense.onnx")).err().unwrap();
        assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
    }
}

#[test]
fn half_of_the_library_is_told_before_it_is_loaded() {
    let Some(backend) = ggml("half_of_the_library_is_told_before_it_is_loaded") else { return };
    let whole = fs::read(common::library(backend.as_ref())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("libggml.so");
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let broken = Ggml::new(&CpuOptions { ggml: Some(half), ..CpuOptions::default() });
    let Status::Unusable { reason, .. } = broken.probe().status else { panic!("it is cut off") };
    assert!(reason.contains("cut off"), "{reason}");
}

#[test]
fn it_is_asked_last_and_can_be_forced() {
    let backends = shapeyard_cpu::backends(&ggml_options());
    let names: Vec<_> = backends.iter().map(|backend| backend.id().to_string()).collect();
    assert_eq!(names, ["onnxruntime", "rten", "ggml"]);
    let Some(_) = ggml("it_is_asked_last_and_can_be_forced") else { return };
    let model = model("dense.onnx");
    let opened = Registry::new(backends).open(&"ggml".parse().unwrap(), &LoadJob::of(&model));
    assert_eq!(opened.unwrap().backend.id().as_str(), "ggml");
}

#[test]
fn the_device_that_is_named_computes() {
    let Some(backend) = ggml("the_device_that_is_named_computes") else { return };
    let device = ggml_device().unwrap_or("CPU".to_owned());
    let probe = backend.probe();
    let computing = probe.searched.iter().filter(|step| step.outcome == "computes");
    let places: Vec<_> = computing.map(|step| &step.place).collect();
    let wanted = format!("its device `{device}` ");
    assert!(matches!(&*places, [place] if place.starts_with(&wanted)), "{:?}", probe.searched);
    let Status::Usable { fingerprint, .. } = &probe.status else { panic!("it was usable before") };
    assert!(fingerprint.0.contains(&format!(" {device} ")), "{fingerprint}");
    assert_eq!(results(backend.as_ref(), "dense.onnx", &[2]).len(), 1);
}

#[test]
fn a_device_is_chosen_by_its_name() {
    let Some(_) = ggml("a_device_is_chosen_by_its_name") else { return };
    let named = |name: &str| {
        Ggml::new(&CpuOptions { ggml_device: Some(name.to_owned()), ..CpuOptions::default() })
    };
    let processor = named("CPU");
    let probe = processor.probe();
    let computes = probe.searched.iter().filter(|step| step.outcome == "computes");
    assert_eq!(computes.count(), 1, "{:?}", probe.searched);
    assert!(results(&processor, "dense.onnx", &[2]).len() == 1);
    let missing = named("Frobnicator0");
    let Status::Unusable { reason, .. } = missing.probe().status else { panic!("it is usable") };
    assert!(reason.contains("`Frobnicator0`") && reason.contains("`CPU`"), "{reason}");
    let error = load(&missing, &model("dense.onnx")).err().unwrap();
    assert!(matches!(error, BackendError::Unavailable { .. }), "{error}");
}
