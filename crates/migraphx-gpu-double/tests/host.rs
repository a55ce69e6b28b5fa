//! What needs no device: the C API, reading models, the target `ref`, files, faults.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "the calls of a C API")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::{Double, Failed, Program, call, inputs, made, model_path};
use migraphx_sys::{DataTypes, Version};
use shapeyard_core::backend::{Backend as _, LoadJob, SessionOptions};
use shapeyard_core::{Model, Outputs, Request, Tensor, TensorView};
use shapeyard_cpu::Rten;

/// Models that rten computes too, with an extent for their open axes.
const MODELS: [(&str, usize); 26] = [
    ("identity.onnx", 3),
    ("add_one.onnx", 3),
    ("dense.onnx", 5),
    ("chain.onnx", 3),
    ("encoder.onnx", 4),
    ("many_inputs.onnx", 2),
    ("many_outputs.onnx", 3),
    ("scalars.onnx", 3),
    ("fixed_leading.onnx", 4),
    ("batch_mean.onnx", 3),
    ("unnamed_dims.onnx", 2),
    ("initializer_inputs.onnx", 3),
    ("shared_mask.onnx", 3),
    ("halves.onnx", 3),
    ("tokens.onnx", 3),
    ("time_major.onnx", 3),
    ("views.onnx", 3),
    ("running_sum.onnx", 4),
    ("sentinel_mean.onnx", 3),
    ("parity.onnx", 4),
    ("longest.onnx", 3),
    ("similarity.onnx", 3),
    ("rounded_up.onnx", 5),
    ("positions.onnx", 4),
    ("lookup.onnx", 3),
    ("memory.onnx", 3),
];

/// What rten answers to the same bytes.
fn on_the_cpu(file: &str, given: &BTreeMap<String, Vec<u8>>, program: &Program<'_>) -> Vec<Tensor> {
    let model = Model::open(model_path(file)).unwrap();
    let executable = Rten::new().load(&LoadJob::of(&model)).unwrap();
    let shapes: BTreeMap<_, _> = program.parameters().into_iter().collect();
    let tensors: Vec<Tensor> = executable
        .signature()
        .inputs
        .iter()
        .map(|input| {
            let lengths = &shapes[&input.name].lengths;
            let is_scalar = input.shape.as_ref().is_some_and(Vec::is_empty);
            let lengths = if is_scalar { &[][..] } else { lengths };
            let mut tensor = Tensor::zeroed(input.dtype, lengths).unwrap();
            tensor.bytes_mut().copy_from_slice(&given[&input.name]);
            tensor
        })
        .collect();
    let views: Vec<TensorView<'_>> = tensors.iter().map(Tensor::view).collect();
    let request = Request::bind(executable.signature(), &views).unwrap();
    let mut outputs = Outputs::new();
    let mut session = executable.session(&SessionOptions::threads(1)).unwrap();
    session.run(&request, &mut outputs).unwrap();
    outputs.into_tensors()
}

fn assert_alike(file: &str, found: &[u8], expected: &Tensor) {
    let Ok(expected) = expected.as_slice::<f32>() else {
        return assert_eq!(found, expected.bytes(), "{file}");
    };
    let found: Vec<f32> =
        found.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    assert_eq!(found.len(), expected.len(), "{file}");
    for (found, expected) in found.iter().zip(expected) {
        let near = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
        assert!(near || found.is_nan() && expected.is_nan(), "{file}: {found} and {expected}");
    }
}

#[test]
fn networks_answer_as_on_the_cpu() {
    let double = Double::with("");
    for (file, extent) in MODELS {
        let program = Program::open(&double, file, extent).unwrap();
        let program = program.compile(c"ref", false).unwrap();
        let given = inputs(&program, extent);
        let found = program.run_on_host(&given).unwrap();
        let expected = on_the_cpu(file, &given, &program);
        assert_eq!(found.len(), expected.len(), "{file}");
        for ((found, expected), shape) in found.iter().zip(&expected).zip(program.outputs()) {
            assert_alike(file, found, expected);
            let lengths = if expected.shape().is_empty() { &[1][..] } else { expected.shape() };
            assert_eq!(shape.lengths, lengths, "{file}");
        }
    }
}

#[test]
fn other_types_than_floats_are_computed() {
    let double = Double::with("");
    let program = Program::open(&double, "mixed_types.onnx", 2).unwrap();
    let program = program.compile(c"ref", false).unwrap();
    let given = BTreeMap::from([
        (
            "count".to_owned(),
            [-1_i32, 2, 3, 4, 5, 6].iter().flat_map(|n| n.to_le_bytes()).collect(),
        ),
        ("offset".to_owned(), [1_i64 << 40; 6].iter().flat_map(|n| n.to_le_bytes()).collect()),
        ("flag".to_owned(), vec![0, 1, 0, 1, 0, 1]),
        ("level".to_owned(), vec![200, 1, 2, 3, 4, 5]),
        ("weight".to_owned(), [0.5_f64; 6].iter().flat_map(|n| n.to_le_bytes()).collect()),
    ]);
    let found = program.run_on_host(&given).unwrap();
    let total: Vec<i64> =
        found[0].as_chunks::<8>().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect();
    assert_eq!(total, [199, 3, 5, 7, 9, 11].map(|n| n + (1_i64 << 40)));
    assert_eq!(found[1], [1, 0, 1, 0, 1, 0]);
    assert_eq!(found[2][..8], [100.0_f32, 0.5].map(f32::to_le_bytes).concat());
}

#[test]
fn halves_are_rounded_as_halves() {
    let double = Double::with("");
    let program = Program::open(&double, "half.onnx", 1).unwrap().compile(c"ref", false).unwrap();
    let halves = [0.1_f32, 1000.7, -0.5, 65504.0].map(half::f16::from_f32);
    let bytes = halves.iter().flat_map(|number| number.to_le_bytes()).collect();
    let found = program.run_on_host(&BTreeMap::from([("x".to_owned(), bytes)])).unwrap();
    let expected = halves.map(|number| (number + half::f16::from_f32(0.5)).to_le_bytes()).concat();
    assert_eq!(found[0], expected);
}

#[test]
fn pitfall_75_both_numberings_are_spoken() {
    for (settings, types, minor, float) in
        [("", DataTypes::WithFp4x2, 14, 4), ("types-without-fp4x2", DataTypes::WithoutFp4x2, 13, 3)]
    {
        let double = Double::with(settings);
        assert_eq!(double.library.data_types(), types);
        let version = double.library.version().unwrap();
        assert_eq!(version, Version { major: 2, minor, patch: 0 });
        let program = Program::open(&double, "add_one.onnx", 2).unwrap();
        assert_eq!(program.parameters()[0].1.number, float);
        let program = program.compile(c"ref", false).unwrap();
        let given = inputs(&program, 1);
        let expected: Vec<u8> = given["x"]
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|four| (f32::from_le_bytes(*four) + 1.0).to_le_bytes())
            .collect();
        assert_eq!(program.run_on_host(&given).unwrap(), [expected]);
    }
}

#[test]
fn outputs_are_parameters_in_the_order_of_a_hash() {
    let double = Double::with("without-device");
    let open = || Program::open(&double, "many_outputs.onnx", 3).unwrap();
    let program = open().compile(c"gpu", false).unwrap();
    let names: Vec<String> = program.parameters().into_iter().map(|(name, _)| name).collect();
    let mut expected: Vec<String> = (0..12).map(|index| format!("main:#output_{index}")).collect();
    expected.push("x".to_owned());
    assert_ne!(names, expected);
    let mut sorted = names.clone();
    sorted.sort();
    assert_ne!(names, sorted, "neither declared nor sorted");
    expected.sort();
    assert_eq!(sorted, expected);
    assert_eq!(program.outputs().len(), 12);
    let copying = open().compile(c"gpu", true).unwrap();
    assert_eq!(copying.parameters().len(), 1);
    assert_eq!(open().parameters().len(), 1);
}

#[test]
fn what_is_passed_through_or_constant_is_no_parameter() {
    let double = Double::with("without-device");
    let names = |file: &str| {
        let program = Program::open(&double, file, 4).unwrap().compile(c"gpu", false).unwrap();
        let mut names: Vec<String> =
            program.parameters().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    };
    assert_eq!(names("identity.onnx"), ["x"]);
    assert_eq!(names("fixed_leading.onnx"), ["main:#output_0", "x"]);
    double.change("without-device,extra=1,scratch-parameter");
    assert_eq!(names("time_major.onnx"), ["main:#output_0", "x"]);
    assert_eq!(names("dense.onnx"), ["main:#output_0", "scratch", "x"]);
}

#[test]
fn a_scalar_shows_as_one_axis_without_a_distance() {
    let double = Double::with("");
    let program = Program::open(&double, "scalars.onnx", 2).unwrap();
    let shapes: BTreeMap<_, _> = program.parameters().into_iter().collect();
    assert_eq!(
        (shapes["scale"].lengths.as_slice(), shapes["scale"].strides.as_slice()),
        (&[1][..], &[0][..])
    );
}

#[test]
fn a_program_comes_back_from_its_file() {
    let double = Double::with("");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dense.mxr");
    let program = Program::open(&double, "dense.onnx", 3).unwrap().compile(c"ref", false).unwrap();
    program.save(&file, c"msgpack").unwrap();
    let back = Program::load(&double, &file).unwrap();
    assert_eq!((back.parameters(), back.outputs()), (program.parameters(), program.outputs()));
    let given = inputs(&program, 1);
    assert_eq!(back.run_on_host(&given).unwrap(), program.run_on_host(&given).unwrap());
    let whole = fs::read(&file).unwrap();
    for n in [0, 10, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..n]).unwrap();
        assert_eq!(Program::load(&double, &file).err(), Some(Failed(4)), "{n} bytes");
    }
    assert_eq!(Program::load(&double, &folder.path().join("none.mxr")).err(), Some(Failed(4)));
    assert_eq!(program.save(&file, c"text").err(), Some(Failed(4)));
}

#[test]
fn a_gpu_program_needs_no_device_to_be_looked_at() {
    let double = Double::with("without-device");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dense.mxr");
    let program = Program::open(&double, "dense.onnx", 3).unwrap().compile(c"gpu", true).unwrap();
    program.save(&file, c"msgpack").unwrap();
    let back = Program::load(&double, &file).unwrap();
    assert_eq!(back.outputs(), program.outputs());
    assert_eq!(back.run_on_host(&inputs(&back, 1)), Err(Failed(4)));
}

#[test]
fn parameters_are_looked_for_and_measured() {
    let double = Double::with("");
    let program =
        Program::open(&double, "add_one.onnx", 3).unwrap().compile(c"ref", false).unwrap();
    assert_eq!(program.run_on_host(&BTreeMap::new()), Err(Failed(4)));
    let other = Program::open(&double, "add_one.onnx", 2).unwrap();
    let given = inputs(&other, 1);
    let addresses =
        given.iter().map(|(name, bytes)| (name.clone(), bytes.as_ptr().expose_provenance()));
    let bound = other.bind(&addresses.collect());
    assert_eq!(made!(double, program_run(program.raw, bound.raw)), Err(Failed(4)));
}

#[test]
fn a_stream_has_to_be_declared_as_one_of_hip() {
    let double = Double::with("");
    let program =
        Program::open(&double, "add_one.onnx", 3).unwrap().compile(c"ref", false).unwrap();
    let given = inputs(&program, 1);
    let addresses =
        given.iter().map(|(name, bytes)| (name.clone(), bytes.as_ptr().expose_provenance()));
    let bound = program.bind(&addresses.collect());
    let run = |name: &std::ffi::CStr| {
        let results = made!(
            double,
            program_run_async(program.raw, bound.raw, std::ptr::null_mut(), name.as_ptr())
        )?;
        call!(double, arguments_destroy(results))
    };
    assert_eq!(run(c"hipStream_t"), Err(Failed(4)));
    assert_eq!(run(c"ihipStream_t"), Ok(()));
}

#[test]
fn faults_come_when_they_are_asked_for() {
    let double = Double::with("parse-fails=2");
    let open = || Program::open(&double, "add_one.onnx", 2);
    assert!(open().is_ok());
    assert_eq!(open().err(), Some(Failed(4)));
    assert!(open().is_ok());
    double.change("compile-fails");
    assert_eq!(open().unwrap().compile(c"ref", false).err(), Some(Failed(4)));
    double.change("load-fails");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.mxr");
    open().unwrap().compile(c"ref", false).unwrap().save(&file, c"msgpack").unwrap();
    assert_eq!(Program::load(&double, &file).err(), Some(Failed(4)));
}

#[test]
fn what_no_one_knows_is_refused() {
    let double = Double::with("");
    assert_eq!(Program::open(&double, "unknown_operator.onnx", 2).err(), Some(Failed(4)));
    assert_eq!(Program::open(&double, "none.onnx", 2).err(), Some(Failed(4)));
    let program = Program::open(&double, "add_one.onnx", 2).unwrap();
    assert_eq!(program.compile(c"cpu", false).err(), Some(Failed(4)));
    let mut out = 0;
    assert_eq!(call!(double, shape_bytes(&mut out, std::ptr::null())), Err(Failed(1)));
    let module = made!(double, program_create_module(std::ptr::null_mut(), c"a".as_ptr()));
    assert_eq!(module, Err(Failed(4)));
}
