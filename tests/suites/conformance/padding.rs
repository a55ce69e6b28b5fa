//! What padding and slicing are known to get wrong, against the real library.

use shapeyard_core::backend::{Backend, BackendError, CompileJob, LoadJob};
use shapeyard_core::plan::Bucket;
use shapeyard_core::{DataType, Route, RunError, Tensor};
use shapeyard_migraphx::{MigraphxOptions, Padding, PaddingPolicy};

use super::asked::{ask, run_twice};
use super::requests::{assert_alike, inputs, noise};
use super::support::{
    Loaded, Programs, batches, bucket, compiled, dynamic, everywhere, migraphx, migraphx_with,
    model, onnxruntime, options, rten,
};

fn given(loaded: &Loaded, shape: &Bucket) -> Vec<Tensor> {
    inputs(loaded.executable.signature(), shape, 7)
}

/// Answers of MIGraphX for some shapes are those of ONNX Runtime, all of them padded.
fn padded_alike(test: &str, file: &str, program: &Bucket, shapes: &[Bucket]) {
    let (Some(backend), Some(reference)) = (migraphx(test), onnxruntime(test)) else { return };
    let mut loaded = compiled(backend.as_ref(), file, [program.clone()]);
    for asked in ask(&mut dynamic(reference.as_ref(), file), shapes.iter().cloned()) {
        let report = run_twice(&mut loaded, &asked).unwrap();
        assert_eq!(report.route, Route::Padded, "{file} {}", asked.shape);
    }
}

#[test]
fn pitfall_38_an_input_without_rows_is_left_alone() {
    let test = "inputs without rows";
    // `table` has as many rows as the program, and none of them is one.
    padded_alike(test, "scalars.onnx", &bucket([("batch", 4)]), &batches(&[1, 2, 3]));
    let whole = bucket([("batch", 4), ("sequence", 5)]);
    let shapes = [(3, 3), (4, 1), (1, 5)]
        .map(|(batch, sequence)| bucket([("batch", batch), ("sequence", sequence)]));
    padded_alike(test, "shared_mask.onnx", &whole, &shapes);
}

#[test]
fn pitfall_39_an_output_that_only_looks_like_rows_is_not_cut() {
    let Some(backend) = migraphx("fixed outputs") else { return };
    let mut loaded = compiled(backend.as_ref(), "fixed_leading.onnx", batches(&[4]));
    let whole = given(&loaded, &bucket([("batch", 4)]));
    let whole = loaded.answer(&whole).remove(1);
    for n_rows in 1..4 {
        let some = given(&loaded, &bucket([("batch", n_rows)]));
        let answer = loaded.answer(&some);
        assert_eq!(answer[0].shape(), [n_rows, 4]);
        assert_eq!(answer[1], whole);
    }
}

#[test]
fn pitfall_40_flattened_rows_have_a_factor() {
    let shapes = batches(&[1, 2, 3]);
    padded_alike("flattened rows", "halves.onnx", &bucket([("batch", 4)]), &shapes);
}

#[test]
fn pitfall_40_flattened_rows_and_lengths_run_exactly_or_not_at_all() {
    let Some(backend) = migraphx("flattened tokens") else { return };
    let Some(reference) = onnxruntime("flattened tokens") else { return };
    let whole = bucket([("batch", 2), ("sequence", 4)]);
    let mut loaded = compiled(backend.as_ref(), "tokens.onnx", [whole.clone()]);
    let mut reference = dynamic(reference.as_ref(), "tokens.onnx");
    let asked = ask(&mut reference, [whole.clone()]);
    assert_eq!(run_twice(&mut loaded, &asked[0]).unwrap().route, Route::Exact);
    for other in [("batch", 1), ("batch", 4), ("sequence", 3), ("sequence", 1)] {
        let other = whole.clone().with(other.0, other.1);
        let inputs = given(&loaded, &other);
        match loaded.run(&inputs) {
            Err(RunError::NotReady { wanted, .. }) => assert_eq!(wanted, other),
            answered => panic!("{other}: {answered:?}"),
        }
    }
}

#[test]
fn pitfalls_41_and_46_a_mean_over_what_is_padded_is_refused_by_output_and_axis() {
    let Some(backend) = migraphx("padded pictures") else { return };
    let shape = bucket([("batch", 2), ("height", 6), ("width", 7)]);
    let error = Programs::compile(backend.as_ref(), model("conv.onnx"), [shape]).err().unwrap();
    let BackendError::Model { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains("output `pooled` changes with padding along `height`"), "{reason}");
}

#[test]
fn without_padding_pictures_of_compiled_sizes_are_answered() {
    let padding = Padding { policy: PaddingPolicy::Never, ..Padding::default() };
    let options = MigraphxOptions { padding, ..options() };
    let Some(backend) = migraphx_with("pictures", options) else { return };
    let Some(reference) = onnxruntime("pictures") else { return };
    let shape = |height| bucket([("batch", 2), ("height", height), ("width", 7)]);
    let programs =
        Programs::compile(backend.as_ref(), model("conv.onnx"), [shape(6), shape(3)]).unwrap();
    let mut loaded = programs.load(backend.as_ref(), |_| true);
    for asked in ask(&mut dynamic(reference.as_ref(), "conv.onnx"), [shape(3), shape(6)]) {
        assert_eq!(run_twice(&mut loaded, &asked).unwrap().route, Route::Exact);
    }
}

#[test]
fn pitfall_44_an_empty_batch_is_answered_alike_everywhere() {
    for file in ["dense.onnx", "views.onnx", "many_inputs.onnx", "picture.onnx"] {
        let mut all = everywhere("empty batches", file, &batches(&[2]));
        let none = given(&all[0], &bucket([("batch", 0)]));
        let wanted = all[0].answer(&none);
        assert!(wanted.iter().all(|output| output.shape().contains(&0)), "{file}");
        for loaded in &mut all {
            assert_alike(&loaded.answer(&none), &wanted, &format!("{file} on {}", loaded.name()));
        }
    }
}

#[test]
fn pitfall_44_an_empty_batch_with_other_answers_is_a_typed_error() {
    let Some(backend) = migraphx("empty batches") else { return };
    for file in ["scalars.onnx", "halves.onnx"] {
        let mut loaded = compiled(backend.as_ref(), file, batches(&[2]));
        let none = given(&loaded, &bucket([("batch", 0)]));
        let error = loaded.run(&none).unwrap_err();
        assert!(matches!(&error, RunError::Empty { symbol, .. } if symbol == "batch"), "{error}");
    }
}

/// Any bytes that are no NaN in any float, since those may be made quiet.
fn any_bytes(tensor: &mut Tensor, seed: usize) {
    let most = if tensor.dtype() == DataType::Bool { 2 } else { 0x70 };
    let bytes = tensor.bytes_mut().iter_mut().enumerate();
    bytes.for_each(|(place, byte)| *byte = (noise(seed, place) % most) as u8);
}

#[test]
fn pitfall_47_rows_of_any_type_and_size_are_copied_byte_for_byte() {
    let Some(backend) = migraphx("odd rows") else { return };
    let mut loaded = compiled(backend.as_ref(), "odd_rows.onnx", batches(&[1, 4]));
    for n_rows in [1, 2, 3, 4, 5, 7, 9] {
        let mut given = given(&loaded, &bucket([("batch", n_rows)]));
        given.iter_mut().enumerate().for_each(|(seed, tensor)| any_bytes(tensor, seed));
        for (input, output) in given.iter().zip(loaded.answer(&given)) {
            let row = input.bytes().len() / n_rows;
            let twice: Vec<u8> =
                input.bytes().chunks_exact(row).flat_map(|row| [row, row].concat()).collect();
            assert_eq!(output.bytes(), twice, "{} in {n_rows} rows", input.dtype());
        }
    }
}

#[test]
fn pitfall_47_eight_bit_floats() {
    let Some(backend) = migraphx("8-bit floats") else { return };
    let mut loaded = compiled(backend.as_ref(), "float8.onnx", batches(&[1, 4]));
    // As f8e4m3fnuz, the one of the four that MIGraphX 2.14 reads from a file.
    let (codes, numbers) =
        ([0, 0x40, 0xC8, 0x7F, 1, 0x41], [0.0, 1.0, -2.0, 240.0, 0.000_976_562_5, 1.125]);
    for n_rows in [1, 2, 3, 4, 5, 6] {
        let mut given = given(&loaded, &bucket([("batch", n_rows)]));
        let bytes = given[0].bytes_mut().iter_mut().enumerate();
        bytes.for_each(|(place, byte)| *byte = codes[place % codes.len()]);
        let answer = loaded.answer(&given);
        let wanted: Vec<f32> = numbers.into_iter().cycle().take(3 * n_rows).collect();
        assert_eq!(answer[0].as_slice::<f32>().unwrap(), wanted);
    }
}

#[test]
fn pitfall_50_more_than_ten_outputs_come_in_their_order() {
    for mut loaded in everywhere("many outputs", "many_outputs.onnx", &batches(&[4])) {
        let given = given(&loaded, &bucket([("batch", 3)]));
        let outputs = loaded.answer(&given);
        assert_eq!(outputs.len(), 12);
        let x = given[0].as_slice::<f32>().unwrap();
        for (k, output) in outputs.iter().enumerate() {
            let (k, name) = (k as f32, loaded.name());
            let wanted: Vec<f32> = x.iter().map(|x| (k + 1.0) * x - k).collect();
            let wanted = Tensor::from_slice(&[3, 8], &wanted).unwrap();
            assert_alike(std::slice::from_ref(output), &[wanted], &format!("{name}, {k}"));
        }
    }
}

#[test]
fn pitfall_51_an_output_without_elements() {
    let Some(backend) = migraphx("outputs without elements") else { return };
    let Some(reference) = onnxruntime("outputs without elements") else { return };
    let mut loaded = compiled(backend.as_ref(), "no_elements.onnx", batches(&[1, 4]));
    let shapes = batches(&[1, 3, 4, 6]);
    for asked in ask(&mut dynamic(reference.as_ref(), "no_elements.onnx"), shapes) {
        run_twice(&mut loaded, &asked).unwrap();
    }
}

#[test]
fn an_operator_that_does_not_exist_is_refused_by_each() {
    let file = "unknown_operator.onnx";
    for backend in [Some(rten()), onnxruntime("refusals")].into_iter().flatten() {
        let error = backend.load(&LoadJob::of(&model(file))).err().unwrap();
        assert!(matches!(error, BackendError::Model { .. }), "{error}");
    }
    if let Some(backend) = migraphx("refusals") {
        refuses_to_compile(backend.as_ref(), file);
    }
}

fn refuses_to_compile(backend: &dyn Backend, file: &str) {
    let (model, folder) = (model(file), tempfile::tempdir().unwrap());
    let job = CompileJob::new(&model, bucket([("batch", 2)]), folder.path().join("program"));
    let error = backend.compile(&job).unwrap_err();
    assert!(matches!(error, BackendError::Model { .. }), "{file}: {error}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "something was left");
}
