//! The target `gpu`, on a real device of either platform. Without one each test says so and is skipped;
//! with `SHAPEYARD_REQUIRE_DEVICE` set it fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "the calls of a C API, with addresses of the device")]

mod common;

use std::collections::BTreeMap;
use std::env;
use std::thread;

use common::{Double, Failed, Program, Results, call, inputs, made, made_up};
use hipgraph::{CaptureError, Device, DeviceBuffer, Stream};

/// Every model that the double takes, with an extent for its open axes.
const MODELS: [(&str, usize); 35] = [
    ("identity.onnx", 3),
    ("add_one.onnx", 3),
    ("dense.onnx", 5),
    ("chain.onnx", 3),
    ("external.onnx", 5),
    ("encoder.onnx", 4),
    ("many_inputs.onnx", 2),
    ("many_outputs.onnx", 3),
    ("mixed_types.onnx", 3),
    ("scalars.onnx", 3),
    ("fixed_leading.onnx", 4),
    ("batch_mean.onnx", 3),
    ("unnamed_dims.onnx", 2),
    ("initializer_inputs.onnx", 3),
    ("half.onnx", 3),
    ("bfloat.onnx", 3),
    ("shared_mask.onnx", 3),
    ("halves.onnx", 3),
    ("tokens.onnx", 3),
    ("time_major.onnx", 3),
    ("views.onnx", 3),
    ("odd_rows.onnx", 3),
    ("unshaped.onnx", 3),
    ("no_elements.onnx", 3),
    ("running_sum.onnx", 4),
    ("sentinel_mean.onnx", 3),
    ("integer_sum.onnx", 3),
    ("parity.onnx", 4),
    ("longest.onnx", 3),
    ("any.onnx", 3),
    ("similarity.onnx", 3),
    ("rounded_up.onnx", 5),
    ("positions.onnx", 4),
    ("lookup.onnx", 3),
    ("memory.onnx", 3),
];

/// Opens the device and the double, or leaves the test.
macro_rules! device_or_skip {
    ($name:literal, $settings:literal) => {{
        let device = match Device::first() {
            Ok(device) => device,
            Err(error) => return common::skip($name, &error.to_string()),
        };
        (device, Double::with($settings))
    }};
}

/// A program with memory of the device for each of its parameters.
struct Rig<'a> {
    program: Program<'a>,
    stream: Stream,
    buffers: BTreeMap<String, DeviceBuffer>,
}

impl<'a> Rig<'a> {
    fn new(device: &Device, program: Program<'a>) -> Self {
        let buffers = program.parameters().into_iter().map(|(name, shape)| {
            let buffer = DeviceBuffer::new(device, shape.n_bytes.max(256)).unwrap();
            (name, buffer)
        });
        Self { buffers: buffers.collect(), stream: Stream::new(device).unwrap(), program }
    }

    fn of(device: &Device, double: &'a Double, file: &str, extent: usize) -> Self {
        let program = Program::open(double, file, extent).unwrap();
        Self::new(device, program.compile(c"gpu", false).unwrap())
    }

    fn write(&self, given: &BTreeMap<String, Vec<u8>>) {
        for (name, bytes) in given.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            self.stream.write(&self.buffers[name], 0, bytes).unwrap();
        }
    }

    /// Fills whatever is no input, as an earlier run would have left it.
    fn spoil(&self) {
        self.fill(0xAB);
    }

    fn fill(&self, byte: u8) {
        for (name, shape) in self.program.parameters() {
            if name.starts_with("main:") || name == "scratch" {
                let noise = vec![byte; shape.n_bytes];
                self.stream.write(&self.buffers[&name], 0, &noise).unwrap();
            }
        }
    }

    fn enqueue_on(&self, stream: &Stream) -> Result<Results<'a>, Failed> {
        let addresses = self
            .buffers
            .iter()
            .map(|(name, buffer)| (name.clone(), buffer.address().expose_provenance()));
        let bound = self.program.bind(&addresses.collect());
        let (raw, name) = (stream.raw().cast(), c"ihipStream_t");
        let double = self.program.double;
        let results =
            made!(double, program_run_async(self.program.raw, bound.raw, raw, name.as_ptr()))?;
        Ok(Results { double, raw: results })
    }

    fn read(&self, addresses: &[usize]) -> Vec<Vec<u8>> {
        let outputs = self.program.outputs();
        let outputs = addresses.iter().zip(outputs).map(|(address, shape)| {
            let mut bytes = vec![0; shape.n_bytes];
            if !bytes.is_empty() {
                // SAFETY: the run's results are there until the program's next run.
                unsafe { self.stream.read_address(*address, &mut bytes) }.unwrap();
            }
            bytes
        });
        outputs.collect()
    }

    fn run(&self) -> Result<Vec<Vec<u8>>, Failed> {
        let results = self.enqueue_on(&self.stream)?;
        Ok(self.read(&results.addresses()))
    }
}

/// What the same network answers on the host.
fn on_the_host(
    double: &Double,
    file: &str,
    extent: usize,
    given: &BTreeMap<String, Vec<u8>>,
) -> Vec<Vec<u8>> {
    let program = Program::open(double, file, extent).unwrap().compile(c"ref", false).unwrap();
    program.run_on_host(given).unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

/// To the bit, but for a network with `exp` and `erf` in it.
fn assert_alike(file: &str, found: &[Vec<u8>], expected: &[Vec<u8>]) {
    if file != "encoder.onnx" {
        return assert_eq!(found, expected, "{file}");
    }
    for (found, expected) in floats(&found[0]).iter().zip(floats(&expected[0])) {
        assert!((found - expected).abs() < 1e-5, "{file}: {found} and {expected}");
    }
}

#[test]
fn a_device_answers_as_the_host() {
    let (device, double) = device_or_skip!("a_device_answers_as_the_host", "");
    for (file, extent) in MODELS {
        let rig = Rig::of(&device, &double, file, extent);
        let given = inputs(&rig.program, extent);
        let expected = on_the_host(&double, file, extent, &given);
        rig.write(&given);
        for _ in 0..2 {
            rig.spoil();
            assert_alike(file, &rig.run().unwrap(), &expected);
        }
    }
}

#[test]
fn a_program_may_copy_by_itself() {
    let (_device, double) = device_or_skip!("a_program_may_copy_by_itself", "");
    for (file, extent) in MODELS {
        let program = Program::open(&double, file, extent).unwrap().compile(c"gpu", true).unwrap();
        let given = inputs(&program, extent);
        let expected = on_the_host(&double, file, extent, &given);
        for _ in 0..2 {
            assert_alike(file, &program.run_on_host(&given).unwrap(), &expected);
        }
    }
}

#[test]
fn a_program_comes_back_from_its_file() {
    let (device, double) = device_or_skip!("a_program_comes_back_from_its_file", "");
    let folder = env::temp_dir().join(format!("gpu-double-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("encoder.mxr");
    let program =
        Program::open(&double, "encoder.onnx", 3).unwrap().compile(c"gpu", false).unwrap();
    program.save(&file, c"msgpack").unwrap();
    let rig = Rig::new(&device, Program::load(&double, &file).unwrap());
    std::fs::remove_dir_all(&folder).unwrap();
    let given = inputs(&rig.program, 2);
    rig.write(&given);
    let expected = on_the_host(&double, "encoder.onnx", 3, &given);
    assert_alike("encoder.onnx", &rig.run().unwrap(), &expected);
}

/// Inputs change, addresses do not.
fn replays(settings: &str, device: &Device, double: &Double) {
    double.change(settings);
    let rig = Rig::of(device, double, "dense.onnx", 6);
    rig.write(&inputs(&rig.program, 0));
    rig.run().unwrap();
    let captured = rig.stream.capture(|stream| rig.enqueue_on(stream));
    let (graph, results) = captured.unwrap();
    assert!(graph.n_nodes() >= 6, "two products cleared, a sum, a bend: {}", graph.n_nodes());
    for seed in 1..20 {
        let given = inputs(&rig.program, seed);
        rig.write(&given);
        rig.spoil();
        // SAFETY: nothing that was captured has moved.
        unsafe { graph.launch(&rig.stream) }.unwrap();
        let expected = on_the_host(double, "dense.onnx", 6, &given);
        assert_eq!(rig.read(&results.addresses()), expected, "{settings}");
    }
}

#[test]
fn a_run_is_captured_and_replayed() {
    let (device, double) = device_or_skip!("a_run_is_captured_and_replayed", "");
    for settings in
        ["", "queue-bound", "scratch-parameter", "queue-bound,scratch-parameter,extra=0"]
    {
        replays(settings, &device, &double);
    }
}

#[test]
fn a_hundred_kernels_are_a_hundred_nodes() {
    let (device, double) = device_or_skip!("a_hundred_kernels_are_a_hundred_nodes", "queue-bound");
    let rig = Rig::of(&device, &double, "chain.onnx", 4);
    let given = inputs(&rig.program, 1);
    rig.write(&given);
    let right = rig.run().unwrap();
    let (graph, results) = rig.stream.capture(|stream| rig.enqueue_on(stream)).unwrap();
    assert_eq!(graph.n_nodes(), 100);
    rig.spoil();
    // SAFETY: nothing that was captured has moved.
    unsafe { graph.launch(&rig.stream) }.unwrap();
    assert_eq!(rig.read(&results.addresses()), right);
    assert_eq!(right, on_the_host(&double, "chain.onnx", 4, &given));
}

#[test]
fn pitfall_56_what_is_not_cleared_adds_up() {
    let (device, double) = device_or_skip!("pitfall_56_what_is_not_cleared_adds_up", "");
    let rig = Rig::of(&device, &double, "dense.onnx", 2);
    let given = inputs(&rig.program, 1);
    rig.write(&given);
    let right = rig.run().unwrap();
    double.change("nothing-cleared");
    let (second, third) = (rig.run().unwrap(), rig.run().unwrap());
    assert_ne!(second, right);
    assert_ne!(third, second);
    double.change("");
    assert_eq!(rig.run().unwrap(), right);
}

#[test]
fn pitfall_56_outputs_that_are_left_to_the_caller_add_up() {
    let (device, double) =
        device_or_skip!("pitfall_56_outputs_that_are_left_to_the_caller_add_up", "outputs-add-up");
    let rig = Rig::of(&device, &double, "memory.onnx", 3);
    let given = inputs(&rig.program, 1);
    let expected = on_the_host(&double, "memory.onnx", 3, &given);
    rig.write(&given);
    rig.fill(0);
    assert_eq!(rig.run().unwrap(), expected);
    assert_ne!(rig.run().unwrap(), expected);
    rig.fill(0);
    assert_eq!(rig.run().unwrap(), expected);
}

#[test]
fn pitfall_57_a_run_that_waits_cannot_be_captured() {
    let (device, double) = device_or_skip!("pitfall_57_a_run_that_waits_cannot_be_captured", "");
    for settings in ["run-synchronises", "run-synchronises,queue-bound"] {
        double.change("");
        let rig = Rig::of(&device, &double, "dense.onnx", 2);
        rig.write(&inputs(&rig.program, 1));
        let right = rig.run().unwrap();
        double.change(settings);
        assert_eq!(rig.run().unwrap(), right);
        let captured = rig.stream.capture(|stream| rig.enqueue_on(stream));
        let error = captured.err().expect("a capture forbids waiting");
        assert!(matches!(error, CaptureError::Record(Failed(4))), "{error:?}");
        double.change("");
        let fresh = Rig::of(&device, &double, "dense.onnx", 2);
        fresh.write(&inputs(&fresh.program, 1));
        assert_eq!(fresh.run().unwrap(), right, "the device is usable");
        rig.stream.synchronize().unwrap();
    }
}

#[test]
fn pitfall_60_an_extra_output_is_the_next_runs_too() {
    let (device, double) =
        device_or_skip!("pitfall_60_an_extra_output_is_the_next_runs_too", "extra=3");
    let rig = Rig::of(&device, &double, "many_outputs.onnx", 2);
    assert!(!rig.buffers.contains_key("main:#output_3"));
    let (first, second) = (inputs(&rig.program, 1), inputs(&rig.program, 2));
    rig.write(&first);
    let kept = rig.enqueue_on(&rig.stream).unwrap();
    let before = rig.read(&kept.addresses());
    assert_eq!(before, on_the_host(&double, "many_outputs.onnx", 2, &first));
    rig.write(&second);
    rig.run().unwrap();
    let after = rig.read(&kept.addresses());
    assert_ne!(after[3], before[3], "what was kept changed under the caller");
    assert_eq!(after, on_the_host(&double, "many_outputs.onnx", 2, &second));
}

#[test]
fn pitfall_64_a_failed_run_leaves_the_program_on_the_old_queue() {
    let name = "pitfall_64_a_failed_run_leaves_the_program_on_the_old_queue";
    let device = match Device::first() {
        Ok(device) => device,
        Err(error) => return common::skip(name, &error.to_string()),
    };
    let double = Double::with("queue-bound");
    let rig = Rig::of(&device, &double, "dense.onnx", 2);
    rig.write(&inputs(&rig.program, 1));
    let right = rig.run().unwrap();
    double.change("queue-bound,run-fails");
    assert_eq!(rig.run().err(), Some(Failed(4)));
    double.change("queue-bound");
    // A queue that is being captured cannot be what the next run works on: nothing is recorded.
    let other = Stream::new(&device).unwrap();
    let captured = other.capture(|stream| rig.enqueue_on(stream));
    let (graph, results) = captured.unwrap();
    assert_eq!(graph.n_nodes(), 0, "the run went to the queue of the failed one");
    assert_eq!(rig.read(&results.addresses()), right);
    let (graph, _) = other.capture(|stream| rig.enqueue_on(stream)).unwrap();
    assert!(graph.n_nodes() > 0, "a run that succeeds unbinds the queue");
}

#[test]
fn a_failed_run_leaves_its_capture_unjoined() {
    let (device, double) = device_or_skip!("a_failed_run_leaves_its_capture_unjoined", "");
    let rig = Rig::of(&device, &double, "dense.onnx", 2);
    rig.write(&inputs(&rig.program, 1));
    let right = rig.run().unwrap();
    double.change("run-fails");
    let captured = rig.stream.capture(|stream| rig.enqueue_on(stream));
    assert!(matches!(captured.err(), Some(CaptureError::Record(Failed(4)))));
    double.change("");
    let fresh = Rig::of(&device, &double, "dense.onnx", 2);
    fresh.write(&inputs(&fresh.program, 1));
    assert_eq!(fresh.run().unwrap(), right);
    rig.stream.synchronize().unwrap();
}

#[test]
fn pitfall_69_memory_of_the_wrong_side_is_refused() {
    let (device, double) = device_or_skip!("pitfall_69_memory_of_the_wrong_side_is_refused", "");
    let rig = Rig::of(&device, &double, "add_one.onnx", 2);
    let bytes = [0_u8; 256];
    let address = bytes.as_ptr().expose_provenance();
    let host = rig.program.parameters().into_iter().map(|(name, _)| (name, address)).collect();
    let bound = rig.program.bind(&host);
    assert_eq!(made!(double, program_run(rig.program.raw, bound.raw)), Err(Failed(4)));
    let copying = Program::open(&double, "add_one.onnx", 2).unwrap().compile(c"gpu", true).unwrap();
    let address = rig.buffers["x"].address().expose_provenance();
    let bound = copying.bind(&BTreeMap::from([("x".to_owned(), address)]));
    assert_eq!(made!(double, program_run(copying.raw, bound.raw)), Err(Failed(4)));
}

#[test]
fn pitfall_69_pinned_memory_serves_the_device() {
    let (device, double) = device_or_skip!("pitfall_69_pinned_memory_serves_the_device", "");
    let rig = Rig::of(&device, &double, "add_one.onnx", 2);
    let given = inputs(&rig.program, 3);
    let mut pinned = hipgraph::PinnedBuffer::new(&device, 256).unwrap();
    pinned.bytes_mut().unwrap()[..given["x"].len()].copy_from_slice(&given["x"]);
    let output = rig.buffers["main:#output_0"].address().expose_provenance();
    let addresses = BTreeMap::from([
        ("x".to_owned(), pinned.address().expose_provenance()),
        ("main:#output_0".to_owned(), output),
    ]);
    let bound = rig.program.bind(&addresses);
    let raw = made!(double, program_run(rig.program.raw, bound.raw)).unwrap();
    let results = Results { double: &double, raw };
    assert_eq!(rig.read(&results.addresses()), on_the_host(&double, "add_one.onnx", 2, &given));
}

#[test]
fn memory_that_is_not_there_is_an_error() {
    let (device, double) = device_or_skip!("memory_that_is_not_there_is_an_error", "");
    let rig = Rig::of(&device, &double, "add_one.onnx", 2);
    rig.write(&inputs(&rig.program, 1));
    let right = rig.run().unwrap();
    double.change("run-out-of-memory");
    assert_eq!(rig.run().err(), Some(Failed(4)));
    double.change("");
    assert_eq!(rig.run().unwrap(), right);
    // The sum of many rows against each other takes more than any device has.
    let rows = 1 << 21;
    let program = Program::open(&double, "similarity.onnx", rows).unwrap();
    let program = program.compile(c"gpu", true);
    assert_eq!(program.err(), Some(Failed(4)));
    assert_eq!(rig.run().unwrap(), right);
}

#[test]
fn a_run_leaves_its_thread_on_the_programs_device() {
    let (device, double) = device_or_skip!("a_run_leaves_its_thread_on_the_programs_device", "");
    let rig = Rig::of(&device, &double, "add_one.onnx", 2);
    rig.write(&inputs(&rig.program, 1));
    let right = rig.run().unwrap();
    // A thread that never called the runtime has no context of its own.
    let addresses: BTreeMap<String, usize> = rig
        .buffers
        .iter()
        .map(|(name, buffer)| (name.clone(), buffer.address().expose_provenance()))
        .collect();
    let bound = rig.program.bind(&addresses);
    let (program, parameters) =
        (rig.program.raw.expose_provenance(), bound.raw.expose_provenance());
    let api = double.library.api;
    let made = thread::scope(|scope| {
        let run = scope.spawn(move || {
            let mut results = std::ptr::null_mut();
            // SAFETY: both objects are alive, and this is the only thread that uses them.
            let status = unsafe {
                (api.program_run)(
                    &mut results,
                    std::ptr::with_exposed_provenance_mut(program),
                    std::ptr::with_exposed_provenance_mut(parameters),
                )
            };
            assert!(status.is_success());
            results.expose_provenance()
        });
        run.join().unwrap()
    });
    let results = Results { double: &double, raw: std::ptr::with_exposed_provenance_mut(made) };
    assert_eq!(rig.read(&results.addresses()), right);
}

#[test]
fn the_older_numbering_runs_as_well() {
    let (device, double) =
        device_or_skip!("the_older_numbering_runs_as_well", "types-without-fp4x2");
    let rig = Rig::of(&device, &double, "mixed_types.onnx", 2);
    let given = inputs(&rig.program, 1);
    rig.write(&given);
    let expected = on_the_host(&double, "mixed_types.onnx", 2, &given);
    assert_eq!(rig.run().unwrap(), expected);
}

#[test]
fn programs_of_many_shapes_take_turns() {
    let (device, double) = device_or_skip!("programs_of_many_shapes_take_turns", "");
    let rigs: Vec<Rig<'_>> =
        [4, 3, 7].map(|rows| Rig::of(&device, &double, "dense.onnx", rows)).into_iter().collect();
    for turn in 0..60 {
        let rig = &rigs[[0, 1, 0, 1, 2][turn % 5]];
        let (_, shape) =
            rig.program.parameters().into_iter().find(|(name, _)| name == "x").unwrap();
        let given = BTreeMap::from([("x".to_owned(), made_up(&double, &shape, turn))]);
        rig.write(&given);
        let expected = on_the_host(&double, "dense.onnx", shape.lengths[0], &given);
        assert_eq!(rig.run().unwrap(), expected);
    }
}

#[test]
fn without_a_device_compiling_says_so() {
    if Device::first().is_ok() {
        return common::skip_where_there_is("without_a_device_compiling_says_so");
    }
    let double = Double::with("");
    let program = Program::open(&double, "add_one.onnx", 2).unwrap();
    assert_eq!(program.compile(c"gpu", false).err(), Some(Failed(4)));
    let mut out = std::ptr::null_mut();
    assert_eq!(call!(double, target_create(&mut out, c"gpu".as_ptr())), Ok(()));
    call!(double, target_destroy(out)).unwrap();
}
