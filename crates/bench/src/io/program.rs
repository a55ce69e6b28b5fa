//! A program for a device, run by MIGraphX's own calls.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use hip_sys::hipStream_t;
use hipgraph::{BindingMode, Device, DeviceBuffer, Stream, Work};
use migraphx_sys::{
    Library, SearchOptions, migraphx_program, migraphx_program_parameter_shapes,
    migraphx_program_parameters,
};

use super::lab::address;
use crate::overhead::raw::{call, load_program};

/// What parameters are called that the program writes.
const OUTPUT: &str = "main:#output_";

/// A program with one input and one output, and with its parameters, which are made once.
pub(super) struct Program {
    library: Library,
    program: *mut migraphx_program,
    parameters: *mut migraphx_program_parameters,
    pub(super) input: DeviceBuffer,
    pub(super) output: DeviceBuffer,
}

impl Program {
    pub(super) fn load(library: Option<&Path>, payload: &Path, device: &Device) -> Result<Self> {
        let search = library.map_or_else(SearchOptions::default, SearchOptions::at);
        let library = Library::open(&search)?;
        let program = load_program(&library.api, c"gpu", payload)?;
        let (mut parameters, mut shapes) = (ptr::null_mut(), ptr::null_mut());
        call!(library.api, program_parameters_create(&mut parameters))?;
        call!(library.api, program_get_parameter_shapes(&mut shapes, program))?;
        let mut n = 0;
        call!(library.api, program_parameter_shapes_size(&mut n, shapes))?;
        ensure!(n == 2, "the program has {n} parameters, and an input and an output are measured");
        let mut names: Vec<*const c_char> = vec![ptr::null(); n];
        call!(library.api, program_parameter_shapes_names(names.as_mut_ptr(), shapes))?;
        let (mut input, mut output) = (None, None);
        for name in names {
            let buffer = bind(&library, (parameters, shapes), name, device)?;
            // SAFETY: the library wrote a text that ends in a zero and lives as long as `shapes`.
            let text = unsafe { CStr::from_ptr(name) }.to_string_lossy();
            let side = if text.starts_with(OUTPUT) { &mut output } else { &mut input };
            *side = Some(buffer);
        }
        call!(library.api, program_parameter_shapes_destroy(shapes))?;
        let (input, output) = input.zip(output).context("the program has no input or no output")?;
        Ok(Self { library, program, parameters, input, output })
    }

    pub(super) fn addresses(&self) -> [usize; 2] {
        [address(&self.input), address(&self.output)]
    }

    pub(super) fn enqueue_on(&self, stream: hipStream_t) -> Result<()> {
        let (api, mut results) = (&self.library.api, ptr::null_mut());
        let kind = c"ihipStream_t".as_ptr();
        let (program, parameters) = (self.program, self.parameters);
        call!(api, program_run_async(&mut results, program, parameters, stream.cast(), kind))?;
        call!(api, arguments_destroy(results))
    }
}

/// Gives a parameter memory of the device.
fn bind(
    library: &Library,
    (parameters, shapes): (
        *mut migraphx_program_parameters,
        *mut migraphx_program_parameter_shapes,
    ),
    name: *const c_char,
    device: &Device,
) -> Result<DeviceBuffer> {
    let (mut shape, mut n_bytes) = (ptr::null(), 0);
    call!(library.api, program_parameter_shapes_get(&mut shape, shapes, name))?;
    call!(library.api, shape_bytes(&mut n_bytes, shape))?;
    let buffer = DeviceBuffer::new(device, n_bytes)?;
    let mut argument = ptr::null_mut();
    call!(library.api, argument_create(&mut argument, shape, buffer.address()))?;
    call!(library.api, program_parameters_add(parameters, name, argument))?;
    call!(library.api, argument_destroy(argument))?;
    Ok(buffer)
}

/// Why a program was not enqueued.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(super) struct NotEnqueued(anyhow::Error);

impl Work for Program {
    type Error = NotEnqueued;

    fn enqueue(&mut self, stream: &Stream, _mode: BindingMode) -> Result<(), NotEnqueued> {
        // As a session does: a program may add to what is there.
        let cleared = stream.fill(&self.output, 0, self.output.n_bytes(), 0);
        cleared.map_err(|error| NotEnqueued(error.into()))?;
        self.enqueue_on(stream.raw()).map_err(NotEnqueued)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A failure here says nothing about what was measured.
        let _ = call!(self.library.api, program_parameters_destroy(self.parameters));
        let _ = call!(self.library.api, program_destroy(self.program));
    }
}
