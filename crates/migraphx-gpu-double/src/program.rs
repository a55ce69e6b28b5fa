//! A program: read, compiled for a target, run.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use hip_sys::{MemcpyKind, hipStream_t};
use serde::{Deserialize, Serialize};

use crate::device::{self, Loaded};
use crate::dtype::Dtype;
use crate::error::Error;
use crate::graph::Graph;
use crate::host;
use crate::kernel::{Home, Step};
use crate::settings::{self, Fault, Queue};
use crate::shape::Shape;
use crate::source;

/// What runs a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// The HIP device that was current when the program was compiled or loaded.
    Gpu,
    /// The host.
    Ref,
}

/// How a program was compiled.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Compiled {
    pub(crate) target: Target,
    /// Whether the program copies between host and device itself.
    pub(crate) offload_copy: bool,
    pub(crate) scratch_parameter: bool,
    /// Outputs that are parameters, by their places among the outputs.
    pub(crate) output_parameters: Vec<usize>,
    /// The kernels' code; none without a device.
    #[serde(skip)]
    pub(crate) code: Vec<u8>,
}

/// A program of the C API.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) graph: Graph,
    pub(crate) compiled: Option<Compiled>,
    loaded: Option<Loaded>,
    is_running: AtomicBool,
}

/// Memory that an argument of the C API points to.
#[derive(Debug)]
pub(crate) enum Memory {
    /// Somebody else's.
    Borrowed(*mut c_void),
    /// The argument's own, on the host.
    Owned(Box<[u64]>),
}

impl Memory {
    /// Zeroed memory of the host, aligned for every type, and never null.
    pub(crate) fn zeroed(n_bytes: usize) -> Self {
        Self::Owned(vec![0; n_bytes.div_ceil(8).max(1)].into_boxed_slice())
    }

    pub(crate) fn address(&self) -> *mut c_void {
        match self {
            Self::Borrowed(address) => *address,
            Self::Owned(words) => words.as_ptr().cast_mut().cast(),
        }
    }
}

/// A shape with memory.
#[derive(Debug)]
pub(crate) struct Argument {
    pub(crate) shape: Shape,
    pub(crate) memory: Memory,
}

/// A parameter as the caller gave it: its shape and where it is.
pub(crate) type Parameters = BTreeMap<String, (Shape, *mut c_void)>;

const SCRATCH: &str = "scratch";

fn output_name(index: usize) -> String {
    format!("main:#output_{index}")
}

impl Program {
    pub(crate) fn of(graph: Graph) -> Self {
        Self { graph, ..Self::default() }
    }

    /// Compiles the program for a target.
    pub(crate) fn compile(&mut self, target: Target, offload_copy: bool) -> Result<(), Error> {
        if self.compiled.is_some() {
            // A build of MIGraphX with assertions ends the process here.
            return Err(Error::failed("the program is compiled already"));
        }
        go_wrong_in_compile()?;
        let settings = settings::settings().map_err(Error::Failed)?;
        let is_gpu = target == Target::Gpu;
        let has_code = is_gpu && !settings.without_device;
        let code =
            if has_code { device::compile(&source::of(&self.graph.steps))? } else { Vec::new() };
        let can_be_parameter = |index: &usize| {
            let value = self.graph.outputs[*index].value;
            self.graph.values[value].home == Home::Computed && !settings.extra.contains(index)
        };
        let output_parameters = (0..self.graph.outputs.len()).filter(can_be_parameter).collect();
        let needs_scratch = device::scratch_bytes(&self.graph) > 0;
        self.compiled = Some(Compiled {
            target,
            offload_copy: offload_copy && is_gpu,
            scratch_parameter: is_gpu && settings.scratch_parameter && needs_scratch,
            output_parameters: if is_gpu && !offload_copy { output_parameters } else { Vec::new() },
            code,
        });
        self.load()
    }

    /// Makes a compiled program ready to run on the calling thread's device.
    pub(crate) fn load(&mut self) -> Result<(), Error> {
        let Some(compiled) = &self.compiled else { return Ok(()) };
        if compiled.target == Target::Ref {
            return Ok(());
        }
        if settings::settings().map_err(Error::Failed)?.without_device {
            return Ok(());
        }
        let inputs = self.graph.inputs.iter().map(|input| input.value);
        let outputs =
            compiled.output_parameters.iter().map(|index| self.graph.outputs[*index].value);
        let bound: Vec<usize> =
            if compiled.offload_copy { Vec::new() } else { inputs.chain(outputs).collect() };
        let scratch_is_bound = compiled.scratch_parameter;
        self.loaded = Some(Loaded::new(&self.graph, &compiled.code, &bound, scratch_is_bound)?);
        Ok(())
    }

    /// Every parameter with its shape, in the order of a hash of the name.
    pub(crate) fn parameters(&self) -> Vec<(String, Shape)> {
        let inputs = self.graph.inputs.iter();
        let mut all: Vec<(String, Shape)> =
            inputs.map(|input| (input.name.clone(), input.shape.clone())).collect();
        if let Some(compiled) = &self.compiled {
            let outputs = compiled.output_parameters.iter();
            all.extend(
                outputs
                    .map(|index| (output_name(*index), self.graph.outputs[*index].shape.clone())),
            );
            if compiled.scratch_parameter {
                let n_bytes = device::scratch_bytes(&self.graph);
                all.push((SCRATCH.to_owned(), Shape::standard(Dtype::Int8, &[n_bytes])));
            }
        }
        all.sort_by_key(|(name, _)| hash(name));
        all
    }

    /// Runs the program and waits for it.
    pub(crate) fn run(&mut self, given: &Parameters) -> Result<Vec<Argument>, Error> {
        self.exclusively(|program| {
            match program.compiled.as_ref().map(|compiled| compiled.target) {
                // A program that was not compiled runs on the host too.
                None | Some(Target::Ref) => program.run_on_host(given),
                Some(Target::Gpu) => {
                    let made = program.run_on_device(given, ptr::null_mut())?;
                    program.loaded()?.finish()?;
                    Ok(made)
                }
            }
        })
    }

    /// Enqueues a run behind what the caller enqueued.
    pub(crate) fn run_async(
        &mut self,
        given: &Parameters,
        queue: hipStream_t,
    ) -> Result<Vec<Argument>, Error> {
        self.exclusively(|program| {
            match program.compiled.as_ref().map(|compiled| compiled.target) {
                None => Err(Error::failed("the program is not compiled")),
                Some(Target::Ref) => program.run_on_host(given),
                Some(Target::Gpu) => program.run_on_device(given, queue),
            }
        })
    }

    /// Two runs of one program at the same time share its memory; the real library does not notice.
    fn exclusively<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.is_running.swap(true, Ordering::AcqRel) {
            return Err(Error::failed("two threads run one program at the same time"));
        }
        let answer = run(self);
        self.is_running.store(false, Ordering::Release);
        answer
    }

    /// The program on its device.
    pub(crate) fn loaded(&self) -> Result<&Loaded, Error> {
        self.loaded.as_ref().ok_or_else(|| Error::failed("there is no device to run it on"))
    }

    /// The parameters' addresses, each checked for its shape.
    fn bind(&self, given: &Parameters) -> Result<BTreeMap<String, *mut c_void>, Error> {
        let mut bound = BTreeMap::new();
        for (name, shape) in self.parameters() {
            let (own, address) = given
                .get(&name)
                .ok_or_else(|| Error::failed(format!("Parameter not found: {name}")))?;
            if *own != shape {
                return Err(Error::failed(format!(
                    "Incorrect shape {{{:?}}} for parameter: {name} should be: {{{shape:?}}}",
                    own.lengths
                )));
            }
            bound.insert(name, *address);
        }
        Ok(bound)
    }

    fn run_on_host(&self, given: &Parameters) -> Result<Vec<Argument>, Error> {
        let bound = self.bind(given)?;
        let mut memory: Vec<Vec<u8>> = Vec::new();
        for value in &self.graph.values {
            memory.push(match value.home {
                Home::Literal(start) => {
                    self.graph.literals[start..start + value.n_bytes()].to_vec()
                }
                Home::Input | Home::Computed => vec![0; value.n_bytes()],
            });
        }
        for input in &self.graph.inputs {
            let address = bound[&input.name].cast::<u8>().cast_const();
            // SAFETY: the caller says that so many bytes are there.
            let bytes = unsafe { bytes_at(address, input.shape.n_bytes()) };
            memory[input.value].copy_from_slice(bytes);
        }
        for step in &self.graph.steps {
            match step {
                Step::Clear(value) => memory[*value].fill(0),
                Step::Kernel(kernel) => {
                    let mut output = std::mem::take(&mut memory[kernel.output.value]);
                    let operands: Vec<&[u8]> = kernel
                        .operands
                        .iter()
                        .map(|operand| memory[operand.value].as_slice())
                        .collect();
                    host::run(kernel, &operands, &mut output);
                    memory[kernel.output.value] = output;
                }
            }
        }
        Ok(self
            .graph
            .outputs
            .iter()
            .map(|output| argument(output.shape.clone(), &memory[output.value]))
            .collect())
    }

    fn run_on_device(
        &mut self,
        given: &Parameters,
        queue: hipStream_t,
    ) -> Result<Vec<Argument>, Error> {
        let bound = self.bind(given)?;
        let how = settings::settings().map_err(Error::Failed)?.queue;
        if how == Queue::Own {
            self.loaded()?.enter_device()?;
        }
        if settings::goes_wrong(Fault::RunOutOfMemory) {
            return Err(Error::failed("Failed to allocate device memory: out of memory"));
        }
        let offload = self.compiled.as_ref().is_some_and(|compiled| compiled.offload_copy);
        if offload { self.run_with_copies(&bound) } else { self.run_in_place(&bound, queue, how) }
    }

    /// Parameters are memory of the device.
    fn run_in_place(
        &mut self,
        bound: &BTreeMap<String, *mut c_void>,
        queue: hipStream_t,
        how: Queue,
    ) -> Result<Vec<Argument>, Error> {
        let loaded = self.loaded()?;
        for (name, address) in bound {
            loaded.check_device_memory(name, address.addr())?;
        }
        let mut by_value = BTreeMap::new();
        for input in &self.graph.inputs {
            by_value.insert(input.value, bound[&input.name]);
        }
        for (index, output) in self.graph.outputs.iter().enumerate() {
            if let Some(address) = bound.get(&output_name(index)) {
                by_value.insert(output.value, *address);
            }
        }
        let scratch = bound.get(SCRATCH).copied();
        let mut addresses = loaded.addresses(|value| by_value.get(&value).copied(), scratch);
        match (how, &mut self.loaded) {
            (Queue::Bound, Some(loaded)) => loaded.run_bound(queue, &self.graph, &mut addresses)?,
            _ => self.loaded()?.run_beside(queue, &self.graph, &mut addresses)?,
        }
        let made = self.graph.outputs.iter().map(|output| Argument {
            shape: output.shape.clone(),
            memory: Memory::Borrowed(addresses[output.value]),
        });
        Ok(made.collect())
    }

    /// Parameters are memory of the host; the program copies, and waits.
    fn run_with_copies(
        &self,
        bound: &BTreeMap<String, *mut c_void>,
    ) -> Result<Vec<Argument>, Error> {
        let loaded = self.loaded()?;
        for (name, address) in bound.iter().filter(|(name, _)| *name != SCRATCH) {
            loaded.check_host_memory(name, address.addr())?;
        }
        let mut addresses = loaded.addresses(|_| None, bound.get(SCRATCH).copied());
        for input in &self.graph.inputs {
            let (to, from) = (addresses[input.value], bound[&input.name]);
            loaded.copy(to, from, input.shape.n_bytes(), MemcpyKind::HOST_TO_DEVICE)?;
        }
        loaded.enqueue(loaded.stream(), &self.graph, &mut addresses)?;
        let mut made = Vec::new();
        for output in &self.graph.outputs {
            let memory = Memory::zeroed(output.shape.n_bytes());
            let (to, from) = (memory.address(), addresses[output.value]);
            loaded.copy(to, from, output.shape.n_bytes(), MemcpyKind::DEVICE_TO_HOST)?;
            made.push(Argument { shape: output.shape.clone(), memory });
        }
        loaded.finish()?;
        Ok(made)
    }
}

fn go_wrong_in_compile() -> Result<(), Error> {
    if settings::goes_wrong(Fault::CompileHangs) {
        loop {
            std::thread::park();
        }
    }
    if settings::goes_wrong(Fault::CompileCrashes) {
        std::process::abort();
    }
    if settings::goes_wrong(Fault::CompileFails) {
        return Err(Error::failed("a compile that was to fail"));
    }
    Ok(())
}

/// An argument with a copy of some bytes.
fn argument(shape: Shape, bytes: &[u8]) -> Argument {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_ne_bytes(word)
    });
    let mut words: Vec<u64> = words.collect();
    words.resize(words.len().max(1), 0);
    Argument { shape, memory: Memory::Owned(words.into_boxed_slice()) }
}

/// # Safety
///
/// So many bytes are there and stay during `'a`, unless there are none to be.
unsafe fn bytes_at<'a>(address: *const u8, n_bytes: usize) -> &'a [u8] {
    if n_bytes == 0 || address.is_null() {
        return &[];
    }
    // SAFETY: the caller vouches for it.
    unsafe { slice::from_raw_parts(address, n_bytes) }
}

/// FNV-1a: an order that is neither that of declaration nor that of the alphabet, the same every time.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
