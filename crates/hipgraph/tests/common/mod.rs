//! What the tests and the measurements on a real device share.

#![allow(dead_code, unused_macros, unused_imports, reason = "each user needs its part")]

use std::env;
use std::ffi::c_void;
use std::fs::File;
use std::io::Write as _;
use std::ptr;

use hip_sys::HipError;
use hipgraph::{Device, DeviceBuffer, Kernel, Launch, Stream};

pub(crate) const SOURCE: &str = r#"
extern "C" __global__ void scale(const float* in, float* out, float factor, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) out[index] = in[index] * factor;
}
extern "C" __global__ void accumulate(const float* in, float* out, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) out[index] += in[index];
}
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"#;

/// Opens device 0 with its kernels, or leaves the test.
macro_rules! bench_or_skip {
    ($name:literal) => {
        match crate::common::Bench::open() {
            Ok(bench) => bench,
            Err(reason) => return crate::common::skip(concat!("hipgraph ", $name), &reason),
        }
    };
}
pub(crate) use bench_or_skip;

pub(crate) fn skip(name: &str, reason: &str) {
    assert!(env::var_os("SHAPEYARD_REQUIRE_DEVICE").is_none(), "{name}: {reason}");
    let line = format!("{name}: {reason}");
    eprintln!("{line}");
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// A device with the kernels of the tests.
pub(crate) struct Bench {
    pub(crate) device: Device,
    pub(crate) scale: Kernel,
    pub(crate) accumulate: Kernel,
    pub(crate) spin: Kernel,
}

impl Bench {
    /// A reason to skip where there is no runtime or no device; whatever else fails is a failure.
    pub(crate) fn open() -> Result<Self, String> {
        let device = Device::first().map_err(|error| error.to_string())?;
        let compiler = device.hip().compiler().unwrap();
        let code = compiler.compile(SOURCE, &device.properties().architecture, &[]).unwrap();
        let names = ["scale", "accumulate", "spin"];
        let [scale, accumulate, spin] = Kernel::load(&device, &code, names).unwrap();
        Ok(Self { device, scale, accumulate, spin })
    }

    pub(crate) fn stream(&self) -> Stream {
        Stream::new(&self.device).unwrap()
    }

    pub(crate) fn buffer(&self, n_bytes: usize) -> DeviceBuffer {
        DeviceBuffer::new(&self.device, n_bytes).unwrap()
    }

    /// `to = from * factor`, over so many floats at two addresses.
    pub(crate) fn scale(
        &self,
        stream: &Stream,
        from: usize,
        to: usize,
        factor: f32,
        count: i32,
    ) -> Result<(), HipError> {
        let (mut from, mut to, mut factor, mut count) = (from, to, factor, count);
        let launch = Launch::linear(count.unsigned_abs());
        let mut parameters = [
            parameter(&mut from),
            parameter(&mut to),
            parameter(&mut factor),
            parameter(&mut count),
        ];
        // SAFETY: a value for each parameter, of its type; each test's buffers outlive the work.
        unsafe { self.scale.launch(stream, launch, &mut parameters) }
    }

    /// `to += from`.
    pub(crate) fn accumulate(
        &self,
        stream: &Stream,
        from: usize,
        to: usize,
        count: i32,
    ) -> Result<(), HipError> {
        let (mut from, mut to, mut count) = (from, to, count);
        let launch = Launch::linear(count.unsigned_abs());
        let mut parameters = [parameter(&mut from), parameter(&mut to), parameter(&mut count)];
        // SAFETY: as above.
        unsafe { self.accumulate.launch(stream, launch, &mut parameters) }
    }

    /// Keeps the stream busy: some tens of milliseconds for each 100 million cycles.
    pub(crate) fn spin(&self, stream: &Stream, cycles: i64) {
        let mut cycles = cycles;
        let launch = Launch { blocks: [1; 3], threads: [1; 3], shared_bytes: 0 };
        // SAFETY: the kernel takes one such value, and touches no memory.
        unsafe { self.spin.launch(stream, launch, &mut [parameter(&mut cycles)]) }.unwrap();
    }
}

fn parameter<T>(value: &mut T) -> *mut c_void {
    ptr::from_mut(value).cast()
}

pub(crate) fn address(buffer: &DeviceBuffer) -> usize {
    buffer.address().addr()
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

pub(crate) fn write_floats(stream: &Stream, to: &DeviceBuffer, values: &[f32]) {
    stream.write(to, 0, &bytes_of(values)).unwrap();
}

pub(crate) fn read_floats(stream: &Stream, from: &DeviceBuffer, count: usize) -> Vec<f32> {
    let mut bytes = vec![0; count * 4];
    stream.read(from, 0, &mut bytes).unwrap();
    bytes
        .chunks_exact(4)
        .map(|four| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
        .collect()
}
