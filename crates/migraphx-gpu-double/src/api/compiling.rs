//! Options, targets, and programs until they can run.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::slice;

use super::shapes::ParameterShapes;
use super::{c_functions, destroy, give, object, object_mut, text};
use crate::error::Error;
use crate::file;
use crate::onnx::{self, Options};
use crate::program::{Program, Target};
use crate::settings::{self, Fault};
use crate::shape::Shape;

/// Options of a compile that the double looks at.
#[derive(Debug, Default)]
struct CompileOptions {
    offload_copy: bool,
}

/// How a program is written.
#[derive(Debug, Default)]
struct FileOptions {
    is_json: bool,
}

fn going_wrong(fault: Fault, words: &str) -> Result<(), Error> {
    if settings::goes_wrong(fault) { Err(Error::failed(words)) } else { Ok(()) }
}

c_functions! {
    migraphx_target_destroy(target: *mut Target) { destroy(target) }

    // As with the real library, that a target is there is no proof of a device.
    migraphx_target_create(out: *mut *mut Target, name: *const c_char) {
        let target = match text(name)?.as_str() {
            "gpu" => Target::Gpu,
            "ref" => Target::Ref,
            other => {
                let words = "cannot open shared object file: No such file or directory";
                return Err(Error::failed(format!("libmigraphx_{other}.so: {words}")));
            }
        };
        give(out, target)
    }

    migraphx_onnx_options_destroy(options: *mut Options) { destroy(options) }

    migraphx_onnx_options_create(out: *mut *mut Options) { give(out, Options::default()) }

    migraphx_onnx_options_set_input_parameter_shape(
        options: *mut Options,
        name: *const c_char,
        lengths: *mut usize,
        n: usize,
    ) {
        if lengths.is_null() && n > 0 {
            return Err(Error::BadParameter("dims"));
        }
        let lengths = if n == 0 { &[] } else { slice::from_raw_parts(lengths, n) };
        object_mut(options)?.inputs.insert(text(name)?, lengths.to_vec());
        Ok(())
    }

    migraphx_onnx_options_set_default_dim_value(options: *mut Options, extent: usize) {
        object_mut(options)?.default_extent = extent;
        Ok(())
    }

    migraphx_onnx_options_set_default_loop_iterations(options: *mut Options, _n: i64) {
        object(options).map(|_| ())
    }

    migraphx_onnx_options_set_limit_loop_iterations(options: *mut Options, _n: i64) {
        object(options).map(|_| ())
    }

    migraphx_onnx_options_set_external_data_path(options: *mut Options, folder: *const c_char) {
        object_mut(options)?.folder = Some(text(folder)?.into());
        Ok(())
    }

    migraphx_file_options_destroy(options: *mut FileOptions) { destroy(options) }

    migraphx_file_options_create(out: *mut *mut FileOptions) { give(out, FileOptions::default()) }

    migraphx_file_options_set_file_format(options: *mut FileOptions, format: *const c_char) {
        let is_json = match text(format)?.as_str() {
            "json" => true,
            "msgpack" => false,
            other => return Err(Error::failed(format!("Invalid file format: {other}"))),
        };
        object_mut(options)?.is_json = is_json;
        Ok(())
    }

    migraphx_compile_options_destroy(options: *mut CompileOptions) { destroy(options) }

    migraphx_compile_options_create(out: *mut *mut CompileOptions) {
        give(out, CompileOptions::default())
    }

    migraphx_compile_options_set_offload_copy(options: *mut CompileOptions, value: bool) {
        object_mut(options)?.offload_copy = value;
        Ok(())
    }

    migraphx_compile_options_set_fast_math(options: *mut CompileOptions, _value: bool) {
        object(options).map(|_| ())
    }

    migraphx_compile_options_set_exhaustive_tune_flag(options: *mut CompileOptions, _value: bool) {
        object(options).map(|_| ())
    }

    migraphx_parse_onnx(out: *mut *mut Program, path: *const c_char, options: *mut Options) {
        going_wrong(Fault::ParseFails, "a model that was to be refused")?;
        let path = text(path)?;
        give(out, Program::of(onnx::read_file(Path::new(&path), object(options)?)?))
    }

    migraphx_parse_onnx_buffer(
        out: *mut *mut Program,
        data: *const c_void,
        size: usize,
        options: *mut Options,
    ) {
        going_wrong(Fault::ParseFails, "a model that was to be refused")?;
        if data.is_null() {
            return Err(Error::BadParameter("data"));
        }
        let bytes = slice::from_raw_parts(data.cast::<u8>(), size);
        give(out, Program::of(onnx::read(bytes, object(options)?)?))
    }

    migraphx_load(out: *mut *mut Program, path: *const c_char, options: *mut FileOptions) {
        object(options)?;
        going_wrong(Fault::LoadFails, "a program that was to be refused")?;
        going_wrong(Fault::LoadOutOfMemory, "Failed to allocate device memory: out of memory")?;
        let path = text(path)?;
        let mut program = file::read(Path::new(&path))?;
        program.load()?;
        give(out, program)
    }

    migraphx_save(program: *mut Program, path: *const c_char, options: *mut FileOptions) {
        let path = text(path)?;
        file::save(object(program)?, Path::new(&path), object(options)?.is_json)
    }

    migraphx_program_destroy(program: *mut Program) { destroy(program) }

    migraphx_program_create(out: *mut *mut Program) { give(out, Program::default()) }

    migraphx_program_compile(
        program: *mut Program,
        target: *mut Target,
        options: *mut CompileOptions,
    ) {
        object_mut(program)?.compile(*object(target)?, object(options)?.offload_copy)
    }

    migraphx_program_get_parameter_shapes(
        out: *mut *mut ParameterShapes,
        program: *mut Program,
    ) {
        let mut all = Vec::new();
        for (name, shape) in object(program)?.parameters() {
            let name = CString::new(name).map_err(|error| Error::failed(error.to_string()))?;
            all.push((name, shape));
        }
        give(out, ParameterShapes(all))
    }

    migraphx_program_get_output_shapes(out: *mut *mut Vec<Shape>, program: *mut Program) {
        let outputs = object(program)?.graph.outputs.iter();
        give(out, outputs.map(|output| output.shape.clone()).collect())
    }

    migraphx_program_sort(program: *mut Program) { object(program).map(|_| ()) }
}
