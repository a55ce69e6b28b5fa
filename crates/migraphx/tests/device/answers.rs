//! Every way of running answers as the host does.

use hipgraph::{Device, PinnedBuffer};
use shapeyard_core::{Outputs, Request, Route, TensorView};
use shapeyard_migraphx::{DeviceOptions, Graphs};

use crate::common::{
    Double, Extents, Pair, assert_same, cases, gpu, inputs, run, shape, with_graphs,
};

fn answers_as_the_host(test: &str, graphs: Graphs) {
    cases_answer_as_the_host(test, graphs, cases());
}

fn cases_answer_as_the_host(
    test: &str,
    graphs: Graphs,
    cases: Vec<(&'static str, Extents, Vec<Extents>)>,
) {
    let Some(backend) = gpu(test, with_graphs(graphs)) else { return };
    for (name, compiled, wanted) in cases {
        let pair = Pair::load(&backend, name, &[compiled.into_iter().collect()]);
        let [mut device, mut host] = pair.sessions();
        let mut n_replayed = 0;
        // Eager, captured, replayed; other values each time.
        for seed in 0..6 {
            for asked in &wanted {
                let asked = asked.iter().copied().collect();
                let inputs = inputs(&pair.gpu, &asked, seed);
                let (report, found) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
                let (same, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
                assert_same(&found, &wanted, &format!("{name} {asked} seed {seed}"));
                assert_eq!((report.route, report.n_padded_rows), (same.route, same.n_padded_rows));
                n_replayed += usize::from(report.replayed);
            }
        }
        assert_eq!(n_replayed > 0, graphs != Graphs::Off, "{name}: {n_replayed} replays");
    }
}

#[test]
fn every_model_answers_as_on_the_host() {
    let _double = Double::with("");
    answers_as_the_host("answers", Graphs::Auto);
}

#[test]
fn every_model_answers_so_without_graphs_and_with_checked_ones() {
    let _double = Double::with("");
    answers_as_the_host("answers without graphs", Graphs::Off);
    answers_as_the_host("answers with checked graphs", Graphs::Checked);
}

#[test]
fn pitfall_75_the_older_numbers_of_data_types_are_read_right() {
    let _double = Double::with("types-without-fp4x2");
    answers_as_the_host("older numbers", Graphs::Auto);
}

#[test]
fn pitfall_60_outputs_in_memory_of_the_program_are_fresh() {
    let _double = Double::with("extra=0,extra=2");
    answers_as_the_host("extra outputs", Graphs::Auto);
}

/// Kernels that share the work on one output add their parts to what is there.
#[test]
fn pitfall_56_outputs_that_a_program_adds_to_begin_at_zero() {
    let _double = Double::with("outputs-add-up");
    let steps = |n, past| vec![("batch", n), ("past", past)];
    let sums = ("memory.onnx", steps(4, 3), vec![steps(4, 3), steps(2, 3), steps(9, 3)]);
    for graphs in [Graphs::Auto, Graphs::Off, Graphs::Checked] {
        let cases = cases().into_iter().chain([sums.clone()]).collect();
        cases_answer_as_the_host("outputs that add up", graphs, cases);
    }
}

#[test]
fn pitfall_37_four_then_three_then_four_then_three() {
    let _double = Double::with("");
    let Some(backend) = gpu("4-3-4-3", DeviceOptions::default()) else { return };
    let pair = Pair::load(&backend, "dense.onnx", &[shape([("batch", 4)])]);
    let [mut device, mut host] = pair.sessions();
    let mut replayed = Vec::new();
    for (seed, n) in [4, 3, 4, 3, 4, 3, 4, 3].into_iter().enumerate() {
        let inputs = inputs(&pair.gpu, &shape([("batch", n)]), seed);
        let (report, found) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
        let (_, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
        assert_same(&found, &wanted, &format!("{n} rows, run {seed}"));
        assert_eq!(report.route, if n == 4 { Route::Exact } else { Route::Padded });
        replayed.push(report.replayed);
    }
    // Two eager runs and a capture, whatever the rows; then only replays.
    assert_eq!(replayed, [false, false, false, true, true, true, true, true]);
}

#[test]
fn pitfall_69_large_pinned_inputs_are_sent_from_where_they_are() {
    let _double = Double::with("");
    let Some(backend) = gpu("pinned inputs", DeviceOptions::default()) else { return };
    let n = 1 << 15;
    let pair = Pair::load(&backend, "dense.onnx", &[shape([("batch", n)])]);
    let [mut device, mut host] = pair.sessions();
    let hip = Device::first().unwrap();
    for (seed, rows) in [(1, n), (2, n - 5), (3, n), (4, 7), (5, n)] {
        let inputs = inputs(&pair.gpu, &shape([("batch", rows)]), seed);
        let mut pinned = PinnedBuffer::new(&hip, inputs[0].bytes().len()).unwrap();
        pinned.bytes_mut().unwrap().copy_from_slice(inputs[0].bytes());
        let bytes = pinned.bytes().unwrap();
        let view = TensorView::new(inputs[0].dtype(), inputs[0].shape(), bytes).unwrap();
        let views = [view];
        let request = Request::bind(pair.gpu.signature(), &views).unwrap();
        let mut outputs = Outputs::new();
        let report = device.run(&request, &mut outputs).unwrap();
        let (_, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
        assert_same(outputs.tensors(), &wanted, &format!("{rows} rows"));
        // A large one goes by itself, beside the table of what belongs where; a small one is gathered.
        let is_large = bytes.len() >= 256 << 10;
        assert_eq!(report.sent.n_copies, if is_large { 2 } else { 1 }, "{rows} rows");
        assert!(report.sent.n_bytes < bytes.len() + 1024, "{rows} rows: {:?}", report.sent);
        // The same from memory that is not pinned is gathered whatever its size.
        let (report, _) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
        assert_eq!(report.sent.n_copies, 1, "{rows} rows");
    }
}

#[test]
fn pitfall_72_many_inputs_cross_in_one_copy_and_only_what_is_real() {
    let _double = Double::with("");
    let Some(backend) = gpu("many inputs", DeviceOptions::default()) else { return };
    let pair = Pair::load(&backend, "many_inputs.onnx", &[shape([("batch", 256)])]);
    let [mut device, mut host] = pair.sessions();
    for (seed, rows) in [256, 1, 17, 255].into_iter().enumerate() {
        let inputs = inputs(&pair.gpu, &shape([("batch", rows)]), seed);
        let (report, found) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
        let (_, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
        assert_same(&found, &wanted, &format!("{rows} rows"));
        assert_eq!(report.sent.n_copies, 1);
        let slot = |input: &shapeyard_core::Tensor| input.bytes().len().next_multiple_of(256);
        let real: usize = inputs.iter().map(slot).sum();
        let table = (inputs.len() * 40).next_multiple_of(256);
        assert!(report.sent.n_bytes <= real + table, "{rows} rows: {:?} of {real}", report.sent);
    }
}

/// While one portion runs the next is gathered, in other pinned memory, and the one before is drained.
#[test]
fn pitfall_61_a_request_in_many_portions_is_answered_in_order() {
    for extra in ["", "extra=0,extra=2"] {
        let _double = Double::with(extra);
        let Some(backend) = gpu("many portions", DeviceOptions::default()) else { return };
        let buckets: Vec<_> = [1, 4, 16].map(|n| shape([("batch", n)])).into();
        for name in ["dense.onnx", "many_outputs.onnx"] {
            let pair = Pair::load(&backend, name, &buckets);
            let [mut device, mut host] = pair.sessions();
            for (seed, rows) in [203, 16, 203, 31, 203, 64, 39, 1].into_iter().enumerate() {
                let inputs = inputs(&pair.gpu, &shape([("batch", rows)]), seed);
                let (report, found) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
                let (same, wanted) = run(&pair.host, host.as_mut(), &inputs).unwrap();
                assert_same(&found, &wanted, &format!("{name}, {rows} rows"));
                assert_eq!(report.n_pieces, same.n_pieces);
            }
        }
    }
}

#[test]
fn pitfall_77_the_same_request_answers_the_same_to_the_bit() {
    let _double = Double::with("");
    let Some(backend) = gpu("the same bits", DeviceOptions::default()) else { return };
    let asked = shape([("batch", 3), ("sequence", 7)]);
    let pair = Pair::load(&backend, "encoder.onnx", &[shape([("batch", 4), ("sequence", 8)])]);
    let [mut device, _] = pair.sessions();
    let inputs = inputs(&pair.gpu, &asked, 1);
    let (_, first) = run(&pair.gpu, device.as_mut(), &inputs).unwrap();
    for _ in 0..100 {
        assert_eq!(run(&pair.gpu, device.as_mut(), &inputs).unwrap().1, first);
    }
}

#[test]
fn pitfall_76_a_result_stays_when_the_next_run_starts() {
    let _double = Double::with("extra=0");
    let Some(backend) = gpu("kept results", DeviceOptions::default()) else { return };
    let pair = Pair::load(&backend, "dense.onnx", &[shape([("batch", 4)])]);
    let [mut device, mut host] = pair.sessions();
    let all: Vec<_> = (0..8).map(|seed| inputs(&pair.gpu, &shape([("batch", 4)]), seed)).collect();
    let kept: Vec<_> =
        all.iter().map(|inputs| run(&pair.gpu, device.as_mut(), inputs).unwrap().1).collect();
    for (inputs, kept) in all.iter().zip(&kept) {
        assert_same(kept, &run(&pair.host, host.as_mut(), inputs).unwrap().1, "kept");
    }
}

/// What MIGraphX itself asks for is not seen here: it has an allocator of its own.
#[test]
fn a_lane_that_has_its_graphs_asks_for_no_memory() {
    let boxed = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(boxed.count_total, 1, "it counts");
    let _double = Double::with("");
    let Some(backend) = gpu("allocations", DeviceOptions::default()) else { return };
    let buckets: Vec<_> = [1, 4, 16].map(|n| shape([("batch", n)])).into();
    for name in ["dense.onnx", "many_inputs.onnx", "many_outputs.onnx"] {
        let pair = Pair::load(&backend, name, &buckets);
        let [mut device, _] = pair.sessions();
        // Exact, padded, and split over all programs; each alone and then in turn.
        let all: Vec<_> = [4, 3, 37].map(|n| inputs(&pair.gpu, &shape([("batch", n)]), n)).into();
        let views: Vec<Vec<TensorView<'_>>> = all
            .iter()
            .map(|inputs| inputs.iter().map(shapeyard_core::Tensor::view).collect())
            .collect();
        let requests: Vec<Request<'_>> =
            views.iter().map(|views| Request::bind(pair.gpu.signature(), views).unwrap()).collect();
        let mut outputs = Outputs::new();
        for request in requests.iter().chain(&requests).cycle().take(24) {
            device.run(request, &mut outputs).unwrap();
        }
        for request in requests.iter().cycle().take(9) {
            let counted = allocation_counter::measure(|| {
                let report = device.run(request, &mut outputs).unwrap();
                assert!(report.replayed);
            });
            let rows = request.inputs()[0].shape()[0];
            assert_eq!(counted.count_total, 0, "{name}, {rows} rows");
        }
    }
}
