//! Whose memory is whose: results that are kept, inputs that share or start anywhere.

use shapeyard_core::plan::Bucket;
use shapeyard_core::{Outputs, Tensor, TensorView};

use super::requests::inputs;
use super::support::{Loaded, bucket, everywhere};

fn shape(batch: usize, sequence: usize) -> Bucket {
    bucket([("batch", batch), ("sequence", sequence)])
}

fn encoders(test: &str) -> Vec<Loaded> {
    everywhere(test, "encoder.onnx", &[shape(2, 4), shape(4, 8)])
}

fn given(loaded: &Loaded, shape: &Bucket, seed: usize) -> Vec<Tensor> {
    inputs(loaded.executable.signature(), shape, seed)
}

#[test]
fn pitfall_77_the_same_request_has_the_same_answer_bit_for_bit() {
    for mut loaded in encoders("determinism") {
        // Padded, and split.
        for shape in [shape(3, 5), shape(6, 7)] {
            let given = given(&loaded, &shape, 1);
            let first = loaded.answer(&given);
            for n in 0..100 {
                assert_eq!(loaded.answer(&given), first, "{}, run {n}", loaded.name());
            }
        }
    }
}

#[test]
fn pitfall_76_results_that_are_kept_stay_what_they_were() {
    for mut loaded in encoders("kept results") {
        let requests: Vec<Vec<Tensor>> =
            (0..12).map(|seed| given(&loaded, &shape(1 + seed % 6, 1 + seed % 8), seed)).collect();
        let alone: Vec<Vec<Tensor>> =
            requests.iter().map(|request| loaded.lane().answer(request)).collect();
        let kept: Vec<Vec<Tensor>> = requests.iter().map(|it| loaded.answer(it)).collect();
        assert_eq!(kept, alone, "{}", loaded.name());
    }
}

#[test]
fn outputs_that_are_used_again_hold_the_last_answer_alone() {
    for mut loaded in encoders("reused outputs") {
        let mut outputs = Outputs::new();
        for (batch, sequence) in [(4, 8), (1, 1), (6, 7), (2, 4), (3, 8)] {
            let given = given(&loaded, &shape(batch, sequence), batch);
            let views: Vec<TensorView<'_>> = given.iter().map(Tensor::view).collect();
            loaded.run_into(&views, &mut outputs).unwrap();
            assert_eq!(outputs.tensors(), loaded.lane().answer(&given), "{}", loaded.name());
        }
    }
}

#[test]
fn pitfalls_70_and_72_one_buffer_for_190_inputs() {
    let buckets = [bucket([("batch", 4)])];
    for mut loaded in everywhere("shared inputs", "many_inputs.onnx", &buckets) {
        let one = given(&loaded, &bucket([("batch", 3)]), 5).remove(0);
        let shared: Vec<TensorView<'_>> = vec![one.view(); 190];
        let copies: Vec<Tensor> = vec![one.clone(); 190];
        let answer = loaded.run_views(&shared).unwrap().1;
        assert_eq!(answer, loaded.answer(&copies), "{}", loaded.name());
    }
}

#[test]
fn pitfall_71_inputs_may_start_at_any_address() {
    for mut loaded in encoders("unaligned inputs") {
        for shape in [shape(2, 4), shape(3, 5), shape(5, 8)] {
            let given = given(&loaded, &shape, 3);
            let aligned = loaded.answer(&given);
            for shift in 1..8 {
                let moved: Vec<Vec<u8>> =
                    given.iter().map(|it| [&vec![0xAA; shift], it.bytes()].concat()).collect();
                let views: Vec<TensorView<'_>> = given
                    .iter()
                    .zip(&moved)
                    .map(|(it, bytes)| {
                        TensorView::new(it.dtype(), it.shape(), &bytes[shift..]).unwrap()
                    })
                    .collect();
                let answer = loaded.run_views(&views).unwrap().1;
                assert_eq!(answer, aligned, "{} shifted by {shift}", loaded.name());
            }
        }
    }
}
