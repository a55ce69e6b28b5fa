//! A program on a HIP device.

use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use hip_sys::{
    EventFlags, Hip, MemcpyKind, PointerKind, SearchOptions, StreamFlags, hipEvent_t,
    hipFunction_t, hipModule_t, hipStream_t,
};

use crate::error::Error;
use crate::graph::{ALIGNMENT, Graph};
use crate::kernel::{Home, Step};
use crate::settings::{self, Fault};
use crate::source::{self, Source};

const THREADS: u32 = 256;

/// The runtime with a device, in the words of MIGraphX where there is none.
pub(crate) fn hip() -> Result<&'static Hip, Error> {
    static HIP: OnceLock<Result<Hip, String>> = OnceLock::new();
    let opened = HIP.get_or_init(|| {
        let hip = Hip::open(&SearchOptions::default()).map_err(|error| error.to_string())?;
        // SAFETY: zero is the only flag that there is.
        unsafe { hip.init(0) }.map_err(|error| error.to_string())?;
        Ok(hip)
    });
    opened.as_ref().map_err(|reason| Error::failed(format!("get_device_id: No device ({reason})")))
}

fn current_device(hip: &Hip) -> Result<c_int, Error> {
    let mut device = 0;
    // SAFETY: the place is ours.
    unsafe { hip.get_device(&mut device) }?;
    // A thread that never called the runtime has no context on NVIDIA's platform.
    // SAFETY: it takes any number.
    unsafe { hip.set_device(device) }?;
    Ok(device)
}

/// The kernels' code for the calling thread's device.
pub(crate) fn compile(source: &Source) -> Result<Vec<u8>, Error> {
    let hip = hip()?;
    let device = usize::try_from(current_device(hip)?).unwrap_or(0);
    let architecture = hip.device_properties(device)?.architecture;
    let compiler = hip.compiler().map_err(|error| Error::failed(error.to_string()))?;
    // Products and sums are rounded one by one, as on the host.
    let exact = match hip.platform() {
        hip_sys::Platform::Nvidia => "--fmad=false",
        _ => "-ffp-contract=off",
    };
    let code = compiler.compile(&source.text, &architecture, &[exact]);
    Ok(code.map_err(|error| Error::failed(error.to_string()))?.bytes().to_vec())
}

/// Where each value of a graph is while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Given by the caller for each run, or copied there where copies are the program's.
    Bound,
    Literal(usize),
    Scratch(usize),
    /// Memory of the program: an output that is no parameter.
    Own(usize),
}

/// A graph that is ready to run on a device: what MIGraphX calls its context.
#[derive(Debug)]
pub(crate) struct Loaded {
    hip: &'static Hip,
    pub(crate) device: c_int,
    stream: hipStream_t,
    begun: hipEvent_t,
    done: hipEvent_t,
    module: hipModule_t,
    functions: Vec<hipFunction_t>,
    places: Vec<Place>,
    literals: *mut c_void,
    scratch: *mut c_void,
    own: *mut c_void,
    /// The caller's queue of a run that failed.
    kept: Option<hipStream_t>,
}

/// How many bytes of scratch a graph needs, whose outputs are somewhere else.
pub(crate) fn scratch_bytes(graph: &Graph) -> usize {
    let of_scratch = graph.values.iter().enumerate().filter(|(index, value)| {
        value.home == Home::Computed && !graph.outputs.iter().any(|output| output.value == *index)
    });
    of_scratch.map(|(_, value)| value.n_bytes().next_multiple_of(ALIGNMENT)).sum()
}

impl Loaded {
    /// Loads a graph onto the calling thread's device. Values of `bound` are the caller's.
    pub(crate) fn new(
        graph: &Graph,
        code: &[u8],
        bound: &[usize],
        scratch_is_bound: bool,
    ) -> Result<Self, Error> {
        let hip = hip()?;
        let mut loaded = Self {
            hip,
            device: current_device(hip)?,
            stream: ptr::null_mut(),
            begun: ptr::null_mut(),
            done: ptr::null_mut(),
            module: ptr::null_mut(),
            functions: Vec::new(),
            places: Vec::new(),
            literals: ptr::null_mut(),
            scratch: ptr::null_mut(),
            own: ptr::null_mut(),
            kept: None,
        };
        // What was made is given back when `loaded` is dropped, whatever fails after it.
        loaded.make_queue()?;
        loaded.load_code(graph, code)?;
        let own = loaded.lay_out(graph, bound);
        loaded.own = loaded.allocate(own)?;
        loaded.literals = loaded.allocate(graph.literals.len())?;
        if !scratch_is_bound {
            loaded.scratch = loaded.allocate(scratch_bytes(graph))?;
        }
        let (from, n) = (graph.literals.as_ptr().cast(), graph.literals.len());
        if n > 0 {
            // SAFETY: both places have so many bytes, and the call returns when they were read.
            unsafe { hip.memcpy(loaded.literals, from, n, MemcpyKind::HOST_TO_DEVICE) }?;
        }
        Ok(loaded)
    }

    fn make_queue(&mut self) -> Result<(), Error> {
        // SAFETY: the place is ours.
        unsafe { self.hip.stream_create_with_flags(&mut self.stream, StreamFlags::NON_BLOCKING) }?;
        // SAFETY: as above.
        unsafe { self.hip.event_create_with_flags(&mut self.begun, EventFlags::DISABLE_TIMING) }?;
        // SAFETY: as above.
        unsafe { self.hip.event_create_with_flags(&mut self.done, EventFlags::DISABLE_TIMING) }?;
        Ok(())
    }

    fn load_code(&mut self, graph: &Graph, code: &[u8]) -> Result<(), Error> {
        let names = source::of(&graph.steps).names;
        if names.is_empty() {
            return Ok(());
        }
        // SAFETY: the code is a compiler's; the runtime copies it.
        unsafe { self.hip.module_load_data(&mut self.module, code.as_ptr().cast()) }?;
        for name in names {
            let name = CString::new(name).map_err(|error| Error::failed(error.to_string()))?;
            let mut function = ptr::null_mut();
            // SAFETY: the module and the name are alive, and the place is ours.
            unsafe { self.hip.module_get_function(&mut function, self.module, name.as_ptr()) }?;
            self.functions.push(function);
        }
        Ok(())
    }

    /// Gives every value its place; answers how many bytes those of the program take.
    fn lay_out(&mut self, graph: &Graph, bound: &[usize]) -> usize {
        let (mut scratch, mut own) = (0, 0);
        for (index, value) in graph.values.iter().enumerate() {
            let is_output = graph.outputs.iter().any(|output| output.value == index);
            let n_bytes = value.n_bytes().next_multiple_of(ALIGNMENT);
            self.places.push(match value.home {
                Home::Literal(start) => Place::Literal(start),
                _ if bound.contains(&index) => Place::Bound,
                Home::Computed if !is_output => {
                    scratch += n_bytes;
                    Place::Scratch(scratch - n_bytes)
                }
                Home::Input | Home::Computed => {
                    own += n_bytes;
                    Place::Own(own - n_bytes)
                }
            });
        }
        own
    }

    fn allocate(&self, n_bytes: usize) -> Result<*mut c_void, Error> {
        if n_bytes == 0 {
            return Ok(ptr::null_mut());
        }
        let mut address = ptr::null_mut();
        // SAFETY: the place is ours.
        unsafe { self.hip.malloc(&mut address, n_bytes) }.map_err(|error| {
            Error::failed(format!("Failed to allocate {n_bytes} bytes on the device: {error}"))
        })?;
        Ok(address)
    }

    /// The addresses of all values, given those of the bound ones and of scratch where that is bound.
    pub(crate) fn addresses(
        &self,
        bound: impl Fn(usize) -> Option<*mut c_void>,
        scratch: Option<*mut c_void>,
    ) -> Vec<*mut c_void> {
        let scratch = scratch.unwrap_or(self.scratch);
        let places = self.places.iter().enumerate();
        let addresses = places.map(|(index, place)| match place {
            Place::Bound => bound(index).unwrap_or(ptr::null_mut()),
            Place::Literal(start) => self.literals.wrapping_byte_add(*start),
            Place::Scratch(start) => scratch.wrapping_byte_add(*start),
            Place::Own(start) => self.own.wrapping_byte_add(*start),
        });
        addresses.collect()
    }

    /// Fails for an address that kernels cannot reach.
    pub(crate) fn check_device_memory(&self, name: &str, address: usize) -> Result<(), Error> {
        match self.hip.pointer_attributes(address)?.kind {
            PointerKind::Unregistered => Err(Error::failed(format!(
                "{name}: memory of the host where memory of the device is needed; the real library \
                 would fault"
            ))),
            _ => Ok(()),
        }
    }

    /// Fails for an address that the host cannot reach.
    pub(crate) fn check_host_memory(&self, name: &str, address: usize) -> Result<(), Error> {
        match self.hip.pointer_attributes(address)?.kind {
            PointerKind::Device => Err(Error::failed(format!(
                "{name}: memory of the device where memory of the host is needed"
            ))),
            _ => Ok(()),
        }
    }

    /// The program's own queue.
    pub(crate) fn stream(&self) -> hipStream_t {
        self.stream
    }

    /// Makes the program's device the calling thread's, which it stays.
    pub(crate) fn enter_device(&self) -> Result<(), Error> {
        // SAFETY: it takes any number.
        Ok(unsafe { self.hip.set_device(self.device) }?)
    }

    /// Runs on the program's own queue, between what the caller's queue did before and does after.
    pub(crate) fn run_beside(
        &self,
        caller: hipStream_t,
        graph: &Graph,
        addresses: &mut [*mut c_void],
    ) -> Result<(), Error> {
        self.wait(caller, self.stream, self.begun)?;
        // After a failure nothing joins the queues again, as in MIGraphX.
        self.enqueue(self.stream, graph, addresses)?;
        self.wait(self.stream, caller, self.done)
    }

    fn wait(&self, first: hipStream_t, then: hipStream_t, event: hipEvent_t) -> Result<(), Error> {
        // SAFETY: the queues and the event are alive.
        unsafe { self.hip.event_record(event, first) }?;
        // SAFETY: as above.
        Ok(unsafe { self.hip.stream_wait_event(then, event, 0) }?)
    }

    /// Runs on the caller's queue; after a failure the next run finds it still bound.
    pub(crate) fn run_bound(
        &mut self,
        caller: hipStream_t,
        graph: &Graph,
        addresses: &mut [*mut c_void],
    ) -> Result<(), Error> {
        let queue = *self.kept.get_or_insert(caller);
        self.enqueue(queue, graph, addresses)?;
        self.kept = None;
        Ok(())
    }

    /// Waits for the program's own queue.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        // SAFETY: the queue is alive.
        Ok(unsafe { self.hip.stream_synchronize(self.stream) }?)
    }

    pub(crate) fn copy(
        &self,
        to: *mut c_void,
        from: *const c_void,
        n_bytes: usize,
        kind: MemcpyKind,
    ) -> Result<(), Error> {
        if n_bytes == 0 {
            return Ok(());
        }
        // SAFETY: both places have so many bytes, and stay until the queue was waited for.
        Ok(unsafe { self.hip.memcpy_async(to, from, n_bytes, kind, self.stream) }?)
    }

    /// Enqueues every step.
    pub(crate) fn enqueue(
        &self,
        queue: hipStream_t,
        graph: &Graph,
        addresses: &mut [*mut c_void],
    ) -> Result<(), Error> {
        let half = graph.steps.len() / 2;
        let clears = !settings::goes_wrong(Fault::NothingCleared);
        let adds_up = settings::settings().is_ok_and(|settings| settings.outputs_add_up);
        let mut functions = self.functions.iter();
        for (at, step) in graph.steps.iter().enumerate() {
            if at == half {
                self.go_wrong(queue)?;
            }
            match step {
                Step::Clear(value)
                    if clears && !(adds_up && matches!(self.places[*value], Place::Bound)) =>
                {
                    let (address, n) = (addresses[*value], graph.values[*value].n_bytes());
                    if n > 0 {
                        // SAFETY: the value has so many bytes, and its memory stays until the run ended.
                        unsafe { self.hip.memset_async(address, 0, n, queue) }?;
                    }
                }
                Step::Clear(_) => {}
                Step::Kernel(kernel) => {
                    let Some(function) = functions.next() else { continue };
                    let blocks = kernel.n_places().div_ceil(THREADS as usize);
                    let values = kernel.operands.iter().chain([&kernel.output]);
                    let mut parameters: Vec<*mut c_void> = values
                        .map(|operand| ptr::from_mut(&mut addresses[operand.value]).cast())
                        .collect();
                    self.launch(*function, blocks, &mut parameters, queue)?;
                }
            }
        }
        if graph.steps.is_empty() { self.go_wrong(queue) } else { Ok(()) }
    }

    fn launch(
        &self,
        function: hipFunction_t,
        blocks: usize,
        parameters: &mut [*mut c_void],
        queue: hipStream_t,
    ) -> Result<(), Error> {
        if blocks == 0 {
            return Ok(());
        }
        let blocks = u32::try_from(blocks).map_err(|_| Error::failed("too many elements"))?;
        let (parameters, none) = (parameters.as_mut_ptr(), ptr::null_mut());
        // SAFETY: the function's parameters are addresses, one for each place, and are copied; what they
        // lead to was laid out for the kernel and stays until the run ended.
        Ok(unsafe {
            self.hip.module_launch_kernel(
                function, blocks, 1, 1, THREADS, 1, 1, 0, queue, parameters, none,
            )
        }?)
    }

    /// What is to go wrong in the middle of a run.
    fn go_wrong(&self, queue: hipStream_t) -> Result<(), Error> {
        if settings::goes_wrong(Fault::RunSynchronises) {
            // SAFETY: the queue is alive.
            unsafe { self.hip.stream_synchronize(queue) }?;
        }
        if settings::goes_wrong(Fault::RunCrashes) {
            std::process::abort();
        }
        if settings::goes_wrong(Fault::RunFails) {
            return Err(Error::failed("a run that was to fail"));
        }
        Ok(())
    }
}

impl Drop for Loaded {
    /// Nothing can be done about a failure, and a runtime that is being taken down answers so.
    fn drop(&mut self) {
        let hip = self.hip;
        // SAFETY: it takes any number.
        let _failed = unsafe { hip.set_device(self.device) };
        // Graphs that a caller captured may have put work onto any queue.
        // SAFETY: it takes no argument.
        let _failed = unsafe { hip.device_synchronize() };
        for address in [self.literals, self.scratch, self.own] {
            // SAFETY: the memory is ours, or null; nothing runs any more.
            let _failed = unsafe { hip.free(address) };
        }
        if !self.module.is_null() {
            // SAFETY: none of its kernels runs any more.
            let _failed = unsafe { hip.module_unload(self.module) };
        }
        for event in [self.begun, self.done].into_iter().filter(|event| !event.is_null()) {
            // SAFETY: the event is ours.
            let _failed = unsafe { hip.event_destroy(event) };
        }
        if !self.stream.is_null() {
            // SAFETY: the queue is ours.
            let _failed = unsafe { hip.stream_destroy(self.stream) };
        }
    }
}
