//! MIGraphX's C API called directly, by a caller who knows the model and copies nothing.

use std::ffi::{CStr, CString, c_char};
use std::hint::black_box;
use std::path::Path;
use std::{ptr, slice};

use anyhow::{Context, Result, ensure};
use migraphx_sys::{
    Api, Library, SearchOptions, const_migraphx_shape_t, migraphx_arguments, migraphx_program,
    migraphx_program_parameters, migraphx_shape_datatype_t, target_lock,
};
use shapeyard_core::TensorView;

/// Calls a function of the table; an error for every status but success.
macro_rules! call {
    ($api:expr, $function:ident($($argument:expr),* $(,)?)) => {{
        // SAFETY: handles are alive and of the kind that the function takes, places that it writes to
        // are valid, and texts end in a zero.
        let status = unsafe { ($api.$function)($($argument),*) };
        if status.is_success() {
            Ok(())
        } else {
            Err(anyhow::anyhow!("migraphx_{} answered {status:?}", stringify!($function)))
        }
    }};
}
pub(crate) use call;

/// A loaded program with its inputs.
pub(super) struct Raw {
    library: Library,
    program: *mut migraphx_program,
    /// Made once.
    bound: *mut migraphx_program_parameters,
    inputs: Vec<Input>,
    n_outputs: usize,
}

/// An input as the program takes it, and its elements.
struct Input {
    name: CString,
    dtype: migraphx_shape_datatype_t,
    lengths: Vec<usize>,
    strides: Vec<usize>,
    // Aligned for every type.
    elements: Vec<u128>,
}

impl Raw {
    /// Loads what a compile for `ref` wrote, with these inputs by name.
    pub(super) fn load(payload: &Path, values: &[(&str, TensorView<'_>)]) -> Result<Self> {
        let library = Library::open(&SearchOptions::default())?;
        let program = load_program(&library.api, c"ref", payload)?;
        let mut raw =
            Self { library, program, bound: ptr::null_mut(), inputs: Vec::new(), n_outputs: 0 };
        raw.inputs = inputs(&raw.library.api, program, values)?;
        raw.n_outputs = n_outputs(&raw.library.api, program)?;
        raw.bound = raw.parameters()?;
        Ok(raw)
    }

    /// The least that has to be done for an answer: run, see where the outputs are, let them go.
    pub(super) fn call(&mut self) -> Result<()> {
        self.run(self.bound)
    }

    /// The same by a caller who makes the parameters for every call.
    pub(super) fn call_rebuilding(&mut self) -> Result<()> {
        let parameters = self.parameters()?;
        let run = self.run(parameters);
        call!(self.library.api, program_parameters_destroy(parameters))?;
        run
    }

    fn run(&self, parameters: *mut migraphx_program_parameters) -> Result<()> {
        let api = &self.library.api;
        let mut results = ptr::null_mut();
        call!(api, program_run(&mut results, self.program, parameters))?;
        for index in 0..self.n_outputs {
            black_box(buffer(api, results, index)?);
        }
        call!(api, arguments_destroy(results))
    }

    /// The outputs of a run, copied.
    pub(super) fn answers(&mut self) -> Result<Vec<Vec<u8>>> {
        let api = &self.library.api;
        let mut results = ptr::null_mut();
        call!(api, program_run(&mut results, self.program, self.bound))?;
        let answers = (0..self.n_outputs).map(|index| answer(api, results, index)).collect();
        call!(api, arguments_destroy(results))?;
        answers
    }

    fn parameters(&mut self) -> Result<*mut migraphx_program_parameters> {
        let api = &self.library.api;
        let mut parameters = ptr::null_mut();
        call!(api, program_parameters_create(&mut parameters))?;
        for input in &mut self.inputs {
            let (lengths, n) = (input.lengths.as_mut_ptr(), input.lengths.len());
            let (strides, m) = (input.strides.as_mut_ptr(), input.strides.len());
            let mut shape = ptr::null_mut();
            call!(api, shape_create_with_strides(&mut shape, input.dtype, lengths, n, strides, m))?;
            let elements = input.elements.as_mut_ptr().cast();
            let mut argument = ptr::null_mut();
            call!(api, argument_create(&mut argument, shape, elements))?;
            call!(api, program_parameters_add(parameters, input.name.as_ptr(), argument))?;
            call!(api, argument_destroy(argument))?;
            call!(api, shape_destroy(shape))?;
        }
        Ok(parameters)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A handle that was never made is null, and refused.
        let _ = call!(self.library.api, program_parameters_destroy(self.bound));
        let _ = call!(self.library.api, program_destroy(self.program));
    }
}

/// Loads what a compile for a target wrote.
pub(crate) fn load_program(
    api: &Api,
    target_name: &CStr,
    payload: &Path,
) -> Result<*mut migraphx_program> {
    let _first = target_lock();
    let mut target = ptr::null_mut();
    call!(api, target_create(&mut target, target_name.as_ptr()))?;
    let mut options = ptr::null_mut();
    call!(api, file_options_create(&mut options))?;
    let path = CString::new(payload.to_string_lossy().into_owned())?;
    let mut program = ptr::null_mut();
    call!(api, load(&mut program, path.as_ptr(), options))?;
    call!(api, file_options_destroy(options))?;
    call!(api, target_destroy(target))?;
    Ok(program)
}

fn inputs(
    api: &Api,
    program: *mut migraphx_program,
    values: &[(&str, TensorView<'_>)],
) -> Result<Vec<Input>> {
    let mut shapes = ptr::null_mut();
    call!(api, program_get_parameter_shapes(&mut shapes, program))?;
    let mut n = 0;
    call!(api, program_parameter_shapes_size(&mut n, shapes))?;
    let mut names: Vec<*const c_char> = vec![ptr::null(); n];
    call!(api, program_parameter_shapes_names(names.as_mut_ptr(), shapes))?;
    let of_name = |name: *const c_char| {
        let mut shape = ptr::null();
        call!(api, program_parameter_shapes_get(&mut shape, shapes, name))?;
        // SAFETY: the library wrote a text that ends in a zero and lives as long as `shapes`.
        input(api, unsafe { CStr::from_ptr(name) }.to_owned(), shape, values)
    };
    let inputs = names.into_iter().map(of_name).collect();
    call!(api, program_parameter_shapes_destroy(shapes))?;
    inputs
}

fn input(
    api: &Api,
    name: CString,
    shape: const_migraphx_shape_t,
    values: &[(&str, TensorView<'_>)],
) -> Result<Input> {
    let value = values.iter().find(|(known, _)| known.as_bytes() == name.as_bytes());
    let bytes = value.with_context(|| format!("the program takes {name:?}"))?.1.bytes();
    let mut n_bytes = 0;
    call!(api, shape_bytes(&mut n_bytes, shape))?;
    ensure!(n_bytes == bytes.len(), "{name:?} takes {n_bytes} bytes, {} are there", bytes.len());
    let mut dtype = migraphx_shape_datatype_t(0);
    call!(api, shape_type(&mut dtype, shape))?;
    let (mut lengths, mut n_lengths) = (ptr::null(), 0);
    call!(api, shape_lengths(&mut lengths, &mut n_lengths, shape))?;
    let (mut strides, mut n_strides) = (ptr::null(), 0);
    call!(api, shape_strides(&mut strides, &mut n_strides, shape))?;
    Ok(Input {
        name,
        dtype,
        // SAFETY: the library wrote where so many numbers are, which live as long as the shape.
        lengths: unsafe { slice::from_raw_parts(lengths, n_lengths) }.to_vec(),
        // SAFETY: as above.
        strides: unsafe { slice::from_raw_parts(strides, n_strides) }.to_vec(),
        elements: blocks(bytes),
    })
}

fn blocks(bytes: &[u8]) -> Vec<u128> {
    let block = |part: &[u8]| {
        let mut block = [0; size_of::<u128>()];
        block[..part.len()].copy_from_slice(part);
        u128::from_ne_bytes(block)
    };
    bytes.chunks(size_of::<u128>()).map(block).collect()
}

fn n_outputs(api: &Api, program: *mut migraphx_program) -> Result<usize> {
    let mut shapes = ptr::null_mut();
    call!(api, program_get_output_shapes(&mut shapes, program))?;
    let mut n = 0;
    call!(api, shapes_size(&mut n, shapes))?;
    call!(api, shapes_destroy(shapes))?;
    Ok(n)
}

/// Where an output lies.
fn buffer(api: &Api, results: *mut migraphx_arguments, index: usize) -> Result<*mut c_char> {
    let mut argument = ptr::null();
    call!(api, arguments_get(&mut argument, results, index))?;
    let mut buffer = ptr::null_mut();
    call!(api, argument_buffer(&mut buffer, argument))?;
    Ok(buffer)
}

fn answer(api: &Api, results: *mut migraphx_arguments, index: usize) -> Result<Vec<u8>> {
    let buffer = buffer(api, results, index)?;
    let mut argument = ptr::null();
    call!(api, arguments_get(&mut argument, results, index))?;
    let mut shape = ptr::null();
    call!(api, argument_shape(&mut shape, argument))?;
    let mut n_bytes = 0;
    call!(api, shape_bytes(&mut n_bytes, shape))?;
    // SAFETY: an output has as many bytes as its shape takes, and lives as long as `results`.
    Ok(unsafe { slice::from_raw_parts(buffer.cast::<u8>(), n_bytes) }.to_vec())
}
