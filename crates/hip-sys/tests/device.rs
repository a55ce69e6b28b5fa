//! The real runtime. Without one, and without a device, each test says so and is skipped; with
//! `SHAPEYARD_REQUIRE_DEVICE` set it fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]
#![allow(unsafe_code, reason = "the calls of a C API")]

use std::env;
use std::ffi::c_void;
use std::fs::File;
use std::io::Write as _;
use std::ptr;

use hip_sys::{
    CaptureMode, CaptureStatus, CompileError, DeviceAttribute, EventFlags, Fault, Hip, HipError,
    HostMallocFlags, LoadError, MemcpyKind, NodeKind, Platform, PointerKind, SearchOptions,
    StreamFlags, hipStream_t,
};

const SOURCE: &str = r#"
extern "C" __global__ void scale(const float* in, float* out, float factor, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) out[index] = in[index] * factor;
}
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"#;

/// Opens the runtime with its context on device 0, or leaves the test.
macro_rules! device_or_skip {
    ($name:literal) => {
        match open() {
            Ok(hip) => hip,
            Err(reason) => return skip(concat!("hip-sys ", $name), &reason),
        }
    };
}

fn open() -> Result<Hip, String> {
    let hip = Hip::open(&SearchOptions::default()).map_err(|error| error.to_string())?;
    // SAFETY: zero is the only flag that there is.
    let answer = unsafe { hip.init(0) }.and_then(|()| hip.device_count());
    answer.map_err(|error| error.to_string())?;
    // SAFETY: each takes any number, or nothing to free.
    unsafe { hip.set_device(0) }.unwrap();
    // SAFETY: as above.
    unsafe { hip.free(ptr::null_mut()) }.unwrap();
    Ok(hip)
}

fn skip(name: &str, reason: &str) {
    assert!(env::var_os("SHAPEYARD_REQUIRE_DEVICE").is_none(), "{name}: {reason}");
    let line = format!("{name}: {reason}");
    eprintln!("{line}");
    if let Some(log) = env::var_os("SHAPEYARD_SKIP_LOG") {
        let mut log = File::options().append(true).create(true).open(log).unwrap();
        writeln!(log, "{line}").unwrap();
    }
}

/// Calls a checked method and expects success.
macro_rules! call {
    ($hip:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: each test gives handles that it created and has not destroyed, and addresses of
        // memory that lives until the stream was synchronised.
        unsafe { $hip.$function($($argument),*) }.unwrap()
    }};
}

fn stream(hip: &Hip) -> hipStream_t {
    let mut stream = ptr::null_mut();
    call!(hip, stream_create_with_flags(&mut stream, StreamFlags::NON_BLOCKING));
    stream
}

fn device_memory(hip: &Hip, n_bytes: usize) -> *mut c_void {
    let mut address = ptr::null_mut();
    call!(hip, malloc(&mut address, n_bytes));
    address
}

#[test]
fn a_device_says_what_it_is() {
    let hip = device_or_skip!("a_device_says_what_it_is");
    let device = hip.device_properties(0).unwrap();
    eprintln!("{} {} {:?}", hip.path().display(), hip.runtime_version().unwrap(), device);
    let prefix = if hip.platform() == Platform::Amd { "gfx" } else { "sm_" };
    assert!(device.architecture.starts_with(prefix), "{device:?}");
    assert!(!device.name.is_empty() && device.n_processors > 0, "{device:?}");
    assert!([32, 64].contains(&device.warp_size), "{device:?}");
    let (mut free, mut total) = (0, 0);
    call!(hip, mem_get_info(&mut free, &mut total));
    let reported = usize::try_from(device.total_memory).unwrap();
    assert!(free <= total && total.abs_diff(reported) < total / 8, "{total} and {device:?}");
    assert_eq!(device.pci_address.len(), "0000:00:00.0".len(), "{device:?}");
    assert!(hip.driver_version().unwrap() > 0);
}

#[test]
fn attributes_agree_with_properties() {
    let hip = device_or_skip!("attributes_agree_with_properties");
    let device = hip.device_properties(0).unwrap();
    let ask = |attribute| u32::try_from(hip.device_attribute(attribute, 0).unwrap()).unwrap();
    assert_eq!(ask(DeviceAttribute::WarpSize), device.warp_size);
    assert_eq!(ask(DeviceAttribute::ProcessorCount), device.n_processors);
    assert!(ask(DeviceAttribute::MaxThreadsPerBlock) >= 256);
    assert!(ask(DeviceAttribute::MaxSharedMemoryPerBlock) >= 32 << 10);
    assert!(ask(DeviceAttribute::ComputeCapabilityMajor) >= 1);
    assert_eq!(ask(DeviceAttribute::CanMapHostMemory), 1);
}

#[test]
fn an_error_has_the_librarys_own_words_and_leaves_none_behind() {
    let hip = device_or_skip!("an_error_has_the_librarys_own_words_and_leaves_none_behind");
    // SAFETY: it takes any number.
    let error = unsafe { hip.set_device(9999) }.unwrap_err();
    assert_eq!((error.fault, error.call), (Fault::InvalidDevice, "hipSetDevice"));
    assert!(error.name.contains("ErrorInvalidDevice"), "{error}");
    assert!(!error.message.is_empty());
    // SAFETY: it takes no argument.
    assert!(unsafe { (hip.api().peek_at_last_error)() }.is_success());
    assert_eq!(hip.device_properties(9999).unwrap_err().fault, Fault::InvalidDevice);
}

#[test]
fn too_much_memory_is_out_of_memory_and_less_still_works() {
    let hip = device_or_skip!("too_much_memory_is_out_of_memory_and_less_still_works");
    let mut address = ptr::null_mut();
    // SAFETY: the place is ours.
    let error = unsafe { hip.malloc(&mut address, 1 << 48) }.unwrap_err();
    assert_eq!(error.fault, Fault::OutOfMemory, "{error}");
    let address = device_memory(&hip, 1 << 20);
    call!(hip, free(address));
}

#[test]
fn bytes_go_to_the_device_and_back() {
    let hip = device_or_skip!("bytes_go_to_the_device_and_back");
    let stream = stream(&hip);
    let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut back = vec![0_u8; sent.len()];
    let device = device_memory(&hip, sent.len());
    let (to, from) = (MemcpyKind::HOST_TO_DEVICE, MemcpyKind::DEVICE_TO_HOST);
    call!(hip, memcpy_async(device, sent.as_ptr().cast(), sent.len(), to, stream));
    call!(hip, memcpy_async(back.as_mut_ptr().cast(), device, sent.len(), from, stream));
    call!(hip, stream_synchronize(stream));
    assert!(sent == back);
    call!(hip, memset_async(device, 7, 100, stream));
    call!(hip, memcpy_async(back.as_mut_ptr().cast(), device, 200, from, stream));
    call!(hip, stream_synchronize(stream));
    assert!(back[..100].iter().all(|byte| *byte == 7) && back[100..200] == sent[100..200]);
    call!(hip, free(device));
    call!(hip, stream_destroy(stream));
}

#[test]
fn flags_of_amd_are_left_out_where_they_mean_nothing() {
    let hip = device_or_skip!("flags_of_amd_are_left_out_where_they_mean_nothing");
    let flags = HostMallocFlags(HostMallocFlags::PORTABLE.0 | HostMallocFlags::NON_COHERENT.0);
    let mut address = ptr::null_mut();
    call!(hip, host_malloc(&mut address, 4096, flags));
    call!(hip, host_free(address));
}

#[test]
fn addresses_are_told_apart() {
    let hip = device_or_skip!("addresses_are_told_apart");
    let kind = |address: *const c_void| hip.pointer_attributes(address.addr()).unwrap().kind;
    let ordinary = [0_u8; 64];
    assert_eq!(kind(ordinary.as_ptr().cast()), PointerKind::Unregistered);
    let mut pinned = ptr::null_mut();
    call!(hip, host_malloc(&mut pinned, 4096, HostMallocFlags::DEFAULT));
    assert_eq!(kind(pinned), PointerKind::Host);
    assert_eq!(kind(pinned.wrapping_byte_add(100)), PointerKind::Host);
    let device = device_memory(&hip, 4096);
    let attributes = hip.pointer_attributes(device.addr() + 100).unwrap();
    assert_eq!((attributes.kind, attributes.device), (PointerKind::Device, 0));
    call!(hip, free(device));
    call!(hip, host_free(pinned));
}

#[test]
fn a_capture_is_seen_instantiated_updated_and_launched() {
    let hip = device_or_skip!("a_capture_is_seen_instantiated_updated_and_launched");
    let stream = stream(&hip);
    let device = device_memory(&hip, 1024);
    let none = call!(hip, stream_get_capture_info(stream));
    assert_eq!((none.status, none.id), (CaptureStatus::NONE, 0));
    let record = |fills: &[i32]| {
        call!(hip, stream_begin_capture(stream, CaptureMode::THREAD_LOCAL));
        for fill in fills {
            call!(hip, memset_async(device, *fill, 1024, stream));
        }
        let active = call!(hip, stream_get_capture_info(stream));
        assert_eq!((active.status, active.n_dependencies), (CaptureStatus::ACTIVE, 1));
        assert!(!active.graph.is_null());
        let mut graph = ptr::null_mut();
        call!(hip, stream_end_capture(stream, &mut graph));
        graph
    };
    let (first, second, longer) = (record(&[1]), record(&[2]), record(&[3, 4]));
    let mut count = 1;
    let mut node = ptr::null_mut();
    call!(hip, graph_get_nodes(first, &mut node, &mut count));
    let mut kind = NodeKind::EMPTY;
    call!(hip, graph_node_get_type(node, &mut kind));
    assert_eq!((count, kind), (1, NodeKind::MEMSET));
    let mut executable = ptr::null_mut();
    call!(hip, graph_instantiate(&mut executable, first));
    call!(hip, graph_upload(executable, stream));
    let launched = || {
        call!(hip, graph_launch(executable, stream));
        let mut bytes = [0_u8; 1024];
        let (to, kind) = (bytes.as_mut_ptr().cast(), MemcpyKind::DEVICE_TO_HOST);
        call!(hip, memcpy_async(to, device, bytes.len(), kind, stream));
        call!(hip, stream_synchronize(stream));
        assert!(bytes.iter().all(|byte| *byte == bytes[0]));
        bytes[0]
    };
    assert_eq!(launched(), 1);
    call!(hip, graph_exec_update(executable, second));
    assert_eq!(launched(), 2);
    // SAFETY: both graphs are alive, and nothing is being launched.
    let error = unsafe { hip.graph_exec_update(executable, longer) }.unwrap_err();
    assert_eq!(error.fault, Fault::GraphExecUpdateFailure, "{error}");
    assert_eq!(launched(), 2);
    call!(hip, graph_exec_destroy(executable));
    for graph in [first, second, longer] {
        call!(hip, graph_destroy(graph));
    }
    call!(hip, free(device));
    call!(hip, stream_destroy(stream));
}

#[test]
fn a_call_that_cannot_be_recorded_has_its_own_fault() {
    let hip = device_or_skip!("a_call_that_cannot_be_recorded_has_its_own_fault");
    let stream = stream(&hip);
    call!(hip, stream_begin_capture(stream, CaptureMode::THREAD_LOCAL));
    // SAFETY: the stream is alive.
    let error = unsafe { hip.stream_synchronize(stream) }.unwrap_err();
    assert!(error.fault.is_of_capture(), "{error}");
    let mut graph = ptr::null_mut();
    // SAFETY: the stream is alive, and the place is ours.
    let error = unsafe { hip.stream_end_capture(stream, &mut graph) }.unwrap_err();
    assert_eq!((error.fault, graph), (Fault::StreamCaptureInvalidated, ptr::null_mut()));
    call!(hip, stream_synchronize(stream));
    call!(hip, stream_destroy(stream));
}

#[test]
fn a_kernel_is_compiled_loaded_timed_and_run() {
    let hip = device_or_skip!("a_kernel_is_compiled_loaded_timed_and_run");
    let architecture = hip.device_properties(0).unwrap().architecture;
    let compiler = hip.compiler().unwrap();
    eprintln!("{} {:?}", compiler.path().display(), compiler.version());
    let code = compiler.compile(SOURCE, &architecture, &[]).unwrap();
    let mut module = ptr::null_mut();
    call!(hip, module_load_data(&mut module, code.bytes().as_ptr().cast()));
    let mut spin = ptr::null_mut();
    call!(hip, module_get_function(&mut spin, module, c"spin".as_ptr()));
    let stream = stream(&hip);
    let mut cycles = 50_000_000_i64;
    let mut parameters = [ptr::from_mut(&mut cycles).cast::<c_void>()];
    let events = [EventFlags::DEFAULT; 2].map(|flags| {
        let mut event = ptr::null_mut();
        call!(hip, event_create_with_flags(&mut event, flags));
        event
    });
    call!(hip, event_record(events[0], stream));
    let (place, none) = (parameters.as_mut_ptr(), ptr::null_mut());
    call!(hip, module_launch_kernel(spin, 1, 1, 1, 1, 1, 1, 0, stream, place, none));
    call!(hip, event_record(events[1], stream));
    // SAFETY: the event is alive.
    let error: HipError = unsafe { hip.event_query(events[1]) }.unwrap_err();
    assert_eq!(error.fault, Fault::NotReady, "{error}");
    call!(hip, event_synchronize(events[1]));
    call!(hip, event_query(events[1]));
    let mut milliseconds = 0.0;
    call!(hip, event_elapsed_time(&mut milliseconds, events[0], events[1]));
    assert!((1.0..5000.0).contains(&milliseconds), "{milliseconds} ms");
    // SAFETY: the module and the name are alive, and the place is ours.
    let missing = unsafe { hip.module_get_function(&mut spin, module, c"nobody".as_ptr()) };
    assert_eq!(missing.unwrap_err().fault, Fault::NotFound);
    for event in events {
        call!(hip, event_destroy(event));
    }
    call!(hip, module_unload(module));
    call!(hip, stream_destroy(stream));
}

#[test]
fn a_source_that_is_wrong_is_refused_with_the_compilers_words() {
    let hip = device_or_skip!("a_source_that_is_wrong_is_refused_with_the_compilers_words");
    let architecture = hip.device_properties(0).unwrap().architecture;
    let source = "extern \"C\" __global__ void a() { nobody_knows(); }";
    let error = hip.compiler().unwrap().compile(source, &architecture, &[]).unwrap_err();
    let CompileError::Refused { log, .. } = error else { panic!("{error}") };
    assert!(log.contains("nobody_knows"), "{log}");
}

/// AMD's runtime on a machine without its device: `cargo xtask migraphx-root --with-hip` gets it.
fn amd_without_a_device(name: &str) -> Option<Hip> {
    let hip = match Hip::open(&SearchOptions::default().on(Platform::Amd)) {
        Ok(hip) => hip,
        Err(LoadError::NotFound { .. }) => {
            let name = format!("hip-sys {name}");
            let reason = "AMD's runtime is not in reach";
            if env::var_os("SHAPEYARD_REQUIRE_DEVICE").is_none() {
                skip(&name, reason);
            }
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    if hip.device_count().is_ok() {
        skip(&format!("hip-sys {name}"), "AMD's runtime has a device here");
        return None;
    }
    Some(hip)
}

#[test]
fn amds_runtime_without_a_device_says_so() {
    let Some(hip) = amd_without_a_device("amds_runtime_without_a_device_says_so") else { return };
    eprintln!("{} {}", hip.path().display(), hip.runtime_version().unwrap());
    assert!(hip.runtime_version().unwrap() > 50_000_000);
    // SAFETY: zero is the only flag that there is.
    let error = unsafe { hip.init(0) }.unwrap_err();
    assert_eq!((error.fault, error.name.as_str()), (Fault::NoDevice, "hipErrorNoDevice"));
    assert!(error.fault.is_no_device());
    assert_eq!(hip.device_count().unwrap_err().fault, Fault::NoDevice);
    assert_eq!(hip.device_properties(0).unwrap_err().fault, Fault::NoDevice);
    let (mut address, mut stream) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: the places are ours.
    let error = unsafe { hip.malloc(&mut address, 64) }.unwrap_err();
    assert_eq!((error.fault, address), (Fault::NoDevice, ptr::null_mut()));
    // SAFETY: as above.
    let error = unsafe { hip.host_malloc(&mut address, 64, HostMallocFlags::NON_COHERENT) };
    assert_eq!((error.unwrap_err().fault, address), (Fault::NoDevice, ptr::null_mut()));
    // SAFETY: as above.
    let error = unsafe { hip.stream_create_with_flags(&mut stream, StreamFlags::NON_BLOCKING) };
    assert_eq!((error.unwrap_err().fault, stream), (Fault::NoDevice, ptr::null_mut()));
}

/// The compiler needs no device.
#[test]
fn amds_compiler_compiles_without_a_device() {
    let Some(hip) = amd_without_a_device("amds_compiler_compiles_without_a_device") else { return };
    let compiler = match hip.compiler() {
        Ok(compiler) => compiler,
        Err(error) => {
            let name = "hip-sys amds_compiler_compiles_without_a_device";
            return skip(name, &error.to_string());
        }
    };
    eprintln!("{} {:?}", compiler.path().display(), compiler.version());
    let code = compiler.compile(SOURCE, "gfx90a", &[]).unwrap();
    assert!(code.bytes().len() > 100);
    let source = "extern \"C\" __global__ void a() { nobody_knows(); }";
    let CompileError::Refused { log, .. } = compiler.compile(source, "gfx90a", &[]).unwrap_err()
    else {
        panic!("a source error is a refusal");
    };
    assert!(log.contains("nobody_knows"), "{log}");
}
