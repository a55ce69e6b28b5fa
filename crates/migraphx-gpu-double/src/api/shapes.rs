//! Shapes, arguments, and lists of them.

use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::slice;

use super::{c_functions, destroy, give, object, object_mut, put, text};
use crate::dtype::Dtype;
use crate::error::Error;
use crate::program::{Argument, Memory, Parameters};
use crate::settings;
use crate::shape::{Shape, strides_of};

/// The parameters of a program, with names as texts of C.
#[derive(Debug)]
pub(crate) struct ParameterShapes(pub(crate) Vec<(CString, Shape)>);

/// What a run made.
#[derive(Debug)]
pub(crate) struct Arguments(pub(crate) Vec<Argument>);

fn numbering() -> Result<crate::dtype::Numbering, Error> {
    Ok(settings::settings().map_err(Error::Failed)?.numbering)
}

fn dtype(number: u32) -> Result<Dtype, Error> {
    let dtype = Dtype::from_number(number, numbering()?);
    dtype.ok_or_else(|| Error::failed(format!("there is no type {number}")))
}

/// # Safety
///
/// So many numbers are at the pointer, unless there are none to be.
unsafe fn numbers(pointer: *const usize, n: usize) -> Result<Vec<usize>, Error> {
    if n == 0 {
        return Ok(Vec::new());
    }
    if pointer.is_null() {
        return Err(Error::BadParameter("lengths"));
    }
    // SAFETY: the caller vouches for the numbers.
    Ok(unsafe { slice::from_raw_parts(pointer, n) }.to_vec())
}

c_functions! {
    migraphx_shape_destroy(shape: *mut Shape) { destroy(shape) }

    migraphx_shape_assign_to(output: *mut Shape, input: *const Shape) {
        object_mut(output)?.clone_from(object(input)?);
        Ok(())
    }

    migraphx_shape_create(out: *mut *mut Shape, number: u32, lengths: *mut usize, n: usize) {
        let (dtype, lengths) = (dtype(number)?, numbers(lengths, n)?);
        let strides = strides_of(&lengths);
        give(out, Shape { dtype, lengths, strides })
    }

    migraphx_shape_create_with_strides(
        out: *mut *mut Shape,
        number: u32,
        lengths: *mut usize,
        n: usize,
        strides: *mut usize,
        n_strides: usize,
    ) {
        if n != n_strides {
            return Err(Error::failed("as many strides as lengths are wanted"));
        }
        let (dtype, lengths) = (dtype(number)?, numbers(lengths, n)?);
        give(out, Shape { dtype, lengths, strides: numbers(strides, n_strides)? })
    }

    migraphx_shape_create_scalar(out: *mut *mut Shape, number: u32) {
        give(out, Shape::standard(dtype(number)?, &[]))
    }

    migraphx_shape_lengths(out: *mut *const usize, n: *mut usize, shape: *const Shape) {
        let shape = object(shape)?;
        put(n, shape.lengths.len())?;
        put(out, shape.lengths.as_ptr())
    }

    migraphx_shape_strides(out: *mut *const usize, n: *mut usize, shape: *const Shape) {
        let shape = object(shape)?;
        put(n, shape.strides.len())?;
        put(out, shape.strides.as_ptr())
    }

    migraphx_shape_type(out: *mut u32, shape: *const Shape) {
        put(out, object(shape)?.dtype.number(numbering()?))
    }

    migraphx_shape_elements(out: *mut usize, shape: *const Shape) {
        put(out, object(shape)?.n_elements())
    }

    migraphx_shape_bytes(out: *mut usize, shape: *const Shape) {
        put(out, object(shape)?.n_bytes())
    }

    migraphx_shape_ndim(out: *mut usize, shape: *const Shape) {
        put(out, object(shape)?.lengths.len())
    }

    migraphx_shape_equal(out: *mut bool, shape: *const Shape, other: *const Shape) {
        put(out, object(shape)? == object(other)?)
    }

    migraphx_shape_standard(out: *mut bool, shape: *const Shape) {
        put(out, object(shape)?.is_standard())
    }

    migraphx_shape_dynamic(out: *mut bool, shape: *const Shape) {
        object(shape)?;
        put(out, false)
    }

    migraphx_argument_destroy(argument: *mut Argument) { destroy(argument) }

    migraphx_argument_create(out: *mut *mut Argument, shape: *const Shape, memory: *mut c_void) {
        let shape = object(shape)?.clone();
        give(out, Argument { shape, memory: Memory::Borrowed(memory) })
    }

    migraphx_argument_create_empty(out: *mut *mut Argument, shape: *const Shape) {
        let shape = object(shape)?.clone();
        let memory = Memory::zeroed(shape.n_bytes());
        give(out, Argument { shape, memory })
    }

    migraphx_argument_shape(out: *mut *const Shape, argument: *const Argument) {
        put(out, ptr::from_ref(&object(argument)?.shape))
    }

    migraphx_argument_buffer(out: *mut *mut c_char, argument: *const Argument) {
        put(out, object(argument)?.memory.address().cast())
    }

    migraphx_program_parameter_shapes_destroy(shapes: *mut ParameterShapes) { destroy(shapes) }

    migraphx_program_parameter_shapes_size(out: *mut usize, shapes: *mut ParameterShapes) {
        put(out, object(shapes)?.0.len())
    }

    migraphx_program_parameter_shapes_get(
        out: *mut *const Shape,
        shapes: *mut ParameterShapes,
        name: *const c_char,
    ) {
        let name = text(name)?;
        let mut all = object(shapes)?.0.iter();
        let found = all.find(|(own, _)| own.to_bytes() == name.as_bytes());
        let (_, shape) = found.ok_or_else(|| Error::failed(format!("no parameter `{name}`")))?;
        put(out, ptr::from_ref(shape))
    }

    migraphx_program_parameter_shapes_names(
        out: *mut *const c_char,
        shapes: *mut ParameterShapes,
    ) {
        for (index, (name, _)) in object(shapes)?.0.iter().enumerate() {
            put(out.wrapping_add(index), name.as_ptr())?;
        }
        Ok(())
    }

    migraphx_program_parameters_destroy(parameters: *mut Parameters) { destroy(parameters) }

    migraphx_program_parameters_create(out: *mut *mut Parameters) {
        give(out, Parameters::new())
    }

    migraphx_program_parameters_add(
        parameters: *mut Parameters,
        name: *const c_char,
        argument: *const Argument,
    ) {
        let argument = object(argument)?;
        let given = (argument.shape.clone(), argument.memory.address());
        object_mut(parameters)?.insert(text(name)?, given);
        Ok(())
    }

    migraphx_arguments_destroy(arguments: *mut Arguments) { destroy(arguments) }

    migraphx_arguments_size(out: *mut usize, arguments: *mut Arguments) {
        put(out, object(arguments)?.0.len())
    }

    migraphx_arguments_get(
        out: *mut *const Argument,
        arguments: *mut Arguments,
        index: usize,
    ) {
        let argument = object(arguments)?.0.get(index);
        let argument = argument.ok_or_else(|| Error::failed("index out of range"))?;
        put(out, ptr::from_ref(argument))
    }

    migraphx_shapes_destroy(shapes: *mut Vec<Shape>) { destroy(shapes) }

    migraphx_shapes_size(out: *mut usize, shapes: *mut Vec<Shape>) {
        put(out, object(shapes)?.len())
    }

    migraphx_shapes_get(out: *mut *const Shape, shapes: *mut Vec<Shape>, index: usize) {
        let shape = object(shapes)?.get(index);
        put(out, ptr::from_ref(shape.ok_or_else(|| Error::failed("index out of range"))?))
    }
}
